"""EfficientNet-Lite0, detection alone: boxes of objects in aerial pictures.

Command: python zoo/train.py efficientnet_lite0_detection_vhr10
Time: 26 minutes on 1 CPU core, 20 epochs.
Result: box AP 0.552, AP50 0.888 on `val`.
"""

from _family import make
from _vhr10 import SETTING

recipe = make(__file__, SETTING, tasks=("detection",))
