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
    intended_use="Research and teaching: finding and outlining polyps in still pictures of "
    "colonoscopies, and a start for fine-tuning on other endoscopy pictures. It is no medical "
    "device: not for diagnosis, nor for any decision about a patient.",
    limits="Every picture that it was trained on shows a polyp, so that it finds some where there "
    "are none: how often it does was not measured. Pictures are stills of one collection; other "
    "endoscopes, light, blur, instruments in view and frames of a video are not covered. Several "
    "polyps that lie together may get one box. Scores are no probabilities.",
    weights_licence="research and educational use only, as the pictures that they were trained on",
)
