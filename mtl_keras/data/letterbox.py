"""The one letterbox geometry of the library (TensorFlow ops).

Training, prediction and export all place an image into the model's input with these functions, so
that a box predicted on the canvas divided by `scale` is a box in the pixels of the user's image.
"""

from __future__ import annotations

from typing import Any

PAD_VALUE = 114.0

# Small images are enlarged at most this much: more adds no detail, only cost.
MAX_ENLARGEMENT = 1.5

# What the sides of a canvas are multiples of: the stride of the coarsest pyramid level.
MULTIPLE = 32


def letterbox_scale(height: Any, width: Any, size: tuple[int, int]) -> tuple[Any, Any, Any]:
    """Scale and size at which an image fits into a canvas with its aspect kept.

    Images that are smaller than the canvas are enlarged 1.5 times at most.

    Args:
        height: height of the image in pixels, an int or a scalar integer tensor.
        width: width of the image in pixels, an int or a scalar integer tensor.
        size: `(height, width)` of the canvas in pixels.

    Returns:
        `(scale, new_height, new_width)`: a scalar float32 tensor and two scalar int32 tensors; the
        new size is at least one pixel and never larger than the canvas.

    Example:
        ```python
        from mtl_keras.data import letterbox_scale

        scale, height, width = letterbox_scale(100, 200, (64, 64))
        assert round(float(scale), 4) == 0.32 and (int(height), int(width)) == (32, 64)
        ```
    """
    import tensorflow as tf

    h = tf.cast(height, tf.float32)
    w = tf.cast(width, tf.float32)
    scale = tf.minimum(float(size[0]) / h, float(size[1]) / w)
    scale = tf.minimum(scale, MAX_ENLARGEMENT)
    new_h = tf.clip_by_value(tf.cast(tf.round(h * scale), tf.int32), 1, int(size[0]))
    new_w = tf.clip_by_value(tf.cast(tf.round(w * scale), tf.int32), 1, int(size[1]))
    return scale, new_h, new_w


def scale_to(image: Any, size: tuple[Any, Any]) -> Any:
    """Resize bilinearly, with antialiasing where an image becomes smaller.

    Where neither side does, antialiasing changes nothing and takes several times as long.

    Args:
        image: tensor `(H, W, C)` or `(B, H, W, C)`, float32 or uint8.
        size: `(height, width)` in pixels, scalar int32 tensors.

    Returns:
        A float32 tensor of that size.
    """
    import tensorflow as tf

    shape, new = tf.shape(image)[-3:-1], tf.stack(size)
    return tf.cond(
        tf.reduce_any(new < shape),
        lambda: tf.image.resize(image, new, "bilinear", antialias=True),
        lambda: tf.image.resize(image, new, "bilinear"),
    )


def letterbox(image: Any, size: tuple[int, int], trim: bool = False) -> tuple[Any, Any]:
    """Place an image at the top left of a canvas, scaled to fit, its aspect kept.

    The image is resized bilinearly with antialiasing, and enlarged 1.5 times at most; what it does
    not cover (at the bottom or at the right) is filled with the value 114.

    Args:
        image: tensor or array `(H, W, C)`, or `(B, H, W, C)` for images of one size, float32 or
            uint8, values in [0, 255].
        size: `(height, width)` of the canvas in pixels.
        trim: whether to leave out what is only padding, up to the next multiple of 32 on each side.

    Returns:
        `(canvas, content)`: a float32 tensor `(size[0], size[1], C)`, with the leading batch
        dimension where there was one, smaller with `trim`; and `(height, width)` of the image on
        it, two scalar int32 tensors. A box on the canvas times `H / height` and `W / width` is a
        box on the image.

    Example:
        ```python
        import numpy as np
        from mtl_keras.data import letterbox

        canvas, content = letterbox(np.zeros((100, 200, 3), "uint8"), (64, 64))
        assert canvas.shape == (64, 64, 3) and float(canvas[40, 0, 0]) == 114.0
        assert [int(side) for side in content] == [32, 64]
        ```
    """
    import tensorflow as tf

    image = tf.convert_to_tensor(image)
    shape = tf.shape(image)[-3:]
    _, new_h, new_w = letterbox_scale(shape[0], shape[1], size)
    resized = scale_to(image, (new_h, new_w))
    height, width = size
    if trim:
        height, width = ((side + MULTIPLE - 1) // MULTIPLE * MULTIPLE for side in (new_h, new_w))
    pad = [[0, height - new_h], [0, width - new_w], [0, 0]]
    batch = [[0, 0]] * (len(image.shape) - 3)
    canvas = tf.pad(resized, batch + pad, constant_values=PAD_VALUE)
    sides = (None, None) if trim else (int(size[0]), int(size[1]))
    expected = (*image.shape[:-3], *sides, image.shape[-1])
    return tf.ensure_shape(canvas, expected), (new_h, new_w)
