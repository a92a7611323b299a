"""EfficientNet-Lite0, hard sharing: boxes and masks of things in street photographs.

Command: python zoo/train.py efficientnet_lite0_hard_facades
Time: not measured yet.
Result: not measured yet.
"""

from _facades import SETTING
from _family import make

recipe = make(__file__, SETTING, sharing="hard")
