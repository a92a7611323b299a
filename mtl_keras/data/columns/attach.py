"""Puts columns of tables to the images of a source."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from mtl_keras.data.columns.finder import Finder, file_column
from mtl_keras.data.columns.rows import Rows
from mtl_keras.data.columns.tables import Table, read_table
from mtl_keras.data.columns.values import check_kinds, reader_of
from mtl_keras.data.records import Problems, Record, Source
from mtl_keras.data.splits import split_name

_SPLIT_HEADERS = ("split", "subset", "partition", "set", "usage", "dataset")


def attached(
    source: Source,
    files: list[Path],
    kinds: Mapping[str, str] | None,
    problems: Problems,
    folders: list[str | None] | None = None,
) -> Source:
    """The source with the columns of all files; several files are of the splits they name.

    `folders` are the splits that the folders of the records name, where records have none yet.
    """
    kinds = dict(kinds or {})
    skipped = [column for column, kind in kinds.items() if kind == "skip"]
    find = Finder(source.splits)
    by_split = len(files) > 1
    tables = []
    for file in files:
        table = read_table(file, least=1 if by_split else 2)
        name = file_column(table, find, skipped)
        split = None if by_split else _split_column(table, name, kinds)
        tables.append((table, name, split))
    labels = list(
        dict.fromkeys(
            column
            for table, name, split in tables
            for i, column in enumerate(table.header)
            if i not in (name, split)
        )
    )
    check_kinds(kinds, labels)
    if again := sorted((set(labels) - set(skipped)) & set(source.columns)):
        raise ValueError(f"the source has columns {again} already; rename those of {files[0]}")
    readers = {}
    for column in labels:
        reader = reader_of(column, [table for table, _, _ in tables], kinds.get(column))
        if reader is not None:
            readers[column] = reader
    if not readers:
        raise ValueError(f"{str(files[0])!r} has no column of labels; it has {labels}")
    rows = Rows(problems)
    for table, name, split in tables:
        of_file = split_name(table.file.stem) if by_split else None
        rows.add(table, name, split, find, readers, of_file)
    if folders is None:
        splits = _with_values(source.splits, rows, problems)
    else:
        splits = _into_splits(source.splits[""], rows, folders, files[0], problems)
    return dataclasses.replace(
        source,
        splits=splits,
        columns={**source.columns, **{c: r.classes for c, r in readers.items()}},
        problems=problems.found,
        files=[*source.files, *files],
    )


def _with_values(
    splits: Mapping[str, list[Record]], rows: Rows, problems: Problems
) -> dict[str, list[Record]]:
    """Records of a source with what rows say of them."""
    new: dict[str, list[Record]] = {}
    for split, records in splits.items():
        for record in records:
            stated = rows.split.get(id(record))
            where = split
            if stated not in (None, split, split_name(split)):
                if len(splits) > 1:
                    file, line = rows.line[id(record)]
                    problems.add(
                        file,
                        "another split",
                        f"{record.filename!r} is in split {split!r} of the source, but in "
                        f"{stated!r} here; its row is left out",
                        line=line,
                    )
                    new.setdefault(split, []).append(record)
                    continue
                where = stated
            new.setdefault(where, []).append(rows.applied(record))
    return new


def _into_splits(
    records: list[Record],
    rows: Rows,
    folders: list[str | None],
    file: Path,
    problems: Problems,
) -> dict[str, list[Record]]:
    """Records by the split that rows say, or else their folders."""
    splits: dict[str, list[Record]] = {}
    for record, folder in zip(records, folders, strict=True):
        split = rows.split.get(id(record), folder)
        if split is None and rows.split:
            problems.add(
                file,
                "no split",
                f"no row says the split of {record.filename!r}, and neither does its folder",
                image=record.filename,
            )
            continue
        found = splits.setdefault(split or "train", [])
        record = rows.applied(record)
        record.image_id = len(found)
        found.append(record)
    return splits


def _split_column(table: Table, name: int, kinds: Mapping[str, str]) -> int | None:
    for i, header in enumerate(table.header):
        if i != name and header.lower() in _SPLIT_HEADERS and header not in kinds:
            cells = [cell for _, cell in table.cells(i) if cell]
            if cells and 2 * sum(split_name(c) is not None for c in cells) >= len(cells):
                return i
    return None
