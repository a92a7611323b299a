"""Building, training and using multi-task networks."""

from mtl_keras.training.build import build
from mtl_keras.training.convert import convert
from mtl_keras.training.errors import NonFiniteLossError
from mtl_keras.training.files import load_model
from mtl_keras.training.finalize import finalize
from mtl_keras.training.model import MultiTaskModel
from mtl_keras.training.retask import with_tasks

__all__ = [
    "MultiTaskModel",
    "NonFiniteLossError",
    "build",
    "convert",
    "finalize",
    "load_model",
    "with_tasks",
]
