"""EfficientNet-Lite0, hard sharing: boxes and masks of objects in aerial pictures.

Command: python zoo/train.py efficientnet_lite0_hard_vhr10
Time: 44 minutes on 1 CPU core, 20 epochs.
Result: box AP 0.537, AP50 0.868, mean IoU 0.682, AP of instances 0.476, AP50 of instances 0.761, PQ
0.648 on `val`.
"""

from _family import make
from _vhr10 import SETTING

recipe = make(__file__, SETTING, sharing="hard")
