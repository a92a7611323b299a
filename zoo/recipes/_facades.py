"""How networks are trained on `facades`: street photographs, large and small objects, nested."""

from _family import Setting

import mtl_keras as mtl

SETTING = Setting(
    data="facades",
    shows="ten kinds of things in street photographs",
    augment=mtl.data.Augment(
        scale=(0.5, 1.4),
        flip="horizontal",
        colour=0.4,
        hue=0.02,
        reference_size=(512, 512),
        cover=0.7,
    ),
    epochs=12,
    train_size=(256, 256),
    image_size=(512, 512),
)
