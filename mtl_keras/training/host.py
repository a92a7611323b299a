"""What depends on the backend outside the training step: calls out of the graph, the device."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from mtl_keras.balancing import GradientMethod


def call(function: Callable, tensors: dict) -> None:
    """Calls a Python function with NumPy arrays, from inside a compiled function or outside.

    Args:
        function: Called with keyword arguments for its effect; what it returns is ignored.
        tensors: Dict, argument name to tensor.
    """
    names, values = list(tensors), list(tensors.values())

    def run(*arrays):
        function(**{n: np.asarray(a) for n, a in zip(names, arrays, strict=True)})
        return np.int32(0)

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.numpy_function(run, values, tf.int32, stateful=True)
    elif backend == "jax":
        import jax

        jax.debug.callback(lambda *arrays: (run(*arrays), None)[1], *values, ordered=True)
    else:
        run(*(keras.ops.convert_to_numpy(value) for value in values))


def wait() -> None:
    """Waits until the calls that are under way have been made."""
    if keras.backend.backend() == "jax":
        import jax

        jax.effects_barrier()


def cpu_only_tensorflow() -> bool:
    """Says whether the backend is TensorFlow without an accelerator."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU") + tf.config.list_physical_devices("TPU")


def replicas() -> int:
    """The number of devices that train together on parts of one batch, in a step of training.

    With JAX, a step sees the whole batch, however many devices there are: it is 1.
    """
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context.num_replicas_in_sync if context is not None else 1


def sum_over_replicas(value: Any) -> Any:
    """Adds up what each of `replicas()` has."""
    if replicas() == 1:
        return value
    import tensorflow as tf

    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)


def learning_rate_factor(variable: Any) -> float:
    """The factor of the learning rate of one variable, as its layer set it; 1 for most."""
    return float(getattr(variable, "learning_rate_factor", 1.0))


def check_balancing(balancing: Any) -> None:
    """Raises a `ValueError` where the backend lacks what the method needs."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return
    if isinstance(balancing, GradientMethod):
        raise ValueError(
            f"the gradient method {type(balancing).__name__} needs the TensorFlow backend; the "
            f"backend is {backend!r}. Loss weightings run with every backend"
        )
    if balancing.looks_again:
        raise ValueError(
            f"{type(balancing).__name__} computes losses again after each update, which needs the "
            f"TensorFlow backend; the backend is {backend!r}"
        )
