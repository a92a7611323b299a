"""Sets that have a name: where they are, what they hold, under which licence.

A newcomer adds a set by one file, which defines `SET`, and a line in `_SETS`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from mtl_keras.data import importing
from mtl_keras.data.sets.leaks import leaks
from mtl_keras.data.sets.named_set import NamedSet, read

__all__ = ["get", "info", "leaks", "load", "names", "scene_of"]

_SETS = (
    "digits",
    "facades",
    "kvasir",
    "nuclei",
    "vhr10",
)
STATISTICS = Path(__file__).parent / "statistics.json"


def names() -> list[str]:
    """Lists the sets that `load` knows.

    Returns:
        Sorted list of names.

    Example:

    ```python
    import mtl_keras as mtl

    assert "nuclei" in mtl.data.names()
    ```
    """
    return sorted(_SETS)


def load(
    name: str,
    data_dir: str | os.PathLike | None = None,
    manual_dir: str | os.PathLike | None = None,
) -> Any:
    """Loads a set by its name; prepared once, found again afterwards.

    Images are read from `manual_dir`, or else from the folder `<name>` below the one that the
    environment variable `MTL_KERAS_DATA` names (`../shared/data` if it is not set). There they lie
    as COCO JSON, `images/` beside `train.json` and `val.json` (and `test.json`), or as at the set's
    public home; `info(name)["fetch"]` says how. A public home has no splits, or others: its images
    get those of `info(name)`, and what these do not list is for training. Nothing is downloaded.

    Args:
        name: One of `names()`.
        data_dir: Where prepared sets are kept, by default TFDS's own folder
            (`~/tensorflow_datasets`).
        manual_dir: Folder of the set, or one that holds it as `<name>`.

    Returns:
        A prepared TFDS builder, for `batches` and `examples`.

    Raises:
        ValueError: If there is no set of that name.
        FileNotFoundError: If the set is nowhere; says from where to fetch it, and how to lay it.
        BadLabels: If an image or a label can't be used.

    Example:

    ```python
    import tempfile
    import mtl_keras as mtl

    builder = mtl.data.load("digits", data_dir=tempfile.mkdtemp())
    assert builder.info.splits["train"].num_examples == 400
    ```
    """
    named = get(name)
    if named.make is not None:
        if manual_dir is not None:
            raise ValueError(
                f"the set {name!r} is made, not read: leave out `manual_dir`. Received: "
                f"manual_dir={os.fspath(manual_dir)!r}"
            )
        return named.make(data_dir)
    return importing.prepare(read(named, manual_dir), data_dir)


def info(name: str) -> dict[str, Any]:
    """Says what a set holds, without its data.

    Args:
        name: One of `names()`.

    Returns:
        A dict with `name`, `title`, `description`, `licence`, `citation` and `home` (`None` where
        they are not known), `fetch`, `tags`, `classes`, and `splits`, the statistics of each split,
        see `statistics`.

    Raises:
        ValueError: If there is no set of that name.

    Example:

    ```python
    import mtl_keras as mtl

    about = mtl.data.info("nuclei")
    assert about["licence"] == "CC0" and about["classes"] == ["nucleus"]
    assert about["splits"]["val"]["images"] == 102
    ```
    """
    named = get(name)
    keys = ("name", "title", "description", "licence", "citation", "home", "fetch")
    about = {key: getattr(named, key) for key in keys}
    measured = json.loads(STATISTICS.read_text("utf-8")).get(name, {})
    return {**about, "tags": list(named.tags), **measured}


def get(name: str) -> NamedSet:
    """Finds what is known of a set.

    Raises:
        ValueError: If there is no set of that name.
    """
    if name not in _SETS:
        import difflib

        near = difflib.get_close_matches(str(name).lower(), _SETS, 1, 0.5)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"there is no set {name!r}{hint} The sets are {names()}")
    return import_module(f"{__name__}.{name}").SET


def scene_of(builder: Any) -> Callable[[str], str] | None:
    """The function from the path of an image to the scene that it shows.

    Args:
        builder: A prepared builder.

    Returns:
        A function, or `None` where no two images show one scene.
    """
    scene = get(builder.info.name).scene if builder.info.name in names() else None
    return None if scene is None else lambda path: scene(PurePosixPath(path).name)
