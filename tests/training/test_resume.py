"""Training that was saved or interrupted goes on as if nothing had happened."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy


def fresh(seed=0):
    model = toy.model(seed=seed)
    schedule = keras.optimizers.schedules.CosineDecay(1e-2, 40)
    model.compile(
        keras.optimizers.AdamW(schedule, global_clipnorm=5.0),
        loss_weights={"detection": 0.5},
        on_nonfinite="skip",
        run_eagerly=True,
    )
    return model


def batches(model):
    x, y = toy.batch(model.tasks)
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(4)


def assert_close(a, b):
    for one, other in zip(toy.arrays(a.weights), toy.arrays(b.weights), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    mine, its = a.optimizer.variables, b.optimizer.variables
    for one, other in zip(toy.arrays(mine), toy.arrays(its), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_save_and_load_with_the_optimizer(tmp_path):
    model = fresh()
    x, y = toy.batch(model.tasks)
    for _ in range(3):
        model.train_on_batch(x, y)
    model.save(tmp_path / "model.keras")
    saved = toy.arrays(model.weights)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.loss_weights == model.loss_weights == {"detection": 0.5, "segmentation": 1.0}
    assert loaded.on_nonfinite == "skip" and loaded.jit_compile is False
    assert int(loaded.optimizer.iterations) == 3
    assert_close(model, loaded)
    for each in (model, loaded):
        each.train_on_batch(x, y)
    assert_close(model, loaded)
    bare = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert not bare.compiled and toy.same(toy.arrays(bare.weights), saved)


class Crash(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_backup_and_restore(tmp_path):
    whole = fresh()
    whole.fit(batches(whole), epochs=3, verbose=0)

    def backup():
        return keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))

    first = fresh()
    with pytest.raises(KeyboardInterrupt):
        first.fit(batches(first), epochs=3, verbose=0, callbacks=[backup(), Crash()])
    second = fresh(seed=99)
    history = second.fit(batches(second), epochs=3, verbose=0, callbacks=[backup()])
    assert history.epoch == [1, 2]
    assert_close(whole, second)
