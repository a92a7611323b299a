"""Layers that turn images in [0, 255] into what published networks take."""

from __future__ import annotations

import keras
from keras import ops

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@keras.saving.register_keras_serializable(package="mtl_keras")
class CaffePreprocessing(keras.layers.Layer):
    """Colour channels in the order blue, green, red, minus their ImageNet means (as in Caffe).

    Args:
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:

    ```python
    import numpy as np
    from mtl_keras.trunks.preprocessing import CaffePreprocessing

    y = CaffePreprocessing()(np.full((1, 2, 2, 3), 128.0))
    assert y.shape == (1, 2, 2, 3)
    ```
    """

    _MEAN = (103.939, 116.779, 123.68)

    def call(self, images):
        """Maps images `(batch, height, width, 3)`, RGB in [0, 255], to centred BGR ones."""
        blue_green_red = ops.flip(images, axis=-1)
        return blue_green_red - ops.cast(ops.array(self._MEAN), images.dtype)

    def compute_output_shape(self, input_shape):
        """The shape of the images."""
        return input_shape


def caffe() -> keras.layers.Layer:
    """Preprocessing of `keras.applications`' mode "caffe".

    Returns:
        A new layer.
    """
    return CaffePreprocessing(name="preprocessing")


def unit_range() -> keras.layers.Layer:
    """Preprocessing to [-1, 1], `keras.applications`' mode "tf".

    Returns:
        A new layer.
    """
    return keras.layers.Rescaling(1 / 127.5, -1.0, name="preprocessing")


def imagenet_mean_std() -> keras.layers.Layer:
    """Preprocessing by mean and standard deviation of ImageNet, `keras.applications`' "torch".

    Returns:
        A new layer.
    """
    scale = [1 / (255 * std) for std in _IMAGENET_STD]
    offset = [-mean / std for mean, std in zip(_IMAGENET_MEAN, _IMAGENET_STD, strict=True)]
    return keras.layers.Rescaling(scale, offset, name="preprocessing")
