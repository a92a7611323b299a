"""A sample: an image of the training size, and its labels in step with it (TensorFlow ops).

A sample is a dict:

- `image` `(H, W, 3)`, float32, or uint8 where images wait to be mixed;
- `instances` int32 `(H, W)`: -1 where nothing is (padding, cutout), 0 no object, i + 1 object i;
- `mask` int32 `(H, W)`, 255 wherever nobody knows the class;
- of each object `boxes` float32 `(n, 4)` of what is visible, `classes`, `is_crowd`, `share`
  float32, how much of it is visible, and `drawn` bool, whether it has pixels in the map of
  instances (objects known by their box alone have none);
- `labelled` and `values`, as in `batches`.
"""

from __future__ import annotations

from typing import Any

from mtl_keras.data.maps import IGNORE

OBJECTS = ("boxes", "classes", "is_crowd", "share", "drawn")


def make(
    image: Any, instances: Any, mask: Any, moved: Any, inside: Any, example: dict[str, Any]
) -> dict[str, Any]:
    """A sample of what was moved into the window.

    Args:
        image: float32 tensor `(H, W, 3)`.
        instances: int32 tensor `(H, W)`.
        mask: int32 tensor `(H, W)`.
        moved: float32 tensor `(n, 4)`, boxes that may reach beyond the window.
        inside: bool tensor `(H, W)`, false on padding.
        example: the decoded example, with its instances before they were moved.

    Returns:
        A sample, not yet settled.
    """
    import tensorflow as tf

    boxes = clip(moved, *image.shape[:2])
    share = tf.math.divide_no_nan(area(boxes), area(moved))
    pixels = count_pixels(instances, tf.shape(boxes)[0])
    # Only where a cut object shows no pixel does it matter whether it had any outside the window.
    drawn = tf.cond(
        tf.reduce_any((pixels == 0) & (share < 1.0)),
        lambda: count_pixels(tf.cast(example["instances"], tf.int32), tf.shape(boxes)[0]) > 0,
        lambda: pixels > 0,
    )
    return {
        "image": image,
        "instances": tf.where(inside, instances, -1),
        "mask": tf.where(inside, mask, IGNORE),
        "boxes": boxes,
        "classes": example["classes"],
        "is_crowd": example["is_crowd"],
        "share": share,
        "drawn": drawn,
        "labelled": example["labelled"],
        "values": example["values"],
    }


def settle(sample: dict[str, Any], min_visible: float) -> dict[str, Any]:
    """Boxes of cut objects around what is visible of them; objects hardly visible are dropped.

    Dropped objects leave the list and the map of instances, and stay in the mask.
    """
    import tensorflow as tf

    sample = tf.cond(
        tf.reduce_any(sample["share"] < 1.0), lambda: _fitted(sample), lambda: dict(sample)
    )
    boxes, share = sample["boxes"], sample["share"]
    keep = tf.reduce_all(boxes[:, 2:] - boxes[:, :2] >= 1.0, axis=1)
    # A crowd is to be ignored wherever it is seen: without it, its place would be background.
    keep &= ((share >= min_visible) | sample["is_crowd"]) & (share > 0.0)

    def without() -> dict[str, Any]:
        number = tf.where(keep, tf.cumsum(tf.cast(keep, tf.int32)), 0)
        # Of padding, -1, the number is -1, of background, 0, it is 0.
        numbers = tf.concat([[-1, 0], number], 0)
        return {
            "instances": tf.gather(numbers, sample["instances"] + 1),
            **{key: tf.boolean_mask(sample[key], keep) for key in OBJECTS},
        }

    same = ("instances", *OBJECTS)
    kept = tf.cond(tf.reduce_all(keep), lambda: {key: sample[key] for key in same}, without)
    return {**sample, **kept}


def _fitted(sample: dict[str, Any]) -> dict[str, Any]:
    import tensorflow as tf

    pixels, bounds = extents(sample["instances"], tf.shape(sample["boxes"])[0])
    cut = sample["share"] < 1.0
    sample = dict(sample)
    sample["boxes"] = fit(sample["boxes"], bounds, cut & (pixels > 0))
    sample["share"] = tf.where(cut & sample["drawn"] & (pixels == 0), 0.0, sample["share"])
    return sample


def cover(sample: dict[str, Any], covered: Any) -> Any:
    """Shares of objects that are visible when `covered`, a bool map `(H, W)`, hides what is there.

    Of objects without pixels, it is the share of their box that stays uncovered.
    """
    import tensorflow as tf

    count = tf.shape(sample["boxes"])[0]
    had = tf.cast(count_pixels(sample["instances"], count), tf.float32)
    hidden = count_pixels(tf.where(covered, sample["instances"], 0), count)
    visible = tf.math.divide_no_nan(had - tf.cast(hidden, tf.float32), had)
    sums = tf.cumsum(tf.cumsum(tf.cast(covered, tf.int32), 0), 1)
    sums = tf.pad(sums, [[1, 0], [1, 0]])
    x1, y1, x2, y2 = tf.unstack(tf.cast(tf.round(sample["boxes"]), tf.int32), axis=1)
    corners = [tf.gather_nd(sums, tf.stack(c, 1)) for c in ((y2, x2), (y1, x2), (y2, x1), (y1, x1))]
    inside = tf.cast(corners[0] - corners[1] - corners[2] + corners[3], tf.float32)
    whole = tf.cast((x2 - x1) * (y2 - y1), tf.float32)
    by_box = 1.0 - tf.math.divide_no_nan(inside, whole)
    return sample["share"] * tf.where(had > 0.0, visible, by_box)


def count_pixels(instances: Any, count: Any) -> Any:
    """Pixels of each of `count` objects in a map that holds i + 1 where object i is."""
    import tensorflow as tf

    return tf.raw_ops.DenseBincount(
        input=tf.reshape(tf.maximum(instances, 0), [-1]),
        size=count + 1,
        weights=tf.zeros([0], tf.int32),
    )[1:]


def extents(instances: Any, count: Any) -> tuple[Any, Any]:
    """Pixels of each object, and the float32 box `(n, 4)` around them."""
    import tensorflow as tf

    height, width = instances.shape
    columns, rows = tf.meshgrid(tf.range(width), tf.range(height))
    ends = tf.stack([-columns, -rows, columns + 1, rows + 1], axis=-1)
    # Negative numbers of segments are left out: background and padding.
    bounds = tf.math.unsorted_segment_max(ends, instances - 1, count)
    return count_pixels(instances, count), tf.cast(bounds, tf.float32) * [-1.0, -1.0, 1.0, 1.0]


def fit(boxes: Any, bounds: Any, which: Any) -> Any:
    """Boxes drawn in to `bounds` where `which`; sides that are right to the pixel stay."""
    import tensorflow as tf

    inwards = (bounds - boxes) * [1.0, 1.0, -1.0, -1.0]
    return tf.where(which[:, None] & (inwards > 0.5), bounds, boxes)


def clip(boxes: Any, height: Any, width: Any) -> Any:
    """Boxes clipped to a `(height, width)` window."""
    import tensorflow as tf

    limit = tf.cast(tf.stack([width, height, width, height]), tf.float32)
    return tf.clip_by_value(boxes, 0.0, limit)


def area(boxes: Any) -> Any:
    """Areas of boxes `(n, 4)`."""
    import tensorflow as tf

    return tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], axis=1)
