"""Weights in one small file: NumPy arrays by the path of their variable, kernels in float16."""

import pathlib
from typing import Any

import numpy as np

# Significant bits that are kept of those of float16, which are 11.
ROUNDED = {"float16_rounded9": 9, "float16_rounded": 8}
DTYPES = ("float32", "float16", *ROUNDED)


def save_weights(model: Any, path: str | pathlib.Path, dtype: str = "float16") -> None:
    """Writes the weights of a model.

    Vectors (biases, normalisation) stay in float32: they are few, and a variance near zero has no
    place in float16.

    Args:
        model: `MultiTaskModel`.
        path: File to write, `*.npz`.
        dtype: String, for everything that is no vector: `"float32"`; `"float16"`; or
            `"float16_rounded"`, float16 of which the last 3 of 11 significant bits are 0, rounded
            to nearest even, as a bfloat16 has them; or `"float16_rounded9"`, with 9 bits. Such
            files are smaller, since they are compressed.

    Raises:
        ValueError: If `dtype` is none of these, or a weight does not fit into it.
    """
    if dtype not in DTYPES:
        raise ValueError(f"`dtype` must be one of {list(DTYPES)}. Received: dtype={dtype!r}")
    arrays = {}
    for key, variable in _variables(model).items():
        value = np.asarray(variable.numpy() if hasattr(variable, "numpy") else variable)
        kept = _stored(value, dtype)
        if not np.isfinite(kept).all():
            raise ValueError(f"the weight {key!r} has values that {dtype} can't hold")
        arrays[key] = kept
    np.savez_compressed(path, **arrays)


def load_weights(model: Any, path: str | pathlib.Path, skip: tuple[str, ...] = ()) -> None:
    """Reads weights into a model; every variable must be there, with its shape.

    Args:
        model: `MultiTaskModel`.
        path: File that `save_weights` wrote.
        skip: Names of top-level layers that keep the weights they have.

    Raises:
        ValueError: If the file and the model do not fit together; the variables are named.
    """
    variables = {
        key: variable
        for key, variable in _variables(model).items()
        if key.split("/", 1)[0] not in skip
    }
    with np.load(path, allow_pickle=False) as arrays:
        stored = {key for key in arrays.files if key.split("/", 1)[0] not in skip}
        if stored != set(variables):
            raise ValueError(
                f"the weights {str(path)!r} do not fit the model: only in the file "
                f"{sorted(stored - set(variables))[:5]}, only in the model "
                f"{sorted(set(variables) - stored)[:5]}"
            )
        for key, variable in variables.items():
            if arrays[key].shape != tuple(variable.shape):
                raise ValueError(
                    f"the weight {key!r} of {str(path)!r} has shape {arrays[key].shape}, the "
                    f"model needs {tuple(variable.shape)}"
                )
            variable.assign(arrays[key].astype("float32"))


def _stored(value: np.ndarray, dtype: str) -> np.ndarray:
    if value.ndim < 2 or dtype == "float32":
        return value.astype("float32")
    if dtype in ROUNDED:
        value = _rounded(value.astype("float32"), ROUNDED[dtype])
    with np.errstate(over="ignore"):  # What is too large is reported with its name.
        return value.astype("float16")


def _rounded(value: np.ndarray, bits: int) -> np.ndarray:
    """Float32 numbers with so many significant bits, rounded to nearest even."""
    pattern, drop = value.view("uint32"), 24 - bits
    half = (1 << (drop - 1)) - 1 + ((pattern >> drop) & 1)
    return ((pattern + half) >> drop << drop).astype("uint32").view("float32")


def _variables(model: Any) -> dict[str, Any]:
    """All weights by top-level layer and path, which are the same each time a model is built.

    A variable that several layers hold is there once.
    """
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for layer in model.layers:
        for variable in layer.weights:
            if id(variable) in seen:
                continue
            seen.add(id(variable))
            key = f"{layer.name}/{variable.path}"
            if key in found:
                raise ValueError(f"two weights of the model have the same path {key!r}")
            found[key] = variable
    return found
