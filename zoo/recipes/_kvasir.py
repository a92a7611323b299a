"""How networks are trained on `kvasir`: endoscopy, mostly one large polyp a picture."""

from _family import Setting

import mtl_keras as mtl

SETTING = Setting(
    data="kvasir",
    shows="polyps in endoscopy pictures",
    # A polyp is to be in the window whole, and a picture often is: it may be smaller than that.
    augment=mtl.data.Augment(
        scale=(0.55, 1.1),
        flip="both",
        rotate90=True,
        colour=0.4,
        hue=0.02,
        keep_objects=0.5,
        cutout=0.2,
        reference_size=(288, 288),
    ),
    epochs=20,
    train_size=(224, 224),
    image_size=(288, 288),
)
