"""The contract of a gradient method that remembers gradients."""

from typing import Any

from keras import ops

from mtl_keras.balancing.balancing import GradientMethod


class SizedGradientMethod(GradientMethod):
    """Base class of gradient methods with a state of the size of the tasks' gradients.

    The state takes as much memory as the gradients: 4 bytes for each shared parameter and task.
    Subclasses make it in `build_state`, where `self.size` is known, and implement `advance`.

    Args:
        on: `"parameters"`; features are others in each batch, so nothing can be remembered of
            them.

    Raises:
        ValueError: If `on` is something else.

    Attributes:
        size: Number of values of a gradient, `None` before it is known.
    """

    def __init__(self, on: str = "parameters") -> None:
        super().__init__(on)
        if on != "parameters":
            raise ValueError(
                f"`on` must be 'parameters' for {type(self).__name__}, which remembers gradients "
                f"from step to step; features are others in each batch. Received: on={on!r}"
            )
        self.size: int | None = None

    def build(self, tasks: tuple[str, ...], size: int | None = None) -> None:
        """Makes the state, anew if it was built for other tasks or another size.

        Args:
            tasks: Names of the tasks, in the order in which gradients are given.
            size: Number of values of a gradient. Without it, the state is made by the first step.
        """
        tasks = tuple(tasks)
        if tasks == self.tasks and size in (None, self.size):
            return
        self._variables, self.tasks, self.size = [], tasks, size
        if size is not None:
            self.build_state(len(tasks))

    def aggregate(self, gradients: Any) -> Any:
        """Computes the direction for gradients of all tasks, with losses of 1."""
        gradients = ops.cast(ops.convert_to_tensor(gradients), "float32")
        self._build_for(gradients.shape[0])
        return self.step(gradients, dict.fromkeys(self.tasks, 1.0))

    def step(self, gradients: Any, losses: dict[str, Any], present: Any = None) -> Any:
        """See `GradientMethod.step`."""
        gradients = ops.cast(ops.convert_to_tensor(gradients), "float32")
        size = gradients.shape[1]
        if self.tasks is None or self.size is None:
            self.build(self.tasks or tuple(losses), size)
        if size is not None and size != self.size:
            raise ValueError(
                f"the state of {type(self).__name__} is of gradients with {self.size} values. "
                f"Received: {size} values. If layers were frozen or freed, compile the model again"
            )
        losses = ops.stack([ops.cast(loss, "float32") for loss in losses.values()])
        present = ops.ones_like(losses) if present is None else ops.cast(present, "float32")
        here = present > 0.0
        return self.advance(
            ops.where(here[:, None], gradients, 0.0), ops.where(here, losses, 1.0), present
        )

    def advance(self, gradients: Any, losses: Any, present: Any) -> Any:
        """Computes the direction, and moves the state of the tasks that are present a step on.

        Args:
            gradients: Float32 tensor of shape `(tasks, size)`, zeros where the task is absent.
            losses: Float32 tensor of shape `(tasks,)`, 1 where the task is absent.
            present: Float32 tensor of shape `(tasks,)`, 1 or 0.

        Returns:
            Float32 tensor of shape `(size,)`.
        """
        raise NotImplementedError
