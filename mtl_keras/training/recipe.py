"""Recipes: how a published model is made, in one object that anyone can run again."""

import dataclasses
import importlib.util
import json
import pathlib
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

import keras


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides on a trained model.

    A recipe file holds one of these as `recipe`; its docstring gives the command, the time and
    the expected result.

    Attributes:
        name: String, name of the model.
        data: Function without arguments that gives the prepared TFDS builder.
        model: Function from the builder to a `MultiTaskModel`.
        optimizer: Function from the number of training steps to an optimizer.
        augment: `mtl_keras.data.Augment` for training.
        epochs: Integer.
        train_size: `(height, width)` of training images in pixels.
        batch_size: Integer, images a step.
        train_split: String.
        val_split: String, used to look on, not to choose weights.
        val_every: Integer, epochs between two evaluations.
        about: Dict for the card: `description`, and `data` with name, licence and citation.
        seed: Integer, for weights, order and augmentation.
    """

    name: str
    data: Callable[[], Any]
    model: Callable[[Any], Any]
    optimizer: Callable[[int], Any]
    augment: Any
    epochs: int
    train_size: tuple[int, int]
    batch_size: int = 8
    train_split: str = "train"
    val_split: str = "val"
    val_every: int = 5
    seed: int = 0
    about: dict = dataclasses.field(default_factory=dict)


def load_recipe(recipe: str | pathlib.Path) -> Recipe:
    """Loads a recipe from its file.

    Args:
        recipe: Path of a recipe file, or the name of one in `zoo/recipes` of the folder in which
            the program runs.

    Returns:
        The `Recipe` that the file calls `recipe`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file has no `recipe`.
    """
    path = pathlib.Path(recipe)
    if path.suffix != ".py":
        path = pathlib.Path("zoo/recipes") / f"{recipe}.py"
    if not path.is_file():
        there = sorted(p.stem for p in pathlib.Path("zoo/recipes").glob("[!_]*.py"))
        raise FileNotFoundError(
            f"`recipe` must be a recipe file or the name of one in zoo/recipes ({there or 'none'} "
            f"here). Received: {str(recipe)!r}; there is no file {str(path)!r}"
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    folder = str(path.parent.resolve())
    sys.path.insert(0, folder)  # Recipes share what files beside them hold.
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
    if not isinstance(getattr(module, "recipe", None), Recipe):
        raise ValueError(f"the file {str(path)!r} must define `recipe`, an mtl_keras Recipe")
    return module.recipe


def train(recipe: Recipe, out: str | pathlib.Path, epochs: int | None = None) -> Any:
    """Trains a model by its recipe; an interrupted run goes on where its last epoch ended.

    Writes into `out`: `backup/` (to go on from, gone at the end), `history.jsonl` (a line an
    epoch), `minutes.json` (time spent in each run) and, at the end, `model.keras`.

    Args:
        recipe: `Recipe`.
        out: Folder to write to.
        epochs: Optional integer, to train for fewer epochs than the recipe says (a trial).

    Returns:
        The trained `MultiTaskModel`.
    """
    from mtl_keras import data

    started = time.time()
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(recipe.seed)
    builder = recipe.data()
    model = recipe.model(builder)
    common = {"builder": builder, "tasks": model.tasks, "batch_size": recipe.batch_size}
    counted = data.Epochs()  # A run that goes on sees the batches that it would have seen.
    batches = data.batches(
        split=recipe.train_split,
        image_size=recipe.train_size,
        augment=recipe.augment,
        seed=recipe.seed,
        epochs=counted,
        **common,
    )
    val = data.batches(split=recipe.val_split, image_size=model.image_size, **common)
    epochs = epochs or recipe.epochs
    model.compile(optimizer=recipe.optimizer(epochs * int(batches.cardinality())))
    model.fit(
        batches,
        epochs=epochs,
        validation_data=val,
        validation_freq=[e for e in range(1, epochs + 1) if e % recipe.val_every == 0],
        callbacks=[
            counted,
            backup(out / "backup"),
            _history(out / "history.jsonl"),
        ],
    )
    model.save(out / "model.keras")
    shutil.rmtree(out / "backup", ignore_errors=True)
    log = out / "minutes.json"
    minutes = json.loads(log.read_text()) if log.exists() else []
    log.write_text(json.dumps([*minutes, round((time.time() - started) / 60, 2)]))
    return model


def backup(path: pathlib.Path) -> keras.callbacks.Callback:
    """Makes the callback that lets an interrupted run go on.

    The last two epochs are kept, since a run can be killed while it writes one of them, and they
    outlive `fit`, since it can be killed before the model is saved.
    """
    return keras.callbacks.BackupAndRestore(
        str(path), double_checkpoint=True, delete_checkpoint=False
    )


def _history(path: pathlib.Path) -> keras.callbacks.Callback:
    """Writes a line of JSON an epoch; a CSV has no room for metrics of some epochs only."""

    def write(epoch: int, logs: dict) -> None:
        with path.open("a", encoding="utf-8") as file:
            values = {name: float(value) for name, value in logs.items()}
            file.write(json.dumps({"epoch": epoch + 1, **values}) + "\n")

    return keras.callbacks.LambdaCallback(on_epoch_end=write)
