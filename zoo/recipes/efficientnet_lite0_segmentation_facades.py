"""EfficientNet-Lite0, segmentation alone: masks of things in street photographs.

Command: python zoo/train.py efficientnet_lite0_segmentation_facades
Time: not measured yet.
Result: not measured yet.
"""

from _facades import SETTING
from _family import make

recipe = make(__file__, SETTING, tasks=("segmentation",))
