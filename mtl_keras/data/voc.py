"""Read Pascal VOC folders: an XML an image, and palette PNGs of the classes and objects of pixels.

`read` explains what becomes of each part.
"""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from xml.parsers import expat

import numpy as np

from mtl_keras.data import segmentations
from mtl_keras.data.images import open_image
from mtl_keras.data.records import BadLabels, Cut, Object, Problem, Problems, Record, Source

NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
IGNORED = 255
# What folders and lists of a split are called.
SPLITS = {
    "train": "train",
    "default": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "trainval": "trainval",
    "test": "test",
}
SUFFIXES = frozenset([".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"])
_CLASS_MAPS = ("segmentationclass", "segmentationclasspng")
_OBJECT_MAPS = ("segmentationobject", "segmentationobjectpng")
_NAME_FILES = ("labelmap.txt", "class_names.txt")


def read(path: str | os.PathLike, on_bad: str = "strict") -> Source:
    """Read a folder in the layout of Pascal VOC.

    What may lie in the folder (the case of folders' names does not matter):

    - `JPEGImages/` (or `images/`) and `Annotations/`, an XML an image. `ImageSets/Main/` lists the
      images of `train`, `val` and `test`; `trainval` is a split only where neither `train` nor
      `val` is listed, since it is both together. Images that only `ImageSets/Segmentation/` lists
      join the split of that name. Images that no list names are not of the set. Without lists,
      folders `train`, `val` and `test` in the folder of images are the splits, or all is `train`.
    - XML beside the images, as LabelImg writes them, also in `train/`, `valid/` and `test/`.
      `valid` and `validation` become the split `val`.

    What becomes of the XML:

    - Boxes are counted from 1 and hold their last pixel: `x0 = xmin - 1`, `x1 = xmax`.
    - `difficult` objects become crowds (`is_crowd`): neither taught, nor taught as background, nor
      counted in evaluation, which is how VOC evaluates.
    - `truncated`, `occluded`, `pose`, polygons, actions and `part`s are not read.
    - An image without XML is not labelled (`objects=None`). One whose XML holds no `object` has
      none. A width or height of 0 in `size` says nothing.
    - Names of classes are those that occur, in the order of VOC's list if all are in it, else
      sorted. `labelmap.txt` or `class_names.txt` in the folder state the names and their order.
    - A document type is refused, and with it all entities.

    What becomes of the masks in `SegmentationClass/` and `SegmentationObject/`:

    - They are 8-bit palette (or grey) PNGs; the index counts, never the colour. 0 is background,
      255 is ignored. Index i of a class mask is the i-th class of `labelmap.txt`,
      `class_names.txt` or VOC's list.
    - Index i of an object mask is the i-th object of the XML, if that holds for all indices of the
      image: at least half of the box around the region lies in the object's box, and the class
      mask gives the region most of its pixels in the object's class. Where it does not hold, each
      region goes to the object of its class that overlaps it most, pairs of the largest overlap
      (intersection over union of boxes) first. A region that is left becomes an object of its own,
      of the class that the class mask states. An object that is left has a box and no pixels. If
      no region fits any object at all, the image is left out.
    - Without an XML, objects are the regions. Without a class mask, the classes of pixels are those
      of the regions' objects.

    An image is left out whole if a part of its labels can't be read, since what is lacking would be
    taught as background. A box that lies outside of the image covers none of it; such an object is
    left out alone.

    Args:
        path: The folder, or one that holds `VOCdevkit/VOC2012` or the like.
        on_bad: `"strict"`: raise the first problem. `"quarantine"`: list problems.

    Returns:
        A `Source`.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it does not have this layout, or if the indices of class masks have no names.
        BadLabels: Under `"strict"`, for the first problem; always for a list that is not UTF-8.

    Reference:
        Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010.

    Example:
        ```python
        import pathlib, tempfile
        import numpy as np
        from PIL import Image
        from mtl_keras.data import voc

        folder = pathlib.Path(tempfile.mkdtemp())
        Image.fromarray(np.zeros((40, 60, 3), "uint8")).save(folder / "a.png")
        box = "<bndbox><xmin>6</xmin><ymin>7</ymin><xmax>25</xmax><ymax>16</ymax></bndbox>"
        (folder / "a.xml").write_text(
            f"<annotation><object><name>cell</name>{box}</object></annotation>"
        )
        source = voc.read(folder)
        assert source.names == ["cell"]
        assert source.splits["train"][0].objects[0].box == (5.0, 6.0, 25.0, 16.0)
        ```
    """
    problems = Problems(on_bad)
    root = _root(Path(path).expanduser())
    files, items = _items(root, problems)
    read_xml: list[tuple[_Item, _Xml | None]] = []
    for item in items:
        xml = None
        if item.xml is not None:
            files.append(item.xml)
            xml = _read_xml(item, root, problems)
            if xml is None:
                continue
        read_xml.append((item, xml))
    used = {o.name for _, xml in read_xml if xml for o in xml.objects if o.is_usable}
    palette, is_stated = _palette(root, used, read_xml, files)
    masked = []
    for item, xml in read_xml:
        files += [p for p in (item.class_map, item.object_map) if p is not None]
        try:
            masked.append((item, xml, _read_maps(item, xml, palette)))
        except _Bad as bad:
            problems.add(bad.file, bad.kind, str(bad), image=item.filename)
    if palette and not is_stated:
        _check_palette(root, masked, palette)
    used = {o.name for _, xml, _ in masked if xml for o in xml.objects if o.is_usable}
    used |= {name for _, _, maps in masked for name in maps.extra.values()}
    in_maps = {palette.get(i) for _, _, maps in masked for i in maps.classes} - {None, ""}
    names, mask_names = _names(used, in_maps, palette, is_stated)
    if not any(item.class_map for item, _, _ in masked):
        mask_names = None
    splits: dict[str, list[Record]] = {item.split: [] for item in items}
    for item, xml, maps in masked:
        splits[item.split].append(_record(item, xml, maps, root, names, mask_names, palette))
    return Source(
        name=root.resolve().name or "voc",
        layout="voc",
        names=names,
        splits=splits,
        mask_names=mask_names,
        problems=problems.found,
        files=files,
    )


