"""Reads the cells of a CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from mtl_keras.data.files import list_lines
from mtl_keras.data.records import bad_labels


@dataclass
class Table:
    """Cells of a file, with the numbers of their lines; rows of another length too."""

    file: Path
    line: int
    header: list[str]
    rows: list[tuple[int, list[str]]]

    def cells(self, column: int) -> list[tuple[int, str]]:
        width = len(self.header)
        return [(line, row[column]) for line, row in self.rows if len(row) == width]


def read_table(file: Path, least: int = 2) -> Table:
    """The cells of a file, whichever delimiter it has.

    Args:
        file: The CSV.
        least: How many columns it should have at least.

    Raises:
        BadLabels: If it can't be read.
    """
    text = "\n".join(list_lines(file))
    if not text.strip():
        raise bad_labels(file, None, "empty label file", "it should hold a line of names, and rows")
    if file.suffix.lower() == ".tsv":
        delimiters = "\t"
    else:
        first = next(line for line in text.splitlines() if line.strip())
        delimiters = [d for d in ",;\t" if d in first]
    tables, errors = [], []
    for delimiter in delimiters or ",":
        rows, line = [], 1
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        try:
            for row in reader:
                cells = [cell.strip() for cell in row]
                if any(cells):
                    rows.append((line, cells))
                line = reader.line_num + 1
        except csv.Error as error:
            message = f"a quote that does not end, or what no CSV holds: {error}"
            errors.append(bad_labels(file, line, "unreadable row", message))
            continue
        width = len(rows[0][1]) if rows else 0
        tables.append((sum(len(row) == width for _, row in rows), width, rows))
    if not tables:
        raise errors[0]
    _, width, rows = max(tables, key=lambda t: t[:2])
    if width < least:
        message = "it should have a column of file names and one of labels at least"
        raise bad_labels(file, rows[0][0], "one column", f"{message}. Received: {text[:80]!r}")
    while not rows[0][1][-1] and all(not row[-1] for _, row in rows if len(row) == width):
        rows = [(line, row[:-1] if len(row) == width else row) for line, row in rows]
        width -= 1
    (line, header), rows = rows[0], rows[1:]
    if not rows:
        raise bad_labels(file, line, "empty label file", "it has a line of names, but no rows")
    counting = [str(i) for i in range(len(rows))]
    if not header[0] and [row[0] for _, row in rows] == counting:  # the index that pandas writes
        header, rows = header[1:], [(line, row[1:]) for line, row in rows]
    for name, count in Counter(header).items():
        if not name or count > 1:
            message = f"every column should have a name of its own. Received: {header}"
            kind = "repeated column" if name else "unnamed column"
            raise bad_labels(file, line, kind, message)
    return Table(file, line, header, rows)
