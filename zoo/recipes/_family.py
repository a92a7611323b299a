"""What recipes have in common: a network for a set's tasks, a schedule, and what its card says."""

import dataclasses
import pathlib
from collections.abc import Callable

import keras

import mtl_keras as mtl
from mtl_keras.training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Setting:
    """How networks are trained on a set: the same for each way to share and for the twins.

    Attributes:
        data: String, name of a set of `mtl_keras.data`.
        shows: String, what the pictures show, for descriptions.
        augment: `mtl_keras.data.Augment`.
        epochs: Integer.
        train_size: `(height, width)` of training windows in pixels.
        image_size: `(height, width)` to letterbox pictures to at prediction.
        intended_use: String for the card.
        limits: String for the card: where not to trust the networks.
        weights_licence: String, what the licence of the pictures leaves of that of the weights.
        levels: Levels of the pyramid on which boxes are found.
        batch_size: Integer, windows a step.
    """

    data: str
    shows: str
    augment: mtl.data.Augment
    epochs: int
    train_size: tuple[int, int]
    image_size: tuple[int, int]
    intended_use: str
    limits: str
    weights_licence: str
    levels: tuple[str, ...] = ("P3", "P4", "P5")
    batch_size: int = 8


def make(
    file: str,
    setting: Setting,
    sharing: str = "hard",
    tasks: tuple[str, ...] = ("detection", "segmentation"),
    trunk: str = "efficientnet_lite0",
    balancing: Callable[[], mtl.balancing.Balancing] | None = None,
) -> Recipe:
    """Makes the recipe of a file; the model is called as the file is."""
    name = pathlib.Path(file).stem

    def data():
        return mtl.data.load(setting.data)

    def model(builder):
        classes = builder.info.features["objects"]["label"].names
        kinds = {
            "detection": lambda: mtl.tasks.Detection(
                len(classes), levels=setting.levels, class_names=classes
            ),
            "segmentation": lambda: mtl.tasks.Segmentation(
                len(classes) + 1, class_names=["background", *classes]
            ),
            "distance": mtl.tasks.BoundaryDistance,
        }
        return mtl.build(
            mtl.trunks.create(trunk, weights="imagenet"),
            tasks=[kinds[task]() for task in tasks],
            sharing=sharing,
            image_size=setting.image_size,
            name=name,
        )

    return Recipe(
        name=name,
        data=data,
        model=model,
        optimizer=adamw,
        balancing=balancing,
        augment=setting.augment,
        epochs=setting.epochs,
        train_size=setting.train_size,
        batch_size=setting.batch_size,
        val_every=max(setting.epochs // 4, 1),
        about=describe(setting, tasks, trunk),
    )


def describe(setting: Setting, tasks: tuple[str, ...], trunk: str) -> dict:
    """What the card of a network says of its data and of its use."""
    about = mtl.data.info(setting.data)
    return {
        "description": f"{WORDS[tasks]} of {setting.shows}.",
        "intended_use": setting.intended_use,
        "limits": setting.limits,
        "licences": {
            "code": "Apache-2.0",
            "weights": setting.weights_licence,
            "data": about["licence"],
            "trunk": f"ImageNet weights of {TRUNKS[trunk]}, Apache-2.0",
        },
        "data": {
            "name": setting.data,
            "title": about["title"],
            "licence": about["licence"],
            "citation": about["citation"],
            "home": about["home"],
            "images": {split: n["images"] for split, n in about["splits"].items()},
        },
    }


TRUNKS = {
    "efficientnet_lite0": "EfficientNet-Lite0",
    "efficientnet_lite2": "EfficientNet-Lite2",
}

WORDS = {
    ("detection",): "Boxes",
    ("segmentation",): "Masks",
    ("detection", "segmentation"): "Boxes and masks",
    ("detection", "segmentation", "distance"): "Boxes, masks and distances to the boundary",
}


def adamw(steps: int) -> keras.optimizers.Optimizer:
    """AdamW with a warm-up, a cosine and, at the end, the average of the last weights."""
    warmup = min(300, steps // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-5, steps - warmup, alpha=0.01, warmup_target=1e-3, warmup_steps=warmup
    )
    optimizer = keras.optimizers.AdamW(
        schedule, weight_decay=0.05, global_clipnorm=5.0, use_ema=True, ema_momentum=0.99
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
