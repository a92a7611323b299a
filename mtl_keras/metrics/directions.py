"""Which metrics are better when they are higher, by their names without the task's."""

import difflib
from collections.abc import Iterable, Mapping

import numpy as np

HIGHER_IS_BETTER = {
    "AP": True,
    "AP50": True,
    "AP75": True,
    "AP_at_100": True,
    "F1": True,
    "PQ": True,
    "RQ": True,
    "SQ": True,
    "accuracy": True,
    "background_mae": False,
    "loss": False,
    "mae": False,
    "mean_iou": True,
    "perplexity": False,
    "precision": True,
    "recall": True,
    "rmse": False,
}
# Metrics of one class have the class' name after these.
_OF_A_CLASS = {
    "AP_": True,
    "PQ_": True,
    "RQ_": True,
    "SQ_": True,
    "dice_": True,
    "image_dice_": True,
    "image_iou_": True,
    "iou_": True,
}


def known(metric: str) -> bool | None:
    """Says whether a metric of this library's tasks is better when it is higher.

    Args:
        metric: String, the metric's name without the task's.

    Returns:
        Boolean, or `None` for an unknown metric.
    """
    if metric in HIGHER_IS_BETTER:
        return HIGHER_IS_BETTER[metric]
    for start, higher in _OF_A_CLASS.items():
        if metric.startswith(start) and metric != start:
            return higher
    return None


def directions(metrics: Iterable[str], given: Mapping[str, bool] | None = None) -> dict[str, bool]:
    """Says for each metric whether higher is better.

    Args:
        metrics: Names of metrics, without the task's.
        given: Optional dict, metric to boolean, which goes before what is known.

    Returns:
        Dict, metric to boolean.

    Raises:
        ValueError: If a metric is not known and not given, or what is given is no boolean.
    """
    given = dict(given or {})
    wrong = {name: value for name, value in given.items() if not isinstance(value, bool | np.bool_)}
    if wrong:
        raise ValueError(f"`higher_is_better` must hold True or False. Received: {wrong!r}")
    found = {name: given.get(name, known(name)) for name in sorted(set(metrics))}
    for name, higher in found.items():
        if higher is None:
            raise ValueError(
                f"whether metric {name!r} is better when it is higher is not known"
                f"{near_misses(name, [*HIGHER_IS_BETTER, *given])}. "
                f"Say so with `higher_is_better={{{name!r}: True}}`, or False"
            )
    return {name: bool(higher) for name, higher in found.items()}


def near_misses(name: str, among: Iterable[str]) -> str:
    """Returns words for an error: the names that are most like the one that was not found."""
    spelled = {one.lower(): one for one in among}
    near = difflib.get_close_matches(name.lower(), spelled, n=3)
    return f"; near are {[spelled[one] for one in near]}" if near else ""
