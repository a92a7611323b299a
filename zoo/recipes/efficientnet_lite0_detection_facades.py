"""EfficientNet-Lite0, detection alone: boxes of things in street photographs.

Command: python zoo/train.py efficientnet_lite0_detection_facades --out runs/efficientnet_lite0_detection_facades
Time: –
Result: –
"""

from _family import make
from _facades import SETTING

recipe = make(__file__, SETTING, tasks=("detection",))
