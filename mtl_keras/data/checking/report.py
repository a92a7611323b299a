"""The report of a check: problems, warnings, duplicates, statistics, advice."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtl_keras.data.records import Problem


@dataclass(frozen=True)
class Histogram:
    """How often values fall between edges.

    Attributes:
        edges: Edges between the bins, one less than there are bins: the first bin is what lies
            below the first edge, the last what lies at or above the last one.
        counts: Values in each bin.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """A text for each bin."""
        inner = [f"{a:g}–{b:g}" for a, b in zip(self.edges, self.edges[1:], strict=False)]
        return (f"< {self.edges[0]:g}", *inner, f"≥ {self.edges[-1]:g}")


@dataclass(frozen=True)
class Spread:
    """Least, middle and largest of some values.

    Attributes:
        least: The least one.
        median: The middle one.
        most: The largest one.
    """

    least: float
    median: float
    most: float


@dataclass
class Split:
    """Statistics of one split; of the images that can be used.

    Attributes:
        images: Number of images.
        left_out: Number of images that can't be used.
        labelled: Kind of label ("boxes", "instances", "mask", names of columns) to the number of
            images that have it.
        empty: Images that are known to hold no objects.
        objects: Number of objects.
        crowd: Those among them that stand for several.
        objects_of_class: Number of objects of each class, in order of the class ids.
        images_of_class: Number of images with objects of each class.
        pixels_of_class: Share of the labelled pixels of masks, background first; empty without.
        columns: Column to dict of class name to number of images, or, of numbers, to their
            `Spread`.
        per_image: Objects an image, or `None` without boxes.
        width: Widths of the images in pixels, or `None` without images.
        height: Their heights.
        formats: Format of the files to number of images.
        modes: Mode of the files' pixels to number of images.
        turned: Images that their EXIF orientation turns or mirrors.
        grey: Images without colour, however they are saved.
        box_size: Square root of the boxes' area, in pixels of the image.
        box_size_trained: The same at the size at which they are trained.
        box_aspect: Width / height of the boxes.
        tiny: Objects smaller than 4 pixels at the size at which they are trained.
        small: Objects smaller than 8 pixels there.
        size_of_class: Median of the square root of the boxes' area of each class, in pixels of the
            image; `None` where there are none.
    """

    images: int
    left_out: int
    labelled: dict[str, int]
    empty: int
    objects: int
    crowd: int
    objects_of_class: list[int]
    images_of_class: list[int]
    pixels_of_class: list[float]
    columns: dict[str, Any]
    per_image: Spread | None
    width: Spread | None
    height: Spread | None
    formats: dict[str, int]
    modes: dict[str, int]
    turned: int
    grey: int
    box_size: Histogram
    box_size_trained: Histogram
    box_aspect: Histogram
    tiny: int
    small: int
    size_of_class: list[float | None]


@dataclass(frozen=True)
class Group:
    """Images that show the same picture.

    Attributes:
        images: `(split, filename)` of each.
        paths: Their files.
        exact: Whether the files are the same, byte for byte.
        difference: Largest difference that was found between two of them, relative to their
            contrast; 0 if exact.
    """

    images: tuple[tuple[str, str], ...]
    paths: tuple[str, ...]
    exact: bool
    difference: float

    @property
    def leaks(self) -> bool:
        """Whether they are in several splits."""
        return len({split for split, _ in self.images}) > 1


@dataclass
class Report:
    """What `check` found.

    Attributes:
        name: Name of the set.
        path: Its folder.
        layout: Its layout, or `None` if it was not recognised.
        image_size: `(height, width)` at which sizes of objects are judged.
        problems: What a preparation leaves out or stops at, and pictures that are in two splits.
        warnings: What can be used and is odd.
        advice: Sentences on what the numbers suggest.
        duplicates: Groups of images that show the same picture.
        names: Class names of objects.
        mask_names: Class names of pixels, without background; `None` without masks.
        splits: Dict, split to its statistics.
        seconds: How long the check took.
        seen: Internal: one `Seen` an image that can be used.
    """

    name: str
    path: str
    layout: str | None
    image_size: tuple[int, int]
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    duplicates: list[Group] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    mask_names: list[str] | None = None
    splits: dict[str, Split] = field(default_factory=dict)
    seconds: float = 0.0
    seen: list[Any] = field(default_factory=list, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """All of it as dicts, lists, texts and numbers, ready for JSON.

        Returns:
            A dict.
        """
        shallow = dataclasses.replace(self, seen=[])
        content = dataclasses.asdict(shallow)
        del content["seen"]
        for group, listed in zip(self.duplicates, content["duplicates"], strict=True):
            listed["leaks"] = group.leaks
        return content

    def save_html(self, path: str | os.PathLike, samples: int = 24) -> Path:
        """Writes the report as one HTML page, which needs no other file and no network.

        Args:
            path: The file to write.
            samples: How many images to draw with their labels.

        Returns:
            The path.

        Raises:
            ImportError: If OpenCV, with which labels are drawn, is not installed.
        """
        from mtl_keras.data.checking.html import page

        path = Path(path)
        path.write_text(page(self, samples), "utf-8")
        return path

    def relative(self, file: str) -> str:
        """A file's path, from the folder of the set where it lies there."""
        try:
            return Path(file).relative_to(self.path).as_posix()
        except ValueError:
            return file
