"""The zoo: published models, ready to use or to fine-tune."""

from mtl_keras.zoo.registry import info, list_models, load
from mtl_keras.zoo.save import save_to_zoo

__all__ = ["info", "list_models", "load", "save_to_zoo"]
