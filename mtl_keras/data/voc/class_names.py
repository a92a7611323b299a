"""Names of Pascal VOC's classes, and what the indices of masks mean."""

from __future__ import annotations

import re
from pathlib import Path

from mtl_keras.data.files import is_background, list_lines
from mtl_keras.data.records import bad_labels
from mtl_keras.data.voc.annotations import Xml
from mtl_keras.data.voc.colours import STANDARD, Colours, stated
from mtl_keras.data.voc.folders import Item
from mtl_keras.data.voc.maps import Maps

NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
_NAME_FILES = ("labelmap.txt", "class_names.txt")


def palette_of(
    root: Path, used: set[str], items: list[tuple[Item, Xml | None]], files: list[Path]
) -> tuple[dict[int, str], Colours, bool]:
    """Index of a class mask to the class ("" for background), and whether a file states them.

    Between the two, the indices of the colours of masks in RGB.
    """
    inside = {p.name.lower(): p for p in sorted(root.iterdir()) if p.is_file()}
    for name in _NAME_FILES:
        if name in inside:
            files.append(inside[name])
            return *_stated(inside[name]), True
    if not any(item.class_map for item, _ in items):
        return {}, STANDARD, False
    if others := sorted(used - set(NAMES)):
        raise ValueError(
            f"{str(root)!r} has class masks, and classes that are not VOC's ({others[:5]}), but "
            "nothing says which index is which class. Add labelmap.txt, a name a line, in order of "
            "the indices, 'background' first"
        )
    return dict(enumerate(NAMES, 1)), STANDARD, False


def _stated(file: Path) -> tuple[dict[int, str], Colours]:
    names: list[str] = []
    colours: list[tuple[int, int, int] | None] = []
    for i, line in enumerate(list_lines(file), 1):
        name = " ".join(line.split(":")[0].split())
        if not name or name.startswith("#"):
            continue
        if name in names:
            raise bad_labels(file, i, "class named twice", f"{name!r} stands above")
        names.append(name)
        colour = re.match(r"[^:]*:\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*(:|$)", line)
        colours.append(None if colour is None else tuple(int(c) for c in colour.groups()[:3]))
    if not names:
        raise bad_labels(file, None, "unreadable list", "it names no class")
    start = 0 if any(map(is_background, names)) else 1
    palette = {i: "" if is_background(name) else name for i, name in enumerate(names, start)}
    pairs = tuple((c, i) for i, c in enumerate(colours, start) if c is not None)
    return palette, stated(pairs) if pairs else STANDARD


def check_palette(
    root: Path, masked: list[tuple[Item, Xml | None, Maps]], palette: dict[int, str]
) -> None:
    """Refuses to take indices for VOC's classes where the XML mostly names others."""
    both = [
        (palette[index], {o.name for o in xml.objects})
        for _, xml, maps in masked
        if xml is not None
        for index in maps.classes
    ]
    agree = sum(name in names for name, names in both)
    if 2 * agree < len(both):
        raise ValueError(
            f"the indices of the class masks in {str(root)!r} are not those of VOC's list: in "
            f"{len(both) - agree} of {len(both)} cases the XML of the image does not name that "
            "class. Add labelmap.txt, a name a line, in order of the indices, 'background' first"
        )


def names_of(
    used: set[str], in_maps: set[str], palette: dict[int, str], is_stated: bool
) -> tuple[list[str], list[str] | None]:
    """Names of objects' classes, and of masks' classes where these are others."""
    if is_stated:
        stated = [name for name in palette.values() if name]
        if used <= set(stated):
            return stated, None
        return sorted(used), stated
    used = used | in_maps
    if used <= set(NAMES):
        return [name for name in NAMES if name in used], None
    return sorted(used), None
