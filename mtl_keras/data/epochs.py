"""What an epoch shows follows from the seed and the number of the epoch, and from nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras


class Epochs(keras.callbacks.Callback):
    """Tells data sets which epoch it is, so that a training that goes on sees what it would have.

    A data set of `batches` or `mix` counts its own epochs, from 0 in each new program. One that is
    given an `Epochs` asks it instead, and as a callback this knows the number: the order and the
    augmentation of epoch 7 are the same whether epochs 0 to 6 ran just before, or in a program
    that was interrupted (see `keras.callbacks.BackupAndRestore`), or not at all.

    Attributes:
        number: `tf.Variable`, int64 scalar, the epoch that comes next.

    Example:

    ```python
    import tempfile
    import mtl_keras as mtl

    builder = mtl.data.digits(train=4, val=2, image_size=(64, 64), data_dir=tempfile.mkdtemp())
    task = mtl.tasks.Segmentation(num_classes=11)
    epochs = mtl.data.Epochs()
    train = mtl.data.batches(
        builder, "train", [task], 64, batch_size=2, augment=mtl.data.Augment(), epochs=epochs
    )
    # model.fit(train, initial_epoch=7, epochs=10, callbacks=[epochs])
    epochs.on_epoch_begin(7)
    assert int(epochs.number) == 7
    ```
    """

    def __init__(self) -> None:
        super().__init__()
        self.number = _counter()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Says which epoch begins; Keras calls it."""
        self.number.assign(epoch)


@dataclass(frozen=True)
class Endless:
    """What `mix` needs to know about a data set of `batches`, beside its batches.

    Attributes:
        images: Integer, number of images in an epoch.
        make: From a data set of one int64 scalar, a position that is asked when an iteration
            begins, to a data set of single elements without end. Position `p` is image
            `p % images` in the order of epoch `p // images`.
    """

    images: int
    make: Callable[[Any], Any]


def numbers(epochs: Epochs | None) -> Any:
    """A data set of one element: the number of the epoch, asked when an iteration begins.

    Args:
        epochs: Who knows it; `None` counts iterations of this data set.
    """
    import tensorflow as tf

    counter = _counter() if epochs is None else epochs.number

    def ask(_: Any) -> Any:
        return counter.assign_add(1) - 1 if epochs is None else counter.read_value()

    ds = tf.data.Dataset.from_tensors(0).map(ask)
    ds.counter = counter  # The graph alone does not keep a variable alive.
    return ds


def in_order(ds: Any, number: Any, seed: int, buffer: int | None) -> Any:
    """A data set in the order of an epoch, with a seed for each element.

    Args:
        ds: Data set.
        number: Scalar int64 tensor, the epoch.
        seed: Integer.
        buffer: Number of elements to shuffle among, or `None` to keep the order.

    Returns:
        A data set of `(element, seed)`, with int64 seeds `(2,)`.
    """
    import tensorflow as tf

    start = tf.random.experimental.stateless_fold_in(tf.constant([seed, 0], tf.int64), number)
    if buffer:
        # In a graph this is the graph's own seed: the order does not depend on TensorFlow's global
        # one, which would otherwise have a say.
        tf.compat.v1.set_random_seed(1)
        order = tf.random.stateless_uniform([], start, 0, 2**31 - 1, tf.int64)
        ds = ds.shuffle(buffer, seed=order, reshuffle_each_iteration=False)
    return ds.enumerate().map(
        lambda i, element: (element, tf.random.experimental.stateless_fold_in(start, i))
    )


def _counter() -> Any:
    import tensorflow as tf

    with tf.device("CPU:0"):
        return tf.Variable(0, dtype=tf.int64, trainable=False, name="epoch")
