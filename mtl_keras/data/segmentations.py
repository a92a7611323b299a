"""Masks of objects as labels state them: polygons, RLE or pixels. All become a `Cut`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from mtl_keras.data.records import Cut

# Where a corner may lie, in pixels; pycocotools walks along each edge in steps of a fifth of one.
_FARTHEST = 1e6


def of_polygons(polygons: Sequence[Sequence[float]]) -> Callable[[int, int], Cut | None]:
    """Mask of an object given by polygons; where several are given, all of them together.

    Args:
        polygons: List of flat lists `[x0, y0, x1, y1, ...]` in pixels. They may reach outside of
            the image. Those of fewer than three corners have no area and are passed over.

    Returns:
        A function of the image's `(height, width)`, which gives `(top, left, mask)`, or `None`
        where no pixel of the image is covered. It can be pickled.

    Raises:
        ValueError: If a polygon is no list of finite numbers, an even count of them, each at most
            a million.

    Example:
        ```python
        from mtl_keras.data.segmentations import of_polygons

        mask = of_polygons([[5, 6, 25, 6, 25, 16, 5, 16]])
        top, left, pixels = mask(40, 60)
        assert (top, left, pixels.shape) == (6, 5, (10, 20)) and pixels.all()
        ```
    """
    flat = []
    for polygon in polygons:
        try:
            values = None if isinstance(polygon, (str, bytes)) else [float(v) for v in polygon]
        except (TypeError, ValueError, OverflowError):
            values = None
        if (
            values is None
            or len(values) % 2
            or not all(math.isfinite(v) and abs(v) <= _FARTHEST for v in values)
        ):
            raise ValueError(
                f"a polygon should be a list of finite x, y pairs in pixels. Received: "
                f"{polygon!r:.100}"
            )
        if len(values) >= 6:
            flat.append(values)
    return partial(_polygons_in, flat)


def of_rle(rle: Mapping[str, Any]) -> Callable[[int, int], Cut | None]:
    """Mask of an object given by COCO's run-length encoding, compressed or not.

    The runs are checked here, since pycocotools reads past the end of those that are cut short.

    Args:
        rle: Dict with `"size"`, `[height, width]`, and `"counts"`: lengths of the runs down the
            columns, of background and object by turns, as a list of integers or as COCO's
            compressed text.

    Returns:
        A function of the image's `(height, width)`, which gives `(top, left, mask)`, or `None`
        where there are no pixels. It raises a `ValueError` if the image has another size than the
        RLE. It can be pickled.

    Raises:
        ValueError: If a part is missing or can't be read, or if the runs do not add up to height *
            width.

    Reference:
        Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; the text is written by
        `rleToString` of pycocotools.

    Example:
        ```python
        from mtl_keras.data.segmentations import of_rle

        mask = of_rle({"size": [2, 3], "counts": [2, 2, 2]})
        top, left, pixels = mask(2, 3)
        assert (top, left, pixels.tolist()) == (0, 1, [[True], [True]])
        ```
    """
    if not isinstance(rle, Mapping) or "size" not in rle or "counts" not in rle:
        raise ValueError(f"an RLE should have 'size' and 'counts'. Received: {rle!r:.100}")
    size, counts = rle["size"], rle["counts"]
    if (
        not isinstance(size, (list, tuple))
        or len(size) != 2
        or not all(isinstance(v, (int, float)) and v >= 1 and v % 1 == 0 for v in size)
    ):
        raise ValueError(f"size of an RLE should be [height, width]. Received: {size!r:.100}")
    height, width = int(size[0]), int(size[1])
    try:
        runs = _runs(counts)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"an RLE that can't be read: {error}. Received: {counts!r:.100}") from None
    if runs.size and int(runs.min()) < 0:
        raise ValueError(f"an RLE that can't be read: its run {runs.min()} is below 0")
    if int(runs.sum()) != height * width:
        raise ValueError(
            f"an RLE whose counts add up to {runs.sum()}; it should be height * width, "
            f"{height} * {width} = {height * width}"
        )
    if isinstance(counts, (str, bytes)):
        return partial(_rle_in, (height, width), counts)
    return partial(_rle_in, (height, width), runs.tolist())


def cut(mask: np.ndarray) -> Cut | None:
    """Cut a mask to the box around its pixels.

    Args:
        mask: Bool array of shape `(height, width)` of the image.

    Returns:
        `(top, left, mask)`, the mask a copy, or `None` if no pixel is set.

    Example:
        ```python
        import numpy as np
        from mtl_keras.data.segmentations import cut

        mask = np.zeros((4, 6), bool)
        mask[1:3, 2:6] = True
        top, left, pixels = cut(mask)
        assert (top, left, pixels.shape) == (1, 2, (2, 4))
        ```
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    top, left = int(rows[0]), int(columns[0])
    return top, left, mask[top : rows[-1] + 1, left : columns[-1] + 1].copy()


def _polygons_in(polygons: list[list[float]], height: int, width: int) -> Cut | None:
    from pycocotools import mask as coco_mask

    if not polygons:
        return None
    return _decoded(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))


def _rle_in(size: tuple[int, int], counts: Any, height: int, width: int) -> Cut | None:
    from pycocotools import mask as coco_mask

    if size != (height, width):
        raise ValueError(
            f"a segmentation of size {list(size)}; it should be that of the image, "
            f"[{height}, {width}] (height, width)"
        )
    rle = {"size": list(size), "counts": counts}
    return _decoded(coco_mask.frPyObjects(rle, *size) if isinstance(counts, list) else rle)


def _decoded(rle: Any) -> Cut | None:
    from pycocotools import mask as coco_mask

    with warnings.catch_warnings():
        # pycocotools' arrays do not know NumPy 2's copy keyword yet.
        warnings.simplefilter("ignore", DeprecationWarning)
        return cut(coco_mask.decode(rle).astype(bool))


def _runs(counts: Any) -> np.ndarray:
    """Lengths of the runs, int64, of a list or of COCO's compressed text.

    The text holds numbers in signed groups of five bits, least first, with 32 where another group
    follows, each group plus 48; from the fourth number on they are differences to the one but last.
    """
    if isinstance(counts, list):
        if any(isinstance(v, bool) or not isinstance(v, int) for v in counts):
            raise ValueError("its counts are not all integers")
        return np.array(counts, np.int64)
    if isinstance(counts, str):
        counts = counts.encode("ascii")
    if not isinstance(counts, bytes):
        raise TypeError("its counts are neither a list nor a text")
    groups = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if not groups.size:
        return groups
    if groups.min() < 0 or groups.max() > 63:
        raise ValueError("its text holds a letter that no RLE has")
    last = groups & 32 == 0
    if not last[-1]:
        raise ValueError("its text is cut short")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 7:
        raise ValueError("its text holds a number of more than 32 bits")
    place = 5 * (np.arange(len(groups)) - np.repeat(starts, lengths))
    values = np.add.reduceat((groups & 31) << place, starts)
    values -= np.where(groups[ends] & 16, np.left_shift(1, 5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
