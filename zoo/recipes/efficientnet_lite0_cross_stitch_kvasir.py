"""EfficientNet-Lite0, cross-stitch units: boxes and masks of polyps.

Command: python zoo/train.py efficientnet_lite0_cross_stitch_kvasir
Time: 47 minutes on 1 CPU core, 20 epochs.
Result: box AP 0.644, AP50 0.881, mean IoU 0.875, IoU of polyp 0.790, Dice of polyp 0.882, Dice by
picture of polyp 0.874, AP of instances 0.616, AP50 of instances 0.796, PQ 0.768 on `val`.
"""

from _family import make
from _kvasir import SETTING

recipe = make(__file__, SETTING, sharing="cross_stitch")
