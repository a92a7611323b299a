"""Makes class ids and numbers of cells."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from mtl_keras.data.columns.tables import Table
from mtl_keras.data.records import bad_labels

KINDS = ("class", "number", "skip")
# Integers are classes, if they take at most so many values.
FEW = 20
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
NOT_FINITE = re.compile(r"[+-]?(nan|inf(inity)?)", re.IGNORECASE)


@dataclass
class Reader:
    """Makes values of cells: `classes` are the names, or `None` for numbers."""

    classes: list[str] | None

    def __post_init__(self):
        self.ids = {name: i for i, name in enumerate(self.classes or ())}

    def __call__(self, cell: str) -> int | float:
        """Raises a ValueError, of kind and message, for a cell that can't be used."""
        if NOT_FINITE.fullmatch(cell):
            raise ValueError("not a finite number", "leave the cell empty if it is not labelled")
        if self.classes is not None:
            return self.ids[cell if cell in self.ids else _canonical(cell)]
        if not _NUMBER.fullmatch(cell):
            raise ValueError("not a number", "the column is one of numbers")
        if not math.isfinite(value := float(cell)):
            raise ValueError("not a finite number", "it is too large")
        return value


def reader_of(column: str, tables: list[Table], kind: str | None) -> Reader | None:
    """What a column is: guessed, unless `kind` says it. `None` if it is passed over, or empty."""
    filled = [
        (table.file, line, cell)
        for table in tables
        if column in table.header
        for line, cell in table.cells(table.header.index(column))
        if cell
    ]
    if kind == "skip" or not (filled or kind):
        return None
    cells = [c for c in filled if not NOT_FINITE.fullmatch(c[2])]
    distinct = set(cell for _, _, cell in cells)
    numbers = sum(_NUMBER.fullmatch(cell) is not None for _, _, cell in cells)
    integers = sum(_INTEGER.fullmatch(cell) is not None for _, _, cell in cells)
    commas = [c for c in cells if _DECIMAL_COMMA.fullmatch(c[2])]
    mostly = 10 * (numbers + len(commas)) >= 9 * len(cells)
    if commas and kind != "class" and (mostly or kind == "number"):
        file, line, cell = commas[0]
        raise bad_labels(
            file,
            line,
            "decimal comma",
            f"the column {column!r} holds {cell!r}; write decimal numbers with a point, as "
            f"{cell.replace(',', '.')!r}",
        )
    if kind is None:
        if mostly and (numbers > integers or len(distinct) > FEW or not cells):
            kind = "number"
        elif len(distinct) > FEW and 2 * len(distinct) > len(cells):
            raise ValueError(
                f"the column {column!r} holds {len(distinct)} texts in {len(cells)} rows, such as "
                f"{min(distinct)!r}: neither classes nor numbers. Say what it is, or pass it over, "
                f"as in kinds={{{column!r}: 'skip'}}"
            )
        else:
            kind = "class"
    if kind == "number":
        return Reader(None)
    if all(_is_whole(cell) for cell in distinct):
        names = {_canonical(cell) for cell in distinct}
        return Reader(sorted(names, key=int))
    return Reader(sorted(distinct))


def _is_whole(cell: str) -> bool:
    """Whether a cell is an integer, perhaps written as 3.0, but no code such as 007."""
    return re.fullmatch(r"[+-]?(0|[1-9]\d*)(\.0*)?", cell, re.ASCII) is not None


def _canonical(cell: str) -> str:
    return str(int(cell.partition(".")[0])) if _is_whole(cell) else cell


def check_kinds(kinds: Mapping[str, str], labels: list[str]) -> None:
    """Refuses kinds of unknown columns, and unknown kinds."""
    for column, kind in kinds.items():
        if column not in labels:
            raise ValueError(f"`kinds` names the unknown column {column!r}; there are {labels}")
        if kind not in KINDS:
            raise ValueError(
                f"`kinds` must be of {KINDS}. Received: kinds={{{column!r}: {kind!r}}}"
            )
