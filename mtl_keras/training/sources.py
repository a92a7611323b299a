"""Where the batches of a recipe come from: its pipeline, or arrays that were prepared from it."""

import json
import pathlib
from types import SimpleNamespace
from typing import Any

import keras

from mtl_keras import data
from mtl_keras.data.arrays import ArrayBatches, write_arrays
from mtl_keras.training.settings import data_settings, difference, digest

MANIFEST = "manifest.json"
_MB = 1e6


class Pipeline:
    """A recipe's own pipeline (TensorFlow).

    Attributes:
        builder: The prepared TFDS builder.
        callback: Keras callback that tells the batches which epoch it is.
        name: String, for the record of a run.
    """

    name = "pipeline"

    def __init__(self, recipe: Any):
        self.recipe = recipe
        self.builder = recipe.data()
        self.callback = data.Epochs()  # A run that goes on sees the batches it would have seen.

    def batches(self, model: Any) -> tuple[Any, Any, tuple[int, int]]:
        """Makes the batches for a model.

        Args:
            model: `MultiTaskModel` of the recipe.

        Returns:
            `(training, validation, images)`: two data sets, and the numbers of images that they
            hold, a pair of integers.
        """
        recipe = self.recipe
        common = {
            "builder": self.builder,
            "tasks": model.tasks,
            "batch_size": recipe.batch_size,
        }
        train = data.batches(
            split=recipe.train_split,
            image_size=recipe.train_size,
            augment=recipe.augment,
            seed=recipe.seed,
            epochs=self.callback,
            **common,
        )
        val = data.batches(split=recipe.val_split, image_size=model.image_size, **common)
        return train, val, (train.endless.images, val.endless.images)


class Prepared:
    """Arrays that `prepare` wrote (any backend).

    Args:
        recipe: `Recipe`.
        folder: Folder of `prepare`.

    Attributes:
        builder: What a recipe's `model` asks of a TFDS builder: class names, from the manifest.
        callback: Keras callback that tells the batches which epoch it is.
        name: String, for the record of a run.

    Raises:
        FileNotFoundError: If `prepare` wrote nothing there, or did not end.
    """

    def __init__(self, recipe: Any, folder: str | pathlib.Path):
        self.recipe, self.folder = recipe, pathlib.Path(folder)
        path = self.folder / MANIFEST
        if not path.is_file():
            raise FileNotFoundError(
                "`arrays` must be a folder that has been written to the end by `python "
                f"zoo/prepare.py {recipe.name} --out FOLDER`. Received: {str(folder)!r}, which has "
                f"no {MANIFEST}"
            )
        self.manifest = json.loads(path.read_text("utf-8"))
        label = SimpleNamespace(names=self.manifest["classes"])
        info = SimpleNamespace(features={"objects": {"label": label}})
        self.builder = SimpleNamespace(info=info)
        epochs = [self.folder / f"epoch{e:04d}" for e in range(self.manifest["epochs"])]
        self._train = ArrayBatches(epochs, recipe.batch_size)
        self._val = ArrayBatches([self.folder / "val"], recipe.batch_size)
        self.callback = self._train.counter()
        self.name = f"arrays of {self.manifest['epochs']} epochs"

    def batches(self, model: Any) -> tuple[Any, Any, tuple[int, int]]:
        """Makes the batches for a model; see `Pipeline.batches`.

        Raises:
            ValueError: If the arrays were prepared with other settings.
        """
        now = data_settings(self.recipe, model)
        if digest(now) != self.manifest["hash"]:
            raise ValueError(
                f"the arrays in {str(self.folder)!r} were prepared with other settings than those "
                f"of the recipe {self.recipe.name!r}: "
                f"{difference(self.manifest['settings'], now)}. Prepare them again: "
                f"python zoo/prepare.py {self.recipe.name} --out FOLDER"
            )
        pair = self._train, self._val
        if keras.backend.backend() == "tensorflow":
            pair = tuple(one.as_dataset() for one in pair)
        return *pair, (self._train.images, self._val.images)


def prepare(recipe: Any, out: str | pathlib.Path, epochs: int | None = None) -> dict:
    """Writes the batches of a recipe as arrays, for training without TensorFlow.

    Args:
        recipe: `Recipe`.
        out: Folder to write to: `epoch0000/` …, `val/` and, at the end, `manifest.json`.
        epochs: Optional integer, the number of epochs to write; by default all of the recipe's.
            Training goes through them again and again, until it has had the recipe's.

    Returns:
        The manifest: `recipe`, `hash` and `settings`, `seed`, `classes`, `epochs`, and of `train`
        (an epoch) and `val` the number of images, shapes, dtypes and size in MB.

    Raises:
        ValueError: If `epochs` is not positive.
    """
    epochs = recipe.epochs if epochs is None else epochs
    if epochs < 1:
        raise ValueError(f"`epochs` must be at least 1. Received: epochs={epochs}")
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MANIFEST).unlink(missing_ok=True)
    source = Pipeline(recipe)
    model = recipe.model(source.builder)
    train, val, _ = source.batches(model)
    written = {"val": write_arrays(val, out / "val")}
    for epoch in range(epochs):
        source.callback.on_epoch_begin(epoch)
        written["train"] = write_arrays(train, out / f"epoch{epoch:04d}")
        print(f"epoch {epoch + 1} of {epochs}: {written['train']['bytes'] / _MB:.1f} MB")
    settings = data_settings(recipe, model)
    total = written["val"]["bytes"] + epochs * written["train"]["bytes"]
    manifest = {
        "recipe": recipe.name,
        "hash": digest(settings),
        "settings": settings,
        "seed": recipe.seed,
        "classes": list(source.builder.info.features["objects"]["label"].names),
        "epochs": epochs,
        **{
            name: {"images": of["images"], "MB": of["bytes"] / _MB, "arrays": of["arrays"]}
            for name, of in written.items()
        },
        "MB": total / _MB,
    }
    (out / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest
