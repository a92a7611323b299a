"""Where images and masks lie, and which belong together."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from mtl_keras.data.files import IMAGE_FOLDER, image_files, is_image, stem_of, walk
from mtl_keras.data.splits import split_name

_MASK_FOLDER = re.compile(
    r"annot(ations?)?|ground_?truth|gt|labels?|masks?|seg(mentations?)?|segmentationclass",
    re.IGNORECASE,
)
MASK_SUFFIX = re.compile(
    r"[ _-]((?i:annotations?|ground_?truth|gt|labels?|masks?|seg(mentation)?)|L)$"
)


@dataclass
class Place:
    """Images and masks of a split. `bundles`: `images` holds folders <id>/images and <id>/masks."""

    split: str
    images: Path
    masks: Path | None
    bundles: bool = False
    loose: list[Path] = field(default_factory=list)


@dataclass
class Item:
    """One image with its masks. `parts`: each mask is of one instance. `bad`: it can't be used."""

    split: str
    path: Path
    filename: str
    masks: list[Path]
    parts: bool = False
    bad: bool = False


def places_of(root: Path) -> tuple[list[Place], list[str]]:
    """All splits of a folder, and notes on what is not read."""
    notes = []
    if any(c.name.lower() == "segmentationobject" for c in visible_folders(root)):
        notes.append("SegmentationObject is not read, since no file says the class of an instance.")
    images, masks = image_folder_in(root), mask_folder_in(root)
    if images is not None and masks is not None:
        below, masks_below = _splits_in(images), _splits_in(masks)
        if below and masks_below:
            places = [Place(s, f, masks_below.get(s)) for s, f in below.items()]
            places[0].loose = [
                c
                for folder in (images, masks)
                for c in sorted(folder.iterdir())
                if is_image(c.name) or split_name(c.name) not in (None, *below)
            ]
            return places, notes
        return [Place("train", images, masks)], notes
    if _is_bundles(root, masks_too=True):
        return [Place("train", root, None, bundles=True)], notes
    places = []
    for split, folder in _splits_in(root).items():
        images, masks = image_folder_in(folder), mask_folder_in(folder)
        beside = [
            c for c in visible_folders(root) if _is_beside(folder.name, c.name) and _holds_image(c)
        ]
        if images is not None:
            places.append(Place(split, images, masks))
        elif _is_bundles(folder, masks_too=False):
            places.append(Place(split, folder, None, bundles=True))
        elif _holds_image(folder):
            masks = folder if _is_mixed(folder) else _only(beside, f"masks of {folder.name!r}")
            places.append(Place(split, folder, masks))
    if not places and _is_mixed(root):
        return [Place("train", root, root)], notes
    if all(place.masks is None and not place.bundles for place in places):
        return [], notes
    return places, notes


def _is_mixed(folder: Path) -> bool:
    """Whether images and masks lie together, as `a.jpg` and `a_mask.png`."""
    names = {stem_of(c.name) for c in folder.iterdir() if is_image(c.name)}
    return any(is_mask_of(name, names) for name in names)


def is_mask_of(name: str, names: Collection[str]) -> bool:
    """Whether a name without suffix is that of a mask of one of the other names."""
    image = MASK_SUFFIX.sub("", name)
    return image != name and image in names


def _is_beside(split: str, name: str) -> bool:
    rest = name.lower().removeprefix(split.lower())
    return rest != name.lower() and _MASK_FOLDER.fullmatch(rest.lstrip("_- ")) is not None


def _is_bundles(folder: Path, masks_too: bool) -> bool:
    """Whether folders in it hold an image each: `<id>/images/`, and perhaps `<id>/masks/`."""
    for child in visible_folders(folder):
        if split_name(child.name) is None:
            images = image_folder_in(child)
            if images is None or len(image_files(images)[0]) != 1:
                continue
            if not masks_too or mask_folder_in(child) is not None:
                return True
    return False


def visible_folders(folder: Path) -> list[Path]:
    """Folders in a folder, sorted."""
    return sorted(c for c in folder.iterdir() if c.is_dir() and not c.name.startswith("."))


def _holds_image(folder: Path) -> bool:
    return any(map(is_image, walk(folder)))


def _splits_in(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for child in visible_folders(folder):
        split = split_name(child.name)
        if split is None:
            continue
        if split in found:
            raise ValueError(
                f"{str(found[split])!r} and {str(child)!r} are both split {split!r}; keep one"
            )
        found[split] = child
    return found


def image_folder_in(folder: Path) -> Path | None:
    """The folder of images in a folder."""
    return _only([c for c in visible_folders(folder) if IMAGE_FOLDER.fullmatch(c.name)], "images")


def mask_folder_in(folder: Path) -> Path | None:
    """The folder of masks in a folder."""
    found = [c for c in visible_folders(folder) if _MASK_FOLDER.fullmatch(c.name)]
    return _only([c for c in found if _holds_image(c)], "masks")


def _only(found: list[Path], what: str) -> Path | None:
    if len(found) > 1:
        names = ", ".join(repr(str(f)) for f in found)
        raise ValueError(f"there are several folders of {what}: {names}; keep one")
    return found[0] if found else None
