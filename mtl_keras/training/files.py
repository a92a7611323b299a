"""Models in `.keras` files."""

import importlib
import os
import pathlib
import re
from typing import Any

import keras

# The rooms whose classes a file may name; they register them when they are imported.
_ROOMS = ("balancing", "sharing", "tasks", "training", "trunks")


def load_model(path: str | os.PathLike, **kwargs: Any) -> Any:
    """Loads a model that `model.save` wrote into a `.keras` file, in any process.

    It is `keras.saving.load_model`, after what registers the classes of mtl_keras is imported. In
    a process that has done no more than `import mtl_keras`, that function alone does not know
    them, since rooms are imported when they are first touched.

    Args:
        path: File, `*.keras`.
        **kwargs: What `keras.saving.load_model` takes: `compile`, `custom_objects` (for classes of
            your own that are not registered), `safe_mode`.

    Returns:
        What was saved, such as a `mtl_keras.MultiTaskModel`, compiled if it was.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is none that Keras saved, or a class that it names is unknown.

    Example:

    ```python
    import mtl_keras as mtl
    model = mtl.build(
        mtl.trunks.create("efficientnet_lite0", weights=None),
        tasks=[mtl.tasks.Segmentation(num_classes=2)],
        image_size=(64, 64),
    )
    model.save("cells.keras")
    assert mtl.load_model("cells.keras").image_size == (64, 64)
    ```
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"`path` must be a file that exists. Received: path={str(path)!r}")
    for room in _ROOMS:
        importlib.import_module(f"mtl_keras.{room}")
    try:
        return keras.saving.load_model(path, **kwargs)
    except TypeError as error:
        unknown = re.search("Could not locate class '([^']+)'", str(error))
        if unknown is None:
            raise
        raise ValueError(
            f"{str(path)!r} holds a {unknown[1]}, which is not known: import what registers it, "
            "or give it as `custom_objects`"
        ) from error


def save_whole(model: Any, path: pathlib.Path) -> None:
    """Saves a model so that the file is there whole or not at all, whenever the process ends."""
    partial = path.with_name("partial.keras")
    model.save(partial)
    flush(partial)
    os.replace(partial, path)


def flush(path: pathlib.Path) -> None:
    """Waits until a file is on the disk."""
    with path.open("r+b") as file:  # Windows flushes only what can be written to.
        os.fsync(file.fileno())
