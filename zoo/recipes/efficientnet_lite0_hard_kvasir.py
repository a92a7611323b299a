"""EfficientNet-Lite0, hard sharing: boxes and masks of polyps.

Command: python zoo/train.py efficientnet_lite0_hard_kvasir
Time: 30 minutes on 1 CPU core, 20 epochs.
Result: box AP 0.633, AP50 0.887, mean IoU 0.890, IoU of polyp 0.814, Dice of polyp 0.897, Dice by
picture of polyp 0.894, AP of instances 0.639, AP50 of instances 0.816, PQ 0.780 on `val`.
"""

from _family import make
from _kvasir import SETTING

recipe = make(__file__, SETTING, sharing="hard")
