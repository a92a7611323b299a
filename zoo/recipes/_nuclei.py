"""How networks are trained on `nuclei`: microscopy, many small objects, several stains."""

from _family import Setting

import mtl_keras as mtl

SETTING = Setting(
    data="nuclei",
    shows="cell nuclei in microscopy pictures of several stains",
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
    epochs=14,
    train_size=(256, 256),
    image_size=(1024, 1024),
    levels=("P2", "P3", "P4"),
    intended_use="Counting, measuring and outlining cell nuclei in microscopy pictures, and a "
    "start for fine-tuning on pictures of one's own. Not for diagnosis.",
    limits="Stains and magnifications other than those of the training pictures are found less "
    "well, brown stains (DAB) only in part. Where nuclei lie over each other, a pixel is given to "
    "one of them. Pictures much larger than the input lose their small nuclei: predict on tiles. "
    "Scores are no probabilities.",
    weights_licence="Apache-2.0",
)
