"""Data: reading images, importing annotated folders, and batches for training.

Every source of data becomes one kind of TFDS builder (images, objects with boxes in pixels, a map
of instances), and one pipeline, [`batches`](pipeline.py), turns any of them into training batches.
"""

from mtl_keras.data.arrays import ArrayBatches, write_arrays
from mtl_keras.data.augment import Augment
from mtl_keras.data.checking import check
from mtl_keras.data.coco import from_coco
from mtl_keras.data.digits import digits
from mtl_keras.data.epochs import Epochs
from mtl_keras.data.from_folder import from_folder
from mtl_keras.data.from_tfds import from_tfds
from mtl_keras.data.images import read_image
from mtl_keras.data.importing import quarantined
from mtl_keras.data.letterbox import letterbox, letterbox_scale
from mtl_keras.data.mix import mix
from mtl_keras.data.pipeline import batches, examples
from mtl_keras.data.preview import preview
from mtl_keras.data.sets import info, leaks, load, names
from mtl_keras.data.statistics import statistics

__all__ = [
    "ArrayBatches",
    "Augment",
    "Epochs",
    "batches",
    "check",
    "digits",
    "examples",
    "from_coco",
    "from_folder",
    "from_tfds",
    "info",
    "leaks",
    "letterbox",
    "letterbox_scale",
    "load",
    "mix",
    "names",
    "preview",
    "quarantined",
    "read_image",
    "statistics",
    "write_arrays",
]
