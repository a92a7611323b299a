"""EfficientNet-Lite0, segmentation alone: masks of polyps.

Command: python zoo/train.py efficientnet_lite0_segmentation_kvasir
Time: 22 minutes on 1 CPU core, 20 epochs.
Result: mean IoU 0.876, IoU of polyp 0.790, Dice of polyp 0.883, Dice by picture of polyp 0.881 on
`val`.
"""

from _family import make
from _kvasir import SETTING

recipe = make(__file__, SETTING, tasks=("segmentation",))
