"""Random augmentation that moves image, boxes, instances and masks together (TensorFlow ops).

`augment.py` holds what users set; `geometry.py` scales, crops, flips and turns one image;
`sample.py` keeps boxes, instances and visible shares in step; `mixing.py` makes one image of
several; `colours.py` and `cutout.py` do what they are called.
"""

from mtl_keras.data.augment.augment import Augment

__all__ = ["Augment"]
