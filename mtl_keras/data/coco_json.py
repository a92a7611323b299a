"""COCO's JSON: reading it, its lines, its classes and images, and where all lies in a folder."""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtl_keras.data.records import BadLabels, Problem, Problems, Record

LISTS = ("images", "annotations", "categories")
# What splits are called in the names of files and folders.
SPLITS = {
    "train": "train",
    "default": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
_SPLIT = re.compile(rf"(?<![a-z])({'|'.join(sorted(SPLITS, key=len, reverse=True))})(?![a-z])")
_MOST_JSONS = 30  # where more lie in one folder, they are labels of single images
_PREFIXES = ("instances_", "panoptic_")
_OTHER_KINDS = ("captions_", "image_info_", "person_keypoints_", "stuff_")


class MissingImages(BadLabels, FileNotFoundError):
    """Images that the labels list and that are not there."""


class Bad(Exception):
    """Says that an annotation can't be used; becomes a `Problem`."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


@dataclass
class CocoJson:
    """The content of one JSON file.

    Attributes:
        path: The file.
        sha256: Hash of its content.
        images: Its list of images, as it stands.
        annotations: Its list of annotations, as it stands.
        categories: Its list of categories; each has an `id` and a `name`.
    """

    path: Path
    sha256: str
    images: list[Any]
    annotations: list[Any]
    categories: list[dict]
    _lines: dict[str, list[int]] | None = field(default=None, repr=False)

    @classmethod
    def read(cls, path: Path) -> CocoJson:
        """Reads a file.

        Raises:
            FileNotFoundError: If there is no such file.
            BadLabels: If it is no JSON, lacks a list, or lists no images or categories.
        """
        if not path.is_file():
            raise FileNotFoundError(f"there is no COCO JSON file {str(path)!r}")
        content = path.read_bytes()
        try:
            data = json.loads(content)
        except (ValueError, RecursionError) as error:
            line = getattr(error, "lineno", None)
            message = f"it is not valid JSON: {error}"
            raise BadLabels(Problem(str(path), line, "unreadable JSON", message)) from error
        if not isinstance(data, dict) or any(not isinstance(data.get(k), list) for k in LISTS):
            got = sorted(data) if isinstance(data, dict) else type(data).__name__
            message = (
                "it is not in COCO format: it should be an object with the lists "
                f"{', '.join(map(repr, LISTS))}, got {got!r:.200}"
            )
            raise BadLabels(Problem(str(path), None, "not COCO", message))
        coco = cls(path, hashlib.sha256(content).hexdigest(), *(data[k] for k in LISTS))
        if not coco.images:
            raise BadLabels(Problem(str(path), None, "no images", "it lists no images"))
        if not coco.categories:
            message = "it lists no categories; give at least one with id and name"
            raise BadLabels(Problem(str(path), None, "no categories", message))
        for i, category in enumerate(coco.categories):
            if not isinstance(category, dict) or None in map(category.get, ("id", "name")):
                message = f"categories[{i}] should have an id and a name: {category!r:.200}"
                coco.fail("bad category", message, "categories", i)
            try:
                integer(category["id"], "category id")
            except ValueError as error:
                coco.fail("bad category", str(error), "categories", i)
        return coco

    def line(self, key: str, index: int) -> int | None:
        """Line of the item `index` of the list `key`; the file is read again the first time."""
        if self._lines is None:
            self._lines = _item_lines(self.path.read_bytes())
        lines = self._lines.get(key, ())
        return lines[index] if index < len(lines) else None

    def fail(self, kind: str, message: str, key: str, index: int) -> None:
        """Raises a problem without which nothing can be read, whatever `on_bad` is.

        Raises:
            BadLabels: Always.
        """
        raise BadLabels(Problem(str(self.path), self.line(key, index), kind, message))

    def category_ids(self) -> set[int]:
        """Ids of the categories of this file."""
        return {int(category["id"]) for category in self.categories}


def integer(value: Any, what: str) -> int:
    """A number of the JSON as an integer.

    Raises:
        ValueError: If it is none, or needs more than 64 bits.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or int(value) != value or abs(value) >= 2**63:
        raise ValueError(f"every {what} should be an integer, got {value!r:.100}")
    return int(value)


def key_of(value: Any) -> Any:
    """An id of the JSON as a key of a dict; what can be no id becomes one that no dict has."""
    is_id = isinstance(value, (int, float, str)) and not isinstance(value, bool)
    return value if is_id else ("no id", repr(value))


def corners(box: Any) -> tuple[float, float, float, float]:
    """A box x, y, width, height as x0, y0, x1, y1.

    Raises:
        ValueError: If it is not four finite numbers.
    """
    try:
        values = [float(v) for v in box] if isinstance(box, (list, tuple)) else []
    except (TypeError, ValueError, OverflowError):
        values = []
    if len(values) != 4 or not all(map(math.isfinite, values)):
        raise ValueError(
            f"has bbox {box!r:.100}; it should be four finite numbers: x, y, width, height in "
            "pixels"
        )
    x, y, width, height = values
    return x, y, x + width, y + height


def flag(value: Any, what: str) -> bool:
    """A value of 0 or 1 of the JSON; what is missing is 0.

    Raises:
        ValueError: If it is something else.
    """
    if value not in (None, 0, 1):
        raise ValueError(f"has {what} {value!r:.100}; it should be 0 or 1")
    return bool(value)


def box_problem(
    box: tuple[float, float, float, float], size: tuple[int, int] | None
) -> tuple[str, str] | None:
    """Kind and message of what is wrong with a box `x0, y0, x1, y1`, or `None`."""
    x0, y0, x1, y1 = box
    shown = f"x {x0:g} to {x1:g}, y {y0:g} to {y1:g}"
    if x1 < x0 or y1 < y0:
        return "reversed box", f"has a box of negative width or height ({shown})"
    if x1 == x0 or y1 == y0:
        return "box without area", f"has a box of no area ({shown})"
    width, height = (math.inf, math.inf) if size is None else (size[1], size[0])
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        image = "" if size is None else f" of {width} x {height} pixels"
        return "box outside", f"has a box that lies outside of the image{image} ({shown})"
    return None


def categories(
    parsed: Iterable[CocoJson], used: set[int] | None = None
) -> tuple[list[dict], list[str]]:
    """The categories in order of the class ids, and their names without repeats.

    A category that is not in `used` and that others name as their `supercategory` is left out.

    Raises:
        BadLabels: If a file lists an id twice, or names one as another file does not.
    """
    found: dict[int, dict] = {}
    for coco in parsed:
        seen = set()
        for i, category in enumerate(coco.categories):
            key = int(category["id"])
            if key in seen:
                message = f"it lists category id {key} twice"
                coco.fail("repeated category id", message, "categories", i)
            seen.add(key)
            if str(found.setdefault(key, category)["name"]) != str(category["name"]):
                message = (
                    f"category id {key} is {found[key]['name']!r} in one split and "
                    f"{category['name']!r} in this one; the splits should share categories"
                )
                coco.fail("contradicting categories", message, "categories", i)
    kept = []
    for key, category in sorted(found.items()):
        is_parent = any(
            other.get("supercategory") == category["name"]
            for other_key, other in found.items()
            if other_key != key
        )
        if used is None or key in used or not is_parent:
            kept.append(category)
    names: list[str] = []
    for category in kept:
        base = " ".join(str(category["name"]).split()) or f"class_{int(category['id'])}"
        unique, number = base, 2
        while unique in names:
            unique, number = f"{base}_{number}", number + 1
        names.append(unique)
    return kept, names


def image_records(
    coco: CocoJson, folder: Path, problems: Problems
) -> tuple[dict[int, Record], set[Any]]:
    """Records of the images of a file, without objects, by id; and ids of images left out.

    Raises:
        FileNotFoundError: If there is no such folder, or, under `strict`, an image is missing.
        BadLabels: Under `strict`, for an entry that can't be used.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no image folder {str(folder)!r}")
    records: dict[int, Record] = {}
    index_of: dict[int, int] = {}
    gone: set[Any] = set()
    for i, image in enumerate(coco.images):
        try:
            record = _image_record(image, i, coco.path, folder)
        except ValueError as error:
            image = image if isinstance(image, dict) else {}
            gone.add(key_of(image.get("id")))
            name = image.get("file_name")
            problems.add(
                coco.path,
                "bad image entry",
                str(error),
                coco.line("images", i),
                None if name is None else str(name),
            )
            continue
        key = record.image_id
        if key in records or key in gone:
            first = records.pop(key, None)
            message = (
                f"it lists image id {key} twice; ids should differ, or nobody knows whose the "
                "annotations are"
            )
            for j, one in ((index_of.get(key), first), (i, record)):
                if one is not None:
                    line = coco.line("images", j)
                    problems.add(coco.path, "repeated image id", message, line, one.filename)
            gone.add(key)
            continue
        records[key], index_of[key] = record, i
    missing = [r for r in records.values() if not r.path.is_file()]
    if missing and problems.on_bad == "strict":
        shown = ", ".join(repr(r.filename) for r in missing[:5]) + (", …" if missing[5:] else "")
        message = f"{len(missing)} of {len(records)} images are not in {str(folder)!r}: {shown}"
        line = coco.line("images", index_of[missing[0].image_id])
        raise MissingImages(Problem(str(coco.path), line, "missing image", message))
    for record in missing:
        message = f"the image {record.filename!r} is not in {str(folder)!r}"
        line = coco.line("images", index_of[record.image_id])
        problems.add(coco.path, "missing image", message, line, record.filename)
        gone.add(record.image_id)
        del records[record.image_id]
    return records, gone


def find_jsons(folder: Path, panoptic: bool = False) -> dict[str, Path]:
    """The JSON of each split in a folder: in itself, in `annotations/`, or in a folder a split.

    Raises:
        ValueError: If two say that they are the same split.
    """
    inside = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    places = (
        [folder],
        [p for p in inside if p.name.lower() in ("annotations", "annotation")],
        [p for p in inside if split_of(p.name)],
    )
    for place in places:
        found = [p for one in place for p in _jsons_in(one, panoptic)]
        if any(p.name.startswith("instances_") for p in found):
            found = [p for p in found if p.name.startswith("instances_")]
        if found:
            break
    splits: dict[str, Path] = {}
    for path in found:
        split = split_of(path.stem)
        if split is None and path.parent != folder:
            split = split_of(path.parent.name)
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
        return {split_of(path.stem) or "train": path}, None
    jsons = find_jsons(path, panoptic)
    if not jsons:
        kind = "COCO panoptic" if panoptic else "COCO"
        raise ValueError(
            f"there is no {kind} JSON in {str(path)!r}; it should lie there, in annotations/, or "
            "in a folder a split (train/, val/, test/)"
        )
    return jsons, path


def split_of(name: str) -> str | None:
    """The split that a name of a file or folder tells, as in `instances_train2017`."""
    match = _SPLIT.search(name.lower())
    return SPLITS[match[1]] if match else None


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


def located(folder: Path, name: str) -> Path:
    """The file that a JSON names, also where the name was written on Windows."""
    path = folder / name
    if "\\" in name and not path.is_file():
        return folder / name.replace("\\", "/")
    return path


def _split_names(json_path: Path) -> list[str]:
    stem = json_path.stem
    for prefix in _PREFIXES:
        stem = stem.removeprefix(prefix)
    split = split_of(json_path.stem) or split_of(json_path.parent.name)
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
    usual = split_of(name) is not None or "coco" in name
    return usual and not whole and ("panoptic" in name or is_panoptic) == panoptic


def _image_record(image: Any, index: int, path: Path, folder: Path) -> Record:
    if not isinstance(image, dict):
        raise ValueError(f"images[{index}] should be an object: {image!r:.200}")
    lacking = [key for key in ("id", "file_name") if image.get(key) in (None, "")]
    if lacking:
        raise ValueError(f"images[{index}] lacks {', '.join(lacking)}: {image!r:.200}")
    key = integer(image["id"], "image id")
    size = [
        integer(image[k], f"image {k}") if image.get(k) is not None else 0
        for k in ("height", "width")
    ]
    if min(size) < 0:
        raise ValueError(
            f"image {key} has height {size[0]} and width {size[1]}; neither is below 0"
        )
    name = str(image["file_name"])
    file = located(folder, name)
    if file != folder / name:
        name = name.replace("\\", "/")
    return Record(
        path=file,
        filename=name,
        image_id=key,
        size=(size[0], size[1]) if min(size) else None,
        where=str(path),
    )


def _item_lines(content: bytes) -> dict[str, list[int]]:
    """Lines of the items of the lists of a JSON object that is known to be valid."""
    encoding = "utf-8-sig" if content[:3] == b"\xef\xbb\xbf" else json.detect_encoding(content)
    text = content.decode(encoding, "surrogatepass")
    breaks = [match.start() for match in re.finditer("\n", text)]
    decode, space = json.JSONDecoder().raw_decode, re.compile(r"[ \t\r\n,:]*")
    lines: dict[str, list[int]] = {}
    at = space.match(text, text.index("{") + 1).end()
    while text[at] != "}":
        key, at = decode(text, at)
        at = space.match(text, at).end()
        if key not in LISTS:
            at = space.match(text, decode(text, at)[1]).end()
            continue
        lines[key] = []
        at = space.match(text, at + 1).end()
        while text[at] != "]":
            lines[key].append(bisect_right(breaks, at) + 1)
            at = space.match(text, decode(text, at)[1]).end()
        at = space.match(text, at + 1).end()
    return lines
