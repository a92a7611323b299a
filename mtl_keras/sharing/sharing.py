"""The contract of a way to share."""

from typing import Any


class Sharing:
    """Base class: how tasks share a trunk.

    A sharing is a description, as trunks and tasks are. `features` wires new layers each time.
    Subclasses implement `features` and `get_config`.
    """

    def features(self, inputs: Any, trunk: Any, tasks: tuple) -> dict[str, dict[str, Any]]:
        """Wires `inputs` to the features that each task's head reads.

        Args:
            inputs: `keras.KerasTensor` of shape `(batch, height, width, 3)`, in [0, 255].
            trunk: `mtl_keras.trunks.Trunk` to instantiate, once or several times.
            tasks: Tuple of `mtl_keras.tasks.Task`.

        Returns:
            Dict, task name to a dict of pyramid level to features.
        """
        raise NotImplementedError

    def get_config(self) -> dict:
        """Returns the arguments that make an equal sharing."""
        return {}

    @classmethod
    def from_config(cls, config: dict) -> "Sharing":
        """Makes the sharing that `get_config` described."""
        return cls(**config)


def check_levels(trunk: Any, tasks: tuple) -> None:
    """Raises a `ValueError` where a task reads a level that the trunk does not have."""
    for task in tasks:
        missing = [level for level in task.levels if level not in trunk.levels]
        if missing:
            raise ValueError(
                f"task {task.name!r} reads levels {list(task.levels)}, but trunk {trunk.name!r} "
                f"has only {list(trunk.levels)}; give the task other `levels`"
            )
