"""EfficientNet-Lite2, segmentation alone: masks of polyps.

Command: python zoo/train.py efficientnet_lite2_segmentation_kvasir
Time: not trained yet.
Result: not measured yet.
"""

from _family import make
from _kvasir import SETTING

recipe = make(__file__, SETTING, tasks=("segmentation",), trunk="efficientnet_lite2")
