"""Recipes: how a published model is made, in one object that anyone can run again."""

import dataclasses
import importlib.util
import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import keras

FAST_SIZE = (64, 64)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides on a trained model.

    A recipe file holds one of these as `recipe`; its docstring gives the command, the time and
    the expected result.

    Attributes:
        name: String, name of the model.
        data: Function without arguments that gives the prepared TFDS builder.
        model: Function from the builder to a `MultiTaskModel`. It may ask the builder for class
            names alone, `builder.info.features["objects"]["label"].names`: where a model is trained
            from prepared arrays, there is nothing else.
        optimizer: Function from the number of training steps to an optimizer.
        balancing: Optional function without arguments that gives a `mtl_keras.balancing.Balancing`,
            for several tasks; without one, losses are added up.
        augment: `mtl_keras.data.Augment` for training.
        epochs: Integer.
        train_size: `(height, width)` of training images in pixels.
        batch_size: Integer, images a step.
        train_split: String.
        val_split: String, used to look on, not to choose weights.
        val_every: Integer, epochs between two evaluations; the last epoch has one too.
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
    balancing: Callable[[], Any] | None = None
    about: dict = dataclasses.field(default_factory=dict)

    def compile(self, model: Any, steps: int) -> None:
        """Compiles a model as this recipe trains it, in so many steps."""
        balancing = None if self.balancing is None else self.balancing()
        model.compile(optimizer=self.optimizer(steps), balancing=balancing)


def load_recipe(recipe: str | pathlib.Path, seed: int | None = None, smoke: bool = False) -> Recipe:
    """Loads a recipe from its file.

    Args:
        recipe: Path of a recipe file, or the name of one in `zoo/recipes` of the folder in which
            the program runs.
        seed: Optional integer, in place of the recipe's.
        smoke: Whether to make it a recipe for a smoke run, see `fast`.

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
    folder, known = str(path.parent.resolve()), set(sys.modules)
    sys.path.insert(0, folder)  # Recipes share what files beside them hold.
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
        for name in set(sys.modules) - known:
            if str(getattr(sys.modules[name], "__file__", None)).startswith(folder + os.sep):
                del sys.modules[name]  # Another folder may have a file of that name.
    if not isinstance(getattr(module, "recipe", None), Recipe):
        raise ValueError(f"the file {str(path)!r} must define `recipe`, an mtl_keras Recipe")
    found = module.recipe if seed is None else dataclasses.replace(module.recipe, seed=seed)
    return fast(found) if smoke else found


def fast(recipe: Recipe) -> Recipe:
    """Makes a recipe for a smoke run: the same path with few, small images, in seconds.

    Args:
        recipe: `Recipe`.

    Returns:
        A `Recipe` of two epochs of two steps, each followed by an evaluation.
    """

    def model(builder: Any) -> Any:
        made = recipe.model(builder)
        made.image_size = FAST_SIZE
        return made

    augment = recipe.augment
    if augment is not None:
        # Windows this small would show each image many times an epoch.
        augment = dataclasses.replace(augment, cover=0.0)
    batch_size = min(recipe.batch_size, 4)
    return dataclasses.replace(
        recipe,
        model=model,
        augment=augment,
        epochs=2,
        train_size=FAST_SIZE,
        batch_size=batch_size,
        train_split=f"{recipe.train_split.split('[')[0]}[:{2 * batch_size}]",
        val_split=f"{recipe.val_split.split('[')[0]}[:{batch_size}]",
        val_every=1,
    )


def train(
    recipe: Recipe,
    out: str | pathlib.Path,
    epochs: int | None = None,
    arrays: str | pathlib.Path | None = None,
    devices: list[str] | None = None,
) -> Any:
    """Trains a model by its recipe; an interrupted run goes on where its last epoch ended.

    With TensorFlow, all GPUs that are visible train together, each on its part of every batch. See
    `mtl_keras.training.run.Run` for what is written into `out`. A training that has ended is not
    done again: its model is loaded.

    Args:
        recipe: `Recipe`.
        out: Folder to write to.
        epochs: Optional integer, to train for fewer epochs than the recipe says (a trial).
        arrays: Optional folder of `zoo/prepare.py`: batches are read from there. Other backends
            than TensorFlow need it.
        devices: Optional list of names of TensorFlow's devices, in place of all GPUs.

    Returns:
        The trained `MultiTaskModel`.

    Raises:
        ValueError: If arrays are needed and not given, or were prepared with other settings, if
            `out` holds a training with other settings, or `epochs` is not positive.
        FileNotFoundError: If there are no arrays.
    """
    from mtl_keras.training import devices as places
    from mtl_keras.training import sources
    from mtl_keras.training.run import Run
    from mtl_keras.training.settings import run_settings

    started = time.time()
    if epochs is not None and epochs < 1:
        raise ValueError(f"`epochs` must be a positive integer or None. Received: {epochs!r}")
    if arrays is None and keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"with the backend {keras.backend.backend()!r}, `arrays` must be a folder of prepared "
            f"arrays; write it with TensorFlow: python zoo/prepare.py {recipe.name} --out FOLDER"
        )
    run = Run(out, started)
    source = sources.Pipeline(recipe) if arrays is None else sources.Prepared(recipe, arrays)
    epochs = recipe.epochs if epochs is None else epochs
    where = places.strategy(devices)
    keras.utils.set_random_seed(recipe.seed)  # After data, whose preparation draws numbers too.
    with places.scope(where):
        model = recipe.model(source.builder)
        *both, images = source.batches(model)
        steps = -(-images[0] // recipe.batch_size)
        recipe.compile(model, epochs * steps)
        run.check(run_settings(recipe, model, epochs, source.name))
        if run.finished:
            print(f"{run.model_file} is trained to the end already")
            return keras.saving.load_model(run.model_file)
        done = run.restore(model)
    looks = [e for e in range(1, epochs + 1) if not e % recipe.val_every or e == epochs]
    batches, val = (
        places.for_devices(one, where, count, recipe.batch_size)
        for one, count in zip(both, images, strict=True)
    )
    model.fit(
        batches,
        initial_epoch=done,
        epochs=epochs,
        shuffle=False,  # Batches have the order of their epoch; Keras would draw another.
        validation_data=val,
        validation_freq=looks,
        callbacks=[source.callback, run.callback()],
    )
    run.finish(model)
    return model


def backup(path: pathlib.Path) -> keras.callbacks.Callback:
    """Makes the callback by which an interrupted fine-tuning goes on; recipes have their `Run`.

    The last two epochs are kept, since a run can be killed while it writes one of them, and they
    outlive `fit`, since it can be killed before the model is saved.
    """
    return keras.callbacks.BackupAndRestore(
        str(path), double_checkpoint=True, delete_checkpoint=False
    )
