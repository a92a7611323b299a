"""EfficientNet-Lite0, hard sharing: boxes, masks and distances to the boundary of cell nuclei.

Command: python zoo/train.py efficientnet_lite0_hard_nuclei_distance
Time: not measured yet.
Result: not measured yet.
"""

from _family import make
from _nuclei import SETTING

recipe = make(__file__, SETTING, tasks=("detection", "segmentation", "distance"))
