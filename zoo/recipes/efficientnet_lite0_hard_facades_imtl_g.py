"""EfficientNet-Lite0, hard sharing with IMTL-G: boxes and masks of things in street photographs.

Command: python zoo/train.py efficientnet_lite0_hard_facades_imtl_g
"""

from _facades import SETTING
from _family import make

import mtl_keras as mtl

recipe = make(
    __file__,
    SETTING,
    sharing="hard",
    # Tasks have the same say in the trunk, whatever the sizes of their losses and gradients.
    balancing=lambda: mtl.balancing.IMTLG(on="features"),
)
