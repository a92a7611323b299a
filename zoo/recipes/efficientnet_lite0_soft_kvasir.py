"""EfficientNet-Lite0, soft sharing: boxes and masks of polyps.

Command: python zoo/train.py efficientnet_lite0_soft_kvasir
Time: 47 minutes on 1 CPU core, 20 epochs.
Result: box AP 0.629, AP50 0.890, mean IoU 0.870, IoU of polyp 0.781, Dice of polyp 0.877, Dice by
picture of polyp 0.886, AP of instances 0.621, AP50 of instances 0.813, PQ 0.771 on `val`.
"""

from _family import make
from _kvasir import SETTING

recipe = make(__file__, SETTING, sharing="soft")
