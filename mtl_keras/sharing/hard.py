"""Hard sharing: one trunk and one neck for all tasks."""

from typing import Any

import keras

from mtl_keras.sharing.neck import feature_pyramid
from mtl_keras.sharing.sharing import Sharing, check_levels


@keras.saving.register_keras_serializable(package="mtl_keras")
class HardSharing(Sharing):
    """All tasks read the same features; only their heads are their own.

    Args:
        neck_channels: Integer, channels of every level of the shared neck.

    Raises:
        ValueError: If `neck_channels` is not a positive integer.

    Reference:
        Caruana 1997, "Multitask Learning".

    Example:

    ```python
    import mtl_keras as mtl
    model = mtl.build(
        mtl.trunks.create("efficientnet_lite0", weights=None),
        tasks=[mtl.tasks.Detection(num_classes=2), mtl.tasks.Segmentation(num_classes=3)],
        sharing=mtl.sharing.HardSharing(neck_channels=32),
        image_size=(64, 64),
    )
    ```
    """

    def __init__(self, neck_channels: int = 64):
        if not isinstance(neck_channels, int) or neck_channels < 1:
            raise ValueError(
                f"`neck_channels` must be a positive integer. Received: {neck_channels!r}"
            )
        self.neck_channels = neck_channels

    def get_config(self) -> dict:
        return {"neck_channels": self.neck_channels}

    def features(self, inputs: Any, trunk: Any, tasks: tuple) -> dict[str, dict[str, Any]]:
        check_levels(trunk, tasks)
        x, pyramid = inputs, {}
        for stage, model in zip(trunk.stages, trunk.instantiate("trunk"), strict=True):
            x = model(x)
            if stage.level in trunk.levels:
                pyramid[stage.level] = x
        levels = sorted({level for task in tasks for level in task.levels})
        neck = feature_pyramid(
            {level: features.shape[-1] for level, features in pyramid.items()},
            levels,
            self.neck_channels,
        )
        shared = neck({level: pyramid[level] for level in neck.input})
        return {task.name: {level: shared[level] for level in task.levels} for task in tasks}
