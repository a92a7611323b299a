"""Resizing to a size that is known only when the graph runs."""

from typing import Any

import keras
from keras import layers, ops


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


@keras.saving.register_keras_serializable(package="mtl_keras")
class Enlarge(layers.UpSampling2D):
    """Enlarges feature maps bilinearly.

    `keras.layers.UpSampling2D` cannot do so in a graph that serves maps of all sizes.

    Args:
        size: Integer, factor of both sides.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:

    ```python
    import numpy as np
    from mtl_keras.tasks.resize import Enlarge
    assert Enlarge(4)(np.zeros((1, 2, 3, 5), "float32")).shape == (1, 8, 12, 5)
    ```
    """

    def __init__(self, size: int, **kwargs: Any):
        super().__init__(size, interpolation="bilinear", **kwargs)

    def call(self, inputs: Any) -> Any:
        """Maps `(batch, height, width, channels)` to the larger size."""
        _, height, width, _ = ops.shape(inputs)
        larger = resize(inputs, (height * self.size[0], width * self.size[1]))
        return ops.cast(larger, inputs.dtype)

    def get_config(self) -> dict:
        """Returns the arguments that make an equal layer."""
        config = super().get_config()
        for fixed in ("interpolation", "data_format"):
            config.pop(fixed, None)
        return {**config, "size": self.size[0]}
