"""EfficientNet-Lite0, detection alone: boxes of cell nuclei.

Command: python zoo/train.py efficientnet_lite0_detection_nuclei
Time: 40 minutes on 1 CPU core, 14 epochs.
Result: box AP 0.627, AP50 0.894 on `val`.
"""

from _family import make
from _nuclei import SETTING

recipe = make(__file__, SETTING, tasks=("detection",))
