"""What there is to know of one image and its labels, and what is odd about them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mtl_keras.data import importing
from mtl_keras.data.checking.duplicates import thumbnail
from mtl_keras.data.records import Problem, Problems, Record

# A box and the box around its mask disagree where their IoU is below this, and a side is off by
# more than so many pixels: annotation tools round differently, which matters for small objects.
LEAST_IOU, TOLERANCE = 0.5, 2.0
# A box reaches outside of the image where more than this share of it lies there.
OUTSIDE = 0.1


@dataclass
class Seen:
    """One image that can be used.

    Attributes:
        split: Name of its split.
        record: The image with its labels, as the importer read them.
        size: `(height, width)` in pixels, upright.
        format: Format of the file, such as "JPEG".
        mode: Mode of the file's pixels, such as "RGB".
        is_turned: Whether the file's EXIF orientation turns or mirrors it.
        is_grey: Whether red, green and blue are the same everywhere.
        digest: SHA-256 of the file.
        thumbnail: uint8 array, see `duplicates.thumbnail`.
        labelled: Kinds of labels to whether the image has them.
        boxes: float32 array `(objects, 4)`, xyxy in pixels, clipped to the image.
        classes: int array, class id of each object.
        crowd: bool array, whether an object stands for several.
        areas: int array, pixels of each object's mask, -1 where it has none.
        pixels: Class of a pixel (0 background, class id + 1, 255 ignored) to how many there are;
            empty without a mask of classes.
        warnings: What is odd about the labels.
        objects_warned: For each warning, the index of the object that it is about, or `None`.
    """

    split: str
    record: Record
    size: tuple[int, int]
    format: str
    mode: str
    is_turned: bool
    is_grey: bool
    digest: str
    thumbnail: np.ndarray
    labelled: dict[str, bool]
    boxes: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    pixels: dict[int, int] = field(default_factory=dict)
    warnings: list[Problem] = field(default_factory=list)
    objects_warned: list[int | None] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The image's name with its split."""
        return f"{self.split}: {self.record.filename}"


def look(split: str, record: Record, max_objects: int) -> tuple[Seen | None, list[Problem]]:
    """Opens an image and its labels.

    Args:
        split: Name of the image's split.
        record: The image with its labels.
        max_objects: The most objects that are no reason for a warning.

    Returns:
        A `Seen`, or `None` if the image can't be used; and the problems, of which objects that
        can't be used do not make the image unusable.
    """
    problems = Problems("quarantine")
    found = importing.usable(record, problems)
    if found is None:
        return None, problems.found
    kinds = importing.labelled(record)
    pixels: dict[int, int] = {}
    if kinds["mask"]:
        counts = np.bincount(found.class_map(found.instances()).reshape(-1), minlength=1)
        pixels = {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    seen = Seen(
        split=split,
        record=record,
        size=found.pixels.shape[:2],
        format=found.format,
        mode=found.mode,
        is_turned=found.orientation != 1,
        is_grey=_is_grey(found.pixels),
        digest=hashlib.sha256(found.content).hexdigest(),
        thumbnail=thumbnail(found.pixels),
        labelled=kinds,
        boxes=np.array(found.boxes, np.float32).reshape(-1, 4),
        classes=np.array([item.label for item in found.objects], np.int64),
        crowd=np.array([item.is_crowd for item in found.objects], np.bool_),
        areas=np.array([-1 if c is None else int(c[2].sum()) for c in found.cuts], np.int64),
        pixels=pixels,
    )
    _warn(seen, found, max_objects)
    return seen, problems.found


def _is_grey(pixels: np.ndarray) -> bool:
    red = pixels[..., 0]
    for step in (16, 1):  # a few pixels tell most colour images
        part = pixels[::step, ::step]
        grey = red[::step, ::step, None]
        if not np.array_equal(part[..., 1:], np.broadcast_to(grey, (*grey.shape[:2], 2))):
            return False
    return True


def _warn(seen: Seen, found: importing.Opened, max_objects: int) -> None:
    """Notes what is odd about the labels."""
    record = seen.record

    def warn(kind: str, message: str, index: int | None = None) -> None:
        file = str(record.where or record.path)
        seen.warnings.append(Problem(file, None, kind, message, record.filename))
        seen.objects_warned.append(index)

    first: dict[tuple, Any] = {}
    for i, (item, box, cut) in enumerate(zip(found.objects, found.boxes, found.cuts, strict=True)):
        what = f"{item.where or 'an object'} (image {record.filename!r})"
        if item.box is not None and item.mask is not None and not item.is_crowd:
            if cut is None:
                message = f"{what} has a mask that covers no pixel of the image"
                warn("mask without pixels", message, i)
            elif (message := _disagree(box, cut)) is not None:
                warn("box and mask disagree", f"{what} {message}", i)
        if item.box is not None and (share := _outside(item.box, box)) > OUTSIDE:
            warn(
                "box reaches outside",
                f"{what} has a box of which {share:.0%} lies outside of the image of "
                f"{seen.size[1]} x {seen.size[0]} pixels; it is cut off: {_shown(item.box)}",
                i,
            )
        if item.is_crowd:
            continue
        other = first.setdefault(tuple(round(v, 2) for v in box), item)
        if other is item:
            continue
        if other.label == item.label:
            warn("repeated box", f"{what} has the box and class of {other.where or 'another'}", i)
        else:
            warn(
                "box of two classes",
                f"{what} is of class id {item.label}, and {other.where or 'another'}, of the same "
                f"box, of class id {other.label}",
                i,
            )
    if len(found.objects) > max_objects:
        warn(
            "many objects",
            f"{record.filename!r} has {len(found.objects)} objects; Detection learns from at most "
            f"{max_objects} of an image: raise its max_objects, or cut the image into tiles",
        )


def _disagree(box: Any, cut: Any) -> str | None:
    top, left, mask = cut
    around = (left, top, left + mask.shape[1], top + mask.shape[0])
    off = max(abs(a - b) for a, b in zip(box, around, strict=True))
    width = min(box[2], around[2]) - max(box[0], around[0])
    height = min(box[3], around[3]) - max(box[1], around[1])
    both = max(width, 0.0) * max(height, 0.0)
    union = _area(box) + _area(around) - both
    if off <= TOLERANCE or both >= LEAST_IOU * union:
        return None
    return (
        f"has the box {_shown(box)}, but its mask lies in {_shown(around)} (IoU {both / union:.2f})"
    )


def _outside(given: Any, clipped: Any) -> float:
    """Share of a box that was clipped away; 0 if it is a matter of a pixel or two."""
    off = max(abs(a - b) for a, b in zip(given, clipped, strict=True))
    return 0.0 if off <= TOLERANCE else 1.0 - _area(clipped) / _area(given)


def _area(box: Any) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _shown(box: Any) -> str:
    return f"x {box[0]:g} to {box[2]:g}, y {box[1]:g} to {box[3]:g}"
