"""Where COCO's JSONs lie in a folder, and the images and PNGs that they name."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl_keras.data.coco_json import LISTS, CocoJson
from mtl_keras.data.files import located
from mtl_keras.data.splits import SPLITS, split_within

_MOST_JSONS = 30  # where more lie in one folder, they are labels of single images
_PREFIXES = ("instances_", "panoptic_")
_OTHER_KINDS = ("captions_", "image_info_", "person_keypoints_", "stuff_")


def find_jsons(folder: Path, panoptic: bool = False) -> dict[str, Path]:
    """The JSON of each split in a folder: in itself, in `annotations/`, or in a folder a split.

    Raises:
        ValueError: If two say that they are the same split.
    """
    inside = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    places = (
        [folder],
        [p for p in inside if p.name.lower() in ("annotations", "annotation")],
        [p for p in inside if split_within(p.name)],
    )
    for place in places:
        found = [p for one in place for p in _jsons_in(one, panoptic)]
        if any(p.name.startswith("instances_") for p in found):
            found = [p for p in found if p.name.startswith("instances_")]
        if found:
            break
    splits: dict[str, Path] = {}
    for path in found:
        split = split_within(path.stem)
        if split is None and path.parent != folder:
            split = split_within(path.parent.name)
        if split is None:
            split = "train" if len(found) == 1 else path.stem
        if split in splits:
            raise ValueError(
                f"both {str(splits[split])!r} and {str(path)!r} look like the split {split!r}; "
                "read a dict from splits to paths instead of the folder"
            )
        splits[split] = path
    order = {split: i for i, split in enumerate(SPLITS.values())}
    return dict(sorted(splits.items(), key=lambda item: (order.get(item[0], 99), item[0])))


def jsons_of(path: Any, panoptic: bool = False) -> tuple[dict[str, Path], Path | None]:
    """What a user gives (a folder, a JSON, a dict of them) as a dict; the folder, if it was one.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If the folder holds no such JSON, or the dict is empty.
        TypeError: If it is something else.
    """
    if isinstance(path, Mapping):
        if not path:
            raise ValueError("`path` is an empty dict; give at least one split, {'train': path}")
        for split, one in path.items():
            if not isinstance(one, (str, os.PathLike)):
                raise TypeError(f"`path` should hold paths. Received: {one!r:.100} for {split!r}")
        return {split: Path(one).expanduser() for split, one in path.items()}, None
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"`path` should be a path or a dict of paths. Received: {path!r:.100}")
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {str(path)!r}")
    if path.is_file():
        return {split_within(path.stem) or "train": path}, None
    jsons = find_jsons(path, panoptic) or _named_as_splits(path)
    if not jsons:
        kind = "COCO panoptic" if panoptic else "COCO"
        raise ValueError(
            f"there is no {kind} JSON in {str(path)!r}; it should lie there, in annotations/, or "
            "in a folder a split (train/, val/, test/)"
        )
    return jsons, path


def _named_as_splits(folder: Path) -> dict[str, Path]:
    """JSONs that do not look like COCO's, for an error that says what they lack."""
    named = [(split_within(p.stem), p) for p in sorted(folder.glob("*.json"), reverse=True)]
    return {split: path for split, path in named if split is not None}


def folders_of(
    parsed: Mapping[str, CocoJson], given: Any, root: Path | None = None, what: str = "images"
) -> dict[str, Path]:
    """The folder of the images, or of the PNGs of segments, of each split.

    Args:
        parsed: The JSONs by split.
        given: One folder, or a dict with one for each split, or `None`: it is looked for.
        root: Folder of the set; by default that of the JSON, or the one above `annotations/`.
        what: `"images"` or `"masks"`.

    Raises:
        ValueError: If the splits of `given` are others.
        FileNotFoundError: If no folder is found that holds any of the files.
    """
    if given is None:
        return {split: _folder_of(coco, root, what) for split, coco in parsed.items()}
    folders = given if isinstance(given, Mapping) else dict.fromkeys(parsed, given)
    if set(folders) != set(parsed):
        raise ValueError(
            f"`{what}` names the splits {sorted(folders)}, the JSONs are of the splits "
            f"{sorted(parsed)}; give one folder for all splits or one for each"
        )
    return {split: Path(folders[split]).expanduser() for split in parsed}


def _folder_of(coco: CocoJson, root: Path | None, what: str) -> Path:
    entries = coco.images if what == "images" else coco.annotations
    places = image_places(coco.path) if what == "images" else mask_places(coco.path)
    files = [e["file_name"] for e in entries if isinstance(e, dict) and e.get("file_name")]
    base = coco.path.parent
    if not files:
        return base
    if root is None:
        root = base.parent if base.name.lower() in ("annotations", "annotation") else base
    folders = [one / place for place in places for one in dict.fromkeys((base, root))]
    folders = [folder for folder in folders if folder.is_dir()]
    some = [str(name) for name in files[:: max(1, len(files) // 50)]]
    hits = [sum(located(folder, name).is_file() for name in some) for folder in folders]
    if not any(hits):
        raise FileNotFoundError(
            f"none of the {what} that {str(coco.path)!r} lists lies in a usual place in "
            f"{str(root)!r}; name their folder, `{what}`. It lists {some[:3]}"
        )
    return folders[hits.index(max(hits))]


def image_places(json_path: Path) -> list[str]:
    """Folders in which the images of a JSON lie as a rule, the most usual first."""
    names = _split_names(json_path)
    places = [*names, *(f"images/{n}" for n in names), *(f"{n}/images" for n in names)]
    return [*places, "images", "data", *(f"{n}/data" for n in names), "img", "JPEGImages", "."]


def mask_places(json_path: Path) -> list[str]:
    """Folders in which the PNGs of a panoptic JSON lie as a rule, the most usual first."""
    names = _split_names(json_path)
    places = [json_path.stem, *(f"panoptic_{n}" for n in names)]
    for folder in ("panoptic", "masks", "panoptic_masks", "annotations"):
        places += [*(f"{folder}/{n}" for n in names), *(f"{n}/{folder}" for n in names), folder]
    return [*places, "."]


def _split_names(json_path: Path) -> list[str]:
    stem = json_path.stem
    for prefix in _PREFIXES:
        stem = stem.removeprefix(prefix)
    split = split_within(json_path.stem) or split_within(json_path.parent.name)
    return list(dict.fromkeys([stem, *(name for name, s in SPLITS.items() if s == split)]))


def _jsons_in(folder: Path, panoptic: bool) -> list[Path]:
    paths = sorted(p for p in folder.glob("*.json") if p.is_file())
    if len(paths) > _MOST_JSONS:
        return []
    return [p for p in paths if not p.name.startswith(_OTHER_KINDS) and _looks(p, panoptic)]


def _looks(path: Path, panoptic: bool) -> bool:
    """Whether a file looks like COCO's JSON; one that is cut short does by its name."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
                is_panoptic = text.find(b'"segments_info"') >= 0
                whole = text[max(0, size - 100) :].rstrip(b" \t\r\n\0").endswith((b"}", b"]"))
                found = all(text.find(f'"{key}"'.encode()) >= 0 for key in LISTS)
        else:
            is_panoptic = whole = found = False
    if found:
        return is_panoptic == panoptic
    name = path.stem.lower()
    usual = split_within(name) is not None or "coco" in name
    return usual and not whole and ("panoptic" in name or is_panoptic) == panoptic
