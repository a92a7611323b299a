"""Finds the image that a row is of."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

from mtl_keras.data.columns.tables import Table
from mtl_keras.data.files import composed, is_image
from mtl_keras.data.records import Record, bad_labels
from mtl_keras.data.splits import split_of_path

_FILE_HEADERS = (
    "filename file_name file image image_name imagename img path image_path imagepath file_path "
    "filepath image_id imageid id name"
)
_BOX = re.compile(r"x_?min|bbox(_x)?|bounding_?box", re.IGNORECASE)


class Finder:
    """Finds records, each with its split, by what a row calls their file."""

    def __init__(self, splits: Mapping[str, Sequence[Record]]):
        self.by_name: dict[str, list[tuple[str | None, Record]]] = {}
        self.by_stem: dict[str, list[tuple[str | None, Record]]] = {}
        for split, records in splits.items():
            for record in records:
                name = PurePosixPath(_normal(record.filename)).name
                found = (split_of_path(f"{split}/{record.filename}"), record)
                self.by_name.setdefault(name, []).append(found)
                self.by_stem.setdefault(_stem(name), []).append(found)

    def __call__(self, value: str) -> list[tuple[str | None, Record]]:
        """All that fit; one, if the value is right."""
        value = _normal(value)
        if not value or value.endswith("/"):
            return []
        name, stem = PurePosixPath(value).name, _stem(PurePosixPath(value).name)
        return (
            _fitting(value, self.by_name.get(name, []), lambda path: path)
            or _fitting(value, self.by_stem.get(name, []), _stem)
            or _fitting(_stem(value), self.by_stem.get(stem, []), _stem)
        )


def _fitting(value: str, found: list[tuple[str | None, Record]], same: Callable) -> list[tuple]:
    """Those whose path ends as the value does, or whose name the value ends with."""
    names = [(pair, same(_normal(pair[1].filename))) for pair in found]
    paths = [(pair, same(_normal(pair[1].path.as_posix()))) for pair in found]
    split = split_of_path(value)
    return (
        [pair for pair, name in names if name == value]
        or [pair for pair, path in paths if f"/{path}".endswith(f"/{value}")]
        or [
            pair
            for pair, name in names
            if f"/{value}".endswith(f"/{name}") and (split is None or pair[0] in (None, split))
        ]
    )


def _normal(name: str) -> str:
    """A path with `/` and composed letters: macOS takes accents apart."""
    name = composed(name.strip()).replace("\\", "/")
    return name.removeprefix("./")


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return path.with_suffix("").as_posix() if is_image(name) else name


def file_column(table: Table, find: Finder, skipped: Sequence[str] = ()) -> int:
    """The column that names files: by its header, or else by what it holds."""
    for cell in table.header:
        if is_image(cell):
            message = f"the first line should name the columns. Received: {table.header}"
            raise bad_labels(table.file, table.line, "no header", message)
    if boxes := [n for n in table.header if _BOX.fullmatch(n) and n not in skipped]:
        raise ValueError(
            f"{str(table.file)!r} has the columns {boxes}, of boxes; this reads labels of whole "
            "images, one row an image. Convert the boxes to COCO JSON, or leave these columns out"
        )
    lower = [name.lower().replace(" ", "_") for name in table.header]
    named = [lower.index(name) for name in _FILE_HEADERS.split() if name in lower]
    step = 1 + len(table.rows) // 1000
    hits = [sum(bool(find(c)) for _, c in table.cells(i)[::step]) for i in range(len(lower))]
    best = max(range(len(hits)), key=hits.__getitem__)
    for column in named:
        if hits[column] and 2 * hits[column] >= hits[best]:
            return column
    if not hits[best]:
        line, row = table.rows[0]
        raise ValueError(
            f"no column of {str(table.file)!r} names images of the set; one should, as 'filename' "
            f"with 'a.jpg'. Line {line} is {row}, the columns are {table.header}"
        )
    return best
