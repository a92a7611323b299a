"""Random changes of colour, all of them one affine map of a pixel's colour (TensorFlow ops)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

LUMA = (0.299, 0.587, 0.114)
# Columns are what red, green and blue add to luma and to the two axes of hue (YIQ of NTSC).
YIQ = np.array([LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)], "float32")


def change(augment: Any, image: Any, seed: Any) -> Any:
    """Change the colours of a float32 image `(H, W, 3)`; see `Augment.colours`."""
    import tensorflow as tf

    if not (augment.colour or augment.hue or augment.grayscale or augment.invert):
        return image
    draw = tf.random.stateless_uniform([8], seed, -1.0, 1.0)
    weights = tf.constant(LUMA)
    # All of it is one affine map of the colours: image @ matrix + shift.
    matrix, shift = tf.eye(3), tf.zeros([3])
    gray = tf.tile(weights[:, None], [1, 3])
    if augment.hue:
        turn = tf.random.stateless_uniform([], seed + 4, -1.0, 1.0) * augment.hue * 2.0 * math.pi
        cos, sin = tf.cos(turn), tf.sin(turn)
        turned = tf.stack(
            [tf.constant([1.0, 0.0, 0.0]), tf.stack([0.0, cos, sin]), tf.stack([0.0, -sin, cos])]
        )
        matrix = YIQ.T @ turned @ np.linalg.inv(YIQ).T
    if augment.colour:
        c = augment.colour
        saturation = 1.0 + c * draw[0]
        matrix = matrix @ (saturation * tf.eye(3) + (1.0 - saturation) * gray)
        matrix = matrix * (1.0 + 0.25 * c * draw[1:4])[None]
        contrast = 1.0 + c * draw[4]
        mean = tf.reduce_mean(image, axis=[0, 1])
        mean = tf.linalg.matvec(matrix, mean, transpose_a=True)
        matrix = matrix * contrast
        shift = mean * (1.0 - contrast) + 64.0 * c * draw[5]
    if augment.grayscale:
        do = draw[6] * 0.5 + 0.5 < augment.grayscale
        shift = tf.where(do, tf.fill([3], tf.reduce_sum(shift * weights)), shift)
        matrix = tf.where(do, matrix @ gray, matrix)
    if augment.invert:
        do = draw[7] * 0.5 + 0.5 < augment.invert
        shift = tf.where(do, 255.0 - shift, shift)
        matrix = tf.where(do, -matrix, matrix)
    image = tf.reshape(tf.reshape(image, [-1, 3]) @ matrix, tf.shape(image)) + shift
    return tf.clip_by_value(image, 0.0, 255.0)
