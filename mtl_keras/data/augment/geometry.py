"""Scale, crop or place, flip and turn: image, maps and boxes of one image (TensorFlow ops)."""

from __future__ import annotations

import math
from typing import Any

from mtl_keras.data.letterbox import PAD_VALUE, letterbox_scale, scale_to


def move(
    augment: Any, image: Any, maps: Any, boxes: Any, is_crowd: Any, size: tuple[int, int], seed: Any
) -> Any:
    """Scale, crop or place, flip and turn; see `Augment.geometry`."""
    import tensorflow as tf

    draw = tf.random.stateless_uniform([6], seed)
    turns = tf.cast(draw[5] * 4.0, tf.int32) if augment.rotate90 else tf.constant(0)
    odd = turns % 2 == 1
    shape = tf.shape(image)
    h, w = shape[0], shape[1]
    # The window before turning: turned by 90 degrees, its height becomes the result's width.
    window_h, window_w = tf.where(odd, size[1], size[0]), tf.where(odd, size[0], size[1])
    upright = letterbox_scale(h, w, augment.reference_size or size)[0]
    turned = letterbox_scale(w, h, augment.reference_size or size)[0]
    low, high = math.log(augment.scale[0]), math.log(augment.scale[1])
    scale = tf.where(odd, turned, upright) * tf.exp(low + (high - low) * draw[0])
    along_y = along_x = None
    if augment.keep_objects:
        x1, y1, x2, y2, there = draw_object(boxes, is_crowd, augment.keep_objects, seed + 2)
        along_y, along_x = (y1, y2, there), (x1, x2, there)
    top, rows, place_y, new_h = _window(h, window_h, scale, draw[1], along_y)
    left, columns, place_x, new_w = _window(w, window_w, scale, draw[2], along_x)

    image = image[top : top + rows, left : left + columns]
    image = scale_to(image, (new_h, new_w))
    maps = maps[top : top + rows, left : left + columns]
    maps = tf.image.resize(maps, tf.stack([new_h, new_w]), "nearest")
    pad = [
        [place_y, window_h - new_h - place_y],
        [place_x, window_w - new_w - place_x],
        [0, 0],
    ]
    image = tf.pad(image, pad, constant_values=PAD_VALUE)
    maps = tf.pad(tf.cast(maps, tf.int32), pad, constant_values=-1)
    scale_y = tf.cast(new_h, tf.float32) / tf.cast(rows, tf.float32)
    scale_x = tf.cast(new_w, tf.float32) / tf.cast(columns, tf.float32)
    factor = tf.stack([scale_x, scale_y, scale_x, scale_y])
    origin = tf.cast(tf.stack([left, top, left, top]), tf.float32)
    offset = tf.cast(tf.stack([place_x, place_y, place_x, place_y]), tf.float32)
    boxes = (boxes - origin) * factor + offset

    width, height = tf.cast(window_w, tf.float32), tf.cast(window_h, tf.float32)
    if augment.flip in ("horizontal", "both"):
        do = draw[3] < 0.5
        image, maps = _if(do, lambda x: tf.reverse(x, [1]), image, maps)
        boxes = tf.where(
            do,
            tf.gather(boxes, [2, 1, 0, 3], axis=1) * [-1, 1, -1, 1]
            + tf.stack([width, 0.0, width, 0.0]),
            boxes,
        )
    if augment.flip in ("vertical", "both"):
        do = draw[4] < 0.5
        image, maps = _if(do, lambda x: tf.reverse(x, [0]), image, maps)
        boxes = tf.where(
            do,
            tf.gather(boxes, [0, 3, 2, 1], axis=1) * [1, -1, 1, -1]
            + tf.stack([0.0, height, 0.0, height]),
            boxes,
        )
    if augment.rotate90:
        image = tf.image.rot90(image, turns)
        maps = tf.image.rot90(maps, turns)
        boxes = _rot90_boxes(boxes, turns, height, width)
    image = tf.ensure_shape(image, (*size, 3))
    maps = tf.ensure_shape(maps, (*size, 1))[..., 0]
    return image, tf.maximum(maps, 0), boxes, maps >= 0


