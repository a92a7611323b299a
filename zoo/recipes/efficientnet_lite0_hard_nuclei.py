"""EfficientNet-Lite0, hard sharing: boxes and masks of cell nuclei.

Command: python zoo/train.py efficientnet_lite0_hard_nuclei
Time: 53 minutes on 1 CPU core, 14 epochs.
Result: box AP 0.625, AP50 0.893, mean IoU 0.930, IoU of nucleus 0.880, Dice of nucleus 0.936, Dice
by picture of nucleus 0.918, AP of instances 0.595, AP50 of instances 0.837, PQ 0.753 on `val`.
"""

from _family import make
from _nuclei import SETTING

recipe = make(__file__, SETTING, sharing="hard")
