"""Labels of whole images: columns of a CSV, or a folder a class."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mtl_keras.data.mask_folders import IMAGE_FOLDER, IMAGE_SUFFIX, image_files, split_name
from mtl_keras.data.records import BadLabels, Problem, Problems, Record, Source

LAYOUT = "columns"
KINDS = ("class", "number", "skip")
# Integers are classes, if they take at most so many values.
FEW = 20

_FILE_HEADERS = (
    "filename file_name file image image_name imagename img path image_path imagepath file_path "
    "filepath image_id imageid id name"
)
_SPLIT_HEADERS = ("split", "subset", "partition", "set", "usage", "dataset")
_BOX = re.compile(r"x_?min|bbox(_x)?|bounding_?box", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf(inity)?)", re.IGNORECASE)


def read(
    path: str | os.PathLike,
    on_bad: str = "strict",
    kinds: Mapping[str, str] | None = None,
) -> Source:
    """Reads a folder of images with a CSV, or with a folder a class.

    With a CSV (or TSV) in the folder, its columns are labels, see `attach`. A column `split` says
    the split of each image, by `train`, `val` or `test`. Without it, folders of these names do; and
    all else is split `"train"`. If the CSV files are `train.csv`, `val.csv`, `test.csv`, each says
    it of the images that it lists. Images that are in no row stay, not labelled.

    Without a CSV, the folder of an image is its class, as in `train/cat/x.jpg` or `cat/x.jpg`, in a
    column `"class"`. An image in no such folder, as `test/x.jpg`, stays, not labelled.

    Args:
        path: The folder; or the CSV in the folder, if there are several.
        on_bad: `"strict"` or `"quarantine"`; see `records.py`.
        kinds: Dict, column to `"class"`, `"number"` or `"skip"`; see `attach`.

    Returns:
        A `Source`, whose images have no objects and no masks.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it has another layout; or as `attach`.
        BadLabels: As `attach`.

    Example:
        ```python
        import pathlib, tempfile
        import numpy as np
        from PIL import Image
        from mtl_keras.data import columns

        folder = pathlib.Path(tempfile.mkdtemp())
        for name in ("train/cat/a.png", "train/dog/b.png", "test/c.png"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((4, 6, 3), "uint8")).save(folder / name)
        source = columns.read(folder)
        assert source.columns == {"class": ["cat", "dog"]}
        assert [r.values for r in source.splits["train"]] == [{"class": 0}, {"class": 1}]
        assert source.splits["test"][0].values == {}
        ```
    """
    problems = Problems(on_bad)
    root = Path(path).expanduser()
    if not root.exists():
        raise FileNotFoundError(f"there is no folder or file {str(root)!r}")
    if root.is_dir():
        files = _csv_files(root)
        if len(files) > 1 and not all(split_name(f.stem) for f in files):
            names = ", ".join(repr(f.name) for f in files)
            raise ValueError(
                f"{str(root)!r} holds several files of columns, {names}; give the path of one"
            )
    else:
        root, files = root.parent, [root]
    names, _ = image_files(root)
    if not names:
        raise ValueError(f"there is no image below {str(root)!r}")
    if not files:
        return _class_folders(root, names, kinds)
    records = [Record(root / name, name, i) for i, name in enumerate(names)]
    source = Source(root.resolve().name, LAYOUT, [], {"": records})
    return _attached(source, files, kinds, problems, [_split_of(name) for name in names])


def attach(
    source: Source,
    csv_path: str | os.PathLike,
    kinds: Mapping[str, str] | None = None,
    on_bad: str = "strict",
) -> Source:
    """Adds the columns of a CSV to the images of another source.

    - The first line names the columns. One of them names the file: `filename`, `file`, `image`,
      `path`, `id`, ..., or whichever holds names of images. A name may have folders, and need not
      have its suffix, as long as it fits one image.
    - Text is a class, as it stands. Integers of few values (20 at most) are classes, whose name is
      the number. Other integers, and a column with a decimal number, are numbers. Text of very many
      values (more than 20, and most of them once) is neither, and is refused. `kinds` says
      otherwise.
    - Classes are sorted by name, those of integers by value.
    - An empty cell, or an image without a row, is not labelled.
    - A cell that can't be used is not labelled either, under `"quarantine"`. Where two rows are of
      one image, so are those columns in which they differ.
    - A column `split` with `train`, `val` and `test` moves images, if the source has one split; if
      it has several, the two must agree.
    - A first column without a name that counts the rows, as pandas writes it, is passed over.

    Args:
        source: What an importer read. It is left as it is.
        csv_path: A file of UTF-8 text, with commas, semicolons or tabs between its cells, and
            points in decimal numbers.
        kinds: Dict, column to `"class"`, `"number"`, or `"skip"` (the column is passed over).
        on_bad: `"strict"` or `"quarantine"`; see `records.py`.

    Returns:
        A `Source` with the columns of both.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If `kinds` names an unknown column or kind, if a column names no images or is
            neither class nor number, if the source has a column of the same name, or if the rows
            are boxes.
        BadLabels: If the file is empty, not UTF-8, without a header, or with decimal commas; under
            `"strict"`, for the first row that can't be used.

    Example:
        ```python
        import pathlib, tempfile
        from mtl_keras.data import columns
        from mtl_keras.data.records import Record, Source

        folder = pathlib.Path(tempfile.mkdtemp())
        records = [Record(folder / f"{n}.png", f"{n}.png", i) for i, n in enumerate("ab")]
        source = Source("pets", "coco", ["head"], {"train": records})
        (folder / "ages.csv").write_text("file,sex,age\\na.png,f,2.5\\nb.png,m,\\n")
        source = columns.attach(source, folder / "ages.csv")
        assert source.columns == {"sex": ["f", "m"], "age": None}
        assert [r.values for r in source.splits["train"]] == [{"sex": 0, "age": 2.5}, {"sex": 1}]
        ```
    """
    problems = Problems(on_bad)
    problems.found = list(source.problems)
    file = Path(csv_path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {str(file)!r}")
    return _attached(source, [file], kinds, problems)


def recognise(path: str | os.PathLike) -> str | None:
    """Says in a sentence that a folder holds labels of whole images.

    Lists names, and reads the CSV, if there is one.

    Args:
        path: The folder.

    Returns:
        The sentence, or `None` if the folder has another layout.

    Example:
        ```python
        import tempfile
        from mtl_keras.data import columns

        assert columns.recognise(tempfile.mkdtemp()) is None
        ```
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        return None
    files = _csv_files(root)
    names, _ = image_files(root)
    if not names:
        return None
    if not files:
        found = {c for _, c in map(_class_of, names) if c is not None}
        if len(found) < 2 or any(IMAGE_FOLDER.fullmatch(c) for c in found):
            return None
        return f"{len(names)} images in folders of {len(found)} classes, such as {min(found)!r}"
    if len(files) > 1 and not all(split_name(f.stem) for f in files):
        return None
    try:
        table = _read_table(files[0], least=1 if len(files) > 1 else 2)
        records = [Record(root / name, name, i) for i, name in enumerate(names)]
        column = _file_column(table, _Finder({"": records}))
    except ValueError:
        return None
    return f"{files[0].name!r}, whose column {table.header[column]!r} names images"