def recognise(path: str | os.PathLike) -> str | None:
    """Says what was seen if a folder has the layout of Pascal VOC.

    Args:
        path: The folder.

    Returns:
        One sentence, or `None`.

    Example:
        ```python
        import pathlib, tempfile
        from mtl_keras.data import voc

        folder = pathlib.Path(tempfile.mkdtemp())
        assert voc.recognise(folder) is None
        for part in ("JPEGImages", "Annotations"):
            (folder / part).mkdir()
        assert voc.recognise(folder) == "Pascal VOC: JPEGImages/ and Annotations/"
        ```
    """
    folder = Path(path).expanduser()
    roots = _roots(folder) if folder.is_dir() else []
    if len(roots) > 1:
        return f"several Pascal VOC folders: {', '.join(map(str, roots))}"
    return _seen(roots[0]) if roots else None


# === Files, shared with other importers that pair images with files of the same name ===


def text_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 text without a byte order mark and without line ends of any system.

    Raises:
        ValueError: If it is not UTF-8.
    """
    try:
        return path.read_text("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 (byte {error.start}); save it so") from error


def by_stem(folder: Path, suffixes: frozenset[str], deep: bool = True) -> dict[str, list[Path]]:
    """Files below a folder by their names in it without suffix, with `/`, Unicode composed; sorted.

    Hidden files and folders are passed over. `deep=False` leaves out folders inside.
    """
    found: dict[str, list[Path]] = {}
    for here, folders, names in os.walk(folder):
        folders[:] = [f for f in sorted(folders) if deep and not f.startswith(".")]
        for name in sorted(names):
            path = Path(here, name)
            if path.suffix.lower() in suffixes and not name.startswith("."):
                stem = path.relative_to(folder).with_suffix("").as_posix()
                found.setdefault(unicodedata.normalize("NFC", stem), []).append(path)
    return dict(sorted(found.items()))


def folders_in(folder: Path) -> dict[str, Path]:
    """Folders in a folder, by their names in lower case; hidden ones are passed over."""
    found = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    return {p.name.lower(): p for p in found}


def number(text: str) -> float | None:
    """A finite number, or `None` if a text is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None


