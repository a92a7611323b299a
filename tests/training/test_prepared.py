"""Training from prepared arrays: the same batches, with TensorFlow and with JAX."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy
from recipes import lines, tiny

from mtl_keras.training import sources
from mtl_keras.training.recipe import train

HERE = pathlib.Path(__file__).parent
TASKS = ("detection", "segmentation")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Arrays of two of three epochs, and weights to start from."""
    folder = tmp_path_factory.mktemp("prepared")
    recipe = tiny(TASKS)
    sources.prepare(recipe, folder / "arrays", epochs=2)
    keras.utils.set_random_seed(0)
    recipe.model(sources.Pipeline(recipe).builder).save_weights(folder / "start.weights.h5")
    return folder


def first_losses(recipe, source, rounded=False):
    keras.utils.set_random_seed(0)
    model = recipe.model(source.builder)
    batches, _, _ = source.batches(model)
    if rounded:
        batches = batches.map(lambda x, *rest: (tf.clip_by_value(tf.round(x), 0, 255), *rest))
    model.compile(recipe.optimizer(4))
    losses = []

    def note(batch, logs):
        losses.append([float(logs[key]) for key in sorted(logs)])

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=note)
    model.fit(batches, verbose=0, callbacks=[source.callback, callback])
    return np.array(losses)


def test_losses_are_those_of_the_pipeline(folder):
    recipe = tiny(TASKS, folder / "start.weights.h5")
    arrays = first_losses(recipe, sources.Prepared(recipe, folder / "arrays"))
    pipeline = first_losses(recipe, sources.Pipeline(recipe), rounded=True)
    np.testing.assert_array_equal(arrays, pipeline)
    # Whole levels of colour are all that differs.
    exact = first_losses(recipe, sources.Pipeline(recipe))
    np.testing.assert_allclose(arrays, exact, rtol=0.03)


def test_manifest_and_stale_arrays(folder, tmp_path):
    manifest = json.loads((folder / "arrays" / "manifest.json").read_text())
    assert manifest["recipe"] == "tiny" and manifest["seed"] == 0 and manifest["epochs"] == 2
    assert manifest["classes"] == [str(i) for i in range(10)]
    size = sum(p.stat().st_size for p in (folder / "arrays").rglob("*.npy"))
    assert manifest["MB"] == pytest.approx(size / 1e6)
    assert manifest["train"]["arrays"]["images"] == {"shape": [64, 64, 3], "dtype": "uint8"}
    for changes, message in [
        ({"seed": 3}, "seed was 0 and is 3"),
        ({"batch_size": 2}, "batch_size was 4 and is 2"),
        ({"augment": None}, "augment was"),
    ]:
        with pytest.raises(ValueError, match=message):
            train(tiny(TASKS, **changes), tmp_path, arrays=folder / "arrays")
    (tmp_path / "half").mkdir()
    with pytest.raises(FileNotFoundError, match="zoo/prepare.py tiny"):
        train(tiny(TASKS), tmp_path, arrays=tmp_path / "half")
    with pytest.raises(ValueError, match="epochs"):
        sources.prepare(tiny(TASKS), tmp_path, epochs=0)


@pytest.mark.slow  # XLA on the CPU compiles for minutes.
def test_jax_without_tensorflow(folder, tmp_path):
    """Set MTL_KERAS_JAX_PYTHON to the Python of another environment to use its JAX."""
    python = os.environ.get("MTL_KERAS_JAX_PYTHON")
    if python is None and importlib.util.find_spec("jax") is None:
        pytest.skip("JAX is not installed, and MTL_KERAS_JAX_PYTHON names no Python that has it")
    recipe = tiny(TASKS, folder / "start.weights.h5")
    losses = first_losses(recipe, sources.Prepared(recipe, folder / "arrays"))
    np.save(tmp_path / "losses.npy", losses)
    done = subprocess.run(
        [python or sys.executable, str(HERE / "prepared_jax_run.py"), str(folder), str(tmp_path)],
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join(map(str, (HERE.parents[1], HERE.parent, HERE))),
        },
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0 and "jax: all well" in done.stdout, done.stderr[-4000:]
    assert "val_detection_AP" in lines(tmp_path / "whole")[-1]
    # What JAX wrote is a model of TensorFlow too, and says the same.
    x = np.load(tmp_path / "x.npy")
    model = keras.saving.load_model(tmp_path / "whole" / "model.keras")
    assert int(model.optimizer.iterations) == 6
    found = keras.tree.flatten(model.predict(x, verbose=0))
    for i, one in enumerate(found):
        expected = np.load(tmp_path / f"found{i}.npy")
        np.testing.assert_allclose(one, expected, rtol=1e-3, atol=1e-3)
    assert len(toy.arrays(model.weights)) > 10
