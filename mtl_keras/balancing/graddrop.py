"""GradDrop: at each parameter, gradients of one sign are dropped."""

from typing import Any

import keras
from keras import ops

from mtl_keras.balancing.balancing import GradientMethod


@keras.saving.register_keras_serializable(package="mtl_keras")
class GradDrop(GradientMethod):
    """Keeps, at each parameter, the gradients of one sign, drawn by how pure that sign is.

    Args:
        leak: Optional list of numbers in [0, 1], a task each: the share of its gradient that is
            never dropped.
        seed: Optional integer.
        on: `"parameters"` or `"features"`, see `GradientMethod`. The paper's is at features.

    Raises:
        ValueError: If `leak` holds numbers out of [0, 1].

    Reference:
        Chen et al. 2020, "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign
        Dropout", equation 1 and algorithm 1, with the identity for f. Deviation: at features,
        signs are not multiplied by those of the inputs, and each image has its own.

    Example:

    ```python
    import numpy as np
    import mtl_keras as mtl
    direction = np.asarray(mtl.balancing.GradDrop().aggregate([[1.0, 2.0], [3.0, -1.0]]))
    assert direction[0] == 4.0 and direction[1] in (2.0, -1.0)
    ```
    """

    ignores_zero_gradients = True

    def __init__(
        self, leak: list[float] | None = None, seed: int | None = None, on: str = "parameters"
    ):
        super().__init__(on)
        if leak is not None and not all(0 <= share <= 1 for share in leak):
            raise ValueError(f"`leak` must hold numbers in [0, 1]. Received: leak={leak}")
        self.leak = None if leak is None else [float(share) for share in leak]
        self.seed = seed

    def get_config(self) -> dict:
        return {"leak": self.leak, "seed": self.seed, **super().get_config()}

    def build_state(self, num_tasks: int) -> None:
        if self.leak is not None and len(self.leak) != num_tasks:
            raise ValueError(
                f"`leak` must hold a number for each of {num_tasks} tasks. "
                f"Received: leak={self.leak}"
            )
        self._generator = keras.random.SeedGenerator(self.seed)
        self._variables.append(self._generator.state)

    def aggregate(self, gradients: Any) -> Any:
        gradients = ops.cast(ops.convert_to_tensor(gradients), "float32")
        self._build_for(gradients.shape[0])
        size = ops.sum(ops.abs(gradients), axis=0)
        purity = 0.5 * (1.0 + ops.sum(gradients, axis=0) / ops.where(size > 0.0, size, 1.0))
        drawn = keras.random.uniform(ops.shape(purity), seed=self._generator)
        kept = ops.where(purity > drawn, ops.maximum(gradients, 0.0), ops.minimum(gradients, 0.0))
        if self.leak is not None:
            leak = ops.convert_to_tensor(self.leak, "float32")[:, None]
            kept = leak * gradients + (1.0 - leak) * kept
        return ops.sum(kept, axis=0)