# === Which images there are ===


class _Bad(Exception):
    """Why the labels of one image can't be used."""

    def __init__(self, kind: str, message: str, file: Path | None = None, line: int | None = None):
        super().__init__(message)
        self.kind, self.file, self.line = kind, file, line


@dataclass
class _Item:
    split: str
    number: int
    filename: str
    path: Path
    xml: Path | None
    class_map: Path | None = None
    object_map: Path | None = None


def _roots(folder: Path) -> list[Path]:
    """The folder if it has the layout; else those in it, one or two levels down."""
    if _seen(folder):
        return [folder]
    found = []
    for name, inside in folders_in(folder).items():
        if name.startswith("voc"):
            deeper = [inside, *folders_in(inside).values()]
            found += [d for d in deeper if d.name.lower().startswith("voc") and _seen(d)]
    return found


def _root(folder: Path) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}")
    roots = _roots(folder)
    if len(roots) > 1:
        shown = ", ".join(repr(str(r)) for r in roots)
        raise ValueError(f"{str(folder)!r} holds several Pascal VOC folders; give one of {shown}")
    if not roots:
        raise ValueError(
            f"{str(folder)!r} is no Pascal VOC folder: it should hold JPEGImages/ (or images/) "
            "and Annotations/ with an XML an image, or XML beside the images, also in train/, "
            "valid/ and test/"
        )
    return roots[0]


def _seen(folder: Path) -> str | None:
    inside = folders_in(folder)
    for images in ("jpegimages", "images"):
        if images not in inside:
            continue
        maps = [inside[m] for m in (*_CLASS_MAPS, *_OBJECT_MAPS) if m in inside]
        xml = inside.get("annotations")
        if xml and (images == "jpegimages" or _has_annotation([xml, *folders_in(xml).values()])):
            return f"Pascal VOC: {inside[images].name}/ and {xml.name}/"
        if maps and images == "jpegimages":
            return f"Pascal VOC: {inside[images].name}/ and {maps[0].name}/"
    parts = [folder, *(p for name, p in inside.items() if name in SPLITS)]
    if _has_annotation(parts) and any(_first(p, SUFFIXES) for p in parts):
        return "Pascal VOC: XML beside the images"
    return None


def _first(folder: Path, suffixes: frozenset[str]) -> Path | None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if Path(entry.name).suffix.lower() in suffixes and not entry.name.startswith("."):
                return Path(entry.path)
    return None


def _has_annotation(folders: list[Path]) -> bool:
    for folder in folders:
        if path := _first(folder, frozenset([".xml"])):
            with path.open("rb") as file:
                if re.search(rb"<annotation[\s>]", file.read(4096)):
                    return True
    return False


def _items(root: Path, problems: Problems) -> tuple[list[Path], list[_Item]]:
    """Files that say which images there are, and the images with the files of their labels."""
    inside = folders_in(root)
    folder = inside.get("jpegimages") or inside.get("images")
    xml_folder = inside.get("annotations")
    xml_suffix, map_suffix = frozenset([".xml"]), frozenset([".png"])
    if folder is None or (xml_folder is None and folder.name.lower() == "images"):
        folder = xml_folder = root
        parts = {n: p for n, p in inside.items() if n in SPLITS}
        images, xmls = {}, {}
        for part in parts.values():
            for found, suffixes in ((images, SUFFIXES), (xmls, xml_suffix)):
                inner = by_stem(part, suffixes)
                found.update({f"{part.name}/{stem}": paths for stem, paths in inner.items()})
        images.update(by_stem(root, SUFFIXES, deep=False))
        xmls.update(by_stem(root, xml_suffix, deep=False))
        maps = [{}, {}]
    else:
        images = by_stem(folder, SUFFIXES)
        xmls = by_stem(xml_folder, xml_suffix) if xml_folder else {}
        maps = [
            next((m for n in kind if n in inside and (m := by_stem(inside[n], map_suffix))), {})
            for kind in (_CLASS_MAPS, _OBJECT_MAPS)
        ]
    files, listed = _listed(root, images, problems)
    if listed is None:
        listed = _by_folder(images, folder, problems)
        for stem in xmls.keys() - images.keys():
            file = xmls[stem][0]
            problems.add(file, "missing image", f"there is no image {stem!r}", image=stem)
    items = []
    counts: dict[str, int] = {}
    for split, stem in listed:
        counts[split] = counts.get(split, 0) + 1
        if stem not in images:
            continue
        paths = images[stem]
        if len(paths) > 1:
            shown = ", ".join(p.name for p in paths)
            message = f"{shown} share one name, and so one XML; give them names of their own"
            problems.add(paths[0], "images of one name", message, image=stem)
            continue
        items.append(
            _Item(
                split,
                counts[split],
                paths[0].relative_to(folder).as_posix(),
                paths[0],
                *(found[stem][0] if stem in found else None for found in (xmls, *maps)),
            )
        )
    return files, items


