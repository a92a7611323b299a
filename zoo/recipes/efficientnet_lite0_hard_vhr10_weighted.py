"""EfficientNet-Lite0, hard sharing, weighted: boxes and masks of objects in aerial pictures.

Command: python zoo/train.py efficientnet_lite0_hard_vhr10_weighted
Time: -
Result: -
"""

from _family import make
from _vhr10 import SETTING

import mtl_keras as mtl

recipe = make(
    __file__,
    SETTING,
    sharing="hard",
    # With equal weights boxes lose more against their twin than masks do.
    balancing=lambda: mtl.balancing.Fixed({"detection": 2.0, "segmentation": 1.0}),
)
