"""Models for mtl_keras: one folder of `published/` a model, with its weights and its card.

There is nothing to import here: `mtl_keras.zoo.list_models()` lists them and `mtl_keras.zoo.load`
loads them, as those of mtl_keras itself.
"""

__version__ = "0.1.0"
