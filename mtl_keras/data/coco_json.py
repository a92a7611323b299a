"""COCO's JSON: reading it, its lines, and the values in it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtl_keras.data.records import bad_labels

LISTS = ("images", "annotations", "categories")


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
            BadLabels: If it is no JSON, lacks a list, or lists no categories.
        """
        if not path.is_file():
            raise FileNotFoundError(f"there is no COCO JSON file {str(path)!r}")
        content = path.read_bytes()
        try:
            data = json.loads(content)
        except (ValueError, RecursionError) as error:
            line = getattr(error, "lineno", None)
            message = f"it is not valid JSON: {error}"
            raise bad_labels(path, line, "unreadable JSON", message) from error
        if not isinstance(data, dict) or any(not isinstance(data.get(k), list) for k in LISTS):
            got = sorted(data) if isinstance(data, dict) else type(data).__name__
            message = (
                "it is not in COCO format: it should be an object with the lists "
                f"{', '.join(map(repr, LISTS))}, got {got!r:.200}"
            )
            raise bad_labels(path, None, "not COCO", message)
        coco = cls(path, hashlib.sha256(content).hexdigest(), *(data[k] for k in LISTS))
        if not coco.categories:
            message = "it lists no categories; give at least one with id and name"
            raise bad_labels(path, None, "no categories", message)
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
        raise bad_labels(self.path, self.line(key, index), kind, message)

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
