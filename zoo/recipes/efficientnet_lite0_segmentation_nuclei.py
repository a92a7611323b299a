"""EfficientNet-Lite0, segmentation alone: masks of cell nuclei.

Command: python zoo/train.py efficientnet_lite0_segmentation_nuclei
Time: 39 minutes on 1 CPU core, 14 epochs.
Result: mean IoU 0.928, IoU of nucleus 0.878, Dice of nucleus 0.935, Dice by picture of nucleus
0.918 on `val`.
"""

from _family import make
from _nuclei import SETTING

recipe = make(__file__, SETTING, tasks=("segmentation",))
