"""EfficientNet-Lite0, segmentation alone: masks of objects in aerial pictures.

Command: python zoo/train.py efficientnet_lite0_segmentation_vhr10
Time: 32 minutes on 1 CPU core, 20 epochs.
Result: mean IoU 0.686 on `val`.
"""

from _family import make
from _vhr10 import SETTING

recipe = make(__file__, SETTING, tasks=("segmentation",))
