import keras
import numpy as np
import pytest
import tensorflow as tf

import mtl_keras as mtl
from mtl_keras.data import Augment, Epochs, batches, mix

SIZE = (64, 64)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return mtl.data.digits(
        train=13, val=2, image_size=SIZE, data_dir=tmp_path_factory.mktemp("digits")
    )


def plain(builder, epochs=None):
    tasks = [mtl.tasks.Segmentation(11)]
    return batches(builder, "train", tasks, SIZE, 4, Augment(), seed=3, epochs=epochs)


def mixed(builder, epochs=None):
    def of(split, task, **more):
        return batches(builder, split, [task], SIZE, 4, epochs=epochs, **more)

    sources = {
        "few": of("train[:3]", mtl.tasks.Detection(10), augment=Augment(colour=0.5)),
        "many": of("train[3:]", mtl.tasks.Segmentation(11), shuffle=True, seed=1),
    }
    return mix(sources, 4, "uniform", "image", seed=2, epochs=epochs)


def shown(ds):
    """All pixels of the images of an epoch, in their order."""
    return np.concatenate([batch[0].numpy().sum(axis=(1, 2, 3), dtype="float64") for batch in ds])


@pytest.mark.parametrize("make", [plain, mixed])
def test_an_epoch_follows_from_its_number(few, make):
    counted = make(few)
    first = [shown(counted) for _ in range(3)]
    assert not any(np.array_equal(np.sort(first[0]), np.sort(one)) for one in first[1:])
    again = make(few)
    for one in first:
        np.testing.assert_array_equal(shown(again), one)

    epochs = Epochs()
    ds = make(few, epochs)
    assert int(epochs.number) == 0
    np.testing.assert_array_equal(shown(ds), shown(ds))  # as long as nobody counts
    for number in (2, 0, 1):
        epochs.on_epoch_begin(number)
        np.testing.assert_array_equal(shown(ds), first[number])


@pytest.mark.parametrize("make", [plain, mixed])
def test_epochs_do_not_depend_on_the_global_seed(few, make):
    keras.utils.set_random_seed(0)
    one = shown(make(few))
    keras.utils.set_random_seed(5)
    np.testing.assert_array_equal(shown(make(few)), one)


class Seen(keras.callbacks.Callback):
    """Which images each step of `fit` was given, by the batches' sums."""

    def __init__(self, stop_at=None):
        super().__init__()
        self.stop_at, self.sums = stop_at, {}

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.stop_at:
            raise KeyboardInterrupt
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self.sums.setdefault(self.epoch, []).append(logs["loss"])


@pytest.mark.parametrize("make", [plain, mixed])
def test_a_training_that_was_interrupted_goes_on_with_the_same_batches(few, tmp_path, make):
    def fit(stop_at=None, folder=None):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((*SIZE, 3))
        mean = keras.layers.GlobalAveragePooling2D()(inputs)
        model = keras.Model(inputs, keras.layers.Dense(1)(mean))
        # The loss is the mean of the pictures: it tells them, and weights do not matter.
        model.compile("sgd", loss=lambda y, found: y + 0.0 * found)
        epochs, seen = Epochs(), Seen(stop_at)
        data = make(few, epochs).map(lambda *parts: (parts[0], tf.reduce_mean(parts[0], (1, 2))))
        callbacks = [epochs, seen]
        if folder:
            callbacks.append(keras.callbacks.BackupAndRestore(str(folder)))
        try:
            model.fit(data, epochs=3, verbose=0, callbacks=callbacks)
        except KeyboardInterrupt:
            assert stop_at is not None
        return seen.sums

    whole = fit()
    begun = fit(stop_at=1, folder=tmp_path)
    rest = fit(folder=tmp_path)
    assert sorted(begun) == [0] and sorted(rest) == [1, 2]
    for number, sums in {**begun, **rest}.items():
        np.testing.assert_allclose(sums, whole[number], rtol=1e-6)
    assert not np.allclose(whole[0], whole[1], rtol=1e-6)
