"""Masks of Pascal VOC: indices of classes, and of objects, which are matched with the XML's."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from mtl_keras.data import segmentations
from mtl_keras.data.images import open_image
from mtl_keras.data.records import Bad, Cut, bad_labels
from mtl_keras.data.voc.annotations import Labelled, Xml
from mtl_keras.data.voc.colours import STANDARD, Colours, indices_of
from mtl_keras.data.voc.folders import Item

IGNORED = 255


@dataclass
class Maps:
    """What the masks of an image hold.

    `classes`: indices of the class mask. `region_of`: number of an object in the XML to its index
    in the object mask. `extra`: indices of regions that are no object of the XML, with the classes.
    """

    classes: set[int] = field(default_factory=set)
    region_of: dict[int, int] = field(default_factory=dict)
    extra: dict[int, str] = field(default_factory=dict)


@dataclass
class _Region:
    index: int
    box: tuple[float, float, float, float]
    name: str | None


def read_maps(item: Item, xml: Xml | None, palette: dict[int, str], colours: Colours) -> Maps:
    """What the masks of an image hold; `colours` are those of classes.

    Raises:
        Bad: If they can't be used.
    """
    maps = Maps()
    classes = objects = None
    if item.class_map is not None:
        classes = _indices(item.class_map, colours)
        found = np.flatnonzero(np.bincount(classes.ravel(), minlength=256)).tolist()
        maps.classes = set(found) - {0, IGNORED}
        if unknown := maps.classes - palette.keys():
            message = f"index {min(unknown)} has no name; there are {len(palette)} classes"
            raise Bad("unknown class in mask", message, item.class_map)
    if item.object_map is not None:
        objects = _indices(item.object_map)
    stated = None if xml is None else xml.size
    for path, array in ((item.class_map, classes), (item.object_map, objects)):
        if array is None:
            continue
        stated = stated or array.shape
        if array.shape != stated:
            raise Bad("mask of another size", _sizes(array.shape, stated), path)
    if objects is None:
        return maps
    regions = _regions(objects, classes, palette)
    labelled = [] if xml is None else xml.objects
    maps.region_of = _matched(regions, labelled, palette)
    if regions and labelled and not maps.region_of:
        message = "none of its regions lies where an object of the XML is"
        raise Bad("mask against boxes", message, item.object_map)
    taken = set(maps.region_of.values())
    for region in regions:
        if region.index in taken:
            continue
        if region.name is None:
            message = f"region {region.index} is no object of the XML, and no class mask names it"
            raise Bad("region without a class", message, item.object_map)
        maps.extra[region.index] = region.name
    return maps


def _regions(
    objects: np.ndarray, classes: np.ndarray | None, palette: dict[int, str]
) -> list[_Region]:
    regions = []
    for index in np.flatnonzero(np.bincount(objects.ravel(), minlength=256)).tolist():
        if index in (0, IGNORED):
            continue
        top, left, mask = segmentations.cut(objects == index)
        height, width = mask.shape
        name = None
        if classes is not None:
            counts = np.bincount(
                classes[top : top + height, left : left + width][mask], minlength=256
            )
            counts[[0, IGNORED]] = 0
            name = palette.get(int(counts.argmax())) if counts.any() else None
        regions.append(_Region(index, (left, top, left + width, top + height), name or None))
    return regions


def _matched(
    regions: list[_Region], labelled: list[Labelled], palette: dict[int, str]
) -> dict[int, int]:
    """Number of an object to the index of its region."""
    known = set(palette.values())

    def fits(region: _Region, number: int) -> bool:
        name = labelled[number].name
        return region.name is None or name not in known or region.name == name

    def in_order(region: _Region) -> bool:
        number = region.index - 1
        if number >= len(labelled) or not fits(region, number):
            return False
        return 2 * _common(region.box, labelled[number].box) >= _area(region.box)

    if all(map(in_order, regions)):
        return {region.index - 1: region.index for region in regions}
    pairs = []
    for region in regions:
        for number, found in enumerate(labelled):
            common = _common(region.box, found.box)
            if common > 0 and fits(region, number):
                iou = common / (_area(region.box) + _area(found.box) - common)
                pairs.append((-iou, number != region.index - 1, number, region.index))
    region_of: dict[int, int] = {}
    for _, _, number, index in sorted(pairs):
        if number not in region_of and index not in region_of.values():
            region_of[number] = index
    return region_of


def _area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _common(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def _sizes(shape: tuple[int, ...], stated: tuple[int, ...]) -> str:
    return f"it is {shape[1]} x {shape[0]} pixels, the image {stated[1]} x {stated[0]}"


def region_mask(path: Path, index: int, height: int, width: int) -> Cut | None:
    """Pixels of one index of an object mask."""
    return segmentations.cut(_fitting(path, height, width) == index)


def class_mask(
    path: Path, table: tuple[int, ...], colours: Colours, height: int, width: int
) -> np.ndarray:
    """Classes of pixels, by a table of all indices."""
    return np.array(table, np.uint8)[_fitting(path, height, width, colours)]


def _fitting(path: Path, height: int, width: int, colours: Colours = STANDARD) -> np.ndarray:
    try:
        indices = _indices(path, colours)
    except Bad as bad:
        raise bad_labels(path, None, bad.kind, str(bad)) from bad
    if indices.shape != (height, width):
        message = _sizes(indices.shape, (height, width))
        raise bad_labels(path, None, "mask of another size", message)
    return indices


def _indices(path: Path, colours: Colours = STANDARD) -> np.ndarray:
    """Indices of a PNG, uint8 (height, width); of one in RGB by its colours."""
    stat = path.stat()
    return _decoded(path, colours, stat.st_mtime_ns, stat.st_size)


# The objects of an image are asked for one after the other, all from one file.
@lru_cache(maxsize=16)  # threads have an image each
def _decoded(path: Path, colours: Colours, modified: int, size: int) -> np.ndarray:
    with path.open("rb") as file:
        head = file.read(26)
    if len(head) < 26 or head[:8] != b"\x89PNG\r\n\x1a\n":
        raise Bad("damaged mask", "it is no PNG", path)
    depth, colour = head[24], head[25]
    if colour != 3 and (colour, depth) not in ((0, 8), (2, 8)):
        raise Bad(
            "mask without palette",
            "it should be an 8-bit PNG with a palette, grey or RGB",
            path,
        )
    try:
        with open_image(path) as image:
            indices = np.array(image)
    except (OSError, SyntaxError, ValueError, IndexError, EOFError) as error:
        raise Bad("damaged mask", f"it can't be read: {error}", path) from error
    if indices.ndim == 3:
        indices = indices_of(indices, colours, path)
    indices.setflags(write=False)
    return indices
