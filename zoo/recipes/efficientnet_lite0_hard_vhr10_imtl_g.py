"""EfficientNet-Lite0, hard sharing with IMTL-G: boxes and masks of objects in aerial pictures.

Command: python zoo/train.py efficientnet_lite0_hard_vhr10_imtl_g
"""

from _family import make
from _vhr10 import SETTING

import mtl_keras as mtl

recipe = make(
    __file__,
    SETTING,
    sharing="hard",
    # Tasks have the same say in the trunk, whatever the sizes of their losses and gradients.
    balancing=lambda: mtl.balancing.IMTLG(on="features"),
)
