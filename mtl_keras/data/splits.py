"""Splits by the names of folders and files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

# What splits are called, and what they are.
SPLITS = {
    "train": "train",
    "training": "train",
    "default": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
# VOC lists `train` and `val` together, too.
SPLITS_AND_BOTH = {**SPLITS, "trainval": "trainval"}
ORDER = ("train", "val", "trainval", "test")

_WORDS = "|".join(sorted(SPLITS, key=len, reverse=True))
_WHOLE = re.compile(rf"(?:stage\d+[ _-])?({_WORDS})")
_WITHIN = re.compile(rf"(?<![a-z])({_WORDS})(?![a-z])")


def split_name(name: str) -> str | None:
    """The split that a folder's or file's name stands for: "valid" is `"val"`.

    Args:
        name: A name such as `"Train"`, `"validation"` or `"stage1_test"`.

    Returns:
        `"train"`, `"val"`, `"test"`, or `None` if it is no name of a split.

    Example:
        ```python
        from mtl_keras.data.splits import split_name

        assert split_name("Validation") == "val" and split_name("cat") is None
        ```
    """
    match = _WHOLE.fullmatch(name.strip().lower())
    return SPLITS[match[1]] if match else None


def split_within(name: str) -> str | None:
    """The split that a part of a name tells, as in `instances_train2017`."""
    match = _WITHIN.search(name.lower())
    return SPLITS[match[1]] if match else None


def split_of_path(name: str) -> str | None:
    """The split that a folder of a relative path names."""
    folders = PurePosixPath(name).parts[:-1]
    return next((split for part in folders if (split := split_name(part)) is not None), None)


def folders_of_splits(folders: Mapping[str, Path]) -> dict[str, list[Path]]:
    """Folders that are called as splits, by the split, in the order of `ORDER`.

    Args:
        folders: Folders by their names in lower case.
    """
    found: dict[str, list[Path]] = {}
    for split in ORDER:
        if named := [p for name, p in folders.items() if SPLITS_AND_BOTH.get(name) == split]:
            found[split] = named
    return found
