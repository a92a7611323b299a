"""A recipe that takes seconds, for tests and for the programs that they run."""

import os
import pathlib

import keras
import toy

import mtl_keras as mtl
from mtl_keras.training.recipe import Recipe

SIZE = (64, 64)


def adamw(steps):
    """As in zoo/recipes: a schedule, and the average of the weights in the end."""
    schedule = keras.optimizers.schedules.CosineDecay(1e-2, steps)
    return keras.optimizers.AdamW(schedule, global_clipnorm=5.0, use_ema=True, ema_momentum=0.9)


def tiny(tasks=("segmentation", "distance"), weights=None, **changes):
    """Cross-stitch units, whose weights have a learning rate of their own, on handwritten digits.

    Args:
        tasks: Names of tasks.
        weights: Optional file of weights to start from.
        **changes: Other arguments of `Recipe`.
    """

    def data():
        return mtl.data.digits(7, 3, SIZE, data_dir=os.environ["TFDS_DATA_DIR"])

    def model(builder):
        classes = builder.info.features["objects"]["label"].names
        kinds = {
            "detection": lambda: toy.detection(num_classes=len(classes), class_names=classes),
            "segmentation": lambda: toy.segmentation(num_classes=len(classes) + 1),
            "distance": toy.distance,
        }
        made = mtl.build(
            toy.trunk(),
            [kinds[task]() for task in tasks],
            mtl.sharing.CrossStitch(neck_channels=8) if len(tasks) > 1 else "hard",
            SIZE,
            name="tiny",
        )
        if weights:
            made.load_weights(weights)
        return made

    given = {
        "name": "tiny",
        "data": data,
        "model": model,
        "optimizer": adamw,
        "augment": mtl.data.Augment(flip="both", colour=0.2),
        "epochs": 3,
        "train_size": SIZE,
        "batch_size": 4,
        "val_every": 2,
        "about": {"data": {"name": "digits"}},
    }
    return Recipe(**{**given, **changes})


def state(model):
    """All that a training leaves behind."""
    return toy.arrays([*model.weights, *model.optimizer.variables])


def lines(folder):
    """The lines of a history, as dicts without what is of the clock."""
    import json

    text = (pathlib.Path(folder) / "history.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in text]
    assert all(line.pop("seconds") >= 0 for line in found)
    return found
