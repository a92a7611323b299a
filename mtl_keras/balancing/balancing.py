"""The contracts of a loss weighting and of a gradient method."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from mtl_keras.balancing.quadratic import precision

PIECE = 2**20
ON = ("parameters", "features", "normalized_features")


class Balancing:
    """Base class: how the losses of several tasks become one step.

    An object holds the arguments of the method and, once `build` was called, its state as Keras
    variables. `MultiTaskModel.compile(balancing=...)` calls `build`; the state is saved with the
    model. Methods may also be called outside of training, on tensors or NumPy arrays.

    Attributes:
        variables: List of `keras.Variable`, the state. Those with `trainable=True` are trained by
            the optimizer of the model.
    """

    def __init__(self) -> None:
        self.tasks: tuple[str, ...] | None = None
        self._variables: list[keras.Variable] = []

    def build(self, tasks: tuple[str, ...]) -> None:
        """Makes the state for some tasks, anew if it was built for others.

        Args:
            tasks: Names of the tasks, in the order in which losses and gradients are given.
        """
        if self.tasks != tuple(tasks):
            self._variables = []
            self.tasks = tuple(tasks)
            self.build_state(len(tasks))

    def build_state(self, num_tasks: int) -> None:
        """Makes the variables, with `add_variable`. Nothing by default."""

    def on_epoch_end(self) -> None:
        """Is called after each epoch of `fit`. Nothing by default."""

    def _build_for(self, count: int) -> None:
        """Lets methods be called on arrays, without a model."""
        if self.tasks is None or len(self.tasks) != count:
            self.build(tuple(f"task{i}" for i in range(count)))

    def add_variable(
        self, name: str, initial: Any, trainable: bool = False, dtype: str = "float32"
    ) -> keras.Variable:
        """Makes a variable of the state.

        Args:
            name: String, unique in the method.
            initial: Initial value, a number or an array; its shape is the variable's.
            trainable: Whether the optimizer of the model trains it.
            dtype: String.

        Returns:
            The `keras.Variable`.
        """
        variable = keras.Variable(
            ops.cast(ops.convert_to_tensor(initial), dtype), trainable=trainable, name=name
        )
        self._variables.append(variable)
        return variable

    @property
    def variables(self) -> list[keras.Variable]:
        return list(self._variables)

    def get_config(self) -> dict:
        """Returns the arguments that make an equal method, without its state."""
        return {}

    @classmethod
    def from_config(cls, config: dict) -> "Balancing":
        """Makes the method that `get_config` described."""
        return cls(**config)


class LossWeighting(Balancing):
    """Base class of methods that act on the vector of the tasks' losses.

    Subclasses implement `compute_weights` and, where the optimizer learns weights, `combine`.
    """

    # Whether a training step computes the losses again after its update, for `look_again`.
    looks_again = False
    weighs = True

    def weights(self, losses: Any, present: Any = None) -> Any:
        """Computes the weight of each loss, and moves the state a step on where there is one.

        Args:
            losses: Float tensor or array of shape `(tasks,)`.
            present: Optional boolean tensor of shape `(tasks,)`: whether the batch has labels of
                the task. A task without gets the weight 0, and moves no state.

        Returns:
            Float32 tensor of shape `(tasks,)`.
        """
        losses, present = self._prepare(losses, present)
        return ops.where(present, self.compute_weights(losses, present), 0.0)

    def _prepare(self, losses: Any, present: Any) -> tuple[Any, Any]:
        losses = ops.cast(ops.convert_to_tensor(losses), "float32")
        self._build_for(losses.shape[0])
        if present is None:
            present = ops.ones_like(losses, dtype="bool")
        present = ops.cast(ops.convert_to_tensor(present), "bool")
        return ops.where(present, losses, 1.0), present  # Whatever was given for absent tasks.

    def compute_weights(self, losses: Any, present: Any) -> Any:
        """Computes the weights; `weights` prepares the arguments.

        Args:
            losses: Float32 tensor of shape `(tasks,)`, 1 where the task is absent.
            present: Boolean tensor of shape `(tasks,)`.

        Returns:
            Float32 tensor of shape `(tasks,)`; what it holds for absent tasks is not used.
        """
        raise NotImplementedError

    def look_again(self, losses: Any, present: Any) -> None:
        """Is called after the update where `looks_again` is set.

        Args:
            losses: Losses of the same batch, see `weights`.
            present: See `weights`.
        """

    def loss_and_weights(self, losses: Any, present: Any = None) -> tuple[Any, Any]:
        """Computes the scalar that is minimised, and the weights for the logs.

        Args:
            losses: Float32 tensor of shape `(tasks,)`.
            present: See `weights`.

        Returns:
            Float32 scalar, and float32 tensor of shape `(tasks,)`.
        """
        losses, present = self._prepare(losses, present)
        weights = self.weights(ops.stop_gradient(losses), present)
        return self.combine(losses, weights, present), weights

    def combine(self, losses: Any, weights: Any, present: Any) -> Any:
        """Combines losses and weights to a scalar; by default weights are taken as constants."""
        return ops.sum(ops.stop_gradient(weights) * losses)


class GradientMethod(Balancing):
    """Base class of methods that act on the matrix of the tasks' gradients.

    Subclasses implement `weights_from_gramian`, where all they need are the scalar products of
    gradients, or else `aggregate`.

    Args:
        on: Where gradients are taken. `"parameters"`: at the shared parameters, exactly as papers
            write it, one backward pass a task through the trunk. `"features"`: at the features
            that tasks share, one backward pass through the trunk in all; scalar products of
            gradients at features stand in for those at parameters. `"normalized_features"`: as
            `"features"`, in units in which the gradients of each image have the same size (the
            root of the sum of squares over all tasks), so that no single image decides.

    Raises:
        ValueError: If `on` is something else.
    """

    # Whether a task whose gradient is zero changes nothing; an absent task is given so.
    ignores_zero_gradients = False

    def __init__(self, on: str = "parameters") -> None:
        super().__init__()
        if on not in ON:
            raise ValueError(f"`on` must be one of {ON}. Received: on={on!r}")
        self.on = on
        self._sum_over_replicas: Callable = lambda value: value
        # What the last direction was made with, for the logs; of its trace, not state.
        self.last_weights: Any = None

    @property
    def weighs(self) -> bool:
        """Whether directions are weighted sums, so that there are weights to look at."""
        return type(self).weights_from_gramian is not GradientMethod.weights_from_gramian

    def get_config(self) -> dict:
        return {"on": self.on}

    def weights_from_gramian(self, gramian: Any) -> Any:
        """Computes the weight of each task's gradient.

        Args:
            gramian: Float tensor or array of shape `(tasks, tasks)`, scalar products of the
                tasks' gradients.

        Returns:
            Float32 tensor of shape `(tasks,)`: the step's direction is the weighted sum.

        Raises:
            NotImplementedError: If the method needs more than scalar products.
        """
        raise NotImplementedError(
            f"{type(self).__name__} needs the gradients themselves; call `aggregate`"
        )

    def aggregate(self, gradients: Any) -> Any:
        """Computes the direction of the step, and moves the state a step on where there is one.

        Args:
            gradients: Float tensor or array of shape `(tasks, parameters)`.

        Returns:
            Float32 tensor of shape `(parameters,)`.
        """
        gradients = ops.cast(ops.convert_to_tensor(gradients), "float32")
        weights = self.weights_from_gramian(self.gramian(gradients))
        self.last_weights = ops.reshape(ops.cast(weights, "float32"), (-1,))
        return ops.matmul(self.last_weights[None, :], gradients)[0]

    def gramian(self, gradients: Any) -> Any:
        """Computes the scalar products of gradients, of the images of all devices.

        Args:
            gradients: Float32 tensor of shape `(tasks, parameters)`.

        Returns:
            Float64 tensor of shape `(tasks, tasks)` (float32 where the backend has no float64).
        """
        # In float32, rounding would add directions to gradients that depend on each other. A copy
        # of all of them in float64 would take more memory than the gradients themselves.
        size = gradients.shape[1] or 0
        total = 0.0
        for start in range(0, max(size, 1), PIECE):
            piece = gradients[:, start : start + PIECE] if size > PIECE else gradients
            piece = ops.cast(piece, precision())
            total = total + ops.matmul(piece, ops.transpose(piece))
        return self._sum_over_replicas(total)

    def step(self, gradients: Any, losses: dict[str, Any], present: Any = None) -> Any:
        """Computes the direction of a training step.

        Args:
            gradients: Float32 tensor of shape `(tasks, parameters)`, zeros for absent tasks.
            losses: Dict, name of each task to its loss, in the order of the rows.
            present: Optional boolean tensor of shape `(tasks,)`: whether the batch has labels of
                the task. The direction is that of the tasks that are present.

        Returns:
            Float32 tensor of shape `(parameters,)`.
        """
        if present is None or self.ignores_zero_gradients:
            return self.aggregate(gradients)
        gradients = ops.cast(ops.convert_to_tensor(gradients), "float32")
        if type(self).aggregate is not GradientMethod.aggregate:
            return of_present(self.aggregate, gradients, present)
        gramian, size = self.gramian(gradients), gradients.shape[0]

        def weights(order):
            rows = ops.take(ops.take(gramian, order, axis=0), order, axis=1)
            some = ops.reshape(ops.cast(self.weights_from_gramian(rows), "float32"), (1, -1))
            return ops.matmul(some, ops.one_hot(order, size, dtype="float32"))[0]

        self.last_weights = by_count(weights, present, ops.zeros(size))
        return ops.matmul(self.last_weights[None, :], gradients)[0]


def of_present(function: Callable, gradients: Any, present: Any) -> Any:
    """Hands a function the rows of the tasks that are present, and only those.

    Args:
        function: From float32 `(some tasks, parameters)` to float32 `(parameters,)`.
        gradients: Float32 tensor of shape `(tasks, parameters)`.
        present: Boolean tensor of shape `(tasks,)`.

    Returns:
        Float32 tensor of shape `(parameters,)`, zeros if no task is present.
    """

    def of_rows(order):
        return function(ops.take(gradients, order, axis=0))

    return by_count(of_rows, present, ops.zeros_like(gradients[0]))


def by_count(function: Callable, present: Any, none: Any) -> Any:
    """Calls a function with the rows of the tasks that are present, in a graph too.

    Which tasks are present is known in the batch alone, but functions need to know how many rows
    they get: there is a branch for each number of tasks.

    Args:
        function: Called with an int32 tensor of static shape `(some tasks,)`, their rows.
        present: Boolean tensor of shape `(tasks,)`.
        none: What to return if no task is present.

    Returns:
        What `function` returns.
    """
    present = ops.cast(ops.convert_to_tensor(present), "int32")
    size = present.shape[0]
    order = ops.argsort((1 - present) * size + ops.arange(size, dtype="int32"))
    order = ops.cast(order, "int32")
    branches = [lambda: none]
    branches += [lambda count=count: function(order[:count]) for count in range(1, size + 1)]
    return ops.switch(ops.sum(present), branches)
