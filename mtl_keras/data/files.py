"""Files and folders of labelled images: which there are, what they are called, lines of texts."""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from mtl_keras.data.records import Bad, bad_labels

IMAGE_SUFFIXES = frozenset(
    (".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff")
    + (".webp",)
)
IMAGE_FOLDER = re.compile(r"images?|imgs?|jpegimages|photos|pictures", re.IGNORECASE)


def is_background(name: str) -> bool:
    """Whether a class is background by its name."""
    return name.strip().lower() in ("background", "_background_", "__background__", "bg")


def is_image(name: str) -> bool:
    """Whether a file is an image by the end of its name."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def composed(name: str) -> str:
    """A name with composed letters: macOS takes accents apart."""
    return unicodedata.normalize("NFC", name)


def located(folder: Path, name: str) -> Path:
    """The file that labels name, also where the name was written on Windows or on a Mac."""
    names = [name, name.replace("\\", "/")] if "\\" in name else [name]
    forms = ("NFC", "NFD") if not name.isascii() else ()
    names += [unicodedata.normalize(form, one) for one in names for form in forms]
    return next((path for one in names if (path := folder / one).is_file()), folder / name)


def stem_of(name: str) -> str:
    """A relative path without its suffix, with `/` and composed letters."""
    return composed(PurePosixPath(name).with_suffix("").as_posix())


def walk(folder: Path, deep: bool = True) -> Iterator[str]:
    """Names of the files below a folder, relative to it, with `/`.

    What is hidden is left out. Links to folders are followed, unless they lead back.

    Args:
        folder: The folder.
        deep: `False` leaves out the folders inside.
    """
    visited = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(f for f in folders if deep and not f.startswith((".", "__MACOSX")))
        below = Path(here).relative_to(folder)
        yield from ((below / f).as_posix() for f in sorted(files) if not f.startswith("."))


def image_files(folder: Path) -> tuple[list[str], list[str]]:
    """Files below a folder, those of images apart from others; what is hidden is left out.

    Args:
        folder: The folder. Links to folders are followed.

    Returns:
        Two sorted lists of paths relative to the folder, with `/`: of files whose names end as
        images' do (`IMAGE_SUFFIXES`), and of others.

    Example:
        ```python
        import pathlib, tempfile
        from mtl_keras.data.files import image_files

        folder = pathlib.Path(tempfile.mkdtemp())
        for name in ("b.PNG", "a.jpg", "notes.md", ".hidden.png"):
            (folder / name).touch()
        assert image_files(folder) == (["a.jpg", "b.PNG"], ["notes.md"])
        ```
    """
    images, others = [], []
    for name in walk(folder):
        (images if is_image(name) else others).append(name)
    return sorted(images), sorted(others)


def by_stem(folder: Path, suffixes: Iterable[str], deep: bool = True) -> dict[str, list[Path]]:
    """Files below a folder by their names in it without suffix (`stem_of`), sorted.

    Args:
        folder: The folder.
        suffixes: Which files, by the ends of their names in lower case: ".png".
        deep: `False` leaves out the folders inside.
    """
    found: dict[str, list[Path]] = {}
    for name in walk(folder, deep):
        if PurePosixPath(name).suffix.lower() in suffixes:
            found.setdefault(stem_of(name), []).append(folder / name)
    return dict(sorted(found.items()))


def folders_in(folder: Path) -> dict[str, Path]:
    """Folders in a folder, by their names in lower case; hidden ones are passed over."""
    found = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    return {p.name.lower(): p for p in found}


def relative(path: Path, base: Path) -> str:
    """A path relative to a folder if it lies there, else as it is; with `/`."""
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.as_posix()


def text_lines(path: Path) -> list[str]:
    """Lines of a UTF-8 text without a byte order mark and without line ends of any system.

    Raises:
        Bad: If it is not UTF-8.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Bad("not UTF-8", "save the file as UTF-8 text", path, line) from error
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def list_lines(path: Path) -> list[str]:
    """Lines of a list, of images or of classes, without which nothing can be read.

    Raises:
        BadLabels: If it is not UTF-8.
    """
    try:
        return text_lines(path)
    except Bad as bad:
        raise bad_labels(path, bad.line, bad.kind, str(bad)) from bad


def finite(text: str) -> float | None:
    """A finite number, or `None` if a text is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None


def unique_names(names: Iterable[str]) -> list[str]:
    """Names of classes without needless white space and without repeats.

    The second "gap" is "gap_2", if no other class is called so.
    """
    names = [" ".join(name.split()) for name in names]
    found: list[str] = []
    for name in names:
        unique, count = name, 2
        while unique in found or (unique != name and unique in names):
            unique, count = f"{name}_{count}", count + 1
        found.append(unique)
    return found
