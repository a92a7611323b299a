"""What decides on a training, as JSON: to notice that a recipe is no longer what it was."""

import hashlib
import json
from typing import Any

import keras


def data_settings(recipe: Any, model: Any) -> dict:
    """What decides on the batches of a recipe.

    The way to share, the optimizer and the number of epochs are not among it: recipes that differ
    in these alone see the same batches.

    Args:
        recipe: `Recipe`.
        model: `MultiTaskModel` of the recipe.

    Returns:
        A dict, ready for JSON.
    """
    return _plain(
        {
            "data": recipe.about.get("data", {}).get("name"),
            "tasks": {task.name: keras.saving.serialize_keras_object(task) for task in model.tasks},
            "augment": None if recipe.augment is None else recipe.augment.get_config(),
            "train_size": recipe.train_size,
            "image_size": model.image_size,
            "batch_size": recipe.batch_size,
            "train_split": recipe.train_split,
            "val_split": recipe.val_split,
            "seed": recipe.seed,
        }
    )


def run_settings(recipe: Any, model: Any, epochs: int, source: str) -> dict:
    """What decides on the weights at the end of a training.

    Args:
        recipe: `Recipe`.
        model: Compiled `MultiTaskModel` of the recipe.
        epochs: Integer.
        source: String, where the batches come from.

    Returns:
        A dict, ready for JSON.
    """
    serialize = keras.saving.serialize_keras_object
    optimizer = serialize(model.optimizer)
    optimizer["config"].pop("name", None)  # Keras numbers the optimizers of a program.
    balancing = {} if model.balancing is None else {"balancing": serialize(model.balancing)}
    return _plain(
        {
            "recipe": recipe.name,
            **data_settings(recipe, model),
            "batches": source,
            "trunk": model.trunk.name,
            "sharing": serialize(model.sharing),
            "optimizer": optimizer,
            **balancing,
            "epochs": epochs,
            "backend": keras.backend.backend(),
        }
    )


def digest(settings: dict) -> str:
    """A short hash of settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def difference(before: dict, now: dict) -> str:
    """Says in words which settings differ.

    Args:
        before: Dict of settings.
        now: Dict of settings.

    Returns:
        String such as `"seed was 0 and is 1"`; empty if none differs.
    """
    found = []
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            inner = difference(old, new)
            found += [f"{key}.{part}" for part in inner.split("; ") if part]
        elif old != new:
            found.append(f"{key} was {old!r} and is {new!r}")
    return "; ".join(found)


def _plain(settings: dict) -> dict:
    """As JSON gives it back: lists for tuples."""
    return json.loads(json.dumps(settings))
