"""Counts and histograms of a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_keras.data.builder import KINDS
from mtl_keras.data.checking.look import Seen
from mtl_keras.data.checking.report import Histogram, Split, Spread
from mtl_keras.data.letterbox import MAX_ENLARGEMENT
from mtl_keras.data.records import Source

SIZES = (4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
ASPECTS = (0.2, 0.33, 0.5, 0.75, 1.33, 2.0, 3.0, 5.0)
TINY, SMALL = 4.0, 8.0  # pixels; the finest level of P3 to P5 has a cell every 8
IGNORED = 255


def of_split(
    seen: Sequence[Seen],
    source: Source,
    mask_names: Sequence[str] | None,
    left_out: int,
    image_size: tuple[int, int],
) -> Split:
    """Statistics of the images of one split.

    Args:
        seen: Its images that can be used.
        source: What the importer read, for the names.
        mask_names: Class names of pixels, `None` without masks.
        left_out: Number of images that can't be used.
        image_size: `(height, width)` at which sizes of objects are judged.

    Returns:
        A `Split`.
    """
    labelled = {kind: sum(one.labelled[kind] for one in seen) for kind in KINDS}
    labelled |= {c: sum(c in one.record.values for one in seen) for c in source.columns}
    classes = [one.classes for one in seen]
    trained = trained_sizes(seen, image_size)
    counted = [one for one in seen if one.labelled["boxes"]]
    every_class = np.concatenate(classes or [np.zeros(0, np.int64)])
    present = np.concatenate([np.unique(c) for c in classes] or [np.zeros(0, np.int64)])
    every_size = np.concatenate(_sizes(seen) or [np.zeros(0)])
    boxes = np.concatenate([one.boxes for one in seen] or [np.zeros((0, 4))])
    sides = boxes[:, 2:] - boxes[:, :2]
    number = len(source.names)
    return Split(
        images=len(seen),
        left_out=left_out,
        labelled=labelled,
        empty=sum(not len(one.classes) for one in counted),
        objects=len(every_class),
        crowd=sum(int(one.crowd.sum()) for one in seen),
        objects_of_class=np.bincount(every_class, minlength=number).tolist(),
        images_of_class=np.bincount(present, minlength=number).tolist(),
        pixels_of_class=_pixels(seen, mask_names),
        columns={column: _column(seen, column, names) for column, names in source.columns.items()},
        per_image=spread([len(one.classes) for one in counted]),
        width=spread([one.size[1] for one in seen]),
        height=spread([one.size[0] for one in seen]),
        formats=dict(Counter(one.format for one in seen).most_common()),
        modes=dict(Counter(one.mode for one in seen).most_common()),
        turned=sum(one.is_turned for one in seen),
        grey=sum(one.is_grey for one in seen),
        box_size=histogram(every_size, SIZES),
        box_size_trained=histogram(trained, SIZES),
        box_aspect=histogram(sides[:, 0] / sides[:, 1], ASPECTS),
        tiny=int((trained < TINY).sum()),
        small=int((trained < SMALL).sum()),
        size_of_class=[
            round(float(np.median(every_size[every_class == c])), 1)
            if (every_class == c).any()
            else None
            for c in range(number)
        ],
    )


def scale(size: tuple[int, int], image_size: tuple[int, int]) -> float:
    """By how much the letterbox of `data.letterbox_scale` scales an image, without TensorFlow."""
    return min(image_size[0] / size[0], image_size[1] / size[1], MAX_ENLARGEMENT)


def trained_sizes(seen: Sequence[Seen], image_size: tuple[int, int]) -> np.ndarray:
    """Square root of the area of all boxes, in pixels at the size at which they are trained."""
    parts = [s * scale(o.size, image_size) for o, s in zip(seen, _sizes(seen), strict=True)]
    return np.concatenate(parts or [np.zeros(0)])


def histogram(values: np.ndarray, edges: tuple[float, ...]) -> Histogram:
    """Counts values between edges."""
    bins = np.searchsorted(edges, values, side="right")
    return Histogram(edges, tuple(np.bincount(bins, minlength=len(edges) + 1).tolist()))


def spread(values: Sequence[float]) -> Spread | None:
    """Least, middle and largest; `None` of no values."""
    if not len(values):
        return None
    return Spread(float(np.min(values)), float(np.median(values)), float(np.max(values)))


def _sizes(seen: Sequence[Seen]) -> list[np.ndarray]:
    return [np.sqrt(np.prod(one.boxes[:, 2:] - one.boxes[:, :2], axis=1)) for one in seen]


def _pixels(seen: Sequence[Seen], mask_names: Sequence[str] | None) -> list[float]:
    if mask_names is None:
        return []
    counts = Counter()
    for one in seen:
        counts.update(one.pixels)
    counts.pop(IGNORED, None)
    total = sum(counts.values())
    return [counts[c] / total if total else 0.0 for c in range(len(mask_names) + 1)]


def _column(seen: Sequence[Seen], column: str, names: Sequence[str] | None) -> Any:
    values = [one.record.values[column] for one in seen if column in one.record.values]
    if names is None:
        return spread(values)
    counts = Counter(int(value) for value in values)
    return {name: counts[i] for i, name in enumerate(names)}