# === Class folders ===


def _csv_files(root: Path) -> list[Path]:
    found = [f for f in sorted(root.iterdir()) if f.suffix.lower() in (".csv", ".tsv")]
    return [f for f in found if f.is_file() and not f.name.startswith(".")]


def _split_of(name: str) -> str | None:
    """The split that a folder of a relative path names."""
    for part in PurePosixPath(name).parts[:-1]:
        if (split := split_name(part)) is not None:
            return split
    return None


def _class_of(name: str) -> tuple[str, str | None]:
    """Split and class of a path such as `train/cat/x.jpg`."""
    folders = list(PurePosixPath(name).parts[:-1])
    split = "train"
    if folders and (found := split_name(folders[0])) is not None:
        split = found
        folders.pop(0)
    return split, unicodedata.normalize("NFC", folders[0]) if folders else None


def _class_folders(root: Path, names: list[str], kinds: Mapping | None) -> Source:
    if kinds:
        raise ValueError(f"`kinds` is for columns of a CSV. Received: kinds={dict(kinds)!r}")
    where = [_class_of(name) for name in names]
    classes = sorted({c for _, c in where if c is not None})
    ids = {name: i for i, name in enumerate(classes)}
    if not classes or any(IMAGE_FOLDER.fullmatch(c) for c in classes):
        raise ValueError(
            f"{str(root)!r} has neither a CSV nor a folder a class, as in 'cat/x.jpg' or "
            f"'train/cat/x.jpg'. Its folders of images: {classes[:10]}"
        )
    splits: dict[str, list[Record]] = {}
    for name, (split, label) in zip(names, where, strict=True):
        records = splits.setdefault(split, [])
        values = {} if label is None else {"class": ids[label]}
        records.append(Record(root / name, name, len(records), values=values, where=str(root)))
    return Source(root.resolve().name, LAYOUT, [], splits, columns={"class": classes})


