"""Read YOLO folders: a text file an image, a line an object, in parts of the image's size.

`read` explains what becomes of each part.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtl_keras.data import segmentations
from mtl_keras.data.images import exif_orientation, open_image
from mtl_keras.data.records import BadLabels, Object, Problem, Problems, Record, Source
from mtl_keras.data.voc import SPLITS, SUFFIXES, by_stem, folders_in, number, text_lines

# By how much rounding may carry a coordinate out of [0, 1]; Ultralytics allows as much.
TOLERANCE = 0.01
_YAML = frozenset([".yaml", ".yml"])
_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")
_TXT = frozenset([".txt"])


def read(path: str | os.PathLike, on_bad: str = "strict") -> Source:
    """Read a folder in the layout of YOLO, of Ultralytics or of Darknet.

    What may lie in the folder:

    - `data.yaml` (or one other YAML that holds `names`): `names` as a list or a dict, `train`,
      `val` and `test` as a folder, a text file that lists images, or a list of these. They are
      relative to `path`, or to the YAML where that does not exist; a leading `../` that leads
      nowhere is passed over. Of keypoints (`kpt_shape`) only the boxes are read. PyYAML is needed.
    - Without it, the names stand in `classes.txt` or `obj.names`, a name a line, and the splits are
      the folders `train`, `val` (or `valid`) and `test` in `images/` or beside each other, or
      `obj_train_data` and its like; else all is `train`.
    - The labels of `images/train/x.jpg` are `labels/train/x.txt`, or else `x.txt` beside the image.

    What becomes of the labels:

    - `class cx cy w h` is a box, `class x1 y1 x2 y2 x3 y3 ...` a polygon of three points or more,
      both in [0, 1] of the upright image, that is, with its EXIF orientation applied. The box of a
      polygon is that around its points. A turned box (OBB) is written as a polygon of four points,
      and is read as one.
    - Lines of six columns (with a confidence, as predictions are saved) and polygons with half a
      point (keypoints, or a confidence) are refused. Keypoints without visibility can't be told
      from polygons, unless the YAML says `kpt_shape`.
    - An empty label file: the image holds no object. No label file: the image is not labelled
      (`objects=None`). YOLO itself takes such an image for background.
    - `has_masks` if all objects of an image are polygons. An image without objects has it if there
      are polygons anywhere in the set. An image of boxes and polygons has boxes only, as in YOLO.

    An image is left out whole if one of its lines can't be read, since what is lacking would be
    taught as background. A box of no area, or one outside of the image, covers none of it; such an
    object is left out alone.

    Args:
        path: The folder, or its YAML.
        on_bad: `"strict"`: raise the first problem. `"quarantine"`: list problems.

    Returns:
        A `Source`.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it does not have this layout, or nothing names the classes.
        BadLabels: Under `"strict"`, for the first problem; always for names that can't be read.

    Reference:
        https://docs.ultralytics.com/datasets/detect and .../segment, and
        https://github.com/AlexeyAB/darknet.

    Example:
        ```python
        import pathlib, tempfile
        import numpy as np
        from PIL import Image
        from mtl_keras.data import yolo

        folder = pathlib.Path(tempfile.mkdtemp())
        for part in ("images", "labels"):
            (folder / part).mkdir()
        Image.fromarray(np.zeros((40, 60, 3), "uint8")).save(folder / "images/a.png")
        (folder / "labels/a.txt").write_text("0 0.5 0.5 0.5 0.25")
        (folder / "classes.txt").write_text("cell")
        source = yolo.read(folder)
        assert source.splits["train"][0].objects[0].box == (15.0, 15.0, 45.0, 25.0)
        ```
    """
    path = Path(os.path.normpath(Path(path).expanduser()))
    if not path.exists():
        raise FileNotFoundError(f"there is no folder {str(path)!r}")
    problems = Problems(on_bad)
    found = _set(path, problems)
    base = _base(found)
    splits: dict[str, list[Record]] = {}
    owner: dict[Path, str] = {}
    for split, places in found.splits.items():
        splits[split] = []
        images = [image for place in places for image in _images(place, found, base, problems)]
        for image_id, (image, file, line) in enumerate(images, 1):
            name = _relative(image, base)
            if image in owner:
                kind = "image listed twice" if owner[image] == split else "image in two splits"
                message = f"{name!r} stays in split {owner[image]!r}"
                problems.add(file, kind, message, line)
                continue
            owner[image] = split
            if record := _record(image, name, image_id, found, problems):
                splits[split].append(record)
    has_polygons = any(
        o.mask is not None for records in splits.values() for r in records for o in r.objects or ()
    )
    for record in (record for records in splits.values() for record in records):
        if record.objects is not None:
            all_polygons = all(o.mask is not None for o in record.objects)
            record.has_masks = has_polygons and all_polygons
    return Source(
        name=found.root.resolve().name or "yolo",
        layout="yolo",
        names=found.names,
        splits=splits,
        problems=problems.found,
        files=found.files,
    )


def recognise(path: str | os.PathLike) -> str | None:
    """Says what was seen if a folder has the layout of YOLO.

    Args:
        path: The folder.

    Returns:
        One sentence, or `None`.

    Example:
        ```python
        import pathlib, tempfile
        from mtl_keras.data import yolo

        folder = pathlib.Path(tempfile.mkdtemp())
        assert yolo.recognise(folder) is None
        (folder / "data.yaml").write_text("names: [cell]\\ntrain: images")
        assert yolo.recognise(folder) == "YOLO: data.yaml names classes and images"
        ```
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        return None
    if yamls := _yamls(root):
        return f"YOLO: {yamls[0].name} names classes and images"
    for folder in (folder for places in _places(root).values() for folder in places):
        for labels in _label_folders(folder):
            if labels.is_dir() and (labels != folder or _names_files(root, [folder])):
                for text in _some(labels):
                    if _holds_labels(text):
                        shown = Path(os.path.relpath(labels, root)).as_posix()
                        return f"YOLO: a text file an image in {shown}/"
    return None


