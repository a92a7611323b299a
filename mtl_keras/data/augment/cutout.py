"""Cutout: a square of the image is covered (TensorFlow ops)."""

from __future__ import annotations

from typing import Any

from mtl_keras.data.augment import sample as samples
from mtl_keras.data.maps import IGNORE

SIDES = (0.1, 0.4)  # of the shorter side of the window


def cutout(sample: dict[str, Any], min_visible: float, seed: Any) -> dict[str, Any]:
    """Covers a square; what is under it is like padding, and nobody asks what it shows.

    As in the paper the centre of the square lies anywhere, so that part of it may be outside.
    Other than there its side is drawn, from 0.1 to 0.4 of the shorter side.

    Reference:
        - DeVries & Taylor 2017, "Improved Regularization of Convolutional Neural Networks with
          Cutout"
    """
    import tensorflow as tf

    height, width = sample["instances"].shape
    draw = tf.random.stateless_uniform([3], seed)
    side = min(height, width) * (SIDES[0] + (SIDES[1] - SIDES[0]) * draw[0])
    rows = tf.abs(tf.range(height, dtype=tf.float32) + 0.5 - draw[1] * height) < side / 2.0
    columns = tf.abs(tf.range(width, dtype=tf.float32) + 0.5 - draw[2] * width) < side / 2.0
    covered = rows[:, None] & columns[None]
    result = {
        **sample,
        "share": samples.cover(sample, covered),
        "instances": tf.where(covered, -1, sample["instances"]),
        "mask": tf.where(covered, IGNORE, sample["mask"]),
    }
    return samples.settle(result, min_visible)
