"""EfficientNet-Lite0, hard sharing, weighted: boxes and masks of things in street photographs.

Command: python zoo/train.py efficientnet_lite0_hard_facades_weighted
Time: 91 minutes on 1 CPU core, 30 epochs.
Result: box AP 0.199, AP50 0.376, mean IoU 0.518, AP of instances 0.127, AP50 of instances 0.247, PQ
0.250 on `val`.
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