def draw_object(boxes: Any, is_crowd: Any, probability: float, seed: Any) -> Any:
    """Draws one object that is no crowd: `(x1, y1, x2, y2, there)`.

    `there` is false where none is drawn, which happens with 1 - `probability` and where there is
    none; the box is zeros then.
    """
    import tensorflow as tf

    draw = tf.random.stateless_uniform([2], seed)
    single = tf.boolean_mask(boxes, ~is_crowd)
    count = tf.shape(single)[0]
    there = (draw[1] < probability) & (count > 0)
    index = tf.minimum(tf.cast(draw[0] * tf.cast(count, tf.float32), tf.int32), count - 1)
    # A row of zeros behind the objects, for where there are none.
    box = tf.pad(single, [[0, 1], [0, 0]])[tf.where(there, index, count)]
    return (*tf.unstack(box), there)


def starts(low: Any, high: Any, count: Any, room: Any) -> tuple[Any, Any]:
    """First and last start, in [0, room], of windows of `count` that hold [low, high].

    Where it is longer than the window, of those that lie within it.
    """
    import tensorflow as tf

    low = tf.cast(tf.floor(low), tf.int32)
    high = tf.cast(tf.math.ceil(high), tf.int32) - count
    first = tf.clip_by_value(tf.minimum(low, high), 0, room)
    return first, tf.clip_by_value(tf.maximum(low, high), first, room)


def draw_start(first: Any, last: Any, draw: Any) -> Any:
    """A start from `first` to `last`, both counted, by a number in [0, 1)."""
    import tensorflow as tf

    room = last - first
    return first + tf.minimum(tf.cast(draw * tf.cast(room + 1, tf.float32), tf.int32), room)


def _window(
    length: Any, target: Any, scale: Any, draw: Any, hold: tuple[Any, Any, Any] | None
) -> tuple[Any, Any, Any, Any]:
    """Along one axis: start and length of the cut in the source, place and length in the window.

    `hold` are both ends of what the window should hold, and whether it should.
    """
    import tensorflow as tf

    source = tf.cast(length, tf.float32)
    scaled = tf.maximum(tf.cast(tf.round(source * scale), tf.int32), 1)
    cut = tf.clip_by_value(
        tf.cast(tf.round(tf.cast(target, tf.float32) / scale), tf.int32), 1, length
    )
    crops = scaled > target
    count = tf.where(crops, cut, length)
    new = tf.where(crops, target, scaled)
    room = tf.where(crops, length - count, target - new)
    first, last = tf.zeros_like(room), room
    if hold is not None:
        bounds = starts(hold[0], hold[1], count, room)
        first = tf.where(crops & hold[2], bounds[0], first)
        last = tf.where(crops & hold[2], bounds[1], last)
    chosen = draw_start(first, last, draw)
    return tf.where(crops, chosen, 0), count, tf.where(crops, 0, chosen), new


def _if(condition: Any, change: Any, *tensors: Any) -> list[Any]:
    import tensorflow as tf

    return tf.cond(condition, lambda: [change(t) for t in tensors], lambda: list(tensors))


def _rot90_boxes(boxes: Any, turns: Any, height: Any, width: Any) -> Any:
    """Boxes after `turns` counter-clockwise quarter turns of a `(height, width)` canvas."""
    import tensorflow as tf

    x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
    turned = tf.stack(
        [
            boxes,
            tf.stack([y1, width - x2, y2, width - x1], axis=1),
            tf.stack([width - x2, height - y2, width - x1, height - y1], axis=1),
            tf.stack([height - y2, x1, height - y1, x2], axis=1),
        ]
    )
    return turned[turns]
