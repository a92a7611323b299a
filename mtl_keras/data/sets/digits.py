"""The embedded set, made without a download."""

from __future__ import annotations

from typing import Any

from mtl_keras.data.digits import digits
from mtl_keras.data.sets.named_set import NamedSet


def make(data_dir: Any) -> Any:
    """Makes the set with its default arguments."""
    return digits(data_dir=data_dir)


SET = NamedSet(
    name="digits",
    title="Handwritten digits on textured scenes",
    description="Scenes with up to eight handwritten digits: boxes, ten classes, masks. Made from "
    "the digits and photographs that scikit-learn ships; nothing is downloaded.",
    licence="photographs CC BY 2.0 (https://creativecommons.org/licenses/by/2.0/); digits as "
    "the UCI Machine Learning Repository gives them to scikit-learn",
    citation="Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits, UCI Machine "
    "Learning Repository (https://doi.org/10.24432/C50P49)",
    home="https://doi.org/10.24432/C50P49",
    make=make,
    tags=("synthetic", "boxes", "instances"),
)
