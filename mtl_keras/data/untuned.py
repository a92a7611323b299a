"""Data sets without TensorFlow's own tuning, which can make the end of each epoch wait."""

from typing import Any


def untuned(ds: Any) -> Any:
    """Switches autotuning off: `AUTOTUNE` is as many calls at once as there are threads.

    The thread that tunes sleeps for up to a minute between two looks. It is woken when an iterator
    goes, but can look whether it should end before that is noted, and sleep on (TensorFlow 2.21):
    Keras, which makes an iterator an epoch, then waits for it. With one core we saw that at the end
    of most epochs, of 50 seconds each.

    Args:
        ds: `tf.data.Dataset`.

    Returns:
        A `tf.data.Dataset` of the same elements.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return ds.with_options(options)