# === Tables ===


@dataclass
class _Table:
    """Cells of a file, with the numbers of their lines; rows of another length too."""

    file: Path
    line: int
    header: list[str]
    rows: list[tuple[int, list[str]]]

    def cells(self, column: int) -> list[tuple[int, str]]:
        width = len(self.header)
        return [(line, row[column]) for line, row in self.rows if len(row) == width]


def _bad(file: Path, line: int | None, kind: str, message: str) -> BadLabels:
    """What concerns the whole file, and is raised under quarantine too."""
    return BadLabels(Problem(str(file), line, kind, message))


def _read_table(file: Path, least: int = 2) -> _Table:
    content = file.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _bad(file, 1, "not UTF-8", "it is UTF-16; save it as 'CSV UTF-8'")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _bad(file, line, "not UTF-8", "save the file as 'CSV UTF-8'") from error
    if not text.strip():
        raise _bad(file, None, "empty label file", "it should hold a line of names, and rows")
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
            errors.append(_bad(file, line, "unreadable row", message))
            continue
        width = len(rows[0][1]) if rows else 0
        tables.append((sum(len(row) == width for _, row in rows), width, rows))
    if not tables:
        raise errors[0]
    _, width, rows = max(tables, key=lambda t: t[:2])
    if width < least:
        message = "it should have a column of file names and one of labels at least"
        raise _bad(file, rows[0][0], "one column", f"{message}. Received: {text[:80]!r}")
    while not rows[0][1][-1] and all(not row[-1] for _, row in rows if len(row) == width):
        rows = [(line, row[:-1] if len(row) == width else row) for line, row in rows]
        width -= 1
    (line, header), rows = rows[0], rows[1:]
    if not rows:
        raise _bad(file, line, "empty label file", "it has a line of names, but no rows")
    counting = [str(i) for i in range(len(rows))]
    if not header[0] and [row[0] for _, row in rows] == counting:  # the index that pandas writes
        header, rows = header[1:], [(line, row[1:]) for line, row in rows]
    for name, count in Counter(header).items():
        if not name or count > 1:
            message = f"every column should have a name of its own. Received: {header}"
            raise _bad(file, line, "unnamed column" if not name else "repeated column", message)
    return _Table(file, line, header, rows)


# === Which image a row is of ===


class _Finder:
    """Finds records, each with its split, by what a row calls their file."""

    def __init__(self, splits: Mapping[str, Sequence[Record]]):
        self.by_name: dict[str, list[tuple[str | None, Record]]] = {}
        self.by_stem: dict[str, list[tuple[str | None, Record]]] = {}
        for split, records in splits.items():
            for record in records:
                name = PurePosixPath(_normal(record.filename)).name
                found = (_split_of(f"{split}/{record.filename}"), record)
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
    split = _split_of(value)
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
    name = unicodedata.normalize("NFC", name.strip()).replace("\\", "/")
    return name.removeprefix("./")


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return path.with_suffix("").as_posix() if IMAGE_SUFFIX.fullmatch(path.suffix) else name


def _file_column(table: _Table, find: _Finder, skipped: Sequence[str] = ()) -> int:
    """The column that names files: by its header, or else by what it holds."""
    for cell in table.header:
        if IMAGE_SUFFIX.fullmatch(PurePosixPath(cell).suffix):
            message = f"the first line should name the columns. Received: {table.header}"
            raise _bad(table.file, table.line, "no header", message)
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


# === Values ===


