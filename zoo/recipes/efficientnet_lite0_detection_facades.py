"""EfficientNet-Lite0, detection alone: boxes of things in street photographs.

Command: python zoo/train.py efficientnet_lite0_detection_facades
Time: 54 minutes on 1 CPU core, 30 epochs.
Result: box AP 0.205, AP50 0.371 on `val`.
"""

from _facades import SETTING
from _family import make

recipe = make(__file__, SETTING, tasks=("detection",))