# === Which images there are ===


@dataclass
class _Set:
    """What images there are, and what their labels mean.

    `splits`: folders of images, and text files that list images. `columns`: of a line with
    keypoints. `is_flat`: images lie in the root itself, whose folders hold other things.
    """

    root: Path
    names: list[str]
    splits: dict[str, list[Path]]
    files: list[Path] = field(default_factory=list)
    columns: int | None = None
    is_flat: bool = False


def _set(path: Path, problems: Problems) -> _Set:
    if path.is_file():
        if path.suffix.lower() not in _YAML:
            raise ValueError(f"{str(path)!r} is a file; give a folder, or its data.yaml")
        return _of_yaml(path, problems)
    yamls = _yamls(path)
    if len(yamls) > 1:
        raise ValueError(f"{str(path)!r} holds {[p.name for p in yamls]}; give the path of one")
    if yamls:
        return _of_yaml(yamls[0], problems)
    splits = _places(path)
    folders = [folder for places in splits.values() for folder in places]
    labels = [labels for folder in folders for labels in _label_folders(folder)]
    labels = [folder for folder in labels if folder.is_dir()]
    if not any(by_stem(folder, _TXT, deep=folder != path) for folder in labels):
        raise ValueError(
            f"{str(path)!r} is no YOLO folder: it should hold images/ and labels/ with a text file "
            "an image, or text files beside the images"
        )
    images = folders_in(path).get("images")
    if images is not None and images not in folders:
        _note_strays(images, folders, problems)
    names, file = _file_names(path, folders)
    return _Set(path, names, splits, [file], is_flat=folders == [path])


