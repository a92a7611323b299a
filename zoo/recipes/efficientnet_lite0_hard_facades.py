"""EfficientNet-Lite0, hard sharing: boxes and masks of things in street photographs.

Command: python zoo/train.py efficientnet_lite0_hard_facades --out runs/efficientnet_lite0_hard_facades
Time: –
Result: –
"""

from _family import make
from _facades import SETTING

recipe = make(__file__, SETTING, sharing="hard")
