"""EfficientNet-Lite0, hard sharing: boxes and masks of objects in aerial pictures.

Command: python zoo/train.py efficientnet_lite0_hard_vhr10
Time: not measured yet.
Result: not measured yet.
"""

from _family import make
from _vhr10 import SETTING

recipe = make(__file__, SETTING, sharing="hard")
