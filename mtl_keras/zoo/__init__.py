"""The zoo: published models, ready to use or to fine-tune."""

from mtl_keras.zoo.registry import info, list_models, load

__all__ = ["info", "list_models", "load"]