def _by_folder(
    images: dict[str, list[Path]], folder: Path, problems: Problems
) -> list[tuple[str, str]]:
    splits = {
        stem: SPLITS.get(stem.split("/")[0].lower()) if "/" in stem else None for stem in images
    }
    if not any(splits.values()):
        return [("train", stem) for stem in images]
    for stem, split in splits.items():
        if split is None:
            message = f"it lies outside of the folders of splits in {str(folder)!r}; move it"
            problems.add(images[stem][0], "image in no split", message, image=stem)
    return [(split, stem) for stem, split in splits.items() if split]


def _listed(
    root: Path, images: dict[str, list[Path]], problems: Problems
) -> tuple[list[Path], list[tuple[str, str]] | None]:
    """Files of lists, and (split, name of an image) as they state it; `None` without lists."""
    sets = folders_in(root).get("imagesets")
    groups = [] if sets is None else [folders_in(sets).get(n) for n in ("main", "segmentation")]
    lists = [
        [
            (SPLITS[p.stem.lower()], p)
            for p in sorted(g.iterdir())
            if p.suffix.lower() == ".txt" and p.stem.lower() in SPLITS
        ]
        for g in groups
        if g is not None
    ]
    if not any(lists):
        if any(g is not None and any(g.glob("*.txt")) for g in groups):
            raise ValueError(
                f"{str(sets)!r} holds none of the lists train.txt, val.txt, trainval.txt, test.txt"
            )
        return [], None
    order = ["train", "val", "trainval", "test"]
    seen: dict[str, tuple[str, Path]] = {}
    for group in lists:
        earlier = set(seen)
        both = {"train", "val"} & {split for split, _ in group}
        for split, file in sorted(group, key=lambda entry: order.index(entry[0])):
            for line, stem in _stems(file, images):
                if stem in earlier or (split == "trainval" and both and stem in seen):
                    continue
                image = images[stem][0].name if stem in images else stem
                if split == "trainval" and both:
                    message = f"{stem!r} is in no other list; name it in train.txt or val.txt"
                    problems.add(file, "image in no split", message, line, image)
                elif stem in seen and seen[stem][0] == split:
                    problems.add(file, "image listed twice", f"{stem!r} stands above", line)
                elif stem in seen:
                    message = f"{stem!r} is also in {str(seen[stem][1])!r}, where it stays"
                    problems.add(file, "image in two splits", message, line)
                else:
                    if stem not in images:
                        message = f"there is no image {stem!r}"
                        problems.add(file, "missing image", message, line, stem)
                    seen[stem] = (split, file)
    return [p for group in lists for _, p in group], [(s, stem) for stem, (s, _) in seen.items()]


def _stems(file: Path, images: dict[str, list[Path]]) -> Iterator[tuple[int, str]]:
    try:
        lines = text_lines(file)
    except ValueError as error:
        raise BadLabels(Problem(str(file), None, "unreadable list", str(error))) from error
    for i, line in enumerate(lines, 1):
        stem = unicodedata.normalize("NFC", line.strip())
        if stem not in images and Path(stem).suffix.lower() in SUFFIXES:
            stem = stem[: -len(Path(stem).suffix)]
        if stem:
            yield i, stem


