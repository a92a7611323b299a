"""Packaging of mtl_keras; tools are configured in pyproject.toml."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "mtl_keras/__init__.py").read_text("utf-8"), re.MULTILINE
).group(1)
README = HERE / "README.md"

CORE = [
    "tensorflow>=2.20,<2.22",
    "keras>=3.13,<4",
    "numpy>=1.26,<3",
    "ml-dtypes>=0.5",
    "Pillow>=10.1",
    "PyYAML>=6",
    "tensorflow-datasets>=4.9.9,<5",
    # TensorFlow Datasets needs it to download its own sets, and does not declare it.
    "importlib-resources>=6",
    "pycocotools>=2.0.8",
    "typer>=0.15",
    "rich>=13.8",
    "Jinja2>=3.1,<4",
]
DRAW = ["opencv-python-headless>=4.10"]
DEMO = [*DRAW, "matplotlib>=3.8", "scikit-learn>=1.5"]
HUB = ["keras-hub>=0.23"]
# Models on Hugging Face and Kaggle: their own libraries download, resume, cache and upload.
SHARE = ["huggingface-hub>=2,<3", "kagglehub>=1,<2"]
KERAS_CV = ["keras-cv==0.9.*"]
# Other libraries that benchmarks and a test compare with; heavy, since they bring PyTorch.
PEERS = ["torchjd[full]==0.18.*", "LibMTL==1.1.5"]
NOTEBOOK = ["ipykernel>=6.29", "nbclient>=0.10", "nbformat>=5.10"]

setup(
    name="mtl-keras",
    version=VERSION,
    description="Multi-task learning for Keras 3: one network, several vision tasks",
    long_description=README.read_text("utf-8") if README.is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["mtl_keras", "mtl_keras.*"]),
    include_package_data=False,
    package_data={
        "mtl_keras": [
            "zoo/published/*/*",
            "trunks/weights/*",
            "data/sets/*.json",
            "data/checking/*.html",
        ]
    },
    install_requires=CORE,
    extras_require={
        "draw": DRAW,
        "demo": DEMO,
        "hub": HUB,
        "share": SHARE,
        "cv": KERAS_CV,
        "notebook": NOTEBOOK,
        "peers": PEERS,
        "test": [
            *DEMO,
            *HUB,
            *SHARE,
            *NOTEBOOK,
            "jax>=0.5",
            "scikit-image>=0.24",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
        ],
    },
    entry_points={"console_scripts": ["mtl-keras = mtl_keras.cli:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
