"""Labels of images from their masks, as functions that open the mask when they are asked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from mtl_keras.data.images import exif_orientation, open_image
from mtl_keras.data.mask_folders.meaning import Reading
from mtl_keras.data.mask_folders.pixels import Seen, coded, decode, values_of
from mtl_keras.data.mask_folders.places import Item
from mtl_keras.data.mask_folders.unusable import unusable
from mtl_keras.data.records import Cut, Object, Problems, Record
from mtl_keras.data.segmentations import cut


def add_mask(record: Record, item: Item, seen: Seen, reading: Reading, problems: Problems) -> bool:
    """Puts the labels of a mask into a record; `False` if they can't be used."""
    path = item.masks[0]
    record.where = str(path)
    sizes = _sizes(record, problems)
    if not sizes or not _fits(record, path, seen.shape, sizes, problems):
        return False
    if found := unusable(path, seen, reading):
        problems.add(path, *found, image=item.filename)
        return False
    if reading.kind == "instances":
        ids = seen.values[seen.values != 0].tolist()
        record.objects = [
            Object(0, mask=Instance(path, i), where=f"{path}, instance {i}") for i in ids
        ]
        record.has_masks = True
        return True
    pixels = reading.pixels
    if pixels is None:
        pixels = {0: 0, **dict.fromkeys(seen.present, 1)}
    record.mask = Pixels(path, reading.codes, tuple(sorted(pixels.items())))
    return True


def add_files(record: Record, item: Item, problems: Problems) -> bool:
    """Puts an instance a file into a record; `False` if one of them can't be used."""
    objects, usable = [], True
    record.where = str(item.masks[0].parent)
    sizes = _sizes(record, problems)
    if not sizes:
        return False
    for path in item.masks:
        try:
            kind, array, lossy = decode(path)
        except (ValueError, OSError) as error:
            problems.add(path, "unreadable mask", str(error), image=item.filename)
            usable = False
            continue
        if not _fits(record, path, array.shape[:2], sizes, problems):
            usable = False
            continue
        values = [v for v in values_of(coded(kind, array, "codes")).tolist() if v]
        if not values:
            problems.add(path, "empty mask", "it has no pixel other than 0, so no object")
        elif len(values) > 1:
            between = "it is a JPEG, save masks as PNG" if lossy else "set a threshold"
            problems.add(
                path,
                "lossy mask" if lossy else "grey values between",
                f"the mask of one instance should hold one value other than 0, but it holds "
                f"{len(values)}; {between}",
                image=item.filename,
            )
            usable = False
        else:
            objects.append(Object(0, mask=InstanceFile(path), where=str(path)))
    record.objects, record.has_masks = objects, True
    return usable


def _sizes(record: Record, problems: Problems) -> tuple[tuple[int, int], ...]:
    """The heights and widths that a mask may have: upright, or before EXIF turns the image."""
    try:
        with open_image(record.path) as image:
            before = image.size[::-1]
            turned = exif_orientation(image) >= 5
    except (ValueError, OSError) as error:
        problems.add(record.path, "unreadable image", str(error), image=record.filename)
        return ()
    return (before[::-1], before) if turned else (before,)


def _fits(
    record: Record, mask: Path, shape: tuple[int, int], sizes: tuple, problems: Problems
) -> bool:
    """Whether a mask has one of the sizes; the record's other masks must have the same."""
    if record.size is not None:
        sizes = (record.size,)
    if tuple(shape) in sizes:
        record.size = tuple(shape)
        return True
    problems.add(
        mask,
        "mask of another size",
        f"it is {shape[1]} x {shape[0]} pixels (width x height), but its image "
        f"{record.filename!r} is {sizes[0][1]} x {sizes[0][0]}",
        image=record.filename,
    )
    return False


@dataclass(frozen=True)
class Pixels:
    """Class of each pixel of a mask file; `table` is pairs of a code and its label."""

    path: Path
    codes: str
    table: tuple[tuple[int, int], ...]

    def __call__(self, height: int, width: int) -> np.ndarray:
        kind, array, _ = decode(self.path)
        array = coded(kind, array, self.codes)
        _check_shape(self.path, array, height, width)
        codes, labels = (np.array(v) for v in zip(*self.table, strict=True))
        place = np.searchsorted(codes, array).clip(max=len(codes) - 1)
        if not (codes[place] == array).all():
            raise ValueError(f"the mask {str(self.path)!r} was changed after it was read")
        return labels.astype(np.uint8)[place]


@dataclass(frozen=True)
class Instance:
    """One instance of a mask file of ids."""

    path: Path
    value: int

    def __call__(self, height: int, width: int) -> Cut | None:
        stat = self.path.stat()
        shape, cuts = _cuts(self.path, stat.st_size, stat.st_mtime_ns)
        if shape != (height, width):
            raise ValueError(_other_size(self.path, shape, height, width))
        return cuts.get(self.value)


@dataclass(frozen=True)
class InstanceFile:
    """The one instance of a mask file."""

    path: Path

    def __call__(self, height: int, width: int) -> Cut | None:
        kind, array, _ = decode(self.path)
        array = coded(kind, array, "codes")
        _check_shape(self.path, array, height, width)
        return cut(array != 0)


def _check_shape(path: Path, array: np.ndarray, height: int, width: int) -> None:
    if array.shape != (height, width):
        raise ValueError(_other_size(path, array.shape, height, width))


def _other_size(path: Path, shape: tuple[int, ...], height: int, width: int) -> str:
    return (
        f"the mask {str(path)!r} is {shape[1]} x {shape[0]} pixels (width x height), but its "
        f"image {width} x {height}"
    )


@lru_cache(maxsize=16)  # all instances of an image ask for it; threads have one each
def _cuts(path: Path, size: int, mtime: int) -> tuple[tuple[int, int], dict[int, Cut]]:
    kind, array, _ = decode(path)
    ids = coded(kind, array, "codes")
    flat = np.flatnonzero(ids)
    order = np.argsort(ids.ravel()[flat], kind="stable")
    flat = flat[order]
    values, starts = np.unique(ids.ravel()[flat], return_index=True)
    cuts: dict[int, Cut] = {}
    for value, places in zip(values.tolist(), np.split(flat, starts[1:]), strict=False):
        rows, columns = np.divmod(places, ids.shape[1])
        top, left = int(rows.min()), int(columns.min())
        mask = np.zeros((int(rows.max()) - top + 1, int(columns.max()) - left + 1), bool)
        mask[rows - top, columns - left] = True
        cuts[value] = (top, left, mask)
    return ids.shape, cuts