# === XML ===


@dataclass
class _Element:
    tag: str
    line: int
    text: str = ""
    children: list[_Element] = field(default_factory=list)

    def all(self, tag: str) -> list[_Element]:
        return [child for child in self.children if child.tag == tag]

    def first(self, tag: str) -> _Element | None:
        return next(iter(self.all(tag)), None)

    def value(self, tag: str) -> str:
        """Text of a child, without needless white space; empty if there is none."""
        child = self.first(tag)
        return "" if child is None else " ".join(child.text.split())


@dataclass
class _Labelled:
    name: str
    box: tuple[float, float, float, float]
    is_difficult: bool
    line: int
    is_usable: bool = True


@dataclass
class _Xml:
    size: tuple[int, int] | None
    objects: list[_Labelled]


def _parse_xml(content: bytes) -> _Element:
    """The outermost element. A document type, which may hold entities, is refused unread."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    opened = [_Element("", 0)]

    def start(tag: str, attributes: dict) -> None:
        element = _Element(tag, parser.CurrentLineNumber)
        opened[-1].children.append(element)
        opened.append(element)

    def text(data: str) -> None:
        opened[-1].text += data

    def doctype(*parts: object) -> None:
        raise _Bad(
            "document type in XML",
            "a DOCTYPE is refused, since it may hold entities; delete it",
            line=parser.CurrentLineNumber,
        )

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda tag: opened.pop()
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        message = f"{expat.ErrorString(error.code)}; the file is cut short or no XML"
        raise _Bad("damaged XML", message, line=error.lineno) from error
    except (LookupError, ValueError) as error:
        raise _Bad("damaged XML", f"{error}; save it as UTF-8", line=1) from error
    top = opened[0].children[0]
    if top.tag != "annotation":
        message = f"it should hold <annotation>, not <{top.tag[:50]}>"
        raise _Bad("other XML", message, line=top.line)
    return top


def _read_xml(item: _Item, root: Path, problems: Problems) -> _Xml | None:
    """What an XML states; `None` if it can't be used."""

    def note(bad: _Bad) -> None:
        problems.add(item.xml, bad.kind, str(bad), bad.line, item.filename)

    try:
        top = _parse_xml(item.xml.read_bytes())
        size = _size(top)
    except _Bad as bad:
        note(bad)
        return None
    objects, is_whole = [], True
    for element in top.all("object"):
        try:
            objects.append(_labelled(element))
        except _Bad as bad:
            note(bad)
            is_whole = False
    if not is_whole:
        return None
    for found in objects:
        x0, y0, x1, y1 = found.box
        height, width = size or (math.inf, math.inf)
        if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            found.is_usable = False
            problems.add(
                item.xml,
                "box without area",
                f"the box of {found.name!r} (image {item.filename!r}) lies outside of the image; "
                f"from 0, it is {found.box}",
                found.line,
            )
    return _Xml(size, objects)


def _size(top: _Element) -> tuple[int, int] | None:
    size = top.first("size")
    if size is None:
        return None
    found = []
    for tag in ("height", "width"):
        text = size.value(tag)
        value = number(text) if text else 0.0
        if value is None or value < 0 or value % 1:
            raise _Bad("image size", f"<{tag}> is {text!r:.50}, no count of pixels", line=size.line)
        found.append(int(value))
    return (found[0], found[1]) if all(found) else None


def _labelled(element: _Element) -> _Labelled:
    name = element.value("name")
    if not name:
        raise _Bad("object without a class", "<object> lacks a <name>", line=element.line)
    bndbox = element.first("bndbox")
    if bndbox is None:
        message = f"<object> {name!r} lacks a <bndbox>; it should hold xmin, ymin, xmax, ymax"
        raise _Bad("object without a box", message, line=element.line)
    ends = {}
    for tag in ("xmin", "ymin", "xmax", "ymax"):
        child, text = bndbox.first(tag), bndbox.value(tag)
        value = number(text)
        if value is None:
            message = f"<{tag}> of {name!r} is {text!r:.50}; it should be a finite number"
            raise _Bad("box of no numbers", message, line=(child or bndbox).line)
        ends[tag] = value
    if ends["xmax"] < ends["xmin"] or ends["ymax"] < ends["ymin"]:
        message = f"the box of {name!r} ends before it begins: {ends}"
        raise _Bad("reversed box", message, line=bndbox.line)
    difficult = element.value("difficult").lower()
    if difficult not in ("", "0", "1", "false", "true", "unspecified"):
        message = f"<difficult> of {name!r} is {difficult!r:.50}; it should be 0 or 1"
        raise _Bad("unknown flag", message, line=element.first("difficult").line)
    box = (ends["xmin"] - 1, ends["ymin"] - 1, ends["xmax"], ends["ymax"])
    return _Labelled(name, box, difficult in ("1", "true"), element.line)


