"""Trunks: descriptions of chains of named stages with pyramid levels.

A newcomer adds a trunk by one function that returns stages, see `register`.
"""

from mtl_keras.trunks import efficientnet_lite, keras_applications
from mtl_keras.trunks.trunk import (
    Stage,
    Trunk,
    create,
    names,
    register,
    set_weights,
    unregister,
    variable_keys,
    weights_names,
)

__all__ = [
    "Stage",
    "Trunk",
    "create",
    "efficientnet_lite",
    "keras_applications",
    "names",
    "register",
    "set_weights",
    "unregister",
    "variable_keys",
    "weights_names",
]
