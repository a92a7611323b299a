"""EfficientNet-Lite2, hard sharing: boxes and masks of polyps.

Command: python zoo/train.py efficientnet_lite2_hard_kvasir
Time: 67 minutes on 1 CPU core, 20 epochs.
Result: box AP 0.645, AP50 0.892, mean IoU 0.888, IoU of polyp 0.810, Dice of polyp 0.895, Dice by
picture of polyp 0.884, AP of instances 0.636, AP50 of instances 0.820, PQ 0.774 on `val`.
"""

from _family import make
from _kvasir import SETTING

recipe = make(__file__, SETTING, sharing="hard", trunk="efficientnet_lite2")
