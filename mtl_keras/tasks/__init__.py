"""Tasks: each owns its head, its target encoding, its loss, its decoding and its metrics."""

from mtl_keras.tasks.classification import Classification
from mtl_keras.tasks.detection import Detection
from mtl_keras.tasks.distance import BoundaryDistance
from mtl_keras.tasks.instances import fuse_instances, instance_tasks
from mtl_keras.tasks.segmentation import Segmentation
from mtl_keras.tasks.sequences import LanguageModeling, Tagging
from mtl_keras.tasks.task import Geometry, Task

_TASKS = {
    "boundary_distance": BoundaryDistance,
    "classification": Classification,
    "detection": Detection,
    "language_modeling": LanguageModeling,
    "segmentation": Segmentation,
    "tagging": Tagging,
}

__all__ = [
    "BoundaryDistance",
    "Classification",
    "Detection",
    "Geometry",
    "LanguageModeling",
    "Segmentation",
    "Tagging",
    "Task",
    "fuse_instances",
    "instance_tasks",
    "names",
]


def names() -> list[str]:
    """Lists the registered kinds of task.

    Returns:
        Sorted list of names.

    Example:

    ```python
    import mtl_keras as mtl
    assert {"detection", "segmentation"} <= set(mtl.tasks.names())
    ```
    """
    return sorted(_TASKS)
