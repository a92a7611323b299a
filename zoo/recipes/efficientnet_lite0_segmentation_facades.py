"""EfficientNet-Lite0, segmentation alone: masks of things in street photographs.

Command: python zoo/train.py efficientnet_lite0_segmentation_facades
Time: 61 minutes on 1 CPU core, 30 epochs.
Result: mean IoU 0.519 on `val`.
"""

from _facades import SETTING
from _family import make

recipe = make(__file__, SETTING, tasks=("segmentation",))
