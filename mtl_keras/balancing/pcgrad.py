"""PCGrad: gradients lose what conflicts with another one."""

from typing import Any

import keras
from keras import ops

from mtl_keras.balancing.balancing import GradientMethod


@keras.saving.register_keras_serializable(package="mtl_keras")
class PCGrad(GradientMethod):
    """Projects each gradient onto the normal plane of each other one that it conflicts with.

    The others are taken in random order; the direction is the sum.

    Args:
        seed: Optional integer.
        on: `"parameters"` or `"features"`, see `GradientMethod`.

    Reference:
        Yu et al. 2020, "Gradient Surgery for Multi-Task Learning", algorithm 1. It is written on
        scalar products: each projected gradient is kept as its coefficients.

    Example:

    ```python
    import numpy as np
    import mtl_keras as mtl
    direction = mtl.balancing.PCGrad().aggregate([[1.0, 0.0], [-1.0, 1.0]])
    assert np.allclose(direction, [0.5, 1.5])
    ```
    """

    ignores_zero_gradients = True

    def __init__(self, seed: int | None = None, on: str = "parameters"):
        super().__init__(on)
        self.seed = seed

    def get_config(self) -> dict:
        return {"seed": self.seed, **super().get_config()}

    def build_state(self, num_tasks: int) -> None:
        self._generator = keras.random.SeedGenerator(self.seed)
        self._variables.append(self._generator.state)

    def weights_from_gramian(self, gramian: Any) -> Any:
        gramian = ops.cast(ops.convert_to_tensor(gramian), "float32")
        size = gramian.shape[0]
        self._build_for(size)
        order = random_orders(size, self._generator)
        squared = ops.diagonal(gramian)
        coefficients = ops.eye(size)
        rows = ops.arange(size)
        for k in range(size):
            other = order[:, k]
            one_hot = ops.one_hot(other, size, dtype="float32")
            product = ops.sum(coefficients * ops.take(gramian, other, axis=0), axis=-1)
            length = ops.take(squared, other)
            share = ops.minimum(product, 0.0) / ops.where(length > 0.0, length, 1.0)
            share = ops.where(other == rows, 0.0, share)
            coefficients = coefficients - share[:, None] * one_hot
        return ops.sum(coefficients, axis=0)


def random_orders(size: int, generator: Any) -> Any:
    """Draws an order of the tasks for each task.

    Args:
        size: Integer, number of tasks.
        generator: `keras.random.SeedGenerator`.

    Returns:
        Integer tensor of shape `(size, size)`, a permutation a row.
    """
    return ops.argsort(keras.random.uniform((size, size), seed=generator), axis=-1)
