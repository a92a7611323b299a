"""Import images that lie beside masks: of classes, of instances, or a mask an instance."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np

from mtl_keras.data.images import exif_orientation, open_image
from mtl_keras.data.records import BadLabels, Cut, Object, Problem, Problems, Record, Source
from mtl_keras.data.segmentations import cut

LAYOUT = "mask_folders"
MASKS = ("auto", "classes", "instances", "binary")
IMAGE_SUFFIX = re.compile(r"\.(bmp|gif|jp2|jpe?g|p[bgp]m|png|tiff?|webp)", re.IGNORECASE)
IMAGE_FOLDER = re.compile(r"images?|imgs?|jpegimages|photos|pictures", re.IGNORECASE)
# Without a list of names, more classes than these are rather smoothed edges.
MAX_UNNAMED = 64

_MASK_FOLDER = re.compile(
    r"annot(ations?)?|ground_?truth|gt|labels?|masks?|seg(mentations?)?|segmentationclass",
    re.IGNORECASE,
)
_MASK_SUFFIX = re.compile(
    r"[ _-]((?i:annotations?|ground_?truth|gt|labels?|masks?|seg(mentation)?)|L)$"
)
_SPLIT = re.compile(r"(stage\d+[ _-])?(train(ing)?|val(id(ation)?)?|test(ing)?)", re.IGNORECASE)
_TABLE = re.compile(
    r"class_dict\.csv|classes\.(csv|txt)|class_names\.txt|label_colors\.txt|label_?map\.txt|"
    r"labels\.txt",
    re.IGNORECASE,
)
_BACKGROUND = frozenset(("background", "_background_", "__background__", "bg"))
_IGNORED = frozenset(
    ("__ignore__", "_ignore_", "ignore", "ignored", "unlabeled", "unlabelled", "void")
)
_IGNORE = 255
_GREYS = frozenset(("rgb", "grey"))
_MAX_CLASSES = 254
_MOST_CODES = 4096  # of which a file's are kept; a colour mask with more of them is refused anyway


@dataclass
class MaskSource(Source):
    """A `Source` that says what the masks were taken for.

    Attributes:
        kind: `"binary"`, `"classes"`, `"colours"`, `"instances"` or `"instance files"`.
        notes: Sentences on how the masks were read, and on what was assumed.
    """

    kind: str = ""
    notes: list[str] = field(default_factory=list)


def read(path: str | os.PathLike, on_bad: str = "strict", masks: str = "auto") -> MaskSource:
    """Reads a folder of images beside masks. Every mask is opened, of images only the size.

    Where the files lie:

    - `images/` beside `masks/` (or `labels`, `annotations`, `gt`, `SegmentationClass`, ...), with
      folders `train`, `val`, `test` above or below; or `train/` beside `train_masks/`. Without such
      folders all is split `"train"`; but where `ImageSets/Segmentation/` lists train, val or test,
      its lists are the splits.
    - A mask has the name of its image, perhaps with `_mask`, `_label`, `_gt` or `_seg` after it.
    - An instance a file: `masks/<image>/*.png`, or `<id>/images/<id>.png` and `<id>/masks/*.png`,
      as in the Data Science Bowl of 2018.

    What the masks are is found out from all files together, and said in `notes`:

    - Binary: values 0 and 255, or 0 and 1. The class is `"foreground"`.
    - Classes: grey masks of 8 bits and palette masks hold indices; colours of a palette are never
      looked at. 0 is background, 255 is ignored. Names are in `classes.txt` (or `labels.txt`, ...):
      if one of them is `background`, or `void` (ignored), the first line is the name of value 0;
      else it is that of value 1. Lines such as `0 road` say it themselves. Without names, they are
      `"class_1"`, `"class_2"`, ..., for values of 64 at most.
    - Colours: RGB masks, with a table of names and colours (`class_dict.csv`, `labelmap.txt`,
      `classes.txt` with `name r g b`). Black is background if the table does not list it. Without a
      table, the distinct colours in sorted order are classes such as `"rgb_128_0_0"`, 64 at most.
      Transparent pixels are black.
    - Instances: masks of 16 bits, and an instance a file. 0 is background, every other value an
      object. The class is `"object"`, or the one in `classes.txt`.

    Binary masks and masks of classes give `Record.mask` and no objects. An image without a mask, or
    with an empty folder of instances, is not labelled. A mask of instances that is 0 everywhere
    says that there are none.

    Args:
        path: The folder.
        on_bad: `"strict"` or `"quarantine"`; see `records.py`.
        masks: `"auto"`; or what they are: `"classes"`, `"instances"` (ids of 8 bits look like
            classes), or `"binary"` (one value other than 0 a file, whichever it is).

    Returns:
        A `MaskSource`.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it has another layout, if what the masks mean can't be told, or if `masks` is
            something else.
        BadLabels: For a list of names that can't be read; under `"strict"`, for the first mask that
            can't be used.

    Example:
        ```python
        import pathlib, tempfile
        import numpy as np
        from PIL import Image
        from mtl_keras.data import mask_folders

        folder = pathlib.Path(tempfile.mkdtemp())
        for part in ("images", "masks"):
            (folder / part).mkdir()
        Image.fromarray(np.zeros((4, 6, 3), "uint8")).save(folder / "images/a.jpg")
        Image.fromarray(np.eye(4, 6, dtype="uint8") * 255).save(folder / "masks/a_mask.png")
        source = mask_folders.read(folder)
        assert source.kind == "binary" and source.mask_names == ["foreground"]
        (record,) = source.splits["train"]
        assert record.mask(4, 6).sum() == 4
        ```
    """
    if masks not in MASKS:
        raise ValueError(f"`masks` must be one of {MASKS}. Received: masks={masks!r}")
    problems = Problems(on_bad)
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {str(root)!r}")
    places, notes = _places(root)
    if not places:
        raise ValueError(
            f"{str(root)!r} has no folder of images (such as 'images') beside one of masks (such "
            "as 'masks'), nor folders <id>/images beside <id>/masks"
        )
    items = _items(root, places, problems, notes)
    parts = {item.parts for item in items if item.masks}
    if not parts:
        raise ValueError(
            f"no mask below {str(root)!r} has the name of an image, as in 'images/a.jpg' and "
            "'masks/a.png' or 'masks/a_mask.png'"
        )
    if len(parts) > 1:
        raise ValueError(
            f"{str(root)!r} holds folders of masks, an instance a file, beside masks of whole "
            "images; keep the one or the other"
        )
    tables = _read_tables(root, places)
    if parts == {True}:
        reading = _Reading("instance files", "codes", _object_names(tables))
        if masks not in ("auto", "instances"):
            raise ValueError(
                f"`masks` must be 'auto' or 'instances' where each instance is a file. Received: "
                f"masks={masks!r}"
            )
        notes.insert(0, "Each file in an image's folder is the mask of one instance.")
        seen = {}
    else:
        seen = _look(items, problems)
        reading = _decide(list(seen.values()), tables, masks)
        notes[:0] = reading.notes
    splits: dict[str, list[Record]] = {place.split: [] for place in places}
    counts: Counter = Counter()
    for item in items:
        image_id = counts[item.split]
        counts[item.split] += 1
        record = Record(item.path, item.filename, image_id)
        if item.bad or any(mask in seen and seen[mask] is None for mask in item.masks):
            continue
        if item.masks:
            if reading.kind == "instance files":
                usable = _add_files(record, item, problems)
            else:
                usable = _add_mask(record, item, seen[item.masks[0]], reading, problems)
            if not usable:
                continue
        splits[item.split].append(record)
    objects = reading.kind in ("instances", "instance files")
    return MaskSource(
        name=root.resolve().name,
        layout=LAYOUT,
        names=reading.names if objects else [],
        splits=splits,
        mask_names=None if objects else reading.names,
        problems=problems.found,
        files=[table.path for table in tables] + [m for item in items for m in item.masks],
        kind=reading.kind,
        notes=notes,
    )


def recognise(path: str | os.PathLike) -> str | None:
    """Says in a sentence that a folder holds images beside masks. Lists names, opens no file.

    Args:
        path: The folder.

    Returns:
        The sentence, or `None` if the folder has another layout.

    Example:
        ```python
        import tempfile
        from mtl_keras.data import mask_folders

        assert mask_folders.recognise(tempfile.mkdtemp()) is None
        ```
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        return None
    if any(child.suffix.lower() == ".xml" for child in _xml_of_voc(root)):
        return None
    problems = Problems("quarantine")
    try:
        places, _ = _places(root)
        items = _items(root, places, problems, [])
    except ValueError:
        return None
    labelled = [item for item in items if item.masks]
    if not labelled:
        return None
    first = labelled[0]
    what = "a file of masks an instance" if first.parts else "a mask"
    return (
        f"{len(labelled)} of {len(items)} images have {what}, as "
        f"{first.path.relative_to(root).as_posix()!r} has "
        f"{first.masks[0].relative_to(root).as_posix()!r}"
    )


