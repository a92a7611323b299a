"""How networks are trained on `facades`: street photographs, large and small objects, nested."""

from _family import Setting

import mtl_keras as mtl

SETTING = Setting(
    data="facades",
    shows="ten kinds of things in street photographs",
    # A façade fills the picture: windows must be able to hold all of it, or boxes of such sizes
    # are never learned.
    augment=mtl.data.Augment(
        scale=(0.5, 1.3),
        flip="horizontal",
        colour=0.4,
        hue=0.02,
        reference_size=(384, 384),
    ),
    epochs=30,
    train_size=(384, 384),
    batch_size=4,
    image_size=(384, 384),
    intended_use="Finding and outlining parts of buildings, cars and vegetation in street "
    "photographs, and a start for fine-tuning on photographs of other streets.",
    limits="Photographs are of European blocks of flats and houses, most of them at dusk or by "
    "night and taken from the street: bright days, other kinds of buildings and wide-angle lenses "
    "are not covered. A pixel has one class, so that a window is taken out of the facade that it "
    "is in. Labels are uneven: some fronts are labelled as street and some windows not at all, so "
    "that metrics are lower than pictures look. Rare classes are measured on few objects and are "
    "less reliable. Scores are no probabilities.",
    weights_licence="CC BY 4.0: name the data set, and this project, where you pass them on",
)
