"""The zoo: published models, ready to use or to fine-tune."""

from mtl_keras.zoo.loading import load
from mtl_keras.zoo.push import push
from mtl_keras.zoo.registry import info, list_models
from mtl_keras.zoo.save import save_to_zoo

__all__ = ["info", "list_models", "load", "push", "save_to_zoo"]
