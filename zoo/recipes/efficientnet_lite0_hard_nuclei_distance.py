"""EfficientNet-Lite0, hard sharing: boxes, masks and distances to the boundary of cell nuclei.

Command: python zoo/train.py efficientnet_lite0_hard_nuclei_distance
Time: 67 minutes on 2 CPU cores, 14 epochs.
Result: box AP 0.621, AP50 0.899, mean IoU 0.926, IoU of nucleus 0.875, Dice of nucleus 0.933, Dice
by picture of nucleus 0.917, MAE of distance 0.070, AP of instances 0.580, AP50 of instances 0.809,
PQ 0.749 on `val`.
"""

from _family import make
from _nuclei import SETTING

recipe = make(__file__, SETTING, tasks=("detection", "segmentation", "distance"))
