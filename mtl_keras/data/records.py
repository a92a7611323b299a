"""What importers read, whatever the layout of a folder: one record an image, labels as they are.

An importer lists `Record`s and opens no more than it must; `Problem`s are what it could not use.
`build` turns records into the one TFDS layout of `builder.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

# `(top, left, mask)`: where a bool array lies inside of an image.
Cut = tuple[int, int, np.ndarray]


@dataclass
class Object:
    """One labelled object of an image.

    Attributes:
        label: Class id, counted from 0.
        box: `(x0, y0, x1, y1)` in pixels, as it stands in the file (it may reach outside of the
            image), or `None`: the box around the mask.
        mask: Called with the image's `(height, width)`; gives the pixels as a `Cut`, or `None` if
            there are none. `None` if the object has no mask.
        is_crowd: Whether it stands for several objects that are not told apart.
        where: Where it is written, for messages: "annotation 12", "labels/a.txt, line 3".
    """

    label: int
    box: tuple[float, float, float, float] | None = None
    mask: Callable[[int, int], Cut | None] | None = None
    is_crowd: bool = False
    where: str = ""


@dataclass
class Record:
    """One image with its labels. What is `None` or missing is not labelled; it is not empty.

    Attributes:
        path: File of the image.
        filename: Its name in the set, relative to the folder of images, with `/`.
        image_id: Integer, unique in the split.
        objects: List of `Object`, empty if the image is known to hold none, or `None` if nobody
            has looked for objects.
        has_masks: Whether objects of this image are labelled by their masks, not by boxes alone.
        mask: Called with the image's `(height, width)`; gives the class of each pixel as a uint8
            array of that shape: 0 background, class id + 1, 255 to be ignored. `None`: classes of
            pixels are those of the objects' masks.
        values: Dict, column to a class id (int) or a number (float) of the whole image.
        size: `(height, width)` that the labels state, or `None`.
        where: Where the labels are written, for messages.
    """

    path: Path
    filename: str
    image_id: int
    objects: list[Object] | None = None
    has_masks: bool = False
    mask: Callable[[int, int], np.ndarray] | None = None
    values: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    where: str = ""


@dataclass(frozen=True)
class Problem:
    """Something that can't be used, and what to do about it.

    Attributes:
        file: The file that is wrong.
        line: Number of its line, from 1, or `None` where it has none.
        kind: Short name of what is wrong, the same for all problems of the kind: "truncated image".
        message: One sentence: what was found, what would be right.
        image: `filename` of the image that is left out for it, or `None` if only an annotation is.
    """

    file: str
    line: int | None
    kind: str
    message: str
    image: str | None = None

    def __str__(self) -> str:
        line = "" if self.line is None else f":{self.line}"
        return f"{self.file}{line}: {self.kind}: {self.message}"


@dataclass
class Source:
    """What an importer found in a folder.

    Attributes:
        name: Name of the set.
        layout: Name of the importer, such as "coco" or "voc".
        names: Class names of objects, in order of the class ids.
        splits: Dict, split to its records.
        mask_names: Class names of `Record.mask`, without background, where these are others than
            `names`; `None` where they are the same.
        columns: Dict, column of `Record.values` to its class names, or `None` if it is a number.
        problems: What was left out; empty under `strict`, where the first one is raised.
        files: Files whose content decides what the labels are (JSON, XML, CSV, masks). With the
            images they make the fingerprint of the set.
    """

    name: str
    layout: str
    names: list[str]
    splits: dict[str, list[Record]]
    mask_names: list[str] | None = None
    columns: dict[str, list[str] | None] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


class BadLabels(ValueError):
    """A problem in an image or its labels, raised under `strict`.

    Attributes:
        problem: The `Problem`.
    """

    def __init__(self, problem: Problem):
        super().__init__(str(problem))
        self.problem = problem


def bad_labels(file: Any, line: int | None, kind: str, message: str) -> BadLabels:
    """An error that concerns a whole file, to be raised under `quarantine` too."""
    return BadLabels(Problem(str(file), line, kind, message))


class Bad(Exception):
    """Why a label can't be used, for importers to note as a `Problem` of its image.

    Attributes:
        kind: As that of a `Problem`.
        file: The file that is wrong, where the one who catches it does not know.
        line: Number of its line, or `None`.
    """

    def __init__(self, kind: str, message: str, file: Any = None, line: int | None = None):
        super().__init__(message)
        self.kind, self.file, self.line = kind, file, line


class Problems:
    """Collects problems, or raises the first one.

    Args:
        on_bad: `"strict"` or `"quarantine"`.
        listed: Kinds of problems that are collected under `"strict"`, too.

    Raises:
        ValueError: If `on_bad` is something else.
    """

    def __init__(self, on_bad: str = "strict", listed: Collection[str] = ()):
        if on_bad not in ("strict", "quarantine"):
            raise ValueError(
                f"`on_bad` must be 'strict' or 'quarantine'. Received: on_bad={on_bad!r}"
            )
        self.on_bad, self.listed = on_bad, listed
        self.found: list[Problem] = []

    def add(
        self,
        file: Any,
        kind: str,
        message: str,
        line: int | None = None,
        image: str | None = None,
    ) -> None:
        """Notes a problem.

        Raises:
            BadLabels: Under `strict`.
        """
        problem = Problem(str(file), line, kind, message, image)
        if self.on_bad == "strict" and kind not in self.listed:
            raise BadLabels(problem)
        self.found.append(problem)
