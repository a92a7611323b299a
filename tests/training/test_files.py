"""A `.keras` file is loaded by a process that knows nothing but the package."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import toy

import mtl_keras as mtl
from mtl_keras.training.files import save_whole


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


def test_a_class_that_is_not_known_is_named(tmp_path):
    @keras.saving.register_keras_serializable(package="elsewhere")
    class Own(keras.layers.Layer):
        pass

    keras.Sequential([keras.Input((2,)), Own()]).save(tmp_path / "own.keras")
    with keras.saving.CustomObjectScope({}):
        keras.saving.get_custom_objects().pop("elsewhere>Own")
        with pytest.raises(
            ValueError, match="own.keras.* holds a Own, which is not known.*`custom_objects`"
        ):
            mtl.load_model(tmp_path / "own.keras")


def test_a_model_is_there_whole_or_not_at_all(tmp_path, monkeypatch):
    model = toy.model([toy.segmentation()])

    def killed(path):
        path.write_bytes(b"half a file")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(model, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            save_whole(model, tmp_path / "model.keras")
    assert not (tmp_path / "model.keras").exists()
    save_whole(model, tmp_path / "model.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]
    assert mtl.load_model(tmp_path / "model.keras").image_size == model.image_size
