"""GradNorm: weights are learned so that all tasks train at the same rate."""

import math
from typing import Any

import keras
from keras import ops

from mtl_keras.balancing.balancing import GradientMethod


@keras.saving.register_keras_serializable(package="mtl_keras")
class GradNorm(GradientMethod):
    """Learns weights that bring each task's gradient to a norm which its training rate asks for.

    With gradients `g_i`, weights `w_i` and the mean norm `n = mean(w_i |g_i|)`, the weights go
    down the gradient of `sum(abs(w_i |g_i| - n r_i^alpha))`, where `r_i` is the task's loss over
    its first loss, divided by the mean of these; then they are scaled to the sum T.

    Args:
        alpha: Float, not negative; the larger, the more a task that trains slowly counts.
        learning_rate: Float above 0, of the weights.
        on: `"parameters"` or `"features"`, see `GradientMethod`.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Chen et al. 2018, "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep
        Multitask Networks", equations 1 and 2, algorithm 1. Deviations: norms are of all shared
        parameters, not of the last shared layer; weights are kept above 1e-3.

    Example:

    ```python
    import numpy as np
    import mtl_keras as mtl
    method = mtl.balancing.GradNorm(learning_rate=0.1)
    gradients = np.array([[1.0, 0.0], [0.0, 3.0]])
    assert np.allclose(method.step(gradients, {"a": 1.0, "b": 1.0}), [1.0, 3.0])
    assert np.asarray(method.step(gradients, {"a": 1.0, "b": 1.0}))[0] > 1.0
    ```
    """

    def __init__(self, alpha: float = 1.5, learning_rate: float = 0.025, on: str = "parameters"):
        super().__init__(on)
        if not (math.isfinite(alpha) and alpha >= 0):
            raise ValueError(f"`alpha` must be finite and not negative. Received: alpha={alpha}")
        if not (math.isfinite(learning_rate) and learning_rate > 0):
            raise ValueError(
                "`learning_rate` must be positive and finite. "
                f"Received: learning_rate={learning_rate}"
            )
        self.alpha = float(alpha)
        self.learning_rate = float(learning_rate)

    @property
    def weighs(self) -> bool:
        return True

    def get_config(self) -> dict:
        return {"alpha": self.alpha, "learning_rate": self.learning_rate, **super().get_config()}

    def build_state(self, num_tasks: int) -> None:
        self._weights = self.add_variable("weights", [1.0] * num_tasks)
        self._first = self.add_variable("first_losses", [0.0] * num_tasks)

    def aggregate(self, gradients: Any) -> Any:
        """Weighs with the weights as they are: without losses they can't be learned."""
        gradients = ops.cast(ops.convert_to_tensor(gradients), "float32")
        self._build_for(gradients.shape[0])
        return ops.sum(self._weights.value[:, None] * gradients, axis=0)

    def step(self, gradients: Any, losses: dict[str, Any], present: Any = None) -> Any:
        """See `GradientMethod.step`."""
        gradients = ops.cast(ops.convert_to_tensor(gradients), "float32")
        if self.tasks is None:
            self.build(tuple(losses))
        loss = ops.stack([ops.cast(value, "float32") for value in losses.values()])
        present = ops.ones_like(loss) if present is None else ops.cast(present, "float32")
        loss = ops.where(present > 0.0, loss, 1.0)
        norms = ops.sqrt(self._sum_over_replicas(ops.sum(gradients**2, axis=-1))) * present
        weights = ops.convert_to_tensor(self._weights.value)
        count = ops.maximum(ops.sum(present), 1.0)
        self.last_weights = weights * present
        direction = ops.sum(self.last_weights[:, None] * gradients, axis=0)

        first = ops.where((self._first.value > 0.0) | (present == 0.0), self._first.value, loss)
        ratio = present * loss / ops.where(first > 0.0, first, 1.0)
        rate = ratio / ops.maximum(ops.sum(ratio) / count, 1e-12)
        goal = ops.sum(weights * norms * present) / count * ops.power(rate, self.alpha)
        move = ops.sign(weights * norms - goal) * norms * present
        new = ops.maximum(weights - self.learning_rate * move, 1e-3)
        # Those of this batch keep their sum.
        kept = ops.sum(weights * present) / ops.sum(new * present)
        self._first.assign(first)
        self._weights.assign(ops.where(present > 0.0, new * kept, weights))
        return direction
