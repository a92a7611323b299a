"""Labels of whole images: columns of a CSV, or a folder a class."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from mtl_keras.data.columns.attach import attached
from mtl_keras.data.columns.finder import Finder, file_column
from mtl_keras.data.columns.tables import read_table
from mtl_keras.data.files import IMAGE_FOLDER, image_files
from mtl_keras.data.records import Problems, Record, Source
from mtl_keras.data.splits import split_name, split_of_path

LAYOUT = "columns"


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
    return attached(source, files, kinds, problems, [split_of_path(name) for name in names])


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
    return attached(source, [file], kinds, problems)


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
        table = read_table(files[0], least=1 if len(files) > 1 else 2)
        records = [Record(root / name, name, i) for i, name in enumerate(names)]
        column = file_column(table, Finder({"": records}))
    except ValueError:
        return None
    return f"{files[0].name!r}, whose column {table.header[column]!r} names images"


def _csv_files(root: Path) -> list[Path]:
    found = [f for f in sorted(root.iterdir()) if f.suffix.lower() in (".csv", ".tsv")]
    return [f for f in found if f.is_file() and not f.name.startswith(".")]


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
