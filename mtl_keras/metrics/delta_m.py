"""How much better or worse a multi-task network is than networks of one task each."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtl_keras.metrics.directions import directions

Results = Mapping[str, Mapping[str, float | Sequence[float]]]

CONVENTIONS = ("task", "metric")


@dataclasses.dataclass(frozen=True)
class DeltaM:
    """The result of `delta_m`. Print it for a table.

    All changes are in percent, and signed as the convention says.

    Attributes:
        value: Float, Δm.
        low: Float, lower end of the confidence interval, or `None` without one.
        high: Float, upper end of the confidence interval, or `None` without one.
        by_task: Dict, task to the mean change of its metrics.
        by_metric: Dict, task to dict of metric to its change.
        seeds: Tuple, number of seeds of the results and of the single-task results.
        convention: `"task"` or `"metric"`, see `delta_m`.
        confidence: Float, confidence of the interval.
    """

    value: float
    low: float | None
    high: float | None
    by_task: dict[str, float]
    by_metric: dict[str, dict[str, float]]
    seeds: tuple[int, int]
    convention: str
    confidence: float

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher Δm is better: with convention `"task"`, not with `"metric"`."""
        return self.convention == "task"

    def __str__(self) -> str:
        if self.low is None:
            interval = "no interval"
        else:
            interval = f"{100 * self.confidence:g} % interval {self.low:+.2f} to {self.high:+.2f}"
        ours, theirs = self.seeds
        better = "higher" if self.higher_is_better else "lower"
        lines = [
            f"Δm {self.value:+.2f} % ({interval}), {better} is better; "
            f"{ours} seed{'s' * (ours > 1)} against {theirs}"
        ]
        width = max(len(task) for task in self.by_task)
        for task, change in self.by_task.items():
            of_task = ", ".join(f"{m} {c:+.2f} %" for m, c in self.by_metric[task].items())
            lines.append(f"  {task:<{width}} {change:+9.2f} %   {of_task}")
        return "\n".join(lines)


