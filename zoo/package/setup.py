"""Packaging of mtl-keras-zoo, the models that are too many for the package of the code."""

import pathlib
import re

from setuptools import setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "mtl_keras_zoo/__init__.py").read_text("utf-8"), re.MULTILINE
).group(1)

setup(
    name="mtl-keras-zoo",
    version=VERSION,
    description="More models for mtl-keras: single-task twins and networks of two towers",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    # Of the code. Weights and pictures follow the data that they are made of; each card says it.
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=["mtl_keras_zoo"],
    include_package_data=False,
    package_data={"mtl_keras_zoo": ["published/*/*"]},
    install_requires=["mtl-keras>=0.1"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
