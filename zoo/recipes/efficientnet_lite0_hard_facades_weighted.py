"""EfficientNet-Lite0, hard sharing, weighted: boxes and masks of things in street photographs.

Command: python zoo/train.py efficientnet_lite0_hard_facades_weighted
Time: -
Result: -
"""

from _facades import SETTING
from _family import make

import mtl_keras as mtl

recipe = make(
    __file__,
    SETTING,
    sharing="hard",
    # With equal weights boxes lose more against their twin than masks do.
    balancing=lambda: mtl.balancing.Fixed({"detection": 2.0, "segmentation": 1.0}),
)
