"""Run by `test_prepared.py` in a process of its own, with `KERAS_BACKEND=jax`, no TensorFlow."""

import pathlib
import sys


class NoTensorFlow:
    """As where it is not installed. (Keras asks whether `sys.modules` knows it, even as `None`.)"""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "tensorflow_datasets"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, NoTensorFlow())

import dataclasses  # noqa: E402

import keras  # noqa: E402
import numpy as np  # noqa: E402
import toy  # noqa: E402
from recipes import lines, state, tiny  # noqa: E402

from mtl_keras.data import ArrayBatches  # noqa: E402
from mtl_keras.training import run as runs  # noqa: E402
from mtl_keras.training import sources  # noqa: E402
from mtl_keras.training.recipe import train  # noqa: E402


class Killed(BaseException):
    pass


def main(folder, out):
    assert keras.backend.backend() == "jax"
    arrays = folder / "arrays"
    recipe = tiny(("detection", "segmentation"), folder / "start.weights.h5")

    # The first steps are TensorFlow's.
    source = sources.Prepared(recipe, arrays)
    model = recipe.model(source.builder)
    batches, _, _ = source.batches(model)
    model.compile(recipe.optimizer(4))
    losses = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: losses.append([float(logs[k]) for k in sorted(logs)])
    )
    model.fit(batches, shuffle=False, verbose=0, callbacks=[source.callback, note])
    expected = np.load(out / "losses.npy")
    np.testing.assert_allclose(losses[0], expected[0], rtol=1e-4)
    np.testing.assert_allclose(losses, expected, rtol=2e-2)

    # Batches come in the order in which they were prepared.
    shown = []
    real_get = ArrayBatches.__getitem__
    ArrayBatches.__getitem__ = lambda self, i: shown.append((self.epoch, i)) or real_get(self, i)
    train(dataclasses.replace(recipe, val_every=9), out / "order", arrays=arrays)
    ArrayBatches.__getitem__ = real_get
    assert shown[-6:] == [(e, i) for e in range(3) for i in range(2)], shown

    # Killed in an epoch, and before the model is written, it goes on bit by bit.
    whole = train(recipe, out / "whole", arrays=arrays)
    real = runs._AfterEpoch.on_epoch_end, runs.Run.finish

    def in_epoch(self, batch, logs=None):
        if batch == 1 and len(lines(out / "parts")) == 1:
            raise Killed

    def kill(*args):
        raise Killed

    def begin(self, logs=None):
        (out / "parts" / "history.jsonl").touch()

    runs._AfterEpoch.on_train_begin = begin
    for owner, name, bomb in (
        (runs._AfterEpoch, "on_train_batch_end", in_epoch),
        (runs.Run, "finish", kill),
    ):
        before = getattr(owner, name)
        setattr(owner, name, bomb)
        try:
            train(recipe, out / "parts", arrays=arrays)
        except Killed:
            pass
        else:
            raise AssertionError("it was not killed")
        setattr(owner, name, before)
    assert (runs._AfterEpoch.on_epoch_end, runs.Run.finish) == real
    parts = train(recipe, out / "parts", arrays=arrays)
    assert toy.same(state(parts), state(whole))
    assert lines(out / "parts") == lines(out / "whole")

    x = batches[0][0]
    np.save(out / "x.npy", x)
    for i, found in enumerate(keras.tree.flatten(whole.predict(x, verbose=0))):
        np.save(out / f"found{i}.npy", found)
    print("jax: all well")


main(*map(pathlib.Path, sys.argv[1:]))
