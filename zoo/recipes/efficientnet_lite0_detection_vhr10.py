"""EfficientNet-Lite0, detection alone: boxes of objects in aerial pictures.

Command: python zoo/train.py efficientnet_lite0_detection_vhr10
Time: not measured yet.
Result: not measured yet.
"""

from _family import make
from _vhr10 import SETTING

recipe = make(__file__, SETTING, tasks=("detection",))
