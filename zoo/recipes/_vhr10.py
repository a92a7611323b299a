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
    intended_use="Research: finding and outlining ten kinds of objects in aerial pictures of high "
    "resolution, and a start for fine-tuning on other aerial pictures.",
    limits="Every picture that it was trained on shows one of the ten kinds, so that it finds some "
    "where there are none. Pictures are taken from above, by day, at high resolution; coarse "
    "satellite pictures, clouds, night and slanted views are not covered. Classes that are rare in "
    "the set are measured on few objects. Scores are no probabilities.",
    weights_licence="research use only, as the pictures that they were trained on",
)
