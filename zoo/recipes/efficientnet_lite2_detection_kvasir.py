"""EfficientNet-Lite2, detection alone: boxes of polyps.

Command: python zoo/train.py efficientnet_lite2_detection_kvasir
Time: 60 minutes on 1 CPU core, 20 epochs.
Result: box AP 0.643, AP50 0.873 on `val`.
"""

from _family import make
from _kvasir import SETTING

recipe = make(__file__, SETTING, tasks=("detection",), trunk="efficientnet_lite2")
