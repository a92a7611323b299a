"""Which images a YOLO folder holds, and what their classes are called."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from mtl_keras.data.files import (
    IMAGE_SUFFIXES,
    by_stem,
    folders_in,
    list_lines,
    relative,
    unique_names,
)
from mtl_keras.data.records import Problems, bad_labels
from mtl_keras.data.splits import folders_of_splits
from mtl_keras.data.yolo.data_yaml import YAML, of_yaml, yamls_in
from mtl_keras.data.yolo.layout import Layout
from mtl_keras.data.yolo.texts import NAME_FILES, TXT, holds_labels, label_folders


def layout_of(path: Path, problems: Problems) -> Layout:
    """What a folder, or the folder of a YAML, holds.

    Raises:
        ValueError: If it has another layout, or nothing names the classes.
    """
    if path.is_file():
        if path.suffix.lower() not in YAML:
            raise ValueError(f"{str(path)!r} is a file; give a folder, or its data.yaml")
        return of_yaml(path, problems)
    yamls = yamls_in(path)
    if len(yamls) > 1:
        raise ValueError(f"{str(path)!r} holds {[p.name for p in yamls]}; give the path of one")
    if yamls:
        return of_yaml(yamls[0], problems)
    splits = places_of(path)
    folders = [folder for places in splits.values() for folder in places]
    labels = [labels for folder in folders for labels in label_folders(folder)]
    labels = [folder for folder in labels if folder.is_dir()]
    if not any(by_stem(folder, TXT, deep=folder != path) for folder in labels):
        raise ValueError(
            f"{str(path)!r} is no YOLO folder: it should hold images/ and labels/ with a text file "
            "an image, or text files beside the images"
        )
    images = folders_in(path).get("images")
    if images is not None and images not in folders:
        _note_strays(images, folders, problems)
    names, file = names_in_files(path, folders)
    return Layout(path, names, splits, [file], is_flat=folders == [path])


def places_of(root: Path) -> dict[str, list[Path]]:
    """Folders of images of each split, where no YAML names them."""
    inside = folders_in(root)
    images = inside.get("images")
    if images is not None:
        parts = folders_of_splits(folders_in(images))
        return parts or {"train": [images]}
    parts = {
        split: [folders_in(folder).get("images", folder) for folder in folders]
        for split, folders in folders_of_splits(inside).items()
    }
    if not parts:
        darknet = {re.sub(r"^obj_(\w+)_data$", r"\1", name): p for name, p in inside.items()}
        parts = folders_of_splits({n: p for n, p in darknet.items() if p.name.lower() != n})
    return parts or {"train": [root]}


def _note_strays(images: Path, folders: list[Path], problems: Problems) -> None:
    for paths in by_stem(images, IMAGE_SUFFIXES).values():
        for path in paths:
            if not any(path.is_relative_to(folder) for folder in folders):
                message = f"it lies outside of the folders of splits in {str(images)!r}; move it"
                name = path.relative_to(images).as_posix()
                problems.add(path, "image in no split", message, image=name)


def names_files(root: Path, folders: list[Path]) -> list[Path]:
    """Files that name classes, in all places where they may lie."""
    labels = [labels for folder in folders for labels in label_folders(folder)]
    places = dict.fromkeys([root, root / "data", root / "labels", *folders, *labels])
    return [place / name for place in places for name in NAME_FILES if (place / name).is_file()]


def names_in_files(root: Path, folders: list[Path]) -> tuple[list[str], Path]:
    """Names of the classes, and the file that states them.

    Raises:
        BadLabels: If they can't be read, or two files differ.
        ValueError: If no file names any.
    """
    found: list[tuple[list[str], Path]] = []
    for file in names_files(root, folders):
        names = [" ".join(line.split()) for line in list_lines(file)]
        while names and not names[-1]:
            names.pop()
        if not all(names):
            message = "an empty line among the names; each line is a class"
            raise bad_labels(file, names.index("") + 1, "names", message)
        found.append((unique_names(names), file))
        if found[0][0] != found[-1][0]:
            message = f"it names other classes than {str(found[0][1])!r}, so class ids are unsure"
            raise bad_labels(file, None, "names", message)
    if not found or not found[0][0]:
        raise ValueError(
            f"nothing names the classes in {str(root)!r}; add classes.txt, a name a line, in order "
            "of the class ids"
        )
    return found[0]


def base_of(found: Layout) -> Path:
    """The folder that names of images are relative to: that of all images, if it is one."""
    places = [place for places in found.splits.values() for place in places]
    images = folders_in(found.root).get("images")
    if images is not None and all(place.is_relative_to(images) for place in places):
        return images
    return found.root


def images_in(
    place: Path, found: Layout, base: Path, problems: Problems
) -> list[tuple[Path, Path, int | None]]:
    """Images of a folder or of a list, and where each one is named: file and line."""
    if place.is_file():
        return _listed(place, found, base, problems)
    images = []
    stems = by_stem(place, IMAGE_SUFFIXES, deep=not found.is_flat)
    for paths in stems.values():
        if len(paths) > 1:
            shown = ", ".join(p.name for p in paths)
            message = f"{shown} share one name, and so one label file; give them names of their own"
            problems.add(paths[0], "images of one name", message, image=relative(paths[0], base))
        else:
            images.append((paths[0], paths[0], None))
    for labels in label_folders(place):
        if labels.is_dir():
            for stem, texts in by_stem(labels, TXT, deep=not found.is_flat).items():
                if stem not in stems and texts[0].name not in NAME_FILES and holds_labels(texts[0]):
                    name = relative(place / stem, base)
                    message = f"there is no image {name!r} for these labels"
                    problems.add(texts[0], "missing image", message, image=name)
    return images


def _endings(name: str) -> list[str]:
    """A path, and then without its first folders, as tools write those of other computers."""
    parts = PurePosixPath(name).parts
    return [name, *("/".join(parts[i:]) for i in range(1, len(parts) - 1))]


def _listed(
    file: Path, found: Layout, base: Path, problems: Problems
) -> list[tuple[Path, Path, int | None]]:
    images = []
    for i, line in enumerate(list_lines(file), 1):
        if not (name := line.strip().replace("\\", "/")):
            continue
        candidates = [
            Path(os.path.normpath(folder / one))
            for one in _endings(name)
            for folder in (file.parent, found.root)
        ]
        path = next((c for c in candidates if c.is_file()), None)
        if path is None:
            message = f"there is no image {name!r}"
            problems.add(file, "missing image", message, i, relative(candidates[0], base))
        else:
            images.append((path, file, i))
    return images
