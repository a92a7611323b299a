"""What is published, and how it is loaded. Heavy rooms are imported only when a model is."""

import difflib
import fnmatch
import hashlib
import json
import os
import pathlib
from typing import Any

PUBLISHED = pathlib.Path(__file__).parent / "published"


def list_models(pattern: str = "*") -> list[str]:
    """Lists the published models.

    Args:
        pattern: String with shell wildcards, such as `"*nuclei*"`.

    Returns:
        Sorted list of names.

    Example:

    ```python
    from mtl_keras.zoo import list_models
    assert "efficientnet_lite0_hard_nuclei" in list_models("*nuclei*")
    ```
    """
    names = (card.parent.name for card in PUBLISHED.glob("*/card.json"))
    return sorted(fnmatch.filter(names, pattern))


def info(name: str) -> dict:
    """Returns the card of a published model.

    Args:
        name: String, a name of `list_models()`.

    Returns:
        Dict with `tasks`, `classes`, `input`, `parameters`, `metrics` and the command that measures
        them, `data` with its licence, `recipe`, `versions`, `files` with their SHA-256, and
        `config`, which builds the network.

    Raises:
        ValueError: If there is no model of that name; the nearest names are offered.
        FileNotFoundError: If its card is missing.

    Example:

    ```python
    from mtl_keras.zoo import info
    card = info("efficientnet_lite0_hard_nuclei")
    assert card["metrics"]["detection_AP50"] > 0.8
    ```
    """
    return json.loads((_folder(name) / "card.json").read_text(encoding="utf-8"))


def _folder(name: Any) -> pathlib.Path:
    """The folder of a published model, or the one that is named."""
    path = pathlib.Path(name)
    if isinstance(name, os.PathLike) or len(path.parts) > 1 or (path / "card.json").is_file():
        if not (path / "card.json").is_file():
            raise FileNotFoundError(f"there is no card.json in the folder {str(path)!r}")
        return path
    names = list_models()
    if name not in names:
        near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.4)
        offer = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"There are {names}."
        raise ValueError(f"there is no published model {name!r}. {offer}")
    return PUBLISHED / name


def load(
    name: str,
    num_classes: dict[str, int] | None = None,
    image_size: tuple[int, int] | None = None,
) -> Any:
    """Loads a published model.

    Args:
        name: String, a name of `list_models()`.
        num_classes: Optional dict, task name to a number of classes of your own (background counts
            for segmentation). These tasks get new heads, with random weights; trunk, neck and the
            other heads keep their pretrained weights.
        image_size: Optional `(height, width)` in pixels, multiples of 32, to letterbox images to,
            in place of the size that the card gives.

    Returns:
        A `mtl_keras.MultiTaskModel`, not compiled.

    Raises:
        ValueError: If the name is unknown, `num_classes` names a task that the model does not
            have or a number it can't have, or a file is damaged.
        FileNotFoundError: If a file of the model is missing.

    Example:

    ```python
    from mtl_keras.zoo import load
    model = load(
        "efficientnet_lite0_hard_nuclei", num_classes={"detection": 3, "segmentation": 4}
    )
    assert [task.num_classes for task in model.tasks] == [3, 4]
    ```
    """
    card = info(name)
    weights = _checked(name, card, "weights.npz")

    from mtl_keras.training import MultiTaskModel
    from mtl_keras.training.model import heads_of
    from mtl_keras.zoo.weights import load_weights

    config = dict(card["config"])
    if image_size is not None:
        config["image_size"] = list(image_size)
    num_classes = {} if num_classes is None else num_classes
    if not isinstance(num_classes, dict):
        raise ValueError(
            "`num_classes` must be a dict, task name to number of classes. "
            f"Received: num_classes={num_classes!r}"
        )
    tasks = {task["config"]["name"]: task for task in config["tasks"]}
    unknown = sorted(set(num_classes) - set(tasks))
    if unknown:
        raise ValueError(
            f"`num_classes` names tasks {unknown}; the tasks of {name!r} are {sorted(tasks)}"
        )
    without = [task for task in num_classes if "num_classes" not in tasks[task]["config"]]
    if without:
        raise ValueError(f"`num_classes` names tasks that have no classes: {without}")
    for task, count in num_classes.items():
        tasks[task]["config"].update(num_classes=count, class_names=None)
    model = MultiTaskModel.from_config(config)
    load_weights(model, weights, skip=tuple(n for task in num_classes for n in heads_of(task)))
    return model


def _checked(name: str, card: dict, file: str) -> pathlib.Path:
    """Returns the path of a file of a model after comparing its hash with the card."""
    path = _folder(name) / file
    if not path.is_file():
        raise FileNotFoundError(
            f"the file {file!r} of the published model {name!r} is missing: {path}. Install "
            "mtl_keras again."
        )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != card["files"][file]["sha256"]:
        raise ValueError(
            f"the file {file!r} of the published model {name!r} is damaged: its SHA-256 is "
            f"{found}, the card says {card['files'][file]['sha256']} ({path}). Install mtl_keras "
            "again."
        )
    return path
