"""The training step of the backend in use."""

import keras

if keras.backend.backend() == "tensorflow":
    from mtl_keras.training.tensorflow_step import TensorFlowStep as BackendStep
elif keras.backend.backend() == "jax":
    from mtl_keras.training.jax_step import JaxStep as BackendStep
else:

    class BackendStep:
        """Other backends train with Keras' own step, without the guard against NaN."""


__all__ = ["BackendStep"]