def delta_m(
    results: Results,
    single_task: Results,
    higher_is_better: Mapping[str, bool] | None = None,
    convention: str = "task",
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> DeltaM:
    """Measures how much multi-task results differ from single-task ones, in percent.

    The change of metric j of task i is (M_ij - B_ij) / B_ij, with M the multi-task result and B the
    single-task one, both means over seeds. Papers average changes in two ways:

    - `convention="task"`: Δm = 100 / T sum_i 1 / n_i sum_j s_ij (M_ij - B_ij) / B_ij, with T tasks,
      n_i metrics of task i, and s_ij = +1 where higher is better, else -1. Every task counts the
      same. A **higher** Δm is better.
    - `convention="metric"`: Δm% = 100 / K sum_k (-1)^δ_k (M_k - B_k) / B_k over all K metrics of
      all tasks, with δ_k = 1 where higher is better, else 0. Every metric counts the same, so a
      task with many metrics counts more. A **lower** Δm% is better.

    With one metric a task, they differ in sign only.

    The confidence interval is the percentile bootstrap over seeds: the runs of both sides are
    resampled, all metrics of a run together. It covers the noise of seeds, and nothing else: not
    that of the images of which the test set happens to consist, nor of hyperparameters chosen on
    it. It needs several seeds; the noise of a side that has one seed is not in it. With few seeds
    percentile intervals are too narrow, since a sample spreads less than what it is taken of:
    they then hold the truth less often than `confidence` says.

    Args:
        results: Dict, task to dict of metric to a number, or to numbers, one a seed. All metrics
            have the same number of seeds, in the same order. See `by_task`.
        single_task: The same of networks of one task each, with the same tasks and metrics. The
            number of seeds may differ from that of `results`. Numbers are positive: a change
            relative to zero or less has no meaning.
        higher_is_better: Optional dict, metric to boolean, for metrics that are not those of this
            library's tasks, or to say otherwise of one that is.
        convention: `"task"` or `"metric"`.
        confidence: Float in (0, 1), confidence of the interval.
        resamples: Positive integer, number of bootstrap samples.
        seed: Integer, seed of the bootstrap.

    Returns:
        `DeltaM`. Its `low` and `high` are `None` where both sides have one seed.

    Raises:
        ValueError: If a task or metric is missing on one side, a number is not finite, a
            single-task one is not positive, metrics differ in their number of seeds, it is not
            known whether a metric is better when higher, or another argument is wrong.

    Reference:
        - Maninis et al. 2019, "Attentive Single-Tasking of Multiple Tasks", and Vandenhende et al.
          2021, "Multi-Task Learning for Dense Prediction Tasks: A Survey", the multi-task
          performance Δm: convention `"task"` with one metric a task
        - Lin and Zhang 2023, "LibMTL: A Python Library for Deep Multi-Task Learning", Δp: with
          several metrics a task
        - Liu et al. 2021, "Conflict-Averse Gradient Descent for Multi-task Learning", and Navon
          et al. 2022, "Multi-Task Learning as a Bargaining Game", Δm%: convention `"metric"`
        - Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13

    Example:

    ```python
    import mtl_keras as mtl
    change = mtl.metrics.delta_m(
        results={"detection": {"AP": [0.33, 0.35]}, "segmentation": {"mean_iou": [0.58, 0.56]}},
        single_task={"detection": {"AP": 0.32}, "segmentation": {"mean_iou": 0.60}},
    )
    print(change)
    assert change.by_task["detection"] > 0 > change.by_task["segmentation"]
    assert change.low <= change.value <= change.high
    ```
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"`convention` must be one of {CONVENTIONS}. Received: {convention!r}")
    if isinstance(confidence, bool) or not 0.0 < confidence < 1.0:
        raise ValueError(f"`confidence` must be between 0 and 1. Received: {confidence!r}")
    if isinstance(resamples, bool) or not hasattr(resamples, "__index__") or resamples < 1:
        raise ValueError(f"`resamples` must be a positive integer. Received: {resamples!r}")
    baseline = _numbers(single_task, "single_task", positive=True)
    measured = _numbers(results, "results")
    _check_same(measured, baseline)

    keys = list(measured)
    tasks = list(dict.fromkeys(task for task, _ in keys))
    higher = directions({metric for _, metric in keys}, higher_is_better)
    signs = np.array([1.0 if higher[m] == (convention == "task") else -1.0 for _, m in keys])
    of_task = np.array([[key[0] == task for key in keys] for task in tasks], "float64")
    of_task /= of_task.sum(axis=1, keepdims=True)
    weights = of_task.mean(axis=0) if convention == "task" else np.full(len(keys), 1 / len(keys))

    # Seeds by metrics.
    ours = np.stack([measured[key] for key in keys], axis=1)
    theirs = np.stack([baseline[key] for key in keys], axis=1)

    def changes(means: np.ndarray, base: np.ndarray) -> np.ndarray:
        return 100.0 * signs * (means - base) / base

    change = changes(ours.mean(axis=0), theirs.mean(axis=0))
    low = high = None
    if len(ours) > 1 or len(theirs) > 1:
        rng = np.random.default_rng(seed)
        drawn = changes(_resampled(ours, resamples, rng), _resampled(theirs, resamples, rng))
        tail = (1.0 - confidence) / 2.0
        low, high = (float(end) for end in np.quantile(drawn @ weights, [tail, 1.0 - tail]))
    by_metric: dict[str, dict[str, float]] = {task: {} for task in tasks}
    for (task, metric), one in zip(keys, change, strict=True):
        by_metric[task][metric] = float(one)
    return DeltaM(
        value=float(change @ weights),
        low=low,
        high=high,
        by_task=dict(zip(tasks, (of_task @ change).tolist(), strict=True)),
        by_metric=by_metric,
        seeds=(len(ours), len(theirs)),
        convention=convention,
        confidence=float(confidence),
    )


def _resampled(runs: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Means of runs drawn with replacement, `(seeds, metrics)` to `(resamples, metrics)`."""
    count = len(runs)
    drawn = rng.multinomial(count, np.full(count, 1.0 / count), size=resamples)
    return drawn @ runs / count


def _numbers(side: Any, name: str, positive: bool = False) -> dict[tuple[str, str], np.ndarray]:
    """Reads one side: task and metric to one float64 number a seed."""
    if not isinstance(side, Mapping) or not side:
        raise ValueError(
            f"`{name}` must be a dict, task to dict of metric to numbers. Received: {side!r}"
        )
    found = {}
    for task, metrics in side.items():
        if not isinstance(metrics, Mapping) or not metrics:
            raise ValueError(
                f"`{name}` of task {task!r} must be a dict, metric to a number or to numbers, one "
                f"a seed. Received: {metrics!r}"
            )
        for metric, value in metrics.items():
            found[task, metric] = _seeds(value, f"`{name}` of {task!r}, {metric!r},", positive)
    counts = {f"{task}/{metric}": len(value) for (task, metric), value in found.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"all metrics of `{name}` must have the same number of seeds. Received: {counts}"
        )
    return found


def _seeds(value: Any, what: str, positive: bool) -> np.ndarray:
    try:
        numbers = np.atleast_1d(np.asarray(value))
    except ValueError:  # Of ragged sequences.
        numbers = np.array([None])
    if numbers.dtype.kind not in "iuf" or numbers.ndim != 1 or not numbers.size:
        raise ValueError(f"{what} must be a number, or numbers, one a seed. Received: {value!r}")
    numbers = numbers.astype("float64")
    if not np.isfinite(numbers).all():
        raise ValueError(f"{what} must be finite. Received: {value!r}")
    if positive and not (numbers > 0.0).all():
        raise ValueError(
            f"{what} must be positive, since changes are relative to it. Received: {value!r}"
        )
    return numbers


def _check_same(measured: Mapping, baseline: Mapping) -> None:
    for name, there, other, needed in (
        ("single_task", baseline, "results", measured),
        ("results", measured, "single_task", baseline),
    ):
        tasks = {task for task, _ in there}
        missing = [
            f"{task}/{metric}" if task in tasks else f"task {task!r} ({metric})"
            for task, metric in needed
            if (task, metric) not in there
        ]
        if missing:
            raise ValueError(
                f"`{name}` lacks {', '.join(missing)}, which `{other}` has. Both must hold the "
                "same tasks and metrics"
            )
