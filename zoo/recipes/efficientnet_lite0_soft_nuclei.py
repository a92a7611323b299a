"""EfficientNet-Lite0, soft sharing: boxes and masks of cell nuclei.

Command: python zoo/train.py efficientnet_lite0_soft_nuclei
Time: not measured yet.
Result: not measured yet.
"""

from _family import make
from _nuclei import SETTING

recipe = make(__file__, SETTING, sharing="soft")
