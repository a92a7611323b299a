"""Data sets without TensorFlow's own tuning, which can make the end of each epoch wait."""

from typing import Any


def untuned(ds: Any) -> Any:
    """Switches autotuning off: `AUTOTUNE` is as many calls at once as there are threads.

    An iterator waits, when it goes, for the thread that tunes it, which sleeps for up to a minute
    between two looks (TensorFlow 2.21). Keras makes an iterator an epoch: trainings on one core
    each stood still after most epochs, for up to 50 seconds.

    Args:
        ds: `tf.data.Dataset`.

    Returns:
        A `tf.data.Dataset` of the same elements.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return ds.with_options(options)
