"""EfficientNet-Lite0, detection alone: boxes of polyps.

Command: python zoo/train.py efficientnet_lite0_detection_kvasir
Time: not measured yet.
Result: not measured yet.
"""

from _family import make
from _kvasir import SETTING

recipe = make(__file__, SETTING, tasks=("detection",))