def _yamls(root: Path) -> list[Path]:
    """YAML that names classes: the one of the usual name, else all."""
    found = []
    for path in sorted(root.iterdir()):
        if path.suffix.lower() in _YAML and path.is_file() and not path.name.startswith("."):
            text = path.read_text("utf-8-sig", errors="replace")
            if re.search(r"^[\"']?(names|nc)[\"']?\s*:", text, re.MULTILINE):
                found.append(path)
    usual = [p for p in found if p.stem.lower() in ("data", "dataset")]
    return usual[:1] if len(usual) == 1 else found


def _of_yaml(file: Path, problems: Problems) -> _Set:
    try:
        import yaml
    except ImportError as error:
        raise ValueError(
            f"{str(file)!r} can't be read without PyYAML: pip install PyYAML; or remove it and "
            "write the names to classes.txt, one a line"
        ) from error

    def fail(kind: str, message: str, line: int | None = None) -> None:
        raise BadLabels(Problem(str(file), line, kind, message))

    def line_of(key: str) -> int | None:
        found = (i for i, t in enumerate(lines, 1) if re.match(rf"[\"']?{key}[\"']?\s*:", t))
        return next(found, None)

    lines: list[str] = []
    try:
        lines += text_lines(file)
        content = yaml.safe_load("\n".join(lines))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        fail("damaged YAML", f"{error.problem or error.context}", mark and mark.line + 1)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        fail("damaged YAML", " ".join(str(error).split())[:200])
    if not isinstance(content, dict):
        fail("damaged YAML", "it should hold keys: names, train, val")
    root = file.parent
    files = [file]
    count = content.get("nc")
    if content.get("names") is not None:
        names = _yaml_names(content["names"], lambda text: fail("names", text, line_of("names")))
    elif isinstance(count, int) and not isinstance(count, bool) and count > 0:
        names = [f"class_{i}" for i in range(count)]
    else:
        fail("names", "it should hold `names`, a list of the classes", line_of("names"))
    if count is not None and count != len(names):
        fail("names", f"nc is {count!s:.20}, but there are {len(names)} names", line_of("nc"))
    columns = None
    if (shape := content.get("kpt_shape")) is not None:
        if not isinstance(shape, list) or len(shape) != 2 or not all(type(v) is int for v in shape):
            fail("kpt_shape", "it should be [number of keypoints, 2 or 3]", line_of("kpt_shape"))
        columns = 5 + shape[0] * shape[1]
    bases = [root]
    if isinstance(content.get("path"), str) and (root / content["path"]).is_dir():
        bases.insert(0, Path(os.path.normpath(root / content["path"])))
    splits: dict[str, list[Path]] = {}
    for key, value in content.items():
        if not isinstance(key, str) or key not in SPLITS or not value:
            continue
        for place in value if isinstance(value, list) else [value]:
            if not isinstance(place, str):
                fail("path", f"{key} should be a path or a list of paths", line_of(key))
            candidates = [base / place for base in bases]
            if place.startswith("../"):
                candidates += [base / place[3:] for base in bases]
            found = next((c for c in candidates if c.exists()), None)
            if found is None:
                message = f"{key} is {place!r}, which is neither a folder nor a list of images"
                problems.add(file, "missing folder", message, line_of(key))
                continue
            splits.setdefault(SPLITS[key], []).append(Path(os.path.normpath(found)))
    if not splits:
        raise ValueError(f"{str(file)!r} names no images; it should hold `train`, a folder of them")
    order = [split for split in ("train", "val", "trainval", "test") if split in splits]
    splits = {split: splits[split] for split in order}
    files += [place for places in splits.values() for place in places if place.is_file()]
    return _Set(bases[0], names, splits, files, columns)


