"""How networks are trained on `vhr10`: aerial pictures, few of them, with few objects each."""

from _family import Setting

import mtl_keras as mtl

SETTING = Setting(
    data="vhr10",
    shows="ten kinds of objects in aerial pictures",
    augment=mtl.data.Augment(
        scale=(0.4, 1.3),
        flip="both",
        rotate90=True,
        colour=0.4,
        hue=0.02,
        keep_objects=0.7,
        copy_paste=0.3,
        reference_size=(640, 640),
        cover=0.5,
    ),
    epochs=20,
    train_size=(256, 256),
    image_size=(640, 640),
)
