"""EfficientNet-Lite0, detection alone: boxes of things in street photographs.

Command: python zoo/train.py efficientnet_lite0_detection_facades
Time: not measured yet.
Result: not measured yet.
"""

from _facades import SETTING
from _family import make

recipe = make(__file__, SETTING, tasks=("detection",))
