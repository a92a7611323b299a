"""From a model of one's own to a folder that `load` reads, and from there to a hub."""

import hashlib
import json
import os
import pathlib
import shutil
import uuid
from importlib import metadata
from typing import Any

from mtl_keras.zoo.card_schema import SCHEMA

CARD, WEIGHTS = "card.json", "weights.npz"
# What `save_to_zoo` says of a model; `about` says the rest.
KEYS = (
    "name",
    "tasks",
    "classes",
    "input",
    "parameters",
    "shared_fraction",
    "versions",
    "files",
    "config",
)
_PACKAGES = ("tensorflow", "keras", "numpy", "tensorflow-datasets", "pycocotools")


def save_to_zoo(
    model: Any,
    folder: str | os.PathLike,
    about: dict | None = None,
    dtype: str = "float16",
) -> pathlib.Path:
    """Writes a model into a folder, as published ones are: `load(folder)` gives it back.

    The folder gets `weights.npz` and `card.json`. Both are written beside it first and moved when
    they are complete. In a folder that holds a model already they take the place of its own; other
    files there stay. The model is called as the folder is, also when it is loaded again.

    Args:
        model: `mtl_keras.MultiTaskModel`.
        folder: Folder to write to. It may be missing, empty, or hold a model.
        about: Optional dict of what the card shall say besides, by the keys of
            `mtl_keras.zoo.card.Card`: `description`, `data`, `licences`, `metrics` and others.
        dtype: String, how kernels are stored, see `mtl_keras.zoo.weights.save_weights`.

    Returns:
        The path of the folder.

    Raises:
        FileExistsError: If `folder` is a file, or holds something else than a model.
        ValueError: If `model` is no `MultiTaskModel`, `about` has a key that is written from the
            model, one that a card does not know or a value that it can't hold, or a weight does
            not fit into `dtype`.

    Example:

    ```python
    import mtl_keras as mtl
    model = mtl.build(
        mtl.trunks.create("efficientnet_lite0", weights=None),
        tasks=[mtl.tasks.Segmentation(num_classes=2)],
        image_size=(64, 64),
    )
    mtl.zoo.save_to_zoo(model, "my_cells", about={"description": "Masks of cells."})
    assert mtl.zoo.load("my_cells").name == "my_cells"
    ```
    """
    from mtl_keras.training import MultiTaskModel
    from mtl_keras.zoo.card import Card
    from mtl_keras.zoo.weights import save_weights

    if not isinstance(model, MultiTaskModel):
        raise ValueError(f"`model` must be a `MultiTaskModel`. Received: model={model!r}")
    folder = pathlib.Path(folder).expanduser().absolute()
    _check_place(folder)
    about = _checked_about(about)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    beside.mkdir()
    try:
        weights = beside / WEIGHTS
        save_weights(model, weights, dtype)
        card = {"schema": SCHEMA, "name": folder.name, **about, **_description(model, folder.name)}
        card["files"] = {WEIGHTS: {**describe_file(weights), "dtype": dtype}}
        card["config"] = card.pop("config")
        Card(card).check()
        (beside / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        if folder.is_dir() and any(folder.iterdir()):
            # Weights first: a card never vouches for weights that are not there yet.
            for file in (WEIGHTS, CARD):
                os.replace(beside / file, folder / file)
        else:
            if folder.is_dir():
                folder.rmdir()
            os.rename(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def describe_file(path: pathlib.Path) -> dict:
    """Says how a file can be known again.

    Args:
        path: File.

    Returns:
        Dict of `sha256` and `bytes`.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "bytes": path.stat().st_size}


def sharing_name(model: Any) -> str:
    """Returns the registered name of a model's way to share, or the name of its class.

    Args:
        model: `mtl_keras.MultiTaskModel`.
    """
    from mtl_keras import sharing

    kind = type(model.sharing)
    names = [name for name in sharing.names() if type(sharing.get(name)) is kind]
    return names[0] if names else kind.__name__


def _description(model: Any, name: str) -> dict:
    """What a card says that follows from the model."""
    from mtl_keras import __version__
    from mtl_keras.sharing import sharing_report

    report = sharing_report(model)
    if model.trunk.reads_images:
        takes = {"letterbox": list(model.image_size), "channels": "RGB", "range": [0, 255]}
    else:
        takes = {"sequence": list(model.trunk.input_shape), "dtype": model.trunk.input_dtype}
    return {
        "tasks": [task.name for task in model.tasks],
        # A task whose `num_classes` is no argument has none, such as distances.
        "classes": {
            task.name: [task.class_name(c) for c in range(task.num_classes)]
            if "num_classes" in task.get_config()
            else []
            for task in model.tasks
        },
        "sharing": sharing_name(model),
        "input": takes,
        "parameters": report.parameters,
        "shared_fraction": report.shared_fraction,
        "versions": {"mtl-keras": __version__, **_versions()},
        "config": {**model.architecture(), "name": name},
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue  # A version of what is not there can't have made the model.
    return found


def _check_place(folder: pathlib.Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"`folder` must be a folder, but {str(folder)!r} is a file")
    if folder.is_dir() and not (folder / CARD).is_file() and (own := sorted(folder.iterdir())):
        raise FileExistsError(
            f"`folder` must be missing, empty or hold a model, but {str(folder)!r} holds "
            f"{[path.name for path in own[:5]]} and no {CARD}; give another folder"
        )


def _checked_about(about: Any) -> dict:
    from mtl_keras.zoo.card import plain

    about = {} if about is None else about
    if not isinstance(about, dict):
        raise ValueError(f"`about` must be a dict. Received: about={about!r}")
    taken = [key for key in about if key in (*KEYS, "schema", "sharing")]
    if taken:
        raise ValueError(f"`about` must not have {taken}, which are written from the model")
    for key, value in about.items():
        try:
            json.dumps(plain(value))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`about` must hold what JSON can hold, but {key!r} does not: {error}. "
                f"Received: {value!r}"
            ) from None
    return plain(about)
