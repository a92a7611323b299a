"""Which layers learn, by paths of names: so that it can be saved, and set in models in models."""

from collections.abc import Collection
from typing import Any


def frozen(layer: Any) -> list[str]:
    """Lists what does not learn.

    Args:
        layer: A model, or another layer that holds layers.

    Returns:
        List of paths such as `"neck/lateral_P2"` of layers with weights, the outermost alone.
    """
    found = []
    for inner in _within(layer):
        if inner.trainable:
            found += [f"{inner.name}/{path}" for path in frozen(inner)]
        else:
            found.append(inner.name)
    return found


def freeze(layer: Any, paths: Collection[str]) -> None:
    """Makes layers learn but for some.

    Args:
        layer: A model, or another layer that holds layers.
        paths: Paths of layers, as `frozen` lists them.
    """
    for inner in _within(layer):
        learns = inner.name not in paths
        if inner.trainable != learns:
            inner.trainable = learns  # Of the layers in it too.
        if learns:
            freeze(inner, _below(inner, paths))


def freeze_all_but(layer: Any, paths: Collection[str]) -> None:
    """Makes some layers learn, and no others.

    Args:
        layer: A model, or another layer that holds layers.
        paths: Paths of layers, as `frozen` lists them. What is in them learns too.
    """
    for inner in _within(layer):
        below = _below(inner, paths)
        # One that holds what learns has to be trainable, or it would hide it.
        inner.trainable = inner.name in paths or bool(below)
        if below and inner.name not in paths:
            freeze_all_but(inner, below)


def _within(layer: Any) -> list:
    inner = layer._flatten_layers(include_self=False, recursive=False)
    return [one for one in inner if one.weights]


def _below(layer: Any, paths: Collection[str]) -> list[str]:
    start = f"{layer.name}/"
    return [path.removeprefix(start) for path in paths if path.startswith(start)]
