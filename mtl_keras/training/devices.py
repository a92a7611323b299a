"""On which devices a recipe is trained (TensorFlow; other backends use their first device)."""

import contextlib
from collections.abc import Sequence
from typing import Any

import keras


def strategy(devices: Sequence[str] | None = None) -> Any:
    """Where to train: on all GPUs that are visible, if there are several.

    Args:
        devices: Optional names of devices, such as `["GPU:0", "GPU:1"]`.

    Returns:
        A `tf.distribute.MirroredStrategy`, or `None` for one device or another backend.

    Raises:
        ValueError: If `devices` are named with another backend than TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        if devices is not None:
            raise ValueError(
                "`devices` can be named with the TensorFlow backend only; the backend is "
                f"{keras.backend.backend()!r}. Received: devices={devices!r}"
            )
        return None
    import tensorflow as tf

    if devices is None:
        devices = [f"GPU:{i}" for i in range(len(tf.config.list_physical_devices("GPU")))]
    return tf.distribute.MirroredStrategy(list(devices)) if len(devices) > 1 else None


def scope(where: Any) -> Any:
    """The context in which a model is made and compiled for `where` of `strategy`."""
    return contextlib.nullcontext() if where is None else where.scope()


def for_devices(batches: Any, where: Any, images: int, batch_size: int) -> Any:
    """Makes batches fit for several devices, each of which gets its part of every batch.

    A last batch that is not full might leave a device without an image, of which BatchNorm has no
    statistics. It is filled up with images of itself that have weight 0: they are in no loss and
    in no metric.

    Args:
        batches: `tf.data.Dataset` of `mtl_keras.data.batches`.
        where: Strategy, or `None`, which leaves all as it is.
        images: Integer, the number of images in an epoch.
        batch_size: Integer, images in a full batch.

    Returns:
        A `tf.data.Dataset`.

    Raises:
        ValueError: If a batch can't be parted evenly.
    """
    if where is None:
        return batches
    import tensorflow as tf

    count = where.num_replicas_in_sync
    if batch_size % count:
        raise ValueError(
            f"a batch of {batch_size} images can't be parted evenly among {count} devices; use "
            "fewer devices (CUDA_VISIBLE_DEVICES), or give the recipe another `batch_size`"
        )

    def full(x: Any, y: dict, weights: dict | None = None) -> tuple:
        given = tf.shape(x)[0]
        real = tf.cast(tf.range(batch_size) < given, "float32")
        rows = tf.range(batch_size) % given

        def fill(values: Any) -> Any:
            return tf.ensure_shape(tf.gather(values, rows), (batch_size, *values.shape[1:]))

        x, y = keras.tree.map_structure(fill, (x, y))
        if weights is None:
            weights = {name: real for name in y}
        else:
            weights = {name: fill(weight) * real for name, weight in weights.items()}
        return x, y, weights

    if images % batch_size:
        batches = batches.map(full, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.with_options(options)
