"""EfficientNet-Lite0, hard sharing: boxes and masks of cell nuclei.

Command: python zoo/train.py efficientnet_lite0_hard_nuclei
Time: 64 minutes on 2 CPU cores, 19 epochs.
Result: box AP 0.627, AP50 0.893, mean IoU 0.931, IoU of nucleus 0.881, Dice of nucleus 0.937, Dice
by picture of nucleus 0.920, AP of instances 0.606, AP50 of instances 0.854, PQ 0.743 on `val`.
"""

import keras
from _family import describe
from _nuclei import SETTING

import mtl_keras as mtl
from mtl_keras.training.recipe import Recipe


def data():
    return mtl.data.load("nuclei")


def model(builder):
    classes = builder.info.features["objects"]["label"].names
    return mtl.build(
        mtl.trunks.create("efficientnet_lite0", weights="imagenet"),
        tasks=[
            mtl.tasks.Detection(len(classes), levels=("P2", "P3", "P4"), class_names=classes),
            mtl.tasks.Segmentation(len(classes) + 1, class_names=["background", *classes]),
        ],
        sharing="hard",
        image_size=(1024, 1024),
        name="efficientnet_lite0_hard_nuclei",
    )


def optimizer(steps):
    warmup = min(300, steps // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-5, steps - warmup, alpha=0.01, warmup_target=1e-3, warmup_steps=warmup
    )
    adamw = keras.optimizers.AdamW(schedule, weight_decay=0.05, global_clipnorm=5.0)
    adamw.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return adamw


recipe = Recipe(
    name="efficientnet_lite0_hard_nuclei",
    data=data,
    model=model,
    optimizer=optimizer,
    # Windows of pictures at about the scale of prediction; no way is up. The large pictures hold
    # the most, and the most difficult, nuclei: an epoch shows them several times.
    augment=mtl.data.Augment(
        scale=(0.6, 1.6),
        flip="both",
        rotate90=True,
        colour=0.4,
        grayscale=0.15,
        invert=0.15,
        reference_size=(1024, 1024),
        cover=0.7,
    ),
    epochs=19,
    train_size=(256, 256),
    val_every=10,
    about=describe(SETTING, ("detection", "segmentation")),
)
