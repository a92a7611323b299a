"""EfficientNet-Lite0, segmentation alone: masks of things in street photographs.

Command: python zoo/train.py efficientnet_lite0_segmentation_facades --out runs/efficientnet_lite0_segmentation_facades
Time: –
Result: –
"""

from _family import make
from _facades import SETTING

recipe = make(__file__, SETTING, tasks=("segmentation",))
