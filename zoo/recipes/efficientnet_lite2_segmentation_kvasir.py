"""EfficientNet-Lite2, segmentation alone: masks of polyps.

Command: python zoo/train.py efficientnet_lite2_segmentation_kvasir
Time: 62 minutes on 1 CPU core, 20 epochs.
Result: mean IoU 0.883, IoU of polyp 0.802, Dice of polyp 0.890, Dice by picture of polyp 0.883 on
`val`.
"""

from _family import make
from _kvasir import SETTING

recipe = make(__file__, SETTING, tasks=("segmentation",), trunk="efficientnet_lite2")
