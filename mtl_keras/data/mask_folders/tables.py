"""Lists of classes: their names, with colours or values of pixels."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mtl_keras.data.files import is_background, list_lines
from mtl_keras.data.mask_folders.places import Place
from mtl_keras.data.records import bad_labels

TABLE = re.compile(
    r"class_dict\.csv|_?classes\.csv|classes\.txt|class_names\.txt|label_colors\.txt|label_?map\.txt|"
    r"labels\.txt",
    re.IGNORECASE,
)
_IGNORED = frozenset(
    ("__ignore__", "_ignore_", "ignore", "ignored", "unlabeled", "unlabelled", "void")
)
_RGB = r"(?P<r>\d+)[\s,;]+(?P<g>\d+)[\s,;]+(?P<b>\d+)"
_NAME_COLOUR = re.compile(rf"(?P<name>.*?\S)[\s,;:]+{_RGB}(?::[^:]*)*")
_COLOUR_NAME = re.compile(rf"{_RGB}[\s,;:]+(?P<name>\S.*)")
_VALUE_NAME = re.compile(r"(?P<value>\d+)\s*[\s,;:=]\s*(?P<name>\S.*)")


@dataclass
class Entry:
    """A class of a list, with its colour or value if the list states one."""

    name: str
    colour: tuple[int, int, int] | None = None
    value: int | None = None

    @property
    def is_background(self) -> bool:
        return is_background(self.name)

    @property
    def is_ignored(self) -> bool:
        return self.name.lower() in _IGNORED


@dataclass
class Table:
    """A list of classes."""

    path: Path
    entries: list[Entry]

    @property
    def has_colours(self) -> bool:
        return self.entries[0].colour is not None

    def classes(self) -> list[str]:
        return [e.name for e in self.entries if not (e.is_background or e.is_ignored)]


def read_tables(root: Path, places: list[Place]) -> list[Table]:
    """All lists of classes that lie in the root, or beside or among images and masks."""
    folders = [root]
    for place in places:
        folders += [place.images.parent, *([place.masks] if place.masks is not None else [])]
        if place.bundles:
            folders.append(place.images)
    found: dict[bytes, Path] = {}
    for folder in dict.fromkeys(folders):
        for file in sorted(folder.iterdir()):
            if TABLE.fullmatch(file.name) and file.is_file():
                found.setdefault(file.read_bytes(), file)
    return [Table(file, entries_of(file)) for file in found.values()]


def entries_of(file: Path) -> list[Entry]:
    """Names in the order of the file, with the colours or values that it states.

    A file that can't be read is raised in any case: it concerns every image.
    """
    bad = partial(bad_labels, file)

    rows: list[tuple[int, str]] = []
    for number, line in enumerate(list_lines(file), 1):
        line = line.strip()
        if line and not (line.startswith("#") and not rows):
            rows.append((number, line))
    entries: list[tuple[int, Entry]] = []
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
                entries.append((number, Entry(match["name"], colour)))
        elif rows and all(numbered):
            for (number, _), match in zip(rows, numbered, strict=True):
                entries.append((number, Entry(match["name"], value=int(match["value"]))))
        else:
            entries = [(number, Entry(line)) for number, line in rows]
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


def _csv_entries(rows: list[tuple[int, str]], bad) -> list[tuple[int, Entry]]:
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
            "value": ("value", "pixel value", "index", "id", "class_id"),
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
        entries.append((number, Entry(row[places["name"]], colour, value)))
    return entries
