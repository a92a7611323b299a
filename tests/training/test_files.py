"""A `.keras` file is loaded by a process that knows nothing but the package."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import toy

import mtl_keras as mtl


def python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )


def test_a_fresh_process_loads_what_another_saved(tmp_path):
    # The trunk is one of the package, since the toy's is not there in the other process.
    keras.utils.set_random_seed(0)
    model = mtl.build(
        mtl.trunks.create("efficientnet_lite0", weights=None),
        [toy.detection(), toy.segmentation()],
        mtl.sharing.HardSharing(neck_channels=8),
        image_size=(64, 64),
    )
    model.compile(optimizer="adam", balancing="pcgrad")
    model.save(tmp_path / "model.keras")
    x = np.full((1, 64, 64, 3), 80.0, "float32")
    found = python(
        "import sys, numpy as np, mtl_keras as mtl\n"
        "model = mtl.load_model(sys.argv[1])\n"
        "y = model(np.full((1, 64, 64, 3), 80.0, 'float32'))['segmentation']\n"
        "np.save(sys.argv[2], y)\n"
        "print(type(model).__name__, model.compiled, type(model.balancing).__name__)",
        tmp_path / "model.keras",
        tmp_path / "y.npy",
    )
    assert found.stdout.split() == ["MultiTaskModel", "True", "PCGrad"], found.stderr[-2000:]
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), model(x)["segmentation"], atol=1e-5)


def test_arguments_reach_keras_and_missing_files_are_named(tmp_path):
    model = toy.model([toy.segmentation()])
    model.compile(optimizer="sgd")
    model.save(tmp_path / "model.keras")
    assert mtl.load_model(tmp_path / "model.keras").compiled
    assert not mtl.load_model(tmp_path / "model.keras", compile=False).compiled
    with pytest.raises(FileNotFoundError, match="`path`.*none.keras"):
        mtl.load_model(tmp_path / "none.keras")
