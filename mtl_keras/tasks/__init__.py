"""Tasks: each owns its head, its target encoding, its loss, its decoding and its metrics."""

from mtl_keras.tasks.detection import Detection
from mtl_keras.tasks.segmentation import Segmentation
from mtl_keras.tasks.task import Geometry, Task

_TASKS = {"detection": Detection, "segmentation": Segmentation}

__all__ = ["Detection", "Geometry", "Segmentation", "Task", "names"]


def names() -> list[str]:
    """Lists the registered kinds of task.

    Returns:
        Sorted list of names.

    Example:

    ```python
    import mtl_keras as mtl
    assert mtl.tasks.names() == ["detection", "segmentation"]
    ```
    """
    return sorted(_TASKS)
