"""Label files of YOLO: where they lie, and how they are told from other texts."""

from __future__ import annotations

import os
from pathlib import Path

from mtl_keras.data.files import finite, folders_in, located

TXT = frozenset([".txt"])
NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")


def label_folders(images: Path) -> list[Path]:
    """Where the labels of images in a folder may lie: in labels/ for images/, or beside them."""
    parts = list(images.parts)
    for i in reversed(range(len(parts))):
        if parts[i] == "images":
            return [Path(*parts[:i], "labels", *parts[i + 1 :]), images]
    return [images]


def label_file(image: Path) -> Path | None:
    """The labels of an image, or `None`."""
    for folder in label_folders(image.parent):
        file = located(folder, f"{image.stem}.txt")
        if file.is_file() and file.name not in NAME_FILES:
            return file
    return None


def some_texts(folder: Path, most: int = 20) -> list[Path]:
    """Some text files in a folder or in the folders in it, names of classes excepted."""
    found: list[Path] = []
    for place in (folder, *folders_in(folder).values()):
        with os.scandir(place) as entries:
            for entry in entries:
                if len(found) == most:
                    return found
                name = entry.name
                if Path(name).suffix.lower() == ".txt" and name not in NAME_FILES:
                    found.append(Path(entry.path))
    return found


def holds_labels(file: Path) -> bool:
    """Whether the first line is one of numbers."""
    with file.open("rb") as opened:
        head = opened.read(400).decode("utf-8-sig", errors="replace").split("\n")
    first = next((line.split() for line in head if line.strip()), [])
    # The last of the columns may be cut in two.
    return len(first) >= 5 and all(finite(column) is not None for column in first[:5])
