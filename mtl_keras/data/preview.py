"""A picture of what training gets to see."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mtl_keras.data.augment import Augment
from mtl_keras.data.pipeline import batches

GAP = 8


def preview(
    builder: Any,
    split: str,
    augment: Augment | None = None,
    image_size: int | tuple[int, int] = 256,
    count: int = 16,
    seed: int = 0,
) -> Any:
    """Draws images of a split as `batches` gives them to training, with their labels.

    The mask tints the image by class and the boxes are drawn in the colours of their classes.
    Edges between objects, where their pixels are known, are white lines. What is ignored is
    hatched in grey: padding, crowds, and pixels of which nobody knows the class.

    Args:
        builder: a prepared builder of `from_folder`, `from_coco`, `digits` or another with the same
            features.
        split: name of the split, such as `"train"`.
        augment: what to do to the images at random, or `None`.
        image_size: `(height, width)` of the images in pixels, or one int for both.
        count: number of images, the first ones of the first epoch of training with this `seed`.
        seed: integer that fixes order and augmentation, as in `batches`.

    Returns:
        A `PIL.Image.Image`, RGB, with the images in a grid; smaller, if the split holds fewer than
        `count` images.

    Raises:
        ImportError: if OpenCV, with which Keras draws boxes, is not installed.
        ValueError: if the split does not exist, or an argument is outside its range.

    Example:
        ```python
        import tempfile
        import mtl_keras as mtl

        builder = mtl.data.digits(train=4, val=2, image_size=(64, 64), data_dir=tempfile.mkdtemp())
        augment = mtl.data.Augment.preset("strong")
        picture = mtl.data.preview(builder, "train", augment, image_size=96, count=4)
        assert picture.size == (2 * 96 + 8, 2 * 96 + 8)
        ```
    """
    import tensorflow as tf
    from PIL import Image

    from mtl_keras import draw  # draws with OpenCV; imported only where pictures are wanted

    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"`count` should be an integer of at least 1, got {count!r}")
    draw.require_opencv()
    ds = batches(builder, split, [_Labels()], image_size, 1, augment, seed=seed).take(count)
    names = list(builder.info.features["objects"]["label"].names)
    tiles = []
    for image, targets in ds.as_numpy_iterator():
        labels = tf.nest.map_structure(lambda value: value[0], targets["labels"])
        tiles.append(_tile(image[0], labels, names))
    across = math.ceil(math.sqrt(len(tiles)))
    down = math.ceil(len(tiles) / across)
    width, height = tiles[0].width + GAP, tiles[0].height + GAP
    picture = Image.new("RGB", (across * width - GAP, down * height - GAP), "white")
    for i, tile in enumerate(tiles):
        picture.paste(tile, (i % across * width, i // across * height))
    return picture


def _tile(image: Any, labels: dict[str, Any], names: list[str]) -> Any:
    """One image with those of its labels that it really has; crowds have no box."""
    from mtl_keras import draw

    has = labels["labelled"]
    pixels = np.clip(np.rint(image), 0, 255).astype("uint8")
    single = ~labels["is_crowd"] & bool(has["boxes"])
    return draw.draw_labels(
        pixels,
        labels["boxes"][single],
        labels["classes"][single],
        labels["mask"] if has["mask"] else None,
        labels["instances"] if has["instances"] else None,
        class_names=names,
        longer_side=max(pixels.shape[:2]),
    )


class _Labels:
    """A stand-in for a task: its targets are the labels themselves."""

    name = "labels"

    def encode(self, labels: dict[str, Any], image_size: tuple[int, int]) -> dict[str, Any]:
        """The labels that are drawn."""
        drawn = ("boxes", "classes", "is_crowd", "mask", "instances", "labelled")
        return {key: labels[key] for key in drawn}
