"""GradVac: gradients are turned towards a similarity that tasks have had."""

import math
from typing import Any

import keras
from keras import ops

from mtl_keras.balancing.balancing import GradientMethod
from mtl_keras.balancing.pcgrad import random_orders


@keras.saving.register_keras_serializable(package="mtl_keras")
class GradVac(GradientMethod):
    """Adds to each gradient what lifts its cosine with another to their usual cosine.

    The usual cosine of each pair is an exponential moving average. The others are taken in
    random order; the direction is the sum.

    Args:
        beta: Float in (0, 1], share of a step in the moving average.
        seed: Optional integer.
        on: `"parameters"` or `"features"`, see `GradientMethod`.

    Raises:
        ValueError: If `beta` is out of its range.

    Reference:
        Wang et al. 2021, "Gradient Vaccine", equations 2 and 3, over all shared parameters at
        once. It is written on scalar products.

    Example:

    ```python
    import numpy as np
    import mtl_keras as mtl
    gradients = np.array([[1.0, 0.0], [-1.0, 1.0]])
    direction = mtl.balancing.GradVac().aggregate(gradients)
    assert np.allclose(direction, [0.5, 1.5])  # the usual cosine is 0 at first, as in PCGrad
    ```
    """

    ignores_zero_gradients = True

    def __init__(self, beta: float = 0.01, seed: int | None = None, on: str = "parameters"):
        super().__init__(on)
        if not (math.isfinite(beta) and 0 < beta <= 1):
            raise ValueError(f"`beta` must be in (0, 1]. Received: beta={beta}")
        self.beta = float(beta)
        self.seed = seed

    def get_config(self) -> dict:
        return {"beta": self.beta, "seed": self.seed, **super().get_config()}

    def build_state(self, num_tasks: int) -> None:
        self._usual = self.add_variable("usual_cosine", ops.zeros((num_tasks, num_tasks)))
        self._generator = keras.random.SeedGenerator(self.seed)
        self._variables.append(self._generator.state)

    def weights_from_gramian(self, gramian: Any) -> Any:
        gramian = ops.cast(ops.convert_to_tensor(gramian), "float32")
        size = gramian.shape[0]
        self._build_for(size)
        order = random_orders(size, self._generator)
        norms = ops.sqrt(ops.maximum(ops.diagonal(gramian), 0.0))
        usual = ops.convert_to_tensor(self._usual.value)
        seen = usual
        coefficients = ops.eye(size)
        rows = ops.arange(size)
        for k in range(size):
            other = order[:, k]
            one_hot = ops.one_hot(other, size, dtype="float32")
            product = ops.sum(coefficients * ops.take(gramian, other, axis=0), axis=-1)
            own = ops.sum(coefficients * ops.matmul(coefficients, gramian), axis=-1)
            own = ops.sqrt(ops.maximum(own, 0.0))
            length = ops.take(norms, other)
            both = own * length
            cosine = ops.where(both > 0.0, product / ops.where(both > 0.0, both, 1.0), 0.0)
            cosine = ops.clip(cosine, -1.0, 1.0)
            goal = ops.clip(ops.sum(usual * one_hot, axis=-1), -0.999, 0.999)
            sine, sine_goal = ops.sqrt(1.0 - cosine**2), ops.sqrt(1.0 - goal**2)
            share = own * (goal * sine - cosine * sine_goal)
            share = share / ops.where(length > 0.0, length * sine_goal, 1.0)
            differs = (other != rows) & (both > 0.0)
            lifts = differs & (cosine < goal)
            coefficients = coefficients + ops.where(lifts, share, 0.0)[:, None] * one_hot
            learns = ops.cast(differs, "float32")[:, None] * one_hot * self.beta
            seen = seen + learns * (cosine[:, None] - usual)
        self._usual.assign(seen)
        return ops.sum(coefficients, axis=0)
