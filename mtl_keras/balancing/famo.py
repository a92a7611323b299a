"""FAMO: losses fall at the same rate, with nothing but the losses themselves."""

import math
from typing import Any

import keras
from keras import ops

from mtl_keras.balancing.balancing import LossWeighting

_MEAN_DECAY, _SQUARE_DECAY = 0.9, 0.999


@keras.saving.register_keras_serializable(package="mtl_keras")
class FAMO(LossWeighting):
    """Learns weights by how much the logarithm of each loss fell.

    With `z = softmax(xi)`, the weights are `z / loss`, scaled to the sum 1: the step goes down
    the gradient of the sum of `z log(loss)`. Then `xi` goes down the gradient of
    `sum(z * fall) + decay * sum(xi ** 2) / 2`, where `fall` is how much each logarithm fell, with
    Adam: a task whose loss falls slowly gets more weight.

    Args:
        learning_rate: Float above 0, of `xi`.
        decay: Float, not negative: how strongly `xi` is drawn to 0, that is to equal `z`. Where
            the losses' surface stays the same and descent gets stuck, as in the authors' toy
            problem, 0 lets weights go as far as it takes.
        same_batch: Whether to measure the fall on one batch, before and after its update, as the
            paper does. It costs a forward pass a step, and needs TensorFlow.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Liu et al. 2023, "FAMO: Fast Adaptive Multitask Optimization", algorithm 1, with Adam for
        `xi` as in the authors' code. Deviation, unless `same_batch`: the fall is measured from
        the loss of one step to that of the next, on its own batch. What a batch adds to one fall
        by chance it takes from the one before, so that the chance of batches does not add up.

    Example:

    ```python
    import mtl_keras as mtl
    method = mtl.balancing.FAMO()
    for losses in ([4.0, 4.0], [4.0, 2.0], [4.0, 1.0]):
        slow, fast = method.weights(losses)
    assert slow * 4.0 > fast * 1.0  # z, up to a factor
    ```
    """

    def __init__(self, learning_rate: float = 0.025, decay: float = 1e-3, same_batch: bool = False):
        super().__init__()
        if not (math.isfinite(learning_rate) and learning_rate > 0):
            raise ValueError(
                "`learning_rate` must be positive and finite. "
                f"Received: learning_rate={learning_rate}"
            )
        if not (math.isfinite(decay) and decay >= 0):
            raise ValueError(f"`decay` must be finite and not negative. Received: decay={decay}")
        self.learning_rate = float(learning_rate)
        self.decay = float(decay)
        self.same_batch = bool(same_batch)

    @property
    def looks_again(self) -> bool:
        return self.same_batch

    def get_config(self) -> dict:
        return {
            "learning_rate": self.learning_rate,
            "decay": self.decay,
            "same_batch": self.same_batch,
        }

    def build_state(self, num_tasks: int) -> None:
        zeros = [0.0] * num_tasks
        self._logits = self.add_variable("logits", zeros)
        self._mean = self.add_variable("mean", zeros)
        self._square = self.add_variable("square", zeros)
        self._count = self.add_variable("count", zeros)
        self._seen = self.add_variable("seen", zeros)
        self._last = self.add_variable("last_log_losses", zeros)

    def compute_weights(self, losses: Any, present: Any) -> Any:
        losses = ops.maximum(losses, 1e-8)
        logs = ops.log(losses)
        if not self.same_batch:
            self._learn(logs, present & (self._seen.value > 0.0))
        self._last.assign(ops.where(present, logs, self._last.value))
        self._seen.assign(ops.maximum(self._seen.value, ops.cast(present, "float32")))
        weights = _softmax(self._logits.value, present) / losses
        return weights / ops.maximum(ops.sum(ops.where(present, weights, 0.0)), 1e-30)

    def look_again(self, losses: Any, present: Any) -> None:
        """Learns from the losses of the same batch after the update."""
        losses, present = self._prepare(losses, present)
        self._learn(ops.log(ops.maximum(losses, 1e-8)), present & (self._seen.value > 0.0))

    def _learn(self, logs: Any, learns: Any) -> None:
        """Moves `xi` of the tasks with a loss before this one a step of Adam on."""
        logits = ops.convert_to_tensor(self._logits.value)
        z = _softmax(logits, learns)
        fall = ops.where(learns, self._last.value - logs, 0.0)
        gradient = z * (fall - ops.sum(z * fall)) + self.decay * logits
        moved = _MEAN_DECAY * self._mean.value + (1.0 - _MEAN_DECAY) * gradient
        mean = ops.where(learns, moved, self._mean.value)
        moved = _SQUARE_DECAY * self._square.value + (1.0 - _SQUARE_DECAY) * gradient**2
        square = ops.where(learns, moved, self._square.value)
        count = self._count.value + ops.cast(learns, "float32")
        after = ops.maximum(count, 1.0)
        unbiased = mean / (1.0 - ops.power(_MEAN_DECAY, after))
        root = ops.sqrt(square / (1.0 - ops.power(_SQUARE_DECAY, after)))
        step = self.learning_rate * unbiased / (root + 1e-8)
        self._logits.assign(ops.where(learns, logits - step, logits))
        self._mean.assign(mean)
        self._square.assign(square)
        self._count.assign(count)


def _softmax(logits: Any, among: Any) -> Any:
    return ops.softmax(ops.where(among, logits, -1e9))
