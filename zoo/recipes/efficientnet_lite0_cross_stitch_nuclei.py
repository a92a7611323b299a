"""EfficientNet-Lite0, cross-stitch units: boxes and masks of cell nuclei.

Command: python zoo/train.py efficientnet_lite0_cross_stitch_nuclei
Time: 82 minutes on 1 CPU core, 14 epochs.
Result: box AP 0.626, AP50 0.893, mean IoU 0.929, IoU of nucleus 0.879, Dice of nucleus 0.936, Dice
by picture of nucleus 0.919, AP of instances 0.588, AP50 of instances 0.827, PQ 0.749 on `val`.
"""

from _family import make
from _nuclei import SETTING

recipe = make(__file__, SETTING, sharing="cross_stitch")
