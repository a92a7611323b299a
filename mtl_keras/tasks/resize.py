"""Resizing to a size that is known only when the graph runs."""

from typing import Any

import keras


def resize(images: Any, size: tuple[Any, Any]) -> Any:
    """Resizes images bilinearly.

    `keras.ops.image.resize` wants Python integers; with TensorFlow the size may be a tensor, as it
    is where one graph serves pictures of all sizes.

    Args:
        images: Float tensor `(batch, height, width, channels)`.
        size: `(height, width)`, integers or, with TensorFlow, scalar tensors.

    Returns:
        Tensor `(batch, *size, channels)`.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.image.resize(images, tf.stack(size), "bilinear")
    return keras.ops.image.resize(images, tuple(size), interpolation="bilinear")
