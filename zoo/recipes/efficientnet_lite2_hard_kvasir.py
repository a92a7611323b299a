"""EfficientNet-Lite2, hard sharing: boxes and masks of polyps.

Command: python zoo/train.py efficientnet_lite2_hard_kvasir
Time: not trained yet.
Result: not measured yet.
"""

from _family import make
from _kvasir import SETTING

recipe = make(__file__, SETTING, sharing="hard", trunk="efficientnet_lite2")
