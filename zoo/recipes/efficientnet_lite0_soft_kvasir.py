"""EfficientNet-Lite0, soft sharing: boxes and masks of polyps.

Command: python zoo/train.py efficientnet_lite0_soft_kvasir
Time: not measured yet.
Result: not measured yet.
"""

from _family import make
from _kvasir import SETTING

recipe = make(__file__, SETTING, sharing="soft")