def _attached(
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
    find = _Finder(source.splits)
    by_split = len(files) > 1
    tables = []
    for file in files:
        table = _read_table(file, least=1 if by_split else 2)
        name = _file_column(table, find, skipped)
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
    _check_kinds(kinds, labels)
    if again := sorted((set(labels) - set(skipped)) & set(source.columns)):
        raise ValueError(f"the source has columns {again} already; rename those of {files[0]}")
    readers = {}
    for column in labels:
        reader = _reader(column, [table for table, _, _ in tables], kinds.get(column))
        if reader is not None:
            readers[column] = reader
    if not readers:
        raise ValueError(f"{str(files[0])!r} has no column of labels; it has {labels}")
    rows = _Rows(problems)
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
    splits: Mapping[str, list[Record]], rows: _Rows, problems: Problems
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
    rows: _Rows,
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


def _check_kinds(kinds: Mapping[str, str], labels: list[str]) -> None:
    for column, kind in kinds.items():
        if column not in labels:
            raise ValueError(f"`kinds` names the unknown column {column!r}; there are {labels}")
        if kind not in KINDS:
            raise ValueError(
                f"`kinds` must be of {KINDS}. Received: kinds={{{column!r}: {kind!r}}}"
            )


def _split_column(table: _Table, name: int, kinds: Mapping[str, str]) -> int | None:
    for i, header in enumerate(table.header):
        if i != name and header.lower() in _SPLIT_HEADERS and header not in kinds:
            cells = [cell for _, cell in table.cells(i) if cell]
            if cells and 2 * sum(split_name(c) is not None for c in cells) >= len(cells):
                return i
    return None


@dataclass
class _Reader:
    """Makes values of cells: `classes` are the names, or `None` for numbers."""

    classes: list[str] | None

    def __post_init__(self):
        self.ids = {name: i for i, name in enumerate(self.classes or ())}

    def __call__(self, cell: str) -> int | float:
        """Raises a ValueError, of kind and message, for a cell that can't be used."""
        if _NOT_FINITE.fullmatch(cell):
            raise ValueError("not a finite number", "leave the cell empty if it is not labelled")
        if self.classes is not None:
            return self.ids[cell if cell in self.ids else _canonical(cell)]
        if not _NUMBER.fullmatch(cell):
            raise ValueError("not a number", "the column is one of numbers")
        if not math.isfinite(value := float(cell)):
            raise ValueError("not a finite number", "it is too large")
        return value


def _reader(column: str, tables: list[_Table], kind: str | None) -> _Reader | None:
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
    cells = [c for c in filled if not _NOT_FINITE.fullmatch(c[2])]
    distinct = set(cell for _, _, cell in cells)
    numbers = sum(_NUMBER.fullmatch(cell) is not None for _, _, cell in cells)
    integers = sum(_INTEGER.fullmatch(cell) is not None for _, _, cell in cells)
    commas = [c for c in cells if _DECIMAL_COMMA.fullmatch(c[2])]
    mostly = 10 * (numbers + len(commas)) >= 9 * len(cells)
    if commas and kind != "class" and (mostly or kind == "number"):
        file, line, cell = commas[0]
        raise _bad(
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
        return _Reader(None)
    if all(_is_whole(cell) for cell in distinct):
        names = {_canonical(cell) for cell in distinct}
        return _Reader(sorted(names, key=int))
    return _Reader(sorted(distinct))


def _is_whole(cell: str) -> bool:
    """Whether a cell is an integer, perhaps written as 3.0, but no code such as 007."""
    return re.fullmatch(r"[+-]?(0|[1-9]\d*)(\.0*)?", cell, re.ASCII) is not None


def _canonical(cell: str) -> str:
    return str(int(cell.partition(".")[0])) if _is_whole(cell) else cell


class _Rows:
    """What rows say of each record, by `id(record)`."""

    def __init__(self, problems: Problems):
        self.problems = problems
        self.values: dict[int, dict[str, int | float]] = {}
        self.split: dict[int, str] = {}
        self.line: dict[int, tuple[Path, int]] = {}

    def add(
        self,
        table: _Table,
        name: int,
        split: int | None,
        find: _Finder,
        readers: Mapping[str, _Reader],
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
        self, table: _Table, line: int, record: Record, values: dict, split: str | None
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