def _yaml_names(names: Any, fail: Any) -> list[str]:
    if isinstance(names, dict):
        by_id = {str(key): name for key, name in names.items()}
        if len(by_id) < len(names) or by_id.keys() != {str(i) for i in range(len(names))}:
            fail(f"a dict of names should have the keys 0 to {len(names) - 1}, each once")
        names = [by_id[str(i)] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        fail("names should be a list of the classes, or a dict from 0 on")
    for i, name in enumerate(names):
        if (
            isinstance(name, bool)
            or not isinstance(name, (str, int, float))
            or not str(name).strip()
        ):
            fail(f"the name of class {i} is {name!r:.50}; write it in quotes")
    return _unique([str(name) for name in names])


def _unique(names: list[str]) -> list[str]:
    """Names without repeats: the second "gap" is "gap_2"."""
    found: list[str] = []
    taken = {" ".join(name.split()) for name in names}
    for name in (" ".join(name.split()) for name in names):
        unique, count = name, 2
        while unique in found or (unique != name and unique in taken):
            unique, count = f"{name}_{count}", count + 1
        found.append(unique)
    return found


def _places(root: Path) -> dict[str, list[Path]]:
    """Folders of images of each split, where no YAML names them."""
    inside = folders_in(root)
    images = inside.get("images")
    if images is not None:
        parts = _parts(folders_in(images))
        return parts or {"train": [images]}
    parts = {
        split: [folders_in(folder).get("images", folder) for folder in folders]
        for split, folders in _parts(inside).items()
    }
    if not parts:
        darknet = {re.sub(r"^obj_(\w+)_data$", r"\1", name): p for name, p in inside.items()}
        parts = _parts({n: p for n, p in darknet.items() if p.name.lower() != n})
    return parts or {"train": [root]}


def _parts(folders: dict[str, Path]) -> dict[str, list[Path]]:
    parts: dict[str, list[Path]] = {}
    for split in ("train", "val", "trainval", "test"):
        found = [p for name, p in folders.items() if SPLITS.get(name) == split]
        if found:
            parts[split] = found
    return parts


def _note_strays(images: Path, folders: list[Path], problems: Problems) -> None:
    for paths in by_stem(images, SUFFIXES).values():
        for path in paths:
            if not any(path.is_relative_to(folder) for folder in folders):
                message = f"it lies outside of the folders of splits in {str(images)!r}; move it"
                name = path.relative_to(images).as_posix()
                problems.add(path, "image in no split", message, image=name)


def _names_files(root: Path, folders: list[Path]) -> list[Path]:
    labels = [labels for folder in folders for labels in _label_folders(folder)]
    places = dict.fromkeys([root, root / "data", root / "labels", *folders, *labels])
    return [place / name for place in places for name in _NAME_FILES if (place / name).is_file()]


def _file_names(root: Path, folders: list[Path]) -> tuple[list[str], Path]:
    found: list[tuple[list[str], Path]] = []
    for file in _names_files(root, folders):
        try:
            names = [" ".join(line.split()) for line in text_lines(file)]
        except ValueError as error:
            raise BadLabels(Problem(str(file), None, "names", str(error))) from error
        while names and not names[-1]:
            names.pop()
        if not all(names):
            message = "an empty line among the names; each line is a class"
            raise BadLabels(Problem(str(file), names.index("") + 1, "names", message))
        found.append((_unique(names), file))
        if found[0][0] != found[-1][0]:
            message = f"it names other classes than {str(found[0][1])!r}, so class ids are unsure"
            raise BadLabels(Problem(str(file), None, "names", message))
    if not found or not found[0][0]:
        raise ValueError(
            f"nothing names the classes in {str(root)!r}; add classes.txt, a name a line, in order "
            "of the class ids"
        )
    return found[0]


def _base(found: _Set) -> Path:
    """The folder that names of images are relative to: that of all images, if it is one."""
    places = [place for places in found.splits.values() for place in places]
    images = folders_in(found.root).get("images")
    if images is not None and all(place.is_relative_to(images) for place in places):
        return images
    return found.root


def _relative(path: Path, base: Path) -> str:
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.as_posix()


def _images(
    place: Path, found: _Set, base: Path, problems: Problems
) -> list[tuple[Path, Path, int | None]]:
    """Images of a folder or of a list, and where each one is named: file and line."""
    if place.is_file():
        return _listed(place, found, base, problems)
    images = []
    stems = by_stem(place, SUFFIXES, deep=not found.is_flat)
    for paths in stems.values():
        if len(paths) > 1:
            shown = ", ".join(p.name for p in paths)
            message = f"{shown} share one name, and so one label file; give them names of their own"
            problems.add(paths[0], "images of one name", message, image=_relative(paths[0], base))
        else:
            images.append((paths[0], paths[0], None))
    for labels in _label_folders(place):
        if labels.is_dir():
            for stem, texts in by_stem(labels, _TXT, deep=not found.is_flat).items():
                if (
                    stem not in stems
                    and texts[0].name not in _NAME_FILES
                    and _holds_labels(texts[0])
                ):
                    name = _relative(place / stem, base)
                    message = f"there is no image {name!r} for these labels"
                    problems.add(texts[0], "missing image", message, image=name)
    return images


def _listed(
    file: Path, found: _Set, base: Path, problems: Problems
) -> list[tuple[Path, Path, int | None]]:
    try:
        lines = text_lines(file)
    except ValueError as error:
        raise BadLabels(Problem(str(file), None, "unreadable list", str(error))) from error
    images = []
    for i, line in enumerate(lines, 1):
        if not (name := line.strip().replace("\\", "/")):
            continue
        candidates = [Path(os.path.normpath(folder / name)) for folder in (file.parent, found.root)]
        path = next((c for c in candidates if c.is_file()), None)
        if path is None:
            message = f"there is no image {name!r}"
            problems.add(file, "missing image", message, i, _relative(candidates[0], base))
        else:
            images.append((path, file, i))
    return images


# === Labels ===


def _label_folders(images: Path) -> list[Path]:
    """Where the labels of images in a folder may lie: in labels/ for images/, or beside them."""
    parts = list(images.parts)
    for i in reversed(range(len(parts))):
        if parts[i] == "images":
            return [Path(*parts[:i], "labels", *parts[i + 1 :]), images]
    return [images]


def _label_file(image: Path) -> Path | None:
    for folder in _label_folders(image.parent):
        file = folder / f"{image.stem}.txt"
        if file.is_file() and file.name not in _NAME_FILES:
            return file
    return None


def _some(folder: Path, most: int = 20) -> list[Path]:
    """Some text files in a folder or in the folders in it, names of classes excepted."""
    found: list[Path] = []
    for place in (folder, *folders_in(folder).values()):
        with os.scandir(place) as entries:
            for entry in entries:
                if len(found) == most:
                    return found
                name = entry.name
                if Path(name).suffix.lower() == ".txt" and name not in _NAME_FILES:
                    found.append(Path(entry.path))
    return found


def _holds_labels(file: Path) -> bool:
    """Whether the first line is one of numbers."""
    with file.open("rb") as opened:
        head = opened.read(400).decode("utf-8-sig", errors="replace").split("\n")
    first = next((line.split() for line in head if line.strip()), [])
    # The last of the columns may be cut in two.
    return len(first) >= 5 and all(number(column) is not None for column in first[:5])


class _Bad(Exception):
    """Why a line can't be used."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


def _record(
    image: Path, name: str, image_id: int, found: _Set, problems: Problems
) -> Record | None:
    """An image with its labels; `None` if they, or the image, can't be read."""
    record = Record(image, name, image_id)
    file = _label_file(image)
    if file is None:
        return record
    found.files.append(file)
    record.where = str(file)
    record.objects = []
    try:
        lines = text_lines(file)
    except ValueError as error:
        problems.add(file, "unreadable labels", str(error), image=name)
        return None
    parsed, is_whole = [], True
    for i, line in enumerate(lines, 1):
        if columns := line.split():
            try:
                parsed.append((i, *_parsed(columns, found)))
            except _Bad as bad:
                problems.add(file, bad.kind, str(bad), i, name)
                is_whole = False
    if not is_whole:
        return None
    if not parsed:
        return record
    try:
        height, width = record.size = _upright_size(image)
    except (OSError, ValueError) as error:
        problems.add(image, "unreadable image", str(error), image=name)
        return None
    where = _relative(file, found.root)
    for i, label, box, polygon in parsed:
        x0, y0, x1, y1 = box
        if min(x1, 1.0) <= max(x0, 0.0) or min(y1, 1.0) <= max(y0, 0.0) or _is_flat(polygon):
            message = f"the object covers nothing of the image {name!r}; its box is {box}"
            problems.add(file, "box without area", message, i)
            continue
        mask = None
        if polygon is not None:
            sizes = (width, height) * (len(polygon) // 2)
            pixels = [v * size for v, size in zip(polygon, sizes, strict=True)]
            mask = segmentations.of_polygons([pixels])
        pixel_box = (x0 * width, y0 * height, x1 * width, y1 * height)
        record.objects.append(Object(label, pixel_box, mask, where=f"{where}, line {i}"))
    return record


def _parsed(
    columns: list[str], found: _Set
) -> tuple[int, tuple[float, float, float, float], list[float] | None]:
    """Class id, box `(x0, y0, x1, y1)` and polygon of a line, in parts of the image's size."""
    values = [number(column) for column in columns]
    if None in values:
        i = values.index(None)
        message = f"column {i + 1} is {columns[i]!r:.50}; it should be a finite number"
        raise _Bad("no number", message)
    if values[0] % 1 or not 0 <= values[0] < len(found.names):
        message = f"class id {columns[0]:.50} is not of 0 to {len(found.names) - 1}"
        raise _Bad("unknown class", message)
    label, rest = int(values[0]), values[1:]
    if found.columns is not None:
        if len(values) != found.columns:
            message = f"{len(values)} columns; by kpt_shape there should be {found.columns}"
            raise _Bad("number of columns", message)
        rest = rest[:4]
    if len(rest) == 5:
        raise _Bad(
            "confidence in labels",
            "six columns: the last looks like the confidence of a prediction; labels hold five: "
            "class, cx, cy, w, h",
        )
    if len(rest) != 4 and (len(rest) < 6 or len(rest) % 2):
        raise _Bad(
            "number of columns",
            f"{len(values)} columns; a box has 5, a polygon a class and x, y of three points or "
            "more. Keypoints need kpt_shape in data.yaml, a confidence does not belong here",
        )
    if len(rest) == 4 and min(rest[2:]) < 0:
        message = f"a box of width {rest[2]} and height {rest[3]}; neither may be below 0"
        raise _Bad("reversed box", message)
    worst = max(rest, key=lambda value: abs(value - 0.5))
    if not -TOLERANCE <= worst <= 1 + TOLERANCE:
        message = f"{worst} is out of [0, 1]; coordinates are parts of the image's width and height"
        raise _Bad("not normalised", message)
    if len(rest) == 4:
        x, y, w, h = rest
        return label, (x - w / 2, y - h / 2, x + w / 2, y + h / 2), None
    return label, (min(rest[::2]), min(rest[1::2]), max(rest[::2]), max(rest[1::2])), rest


def _is_flat(polygon: list[float] | None) -> bool:
    """Whether all points of a polygon lie on one line."""
    if polygon is None:
        return False
    points = [
        (x - polygon[0], y - polygon[1]) for x, y in zip(polygon[::2], polygon[1::2], strict=True)
    ]
    far = max(points, key=lambda p: p[0] ** 2 + p[1] ** 2)
    return all(abs(far[0] * y - far[1] * x) <= 1e-12 for x, y in points)


def _upright_size(path: Path) -> tuple[int, int]:
    """Height and width of an image as a viewer shows it, from its header."""
    with open_image(path) as image:
        width, height = image.size
        if image.format == "PNG" and "exif" not in image.info:
            # Pillow would decode all pixels to find the rare EXIF block behind them.
            content = path.read_bytes()
            words = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
            if not any(word in content for word in words):
                return height, width
        return (width, height) if exif_orientation(image) >= 5 else (height, width)