def split_name(name: str) -> str | None:
    """The split that a folder's or file's name stands for: "valid" is `"val"`.

    Args:
        name: A name such as `"Train"`, `"validation"` or `"stage1_test"`.

    Returns:
        `"train"`, `"val"`, `"test"`, or `None` if it is no name of a split.

    Example:
        ```python
        from mtl_keras.data.mask_folders import split_name

        assert split_name("Validation") == "val" and split_name("cat") is None
        ```
    """
    found = _SPLIT.fullmatch(name.strip())
    if found is None:
        return None
    word = found.group(2).lower()
    return "train" if word.startswith("train") else "val" if word.startswith("val") else "test"


def image_files(folder: Path) -> tuple[list[str], list[str]]:
    """Files below a folder, those of images apart from others; what is hidden is left out.

    Args:
        folder: The folder. Links to folders are followed.

    Returns:
        Two sorted lists of paths relative to the folder, with `/`: of files whose names end as
        images' do (`IMAGE_SUFFIX`), and of others.

    Example:
        ```python
        import pathlib, tempfile
        from mtl_keras.data.mask_folders import image_files

        folder = pathlib.Path(tempfile.mkdtemp())
        for name in ("b.PNG", "a.jpg", "notes.md", ".hidden.png"):
            (folder / name).touch()
        assert image_files(folder) == (["a.jpg", "b.PNG"], ["notes.md"])
        ```
    """
    images, others = [], []
    for name in _walk(folder):
        (images if IMAGE_SUFFIX.fullmatch(PurePosixPath(name).suffix) else others).append(name)
    return sorted(images), sorted(others)


def _walk(folder: Path) -> Iterator[str]:
    visited = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in visited:  # a link that leads back
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__MACOSX")))
        below = Path(here).relative_to(folder)
        yield from ((below / f).as_posix() for f in sorted(files) if not f.startswith("."))


def _xml_of_voc(root: Path) -> Iterator[Path]:
    for child in _folders(root):
        if child.name.lower() == "annotations":
            yield from child.iterdir()


# === Where images and masks lie ===


