"""EfficientNet-Lite0, soft sharing: boxes and masks of cell nuclei.

Command: python zoo/train.py efficientnet_lite0_soft_nuclei
Time: 81 minutes on 1 CPU core, 14 epochs.
Result: box AP 0.622, AP50 0.890, mean IoU 0.930, IoU of nucleus 0.881, Dice of nucleus 0.937, Dice
by picture of nucleus 0.919, AP of instances 0.586, AP50 of instances 0.825, PQ 0.749 on `val`.
"""

from _family import make
from _nuclei import SETTING

recipe = make(__file__, SETTING, sharing="soft")
