"""Where images, XML and masks of Pascal VOC lie, and which images there are."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mtl_keras.data.files import IMAGE_SUFFIXES, by_stem, composed, folders_in, list_lines
from mtl_keras.data.records import Problems
from mtl_keras.data.splits import ORDER, SPLITS_AND_BOTH

_CLASS_MAPS = ("segmentationclass", "segmentationclasspng")
_OBJECT_MAPS = ("segmentationobject", "segmentationobjectpng")


@dataclass
class Item:
    """One image, and the files of its labels."""

    split: str
    number: int
    filename: str
    path: Path
    xml: Path | None
    class_map: Path | None = None
    object_map: Path | None = None


def root_of(folder: Path) -> Path:
    """The folder that has the layout.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If none has it, or several do.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}")
    roots = roots_in(folder)
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


def roots_in(folder: Path) -> list[Path]:
    """The folder if it has the layout; else those in it, one or two levels down."""
    if seen_in(folder):
        return [folder]
    found = []
    for name, inside in folders_in(folder).items():
        if name.startswith("voc"):
            deeper = [inside, *folders_in(inside).values()]
            found += [d for d in deeper if d.name.lower().startswith("voc") and seen_in(d)]
    return found


def seen_in(folder: Path) -> str | None:
    """What tells that a folder has the layout, or `None`."""
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
    parts = [folder, *(p for name, p in inside.items() if name in SPLITS_AND_BOTH)]
    if _has_annotation(parts) and any(_first(p, IMAGE_SUFFIXES) for p in parts):
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


def items_of(root: Path, problems: Problems) -> tuple[list[Path], list[Item]]:
    """Files that say which images there are, and the images with the files of their labels."""
    inside = folders_in(root)
    folder = inside.get("jpegimages") or inside.get("images")
    xml_folder = inside.get("annotations")
    xml_suffix, map_suffix = frozenset([".xml"]), frozenset([".png"])
    if folder is None or (xml_folder is None and folder.name.lower() == "images"):
        folder = xml_folder = root
        parts = {n: p for n, p in inside.items() if n in SPLITS_AND_BOTH}
        images, xmls = {}, {}
        for part in parts.values():
            for found, suffixes in ((images, IMAGE_SUFFIXES), (xmls, xml_suffix)):
                inner = by_stem(part, suffixes)
                found.update({f"{part.name}/{stem}": paths for stem, paths in inner.items()})
        images.update(by_stem(root, IMAGE_SUFFIXES, deep=False))
        xmls.update(by_stem(root, xml_suffix, deep=False))
        maps = [{}, {}]
    else:
        images = by_stem(folder, IMAGE_SUFFIXES)
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
            Item(
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
        stem: SPLITS_AND_BOTH.get(stem.split("/")[0].lower()) if "/" in stem else None
        for stem in images
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
            (SPLITS_AND_BOTH[p.stem.lower()], p)
            for p in sorted(g.iterdir())
            if p.suffix.lower() == ".txt" and p.stem.lower() in SPLITS_AND_BOTH
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
    seen: dict[str, tuple[str, Path]] = {}
    for group in lists:
        earlier = set(seen)
        both = {"train", "val"} & {split for split, _ in group}
        for split, file in sorted(group, key=lambda entry: ORDER.index(entry[0])):
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
    for i, line in enumerate(list_lines(file), 1):
        stem = composed(line.strip())
        if stem not in images and Path(stem).suffix.lower() in IMAGE_SUFFIXES:
            stem = stem[: -len(Path(stem).suffix)]
        if stem:
            yield i, stem
