"""EfficientNet-Lite0, hard sharing: boxes and masks of things in street photographs.

Command: python zoo/train.py efficientnet_lite0_hard_facades
Time: 66 minutes on 1 CPU core, 30 epochs.
Result: box AP 0.186, AP50 0.350, mean IoU 0.517, AP of instances 0.123, AP50 of instances 0.243, PQ
0.241 on `val`.
"""

from _facades import SETTING
from _family import make

recipe = make(__file__, SETTING, sharing="hard")
