"""EfficientNet-Lite0, hard sharing, weighted: boxes and masks of objects in aerial pictures.

Command: python zoo/train.py efficientnet_lite0_hard_vhr10_weighted
Time: 87 minutes on 1 CPU core, 20 epochs.
Result: box AP 0.567, AP50 0.893, mean IoU 0.681, AP of instances 0.502, AP50 of instances 0.801, PQ
0.674 on `val`.
"""

from _family import make
from _vhr10 import SETTING

import mtl_keras as mtl

recipe = make(
    __file__,
    SETTING,
    sharing="hard",
    # With equal weights boxes lose more against their twin than masks do, as on facades.
    balancing=lambda: mtl.balancing.Fixed({"detection": 2.0, "segmentation": 1.0}),
)
