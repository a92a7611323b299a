"""One image of several: mosaic, copy-paste and mixup (TensorFlow ops).

Images are decoded, cut and scaled once. Groups of such windows wait as bytes, and each image of a
group finds its partners among the others: a mosaic of four costs no more decoding than one image.

A partner must have every kind of label that the image has, so that the result has them too. Where
no other image of the group does, the image stays as it is.
"""

from __future__ import annotations

from typing import Any

from mtl_keras.data.augment import sample as samples
from mtl_keras.data.augment.geometry import draw_object, draw_start, starts
from mtl_keras.data.builder import KINDS
from mtl_keras.data.maps import IGNORE

GROUP, LEAST, GROUP_PIXELS = 16, 4, 2**23
CENTRE = (0.25, 0.75)  # where the four images of a mosaic meet, relative to the window
BETA = 1.5


def group(ds: Any, size: tuple[int, int]) -> Any:
    """Every sample of a data set, together with a group of samples that it is one of.

    Args:
        ds: data set of `(sample, seed)`.
        size: `(height, width)` of the samples.

    Returns:
        A data set of `(group, index)`: what the group's samples hold, stacked, and a scalar int64
        tensor.
    """
    import tensorflow as tf

    def packed(sample: dict[str, Any], seed: Any) -> dict[str, Any]:
        return {
            **sample,
            # Bilinear weights round above 255 by a hair.
            "image": tf.cast(tf.minimum(sample["image"] + 0.5, 255.0), tf.uint8),
            "mask": tf.cast(sample["mask"], tf.uint8),
            "count": tf.shape(sample["boxes"])[0],
            "seed": seed,
        }

    def each(together: dict[str, Any]) -> Any:
        members = tf.shape(together["count"], tf.int64)[0]
        whole = tf.data.Dataset.from_tensors(together).repeat(members)
        return tf.data.Dataset.zip(whole, tf.data.Dataset.range(members))

    most = max(LEAST, min(GROUP, GROUP_PIXELS // (size[0] * size[1])))
    plain = tf.autograph.experimental.do_not_convert
    groups = ds.map(plain(packed), tf.data.AUTOTUNE).padded_batch(most).prefetch(1)
    return groups.flat_map(plain(each))


def mix(augment: Any, together: dict[str, Any], index: Any, most: int) -> tuple[Any, Any]:
    """The image at `index` of a group, perhaps mixed with others of it.

    Args:
        augment: `Augment`.
        together: a group of samples.
        index: scalar int64 tensor.
        most: the most objects that an image may hold. What would hold more is not mixed, so that
            no object is in the image and not in the list.

    Returns:
        `(sample, seed)`; its image is uint8.
    """
    import tensorflow as tf

    index = tf.cast(index, tf.int32)
    sample, seed = _member(together, index), together["seed"][index]
    partners, found = _partners(together, index, seed + 5)
    chance = tf.random.stateless_uniform([3], seed + 6)
    mixed = tf.constant(False)

    def apply(do: Any, change: Any) -> None:
        nonlocal sample
        before = sample
        sample = tf.cond(do, lambda: change(before), lambda: dict(before))

    if augment.mosaic:
        do = found & (chance[0] < augment.mosaic)
        mixed |= do
        apply(do, lambda s: mosaic(augment, together, index, partners[:3], s, most, seed + 7))
    if augment.copy_paste:
        do = found & (chance[1] < augment.copy_paste)
        source = partners[3]
        apply(
            do,
            lambda s: copy_paste(s, _member(together, source), augment.min_visible, most, seed + 8),
        )
    if augment.mixup:
        do = found & (chance[2] < augment.mixup)
        mixed |= do
        apply(do, lambda s: mixup(s, _member(together, partners[4]), most, seed + 9))
    # What was said of the whole image is not true of several.
    sample["values"] = {
        column: tf.where(mixed, float("nan"), value) for column, value in sample["values"].items()
    }
    sample["mask"] = tf.cast(sample["mask"], tf.int32)
    return sample, seed


def _member(together: dict[str, Any], index: Any) -> dict[str, Any]:
    """One sample of a group, its objects without the padding that made them of one number."""
    import tensorflow as tf

    keys = [key for key in together if key not in ("count", "seed")]
    member = tf.nest.map_structure(lambda t: t[index], {key: together[key] for key in keys})
    count = together["count"][index]
    return {**member, **{key: member[key][:count] for key in samples.OBJECTS}}


def _partners(together: dict[str, Any], index: Any, seed: Any) -> tuple[Any, Any]:
    """Five others at random, int32 `(5,)`, some of them the same where there are few.

    Also whether there are any that can be partners.
    """
    import tensorflow as tf

    members = tf.shape(together["count"])[0]
    fits = tf.range(members) != index
    any_label = tf.constant(False)
    for kind in KINDS:
        labelled = together["labelled"][kind]
        fits &= labelled | ~labelled[index]
        any_label |= labelled[index]
    fits &= any_label
    chosen = tf.cast(tf.where(fits)[:, 0], tf.int32)
    order = tf.argsort(tf.random.stateless_uniform(tf.shape(chosen), seed))
    chosen = tf.concat([tf.gather(chosen, order), index[None]], 0)
    count = tf.maximum(tf.size(chosen) - 1, 1)
    return tf.gather(chosen, tf.range(5) % count), tf.reduce_any(fits)


def mosaic(
    augment: Any,
    together: dict[str, Any],
    index: Any,
    partners: Any,
    sample: dict[str, Any],
    most: int,
    seed: Any,
) -> dict[str, Any]:
    """Four images meet in a point: each shows a part of its window, at its own scale.

    As in the authors' own program, parts are cut out, not scaled down, so that objects keep their
    size. The point lies between a quarter and three quarters of the window (there, a fifth and four
    fifths), and parts show image rather than padding, where there is enough of it.

    Reference:
        - Bochkovskiy et al. 2020, "YOLOv4: Optimal Speed and Accuracy of Object Detection"
    """
    import tensorflow as tf

    height, width = sample["instances"].shape
    draw = tf.random.stateless_uniform([10], seed)
    low, high = CENTRE
    middle_y, middle_x = (
        tf.clip_by_value(
            tf.cast(tf.round(side * (low + (high - low) * draw[i])), tf.int32), 1, max(side - 1, 1)
        )
        for i, side in enumerate((height, width))
    )
    tiles, offset = [], 0
    for k in range(4):
        row, column = divmod(k, 2)
        tile = _tile(
            augment,
            together,
            index if k == 0 else partners[k - 1],
            height - middle_y if row else middle_y,
            width - middle_x if column else middle_x,
            draw[2 + 2 * k : 4 + 2 * k],
            seed + 11 + k,
        )
        shift = tf.stack([column * middle_x, row * middle_y])
        tile["boxes"] += tf.cast(tf.concat([shift, shift], 0), tf.float32)
        number = tile["instances"]
        tile["instances"] = tf.where(number > 0, number + offset, number)
        offset += tf.shape(tile["boxes"])[0]
        tiles.append(tile)
    whole = {key: tf.concat([tile[key] for tile in tiles], 0) for key in samples.OBJECTS}
    for key in ("image", "instances", "mask"):
        upper, lower = (tf.concat([t[key] for t in tiles[i : i + 2]], 1) for i in (0, 2))
        whole[key] = tf.ensure_shape(tf.concat([upper, lower], 0), sample[key].shape)
    whole = samples.settle({**sample, **whole}, augment.min_visible)
    few = tf.shape(whole["boxes"])[0] <= most
    return tf.cond(few, lambda: dict(whole), lambda: dict(sample))


def _tile(
    augment: Any,
    together: dict[str, Any],
    index: Any,
    rows: Any,
    columns: Any,
    draw: Any,
    seed: Any,
) -> dict[str, Any]:
    """A part of `(rows, columns)` pixels of one sample of a group."""
    import tensorflow as tf

    count = together["count"][index]
    tile = {key: together[key][index][:count] for key in samples.OBJECTS}
    instances = together["instances"][index]
    shown = instances >= 0
    held = draw_object(tile["boxes"], tile["is_crowd"], augment.keep_objects, seed)
    begin = []
    for axis, (length, low, high) in enumerate(((rows, *held[1:4:2]), (columns, *held[0:3:2]))):
        # An object, if it should hold one; otherwise as much image and little padding as can be.
        there = tf.where(tf.reduce_any(shown, 1 - axis))[:, 0]
        low = tf.where(held[4], low, tf.cast(there[0], tf.float32))
        high = tf.where(held[4], high, tf.cast(there[-1] + 1, tf.float32))
        first, last = starts(low, high, length, instances.shape[axis] - length)
        begin.append(draw_start(first, last, draw[axis]))
    y, x = begin
    for key in ("image", "instances", "mask"):
        tile[key] = together[key][index, y : y + rows, x : x + columns]
    origin = tf.cast(tf.stack([x, y, x, y]), tf.float32)
    boxes = samples.clip(tile["boxes"] - origin, rows, columns)
    tile["share"] *= tf.math.divide_no_nan(samples.area(boxes), samples.area(tile["boxes"]))
    tile["boxes"] = boxes
    return tile


def copy_paste(
    sample: dict[str, Any], source: dict[str, Any], min_visible: float, most: int, seed: Any
) -> dict[str, Any]:
    """Pixels of about half the objects of another image are laid over this one, where they were.

    Both images were scaled, cut and flipped on their own before. Crowds, objects without pixels,
    and objects that would lie on padding are left where they are. Boxes and instances of what is
    covered become those of the visible part; what is hardly visible is dropped. As in the paper's
    comparison, pasted objects are not blended at their edges.

    Reference:
        - Ghiasi et al. 2021, "Simple Copy-Paste is a Strong Data Augmentation Method for Instance
          Segmentation"
    """
    import tensorflow as tf

    count, more = tf.shape(sample["boxes"])[0], tf.shape(source["boxes"])[0]
    pixels, bounds = samples.extents(source["instances"], more)
    on_padding = tf.where(sample["instances"] < 0, source["instances"], 0)
    chosen = (tf.random.stateless_uniform([more], seed) < 0.5) & ~source["is_crowd"]
    chosen &= (pixels > 0) & (samples.count_pixels(on_padding, more) == 0)
    number = tf.cumsum(tf.cast(chosen, tf.int32))
    chosen &= number <= most - count
    number = tf.where(chosen, number + count, 0)
    pasted = tf.gather(tf.concat([[0, 0], number], 0), source["instances"] + 1)
    covered = pasted > 0
    # Of what another object hid there, only the visible part comes along.
    source = {**source, "boxes": samples.fit(source["boxes"], bounds, chosen)}
    result = {**sample, "share": samples.cover(sample, covered)}
    for key in samples.OBJECTS:
        result[key] = tf.concat([result[key], tf.boolean_mask(source[key], chosen)], 0)
    result["image"] = tf.where(covered[..., None], source["image"], sample["image"])
    result["instances"] = tf.where(covered, pasted, sample["instances"])
    result["mask"] = tf.where(covered, source["mask"], sample["mask"])
    return samples.settle(result, min_visible)


def mixup(sample: dict[str, Any], other: dict[str, Any], most: int, seed: Any) -> dict[str, Any]:
    """Two images shine through one another; the objects of both are there, with whole boxes.

    The stronger one is this image: its weight is a number from Beta(1.5, 1.5), or 1 minus it, if
    that is more. Where only one of the two is no padding, it is seen alone. In the map of
    instances, the objects of this image hide those of the other. A pixel keeps its class where the
    two agree and is ignored elsewhere, since no class is true of it. Other than in the paper,
    objects are not weighted by how strong their image is.

    Reference:
        - Zhang et al. 2019, "Bag of Freebies for Training Object Detection Neural Networks"
    """
    import tensorflow as tf

    gamma = tf.random.stateless_gamma([2], seed, BETA)
    weight = tf.math.divide_no_nan(tf.reduce_max(gamma), tf.reduce_sum(gamma))
    ours, theirs = sample["instances"] >= 0, other["instances"] >= 0
    both = ours & theirs
    share = tf.where(both, weight, tf.cast(ours | ~theirs, tf.float32))[..., None]
    ground = tf.cast(other["image"], tf.float32)
    image = ground + share * (tf.cast(sample["image"], tf.float32) - ground)
    count = tf.shape(sample["boxes"])[0]
    number = other["instances"]
    number = tf.where(number > 0, number + count, number)
    agree = tf.where(sample["mask"] == other["mask"], sample["mask"], IGNORE)
    result = {
        **sample,
        **{key: tf.concat([sample[key], other[key]], 0) for key in samples.OBJECTS},
        "image": tf.cast(image + 0.5, tf.uint8),
        "instances": tf.where(
            sample["instances"] > 0,
            sample["instances"],
            tf.maximum(sample["instances"], number),
        ),
        "mask": tf.where(both, agree, tf.where(ours, sample["mask"], other["mask"])),
    }
    few = count + tf.shape(other["boxes"])[0] <= most
    return tf.cond(few, lambda: dict(result), lambda: dict(sample))
