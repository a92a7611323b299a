"""EfficientNet-Lite0, detection alone: boxes of polyps.

Command: python zoo/train.py efficientnet_lite0_detection_kvasir
Time: 20 minutes on 1 CPU core, 20 epochs.
Result: box AP 0.610, AP50 0.873 on `val`.
"""

from _family import make
from _kvasir import SETTING

recipe = make(__file__, SETTING, tasks=("detection",))