@dataclass
class _Place:
    """Images and masks of a split. `bundles`: `images` holds folders <id>/images and <id>/masks."""

    split: str
    images: Path
    masks: Path | None
    bundles: bool = False
    loose: list[Path] = field(default_factory=list)


@dataclass
class _Item:
    split: str
    path: Path
    filename: str
    masks: list[Path]
    parts: bool = False
    bad: bool = False


def _folders(folder: Path) -> list[Path]:
    return sorted(c for c in folder.iterdir() if c.is_dir() and not c.name.startswith("."))


def _holds_image(folder: Path) -> bool:
    return any(IMAGE_SUFFIX.fullmatch(PurePosixPath(n).suffix) for n in _walk(folder))


def _splits_in(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for child in _folders(folder):
        split = split_name(child.name)
        if split is None:
            continue
        if split in found:
            raise ValueError(
                f"{str(found[split])!r} and {str(child)!r} are both split {split!r}; keep one"
            )
        found[split] = child
    return found


def _images_in(folder: Path) -> Path | None:
    return _only([c for c in _folders(folder) if IMAGE_FOLDER.fullmatch(c.name)], "images")


def _masks_in(folder: Path) -> Path | None:
    found = [c for c in _folders(folder) if _MASK_FOLDER.fullmatch(c.name)]
    return _only([c for c in found if _holds_image(c)], "masks")


def _only(found: list[Path], what: str) -> Path | None:
    if len(found) > 1:
        names = ", ".join(repr(str(f)) for f in found)
        raise ValueError(f"there are several folders of {what}: {names}; keep one")
    return found[0] if found else None


def _places(root: Path) -> tuple[list[_Place], list[str]]:
    """All splits of a folder, and notes on what is not read."""
    notes = []
    if any(c.name.lower() == "segmentationobject" for c in _folders(root)):
        notes.append("SegmentationObject is not read, since no file says the class of an instance.")
    images, masks = _images_in(root), _masks_in(root)
    if images is not None and masks is not None:
        below, masks_below = _splits_in(images), _splits_in(masks)
        if below and masks_below:
            places = [_Place(s, f, masks_below.get(s)) for s, f in below.items()]
            places[0].loose = [
                c
                for folder in (images, masks)
                for c in sorted(folder.iterdir())
                if IMAGE_SUFFIX.fullmatch(c.suffix) or split_name(c.name) not in (None, *below)
            ]
            return places, notes
        return [_Place("train", images, masks)], notes
    if _is_bundles(root, masks_too=True):
        return [_Place("train", root, None, bundles=True)], notes
    places = []
    for split, folder in _splits_in(root).items():
        images, masks = _images_in(folder), _masks_in(folder)
        beside = [c for c in _folders(root) if _is_beside(folder.name, c.name) and _holds_image(c)]
        if images is not None:
            places.append(_Place(split, images, masks))
        elif _is_bundles(folder, masks_too=False):
            places.append(_Place(split, folder, None, bundles=True))
        elif _holds_image(folder):
            places.append(_Place(split, folder, _only(beside, f"masks of {folder.name!r}")))
    if all(place.masks is None and not place.bundles for place in places):
        return [], notes
    return places, notes


def _is_beside(split: str, name: str) -> bool:
    rest = name.lower().removeprefix(split.lower())
    return rest != name.lower() and _MASK_FOLDER.fullmatch(rest.lstrip("_- ")) is not None


def _is_bundles(folder: Path, masks_too: bool) -> bool:
    """Whether folders in it hold an image each: `<id>/images/`, and perhaps `<id>/masks/`."""
    for child in _folders(folder):
        if split_name(child.name) is None:
            images = _images_in(child)
            if images is None or len(image_files(images)[0]) != 1:
                continue
            if not masks_too or _masks_in(child) is not None:
                return True
    return False


def _items(root: Path, places: list[_Place], problems: Problems, notes: list[str]) -> list[_Item]:
    """All images in order, each with its masks; what does not fit together is a problem."""
    items, others = [], []
    for place in places:
        for path in place.loose:
            problems.add(
                path,
                "outside of the splits",
                f"the splits are those folders that images and masks have: "
                f"{', '.join(repr(p.split) for p in places)}; move it into one of them",
            )
        if place.bundles:
            found, left = _bundled(place, problems)
        else:
            found, left = _paired(place, problems)
        items += found
        others += left
    if others:
        shown = ", ".join(p.relative_to(root).as_posix() for p in others[:5])
        notes.append(
            f"{len(others)} files are no images by their names, and are not read: {shown}"
            f"{', …' if len(others) > 5 else ''}."
        )
    if len(places) == 1 and places[0].split == "train" and not places[0].bundles:
        items = _by_lists(root, places, items, problems, notes)
    return items


def _bundled(place: _Place, problems: Problems) -> tuple[list[_Item], list[Path]]:
    items, others = [], []
    for child in _folders(place.images):
        images, masks = _images_in(child), _masks_in(child)
        names, left = image_files(images) if images is not None else ([], [])
        others += [images / n for n in left] if images is not None else []
        if len(names) != 1:
            problems.add(
                child,
                "not one image",
                f"a folder of an image and its masks should hold one image, in 'images'. Found: "
                f"{names[:5]}",
                image=child.name,
            )
            continue
        path = images / names[0]
        files = []
        if masks is not None:
            found, left = image_files(masks)
            files = [masks / n for n in found]
            others += [masks / n for n in left]
        filename = path.relative_to(place.images).as_posix()
        items.append(_Item(place.split, path, filename, files, parts=True))
    return items, others


def _paired(place: _Place, problems: Problems) -> tuple[list[_Item], list[Path]]:
    names, left = image_files(place.images)
    others = [place.images / n for n in left]
    masks: list[str] = []
    if place.masks is not None:
        masks, left = image_files(place.masks)
        others += [place.masks / n for n in left if not _TABLE.fullmatch(Path(n).name)]
    keys = Counter(_key(name) for name in names)
    whole: dict[str, list[str]] = {}
    parts: dict[str, list[str]] = {}
    unused: list[str] = []
    for mask in masks:
        key, above = _key(mask), PurePosixPath(mask).parent.as_posix()
        candidates = (
            (whole, key),
            (parts, above),
            (whole, _MASK_SUFFIX.sub("", key)),
            (parts, _MASK_SUFFIX.sub("", above)),
        )
        for where, name in candidates:
            if name in keys:
                where.setdefault(name, []).append(mask)
                break
        else:
            unused.append(mask)
    items = []
    for name in names:
        key = _key(name)
        mine = [*whole.get(key, []), *parts.get(key, [])]
        item = _Item(place.split, place.images / name, name, [], parts=key in parts)
        if mine and keys[key] > 1:
            problems.add(
                item.path,
                "images of one name",
                f"{keys[key]} images share the mask {mine[0]!r}; give them names of their own",
                image=name,
            )
            item.bad = True
        elif len(whole.get(key, [])) > 1 or (key in whole and key in parts):
            problems.add(
                place.masks / mine[1],
                "several masks",
                f"the image {name!r} has the mask {mine[0]!r} too; keep one",
                image=name,
            )
            item.bad = True
        else:
            item.masks = [place.masks / m for m in mine]
        items.append(item)
    if any(whole.values()) or any(parts.values()):
        for mask in unused:
            problems.add(
                place.masks / mask,
                "mask without image",
                f"no image in {str(place.images)!r} has the name {_key(mask)!r}",
            )
    return items, others


def _key(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def _by_lists(
    root: Path, places: list[_Place], items: list[_Item], problems: Problems, notes: list[str]
) -> list[_Item]:
    """Splits by `ImageSets/Segmentation/<split>.txt`, where there are such lists."""
    lists = {}
    for file in sorted(root.glob("ImageSets/Segmentation/*.txt")):
        if (split := split_name(file.stem)) is not None:
            lists[split] = file
    if not lists:
        return items
    by_key = {_key(item.filename): item for item in items}
    found: dict[str, str] = {}
    for split, file in lists.items():
        for number, line in enumerate(_text(file).splitlines(), 1):
            name = line.strip()
            if not name:
                continue
            if name not in by_key:
                problems.add(
                    file,
                    "missing image",
                    f"there is no image of the name {name!r} in {str(places[0].images)!r}",
                    line=number,
                )
            elif name in found:
                problems.add(
                    file,
                    "image in two splits",
                    f"{name!r} is listed before, in {lists[found[name]].name!r}",
                    line=number,
                )
            else:
                found[name] = split
    kept = []
    for key, item in by_key.items():
        if key in found:
            item.split = found[key]
            kept.append(item)
    if len(kept) < len(items):
        notes.append(
            f"{len(items) - len(kept)} of {len(items)} images are in no list of "
            "ImageSets/Segmentation, and are not read."
        )
    places[:] = [
        _Place(s, places[0].images, places[0].masks) for s in dict.fromkeys(found.values())
    ]
    return kept


# === Names of classes ===


@dataclass
class _Entry:
    name: str
    colour: tuple[int, int, int] | None = None
    value: int | None = None

    @property
    def is_background(self) -> bool:
        return self.name.lower() in _BACKGROUND

    @property
    def is_ignored(self) -> bool:
        return self.name.lower() in _IGNORED


@dataclass
class _Table:
    path: Path
    entries: list[_Entry]

    @property
    def has_colours(self) -> bool:
        return self.entries[0].colour is not None

    def classes(self) -> list[str]:
        return [e.name for e in self.entries if not (e.is_background or e.is_ignored)]


def _read_tables(root: Path, places: list[_Place]) -> list[_Table]:
    folders = [root]
    for place in places:
        folders += [place.images.parent, *([place.masks] if place.masks is not None else [])]
        if place.bundles:
            folders.append(place.images)
    found: dict[bytes, Path] = {}
    for folder in dict.fromkeys(folders):
        for file in sorted(folder.iterdir()):
            if _TABLE.fullmatch(file.name) and file.is_file():
                found.setdefault(file.read_bytes(), file)
    return [_Table(file, _entries(file)) for file in found.values()]


def _text(file: Path) -> str:
    content = file.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadLabels(
            Problem(str(file), line, "not UTF-8", "save the file as UTF-8 text")
        ) from error


_RGB = r"(?P<r>\d+)[\s,;]+(?P<g>\d+)[\s,;]+(?P<b>\d+)"
_NAME_COLOUR = re.compile(rf"(?P<name>.*?\S)[\s,;:]+{_RGB}(?::[^:]*)*")
_COLOUR_NAME = re.compile(rf"{_RGB}[\s,;:]+(?P<name>\S.*)")
_VALUE_NAME = re.compile(r"(?P<value>\d+)\s*[\s,;:=]\s*(?P<name>\S.*)")


def _entries(file: Path) -> list[_Entry]:
    """Names in the order of the file, with the colours or values that it states.

    A file that can't be read is raised in any case: it concerns every image.
    """
    text = _text(file)

    def bad(line: int | None, kind: str, message: str) -> BadLabels:
        return BadLabels(Problem(str(file), line, kind, message))

    rows: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line and not (line.startswith("#") and not rows):
            rows.append((number, line))
    entries: list[tuple[int, _Entry]] = []
    if file.suffix.lower() == ".csv":
        entries = _csv_entries(rows, bad)
    else:
        numbered = [_VALUE_NAME.fullmatch(line) for _, line in rows]
        matches = [_NAME_COLOUR.fullmatch(r) or _COLOUR_NAME.fullmatch(r) for _, r in rows]
        if any(matches):
            for (number, line), match in zip(rows, matches, strict=True):
                if match is None:
                    message = f"should be a name and its r, g, b. Received: {line!r:.80}"
                    raise bad(number, "no colour", message)
                colour = tuple(int(match[c]) for c in "rgb")
                entries.append((number, _Entry(match["name"], colour)))
        elif rows and all(numbered):
            for (number, _), match in zip(rows, numbered, strict=True):
                entries.append((number, _Entry(match["name"], value=int(match["value"]))))
        else:
            entries = [(number, _Entry(line)) for number, line in rows]
    if not entries:
        raise bad(None, "empty list of names", "should hold the name of a class a line")
    taken: dict = {}
    for number, entry in entries:
        if entry.colour is not None and max(entry.colour) > 255:
            message = f"r, g, b should be from 0 to 255. Received: {entry.colour}"
            raise bad(number, "no colour", message)
        if entry.value is not None and entry.value > 255:
            raise bad(number, "no value", f"should be from 0 to 255. Received: {entry.value}")
        for what in (entry.name, entry.colour, entry.value):
            if what is not None and what in taken:
                message = f"{what!r} stands in line {taken[what]} too"
                raise bad(number, "repeated class", message)
            taken[what] = number
    return [entry for _, entry in entries]


def _csv_entries(rows: list[tuple[int, str]], bad) -> list[tuple[int, _Entry]]:
    if not rows:
        return []
    delimiter = max(",;\t", key=rows[0][1].count)
    fields = [[f.strip() for f in next(csv.reader([r], delimiter=delimiter))] for _, r in rows]
    header = [f.lower() for f in fields[0]]
    places = {
        part: next((header.index(w) for w in words if w in header), None)
        for part, words in {
            "name": ("name", "class", "label", "class_name", "label_name"),
            "r": ("r", "red"),
            "g": ("g", "green"),
            "b": ("b", "blue"),
            "value": ("value", "index", "id", "class_id"),
        }.items()
    }
    colours = [places[c] for c in "rgb"]
    if places["name"] is None or len({c is None for c in colours}) > 1:
        message = f"the columns should be name, r, g, b. Received: {', '.join(fields[0])!r:.80}"
        raise bad(rows[0][0], "no header", message)
    entries = []
    for (number, line), row in zip(rows[1:], fields[1:], strict=True):
        try:
            if len(row) != len(header):
                raise ValueError
            colour = None if colours[0] is None else tuple(int(row[c]) for c in colours)
            value = None if places["value"] is None else int(row[places["value"]])
            if min(*(colour or (0,)), value or 0, 0) < 0 or not row[places["name"]]:
                raise ValueError
        except ValueError:
            message = f"should hold {', '.join(fields[0])}. Received: {line!r:.80}"
            raise bad(number, "unreadable class", message) from None
        entries.append((number, _Entry(row[places["name"]], colour, value)))
    return entries


# === What the pixels are ===


@dataclass
class _Seen:
    """What a mask file holds: `kind` is "grey", "palette", "wide" (16 bits) or "rgb"."""

    kind: str
    shape: tuple[int, int]
    values: np.ndarray
    is_coloured: bool
    is_lossy: bool

    @property
    def grey(self) -> np.ndarray:
        return self.values & 255 if self.kind == "rgb" else self.values

    @property
    def present(self) -> frozenset[int]:
        """Values other than 0 of a mask of indices."""
        return frozenset(self.grey[self.grey != 0].tolist())


@dataclass
class _Reading:
    """What the masks of a set are taken for.

    `codes` says how pixels become numbers: "grey"; "codes", where those of RGB are r * 65536 + g *
    256 + b; "colours", where grey is RGB too. `pixels` gives the label of each number. In a binary
    set, `foreground` are the values that may stand for it, or `None` where any may.
    """

    kind: str
    codes: str
    names: list[str]
    pixels: dict[int, int] | None = None
    notes: list[str] = field(default_factory=list)
    foreground: frozenset[int] | None = None


def _decode(path: Path) -> tuple[str, np.ndarray, bool]:
    """Kind, pixels (indices, ids or RGB) and whether the format is a lossy one."""
    with open_image(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise ValueError(f"it holds {image.n_frames} frames; a mask should be one image")
        if exif_orientation(image) != 1:
            raise ValueError("its EXIF says that it is turned; save it upright")
        depth = 8
        if image.format == "PNG":
            with open(path, "rb") as file:
                depth = file.read(25)[24]
        elif image.format == "TIFF":
            depth = image.tag_v2.get(258, (8,))[0]
        lossy = image.format in ("JPEG", "MPO")
        mode = image.mode
        try:
            image.load()
        except (OSError, SyntaxError, ValueError, IndexError, EOFError) as error:
            raise ValueError(f"it is damaged or cut short: {error}") from error
        array = np.asarray(image)
    if mode == "1":
        return "grey", array.astype(np.uint8), lossy
    if mode == "L":
        # Pillow stretches values of 2 and 4 bits over 0 to 255.
        return "grey", array // {2: 85, 4: 17}.get(depth, 1), lossy
    if mode == "P":
        return "palette", array, lossy
    if mode.startswith("I"):
        array = array.astype(np.int64)
        if array.min() < 0:
            raise ValueError(f"it holds the value {array.min()}; ids should be 0 or more")
        return "wide", array, lossy
    if mode in ("RGB", "RGBA", "LA") and depth != 16:
        if mode != "RGB":
            alpha = array[..., -1]
            if not np.isin(alpha, (0, 255)).all():
                raise ValueError("it holds half-transparent pixels, whose label is unknown")
            array = np.where(alpha[..., None] == 255, array[..., :-1], 0)
        return ("grey", array[..., 0], lossy) if mode == "LA" else ("rgb", array, lossy)
    raise ValueError(
        f"its pixels are of the mode {mode!r} with {depth} bits; a mask should be grey of 8 or 16 "
        "bits, of a palette, or RGB of 8 bits"
    )


def _coded(kind: str, array: np.ndarray, codes: str) -> np.ndarray:
    """Pixels as integers `(height, width)`; see `_Reading`."""
    if codes == "colours" and kind == "grey":
        return array.astype(np.int32) * 0x010101
    if kind != "rgb":
        return array
    if codes == "grey":
        return array[..., 0]
    array = array.astype(np.int32)
    return array[..., 0] << 16 | array[..., 1] << 8 | array[..., 2]


def _values(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return np.flatnonzero(np.bincount(array.ravel(), minlength=256))
    return np.unique(array).astype(np.int64)


def _look(items: list[_Item], problems: Problems) -> dict[Path, _Seen | None]:
    """What each mask holds; `None` for those that can't be read."""
    seen: dict[Path, _Seen | None] = {}
    for item in items:
        for path in item.masks:
            try:
                kind, array, lossy = _decode(path)
            except (ValueError, OSError) as error:
                problems.add(path, "unreadable mask", f"{error}", image=item.filename)
                seen[path] = None
                continue
            values = _values(_coded(kind, array, "codes"))
            coloured = kind == "rgb" and bool(((values >> 8) != (values & 255) * 257).any())
            if coloured:
                values = values[:_MOST_CODES]
            seen[path] = _Seen(kind, array.shape[:2], values, coloured, lossy)
    return seen


def _decide(all_seen: Sequence[_Seen | None], tables: list[_Table], masks: str) -> _Reading:
    seen = [s for s in all_seen if s is not None]
    wide = sum(s.kind == "wide" for s in seen)
    rgb = sum(s.kind == "rgb" for s in seen)
    indices = len(seen) - wide - rgb
    if masks == "instances":
        return _instances(tables, "each value or colour other than 0")
    if masks == "auto" and wide and wide >= max(rgb, indices):
        of_wide = frozenset().union(*(s.present for s in seen if s.kind == "wide"))
        if of_wide != {65535}:
            return _instances(tables, "masks of 16 bits: each value other than 0")
        return _binary(_table_of(tables, tables), of_wide, [])
    has_colours = any(table.has_colours for table in tables)
    any_coloured = any(s.is_coloured for s in seen)
    # A table such as 0,0,0 and 255,255,255 says what grey values are, too.
    all_grey = has_colours and all(
        len(set(e.colour)) == 1 for t in tables if t.has_colours for e in t.entries
    )
    as_colours = rgb >= max(wide, indices, 1) and (any_coloured or has_colours)
    if masks != "binary" and (as_colours or (all_grey and {s.kind for s in seen} <= _GREYS)):
        return _colours(seen, tables)
    table = _table_of(tables, [t for t in tables if not t.has_colours] or tables)
    values = [s.present for s in seen if not (s.is_coloured or _is_smoothed(s, masks, table))]
    filled = [v for v in values if v]
    whites = filled.count({255})
    several = table is not None and len(table.classes()) > 1
    of_one = whites + filled.count({1}) == len(filled) and (whites or not several)
    if masks == "binary":
        return _binary(table, None, filled)
    if masks == "auto" and (of_one or 2 * whites >= len(filled) > 0):
        return _binary(table, frozenset((1, 255)), filled)
    kinds = Counter(s.kind for s in seen)
    return _indices(values, table, ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())))


def _is_smoothed(seen: _Seen, masks: str, table: _Table | None) -> bool:
    """Whether values are none of classes: those of smoothed edges, or of a lossy format."""
    if seen.is_lossy:
        return not seen.present <= {255}
    limit = MAX_UNNAMED if masks == "auto" and table is None else _MAX_CLASSES
    return any(limit < v != _IGNORE for v in seen.present)


def _object_names(tables: list[_Table]) -> list[str]:
    table = _table_of(tables, tables)
    if table is None:
        return ["object"]
    names = table.classes()
    if len(names) != 1:
        raise ValueError(
            f"{str(table.path)!r} names {len(names)} classes, but masks of instances do not say "
            "the class of an instance; it should name one"
        )
    return names


def _table_of(tables: list[_Table], chosen: list[_Table]) -> _Table | None:
    if len(chosen) > 1:
        names = ", ".join(repr(str(t.path)) for t in tables)
        raise ValueError(f"there are several lists of class names: {names}; keep one")
    return chosen[0] if chosen else None


def _instances(tables: list[_Table], what: str) -> _Reading:
    return _Reading(
        "instances", "codes", _object_names(tables), notes=[f"Instances: {what} is an object."]
    )


def _binary(
    table: _Table | None, foreground: frozenset[int] | None, filled: list[frozenset[int]]
) -> _Reading:
    names = ["foreground"]
    if table is not None:
        names = table.classes()
        if len(names) != 1:
            raise ValueError(
                f"{str(table.path)!r} names {len(names)} classes, but the masks hold one value "
                "other than 0; name one (and background, if you like), or say what the masks are, "
                "as in masks='classes'"
            )
    notes = ["Binary masks: what is not 0 is foreground."]
    ones, whites = filled.count({1}), filled.count({255})
    if ones and whites:
        notes.append(f"In {ones} files the foreground is 1, in {whites} it is 255.")
    return _Reading("binary", "grey", names, notes=notes, foreground=foreground)


def _indices(values: list[frozenset[int]], table: _Table | None, kinds: str) -> _Reading:
    known = [v - {_IGNORE} for v in values]
    notes = []
    white = sum(v == {_IGNORE} for v in values)
    if table is None:
        most = max((max(v) for v in known if v), default=0)
        if not most:
            raise ValueError(
                "the masks hold no value other than 0 and 255, and 255 is ignored in masks of "
                "classes; if it is foreground, say so: masks='binary'"
            )
        names = [f"class_{v}" for v in range(1, most + 1)]
        pixels = {v: v for v in range(most + 1)}
    else:
        names, pixels = [], {0: 0}
        for value, entry in _numbered(table, known).items():
            if entry.is_background or entry.is_ignored:
                pixels[value] = 0 if entry.is_background else _IGNORE
            else:
                names.append(entry.name)
                pixels[value] = len(names)
        _check_count(names, table)
        notes.append(f"Names are those of {table.path.name!r}.")
    pixels.setdefault(_IGNORE, _IGNORE)
    zero = "background" if pixels[0] == 0 else "ignored" if pixels[0] == 255 else repr(names[0])
    notes.insert(0, f"Masks of classes ({kinds}): values are indices, 0 is {zero}, 255 is ignored.")
    if white:
        notes.append(f"{white} masks hold nothing but 0 and 255, which is ignored.")
    return _Reading("classes", "grey", names, pixels, notes)


def _check_count(names: list[str], table: _Table) -> None:
    if not 1 <= len(names) <= _MAX_CLASSES:
        raise ValueError(
            f"{str(table.path)!r} names {len(names)} classes beside background; it should name 1 "
            f"to {_MAX_CLASSES}"
        )


def _numbered(table: _Table, values: list[frozenset[int]]) -> dict[int, _Entry]:
    """Which value each name belongs to."""
    entries = table.entries
    if entries[0].value is not None:
        return {e.value: e for e in sorted(entries, key=lambda e: e.value)}
    if len(entries) > 1 and entries[0].is_ignored and entries[1].is_background:
        entries = entries[1:]  # as labelme writes it, for which ignored is -1
    if any(e.is_background or e.is_ignored for e in entries):
        return dict(enumerate(entries))
    n = len(entries)
    if n == 1 or any(n in v and max(v) <= n for v in values):
        return dict(enumerate(entries, 1))
    raise ValueError(
        f"{str(table.path)!r} names {n} classes, and no mask of theirs holds the value {n}: its "
        f"first line could be the name of value 0 or of value 1. Write 'background' above it if 0 "
        f"is background, or the value before each name, as in '0 {entries[0].name}'"
    )


def _colours(seen: list[_Seen], tables: list[_Table]) -> _Reading:
    table = _table_of(tables, [t for t in tables if t.has_colours] or tables)
    names: list[str] = []
    pixels = {}
    if table is None:
        codes: set[int] = set()
        for s in seen:
            if s.kind == "rgb" and not s.is_lossy and len(s.values) <= MAX_UNNAMED + 1:
                codes.update(s.values.tolist())
        codes.discard(0)
        if len(codes) > MAX_UNNAMED:
            raise ValueError(
                f"the masks hold {len(codes)} colours; without a table of names and colours (as "
                f"'class_dict.csv' with name, r, g, b) at most {MAX_UNNAMED} become classes"
            )
        for code in sorted(codes):
            names.append("rgb_{}_{}_{}".format(*_rgb(code)))
            pixels[code] = len(names)
        notes = [
            f"Colour masks without a table of names: each of {len(names)} colours is a class, "
            "black is background. Put names and colours into 'class_dict.csv': name, r, g, b."
        ]
        if not names:
            raise ValueError("no colour mask can be used: each has too many colours, or is a JPEG")
    else:
        if not table.has_colours:
            raise ValueError(
                f"{str(table.path)!r} names classes without colours, but the masks are RGB; write "
                "r, g, b behind each name"
            )
        for entry in table.entries:
            r, g, b = entry.colour
            if entry.is_background or entry.is_ignored:
                pixels[r << 16 | g << 8 | b] = 0 if entry.is_background else _IGNORE
            else:
                names.append(entry.name)
                pixels[r << 16 | g << 8 | b] = len(names)
        _check_count(names, table)
        notes = [f"Colour masks: names and colours are those of {table.path.name!r}."]
        if 0 not in pixels:
            notes.append("It does not list black, which is background.")
    pixels.setdefault(0, 0)
    return _Reading("colours", "colours", names, pixels, notes)


def _rgb(code: int) -> tuple[int, int, int]:
    return code >> 16, code >> 8 & 255, code & 255


# === Records ===


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


def _add_mask(
    record: Record, item: _Item, seen: _Seen, reading: _Reading, problems: Problems
) -> bool:
    """Puts the labels of a mask into a record; `False` if they can't be used."""
    path = item.masks[0]
    record.where = str(path)
    sizes = _sizes(record, problems)
    if not sizes or not _fits(record, path, seen.shape, sizes, problems):
        return False
    if found := _unusable(path, seen, reading):
        problems.add(path, *found, image=item.filename)
        return False
    if reading.kind == "instances":
        ids = seen.values[seen.values != 0].tolist()
        record.objects = [
            Object(0, mask=_Instance(path, i), where=f"{path}, instance {i}") for i in ids
        ]
        record.has_masks = True
        return True
    pixels = reading.pixels
    if pixels is None:
        pixels = {0: 0, **dict.fromkeys(seen.present, 1)}
    record.mask = _Pixels(path, reading.codes, tuple(sorted(pixels.items())))
    return True


def _unusable(path: Path, seen: _Seen, reading: _Reading) -> tuple[str, str] | None:
    """Kind and message of what is wrong with the values of a mask."""
    lossy = "lossy mask", "it is a JPEG, which changes values around every edge; save masks as PNG"
    if reading.kind == "instances":
        if seen.is_lossy:
            return lossy
        if seen.is_coloured and len(seen.values) >= _MOST_CODES:
            return "smoothed mask", f"it holds {_MOST_CODES} colours or more"
        return None
    if reading.kind == "colours":
        if seen.kind not in _GREYS:
            return "another kind of mask", (
                f"its pixels are {'of 16 bits' if seen.kind == 'wide' else 'of a palette'}, while "
                "most masks of the set are RGB"
            )
        values = seen.values if seen.kind == "rgb" else seen.values * 0x010101
        unknown = [v for v in values.tolist() if v not in reading.pixels]
        if not unknown:
            return None
        if seen.is_lossy:
            return lossy
        shown = ", ".join(str(_rgb(v)) for v in unknown[:3]) + ", …" * (len(unknown) > 3)
        x, y, count = _where(path, reading.codes, unknown)
        return "unknown colour", (
            f"{count} pixels are of colours (r, g, b) that are no class: {shown}; the first at x "
            f"{x}, y {y}. Add them to the table of colours, or, if they are smoothed edges, resize "
            "masks without interpolation"
        )
    if seen.is_coloured:
        return "another kind of mask", (
            "it holds colours, while most masks of the set hold grey values or a palette"
        )
    if seen.is_lossy and not seen.present <= {255}:
        return lossy
    if reading.kind == "binary":
        allowed = seen.present if reading.foreground is None else reading.foreground
        if len(seen.present) <= 1 and seen.present <= allowed:
            return None
        unknown = sorted(seen.present - {255})
    else:
        unknown = sorted(seen.present - set(reading.pixels))
        if not unknown:
            return None
    shown = ", ".join(map(str, unknown[:5])) + ", …" * (len(unknown) > 5)
    x, y, count = _where(path, "grey", unknown)
    if reading.kind == "binary":
        return "grey values between", (
            f"{count} pixels of a binary mask hold {shown}, the first at x {x}, y {y}: smoothed "
            "edges, or the mask was a JPEG once. Set a threshold, or say what the masks are, as in "
            "masks='classes'"
        )
    if any(v > MAX_UNNAMED for v in unknown):
        return "grey values between", (
            f"{count} pixels hold {shown}, the first at x {x}, y {y}, which are no class: smoothed "
            "edges, a mask that was a JPEG once, or classes without names. Set a threshold, list "
            "the names in 'classes.txt', or say what the masks are, as in masks='classes'"
        )
    return "unknown class", (
        f"{count} pixels hold {shown}, the first at x {x}, y {y}; the names are of values "
        f"{sorted(reading.pixels)[0]} to {max(v for v in reading.pixels if v != _IGNORE)}"
    )


def _where(path: Path, codes: str, values: list[int]) -> tuple[int, int, int]:
    kind, array, _ = _decode(path)
    found = np.isin(_coded(kind, array, codes), values)
    y, x = np.unravel_index(int(np.argmax(found)), found.shape)
    return int(x), int(y), int(found.sum())


def _add_files(record: Record, item: _Item, problems: Problems) -> bool:
    """Puts an instance a file into a record; `False` if one of them can't be used."""
    objects, usable = [], True
    record.where = str(item.masks[0].parent)
    sizes = _sizes(record, problems)
    if not sizes:
        return False
    for path in item.masks:
        try:
            kind, array, lossy = _decode(path)
        except (ValueError, OSError) as error:
            problems.add(path, "unreadable mask", str(error), image=item.filename)
            usable = False
            continue
        if not _fits(record, path, array.shape[:2], sizes, problems):
            usable = False
            continue
        values = [v for v in _values(_coded(kind, array, "codes")).tolist() if v]
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
            objects.append(Object(0, mask=_InstanceFile(path), where=str(path)))
    record.objects, record.has_masks = objects, True
    return usable


@dataclass(frozen=True)
class _Pixels:
    """Class of each pixel of a mask file; `table` is pairs of a code and its label."""

    path: Path
    codes: str
    table: tuple[tuple[int, int], ...]

    def __call__(self, height: int, width: int) -> np.ndarray:
        kind, array, _ = _decode(self.path)
        array = _coded(kind, array, self.codes)
        _check_shape(self.path, array, height, width)
        codes, labels = (np.array(v) for v in zip(*self.table, strict=True))
        place = np.searchsorted(codes, array).clip(max=len(codes) - 1)
        if not (codes[place] == array).all():
            raise ValueError(f"the mask {str(self.path)!r} was changed after it was read")
        return labels.astype(np.uint8)[place]


@dataclass(frozen=True)
class _Instance:
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
class _InstanceFile:
    """The one instance of a mask file."""

    path: Path

    def __call__(self, height: int, width: int) -> Cut | None:
        kind, array, _ = _decode(self.path)
        array = _coded(kind, array, "codes")
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


@lru_cache(maxsize=2)  # all instances of an image are asked for one after the other
def _cuts(path: Path, size: int, mtime: int) -> tuple[tuple[int, int], dict[int, Cut]]:
    kind, array, _ = _decode(path)
    ids = _coded(kind, array, "codes")
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