# === Masks ===


@dataclass
class _Maps:
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


def _indices(path: Path) -> np.ndarray:
    """Indices of a PNG, uint8 (height, width)."""
    stat = path.stat()
    return _decoded(path, stat.st_mtime_ns, stat.st_size)


# The objects of an image are asked for one after the other, all from one file.
@lru_cache(maxsize=2)
def _decoded(path: Path, modified: int, size: int) -> np.ndarray:
    with path.open("rb") as file:
        head = file.read(26)
    if len(head) < 26 or head[:8] != b"\x89PNG\r\n\x1a\n":
        raise _Bad("damaged mask", "it is no PNG", path)
    depth, colour = head[24], head[25]
    if colour != 3 and (colour, depth) != (0, 8):
        raise _Bad(
            "mask without palette",
            "it should be an 8-bit PNG with a palette, or grey; colours are not taken for classes",
            path,
        )
    try:
        with open_image(path) as image:
            indices = np.array(image)
    except (OSError, SyntaxError, ValueError, IndexError, EOFError) as error:
        raise _Bad("damaged mask", f"it can't be read: {error}", path) from error
    indices.setflags(write=False)
    return indices


def _read_maps(item: _Item, xml: _Xml | None, palette: dict[int, str]) -> _Maps:
    maps = _Maps()
    classes = objects = None
    if item.class_map is not None:
        classes = _indices(item.class_map)
        found = np.flatnonzero(np.bincount(classes.ravel(), minlength=256)).tolist()
        maps.classes = set(found) - {0, IGNORED}
        if unknown := maps.classes - palette.keys():
            message = f"index {min(unknown)} has no name; there are {len(palette)} classes"
            raise _Bad("unknown class in mask", message, item.class_map)
    if item.object_map is not None:
        objects = _indices(item.object_map)
    stated = None if xml is None else xml.size
    for path, array in ((item.class_map, classes), (item.object_map, objects)):
        if array is None:
            continue
        stated = stated or array.shape
        if array.shape != stated:
            raise _Bad("mask of another size", _sizes(array.shape, stated), path)
    if objects is None:
        return maps
    regions = _regions(objects, classes, palette)
    labelled = [] if xml is None else xml.objects
    maps.region_of = _matched(regions, labelled, palette)
    if regions and labelled and not maps.region_of:
        message = "none of its regions lies where an object of the XML is"
        raise _Bad("mask against boxes", message, item.object_map)
    taken = set(maps.region_of.values())
    for region in regions:
        if region.index in taken:
            continue
        if region.name is None:
            message = f"region {region.index} is no object of the XML, and no class mask names it"
            raise _Bad("region without a class", message, item.object_map)
        maps.extra[region.index] = region.name
    return maps


def _sizes(shape: tuple[int, ...], stated: tuple[int, ...]) -> str:
    return f"it is {shape[1]} x {shape[0]} pixels, the image {stated[1]} x {stated[0]}"


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
    regions: list[_Region], labelled: list[_Labelled], palette: dict[int, str]
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


def _region(path: Path, index: int, height: int, width: int) -> Cut | None:
    return segmentations.cut(_fitting(path, height, width) == index)


def _classes(path: Path, table: tuple[int, ...], height: int, width: int) -> np.ndarray:
    return np.array(table, np.uint8)[_fitting(path, height, width)]


