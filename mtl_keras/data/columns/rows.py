"""What the rows of tables say of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from mtl_keras.data.columns.finder import Finder
from mtl_keras.data.columns.tables import Table
from mtl_keras.data.columns.values import Reader
from mtl_keras.data.records import Problems, Record
from mtl_keras.data.splits import split_name


class Rows:
    """What rows say of each record, by `id(record)`."""

    def __init__(self, problems: Problems):
        self.problems = problems
        self.values: dict[int, dict[str, int | float]] = {}
        self.split: dict[int, str] = {}
        self.line: dict[int, tuple[Path, int]] = {}

    def add(
        self,
        table: Table,
        name: int,
        split: int | None,
        find: Finder,
        readers: Mapping[str, Reader],
        of_file: str | None,
    ) -> None:
        """Takes in the rows of a table; `of_file` is the split that its file is called by."""

        def bad(line: int, kind: str, message: str) -> None:
            self.problems.add(table.file, kind, message, line=line)

        for line, row in table.rows:
            if len(row) != len(table.header):
                bad(
                    line,
                    "ragged row",
                    f"it has {len(row)} cells, the header {len(table.header)}: {row}; put quotes "
                    "around cells that hold the delimiter, and write decimal numbers with a point",
                )
                continue
            stated = of_file
            if split is not None and row[split]:
                stated = split_name(row[split])
                if stated is None:
                    message = f"{row[split]!r} should be 'train', 'val' or 'test'"
                    bad(line, "unknown split", f"{message}; the row is left out")
                    continue
            found = find(row[name])
            if len(found) > 1 and stated is not None:
                found = [pair for pair in found if pair[0] == stated] or found
            if not found:
                bad(line, "missing image", f"no image of the set is called {row[name]!r}")
                continue
            if len(found) > 1:
                first, second = (str(pair[1].path) for pair in found[:2])
                message = f"{row[name]!r} may be {first!r} or {second!r}"
                bad(line, "ambiguous image", f"{message}; give its folder, or its suffix")
                continue
            values = {}
            for column, cell in zip(table.header, row, strict=True):
                if column in readers and cell:
                    try:
                        values[column] = readers[column](cell)
                    except ValueError as error:
                        kind, why = error.args
                        bad(line, kind, f"the column {column!r} holds {cell!r}; {why}")
            self._put(table, line, found[0][1], values, stated)

    def _put(
        self, table: Table, line: int, record: Record, values: dict, split: str | None
    ) -> None:
        key = id(record)
        if key not in self.line:
            self.line[key], self.values[key] = (table.file, line), values
            if split is not None:
                self.split[key] = split
            return
        file, first = self.line[key]
        before = self.values[key]
        both = {c: v for c, v in before.items() if values.get(c) == v}
        differ = sorted(c for c in {*before, *values} if c not in both)
        self.values[key] = both
        self.problems.add(
            table.file,
            "duplicate row",
            f"{record.filename!r} has a row in line {first} of {file.name!r} too"
            + (f"; they differ in {differ}, which are taken as not labelled" if differ else ""),
            line=line,
        )

    def applied(self, record: Record) -> Record:
        """A copy of a record, with what its row says."""
        if id(record) not in self.line:
            return dataclasses.replace(record)
        file, line = self.line[id(record)]
        return dataclasses.replace(
            record,
            values={**record.values, **self.values[id(record)]},
            where=record.where or f"{file}, line {line}",
        )