def _fitting(path: Path, height: int, width: int) -> np.ndarray:
    try:
        indices = _indices(path)
    except _Bad as bad:
        raise BadLabels(Problem(str(path), None, bad.kind, str(bad))) from bad
    if indices.shape != (height, width):
        message = _sizes(indices.shape, (height, width))
        raise BadLabels(Problem(str(path), None, "mask of another size", message))
    return indices


# === Classes ===


def _palette(
    root: Path, used: set[str], items: list[tuple[_Item, _Xml | None]], files: list[Path]
) -> tuple[dict[int, str], bool]:
    """Index of a class mask to the class ("" for background), and whether a file states them."""
    inside = {p.name.lower(): p for p in sorted(root.iterdir()) if p.is_file()}
    for name in _NAME_FILES:
        if name in inside:
            files.append(inside[name])
            return _stated(inside[name]), True
    if not any(item.class_map for item, _ in items):
        return {}, False
    if others := sorted(used - set(NAMES)):
        raise ValueError(
            f"{str(root)!r} has class masks, and classes that are not VOC's ({others[:5]}), but "
            "nothing says which index is which class. Add labelmap.txt, a name a line, in order of "
            "the indices, 'background' first"
        )
    return dict(enumerate(NAMES, 1)), False


def _stated(file: Path) -> dict[int, str]:
    try:
        lines = text_lines(file)
    except ValueError as error:
        raise BadLabels(Problem(str(file), None, "unreadable list", str(error))) from error
    names: list[str] = []
    for i, line in enumerate(lines, 1):
        name = " ".join(line.split(":")[0].split())
        if not name or name.startswith("#"):
            continue
        if name in names:
            raise BadLabels(Problem(str(file), i, "class named twice", f"{name!r} stands above"))
        names.append(name)
    if not names:
        raise BadLabels(Problem(str(file), None, "unreadable list", "it names no class"))
    backgrounds = {"background", "_background_"}
    start = 0 if backgrounds & {name.lower() for name in names} else 1
    return {i: "" if name.lower() in backgrounds else name for i, name in enumerate(names, start)}


def _check_palette(
    root: Path, masked: list[tuple[_Item, _Xml | None, _Maps]], palette: dict[int, str]
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


def _names(
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


def _record(
    item: _Item,
    xml: _Xml | None,
    maps: _Maps,
    root: Path,
    names: list[str],
    mask_names: list[str] | None,
    palette: dict[int, str],
) -> Record:
    ids = {name: i for i, name in enumerate(names)}
    objects: list[Object] | None = None
    by_region = [0] * 256
    by_region[IGNORED] = IGNORED
    if xml is not None or item.object_map is not None:
        objects = []
    for i, found in enumerate([] if xml is None else xml.objects):
        region = maps.region_of.get(i)
        if not found.is_usable:
            if region is not None:
                by_region[region] = IGNORED
            continue
        mask = None
        if region is not None:
            mask = partial(_region, item.object_map, region)
            by_region[region] = IGNORED if found.is_difficult else ids[found.name] + 1
        where = f"{_relative(item.xml, root)}, line {found.line}"
        objects.append(Object(ids[found.name], found.box, mask, found.is_difficult, where))
    for region, name in maps.extra.items():
        where = f"{_relative(item.object_map, root)}, region {region}"
        mask = partial(_region, item.object_map, region)
        objects.append(Object(ids[name], None, mask, where=where))
        by_region[region] = ids[name] + 1
    mask = None
    if item.class_map is not None:
        of_mask = {name: i for i, name in enumerate(mask_names or names)}
        table = [IGNORED] * 256
        table[0] = 0
        for index, name in palette.items():
            # A class that no image holds has no id.
            table[index] = of_mask[name] + 1 if name in of_mask else 0
        mask = partial(_classes, item.class_map, tuple(table))
    elif item.object_map is not None and mask_names is None:
        mask = partial(_classes, item.object_map, tuple(by_region))
    return Record(
        path=item.path,
        filename=item.filename,
        image_id=item.number,
        objects=objects,
        has_masks=item.object_map is not None,
        mask=mask,
        size=None if xml is None else xml.size,
        where="" if item.xml is None else str(item.xml),
    )


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
