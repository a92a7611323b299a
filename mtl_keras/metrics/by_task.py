"""Flat logs of Keras as metrics by task."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mtl_keras.metrics.directions import HIGHER_IS_BETTER, known, near_misses

# What logs hold of a task that does not measure it.
_NO_METRICS = ("delta_m", "loss", "weight")


def by_task(
    logs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    tasks: Any,
    metrics: Iterable[str] | None = None,
) -> dict[str, dict[str, Any]]:
    """Splits flat logs, such as those of `evaluate`, into metrics by task.

    The key `"detection_AP"` becomes metric `"AP"` of task `"detection"`. Losses, weights of losses
    and keys of no task are left out. Where the name of a task is the beginning of another's, a key
    goes to the task of which it is a metric of this library; where that leaves a choice, to the
    task of the longest name.

    Args:
        logs: Dict, flat name to number, as `model.evaluate(..., return_dict=True)` returns it; or
            a sequence of such dicts with equal keys, one a seed.
        tasks: Model with `tasks`, or the names of tasks.
        metrics: Optional names of metrics, without the task's, to keep; the others are left out.

    Returns:
        Dict, task to dict of metric to float; to a list of floats, one a seed, for several dicts.
        A task without metrics in the logs is not in it.

    Raises:
        ValueError: If the logs hold no metric of the tasks or not one that `metrics` names, or
            differ in their keys.

    Example:

    ```python
    import mtl_keras as mtl
    logs = {"loss": 1.5, "seg_loss": 0.9, "seg_mean_iou": 0.5, "seg_fine_mean_iou": 0.4}
    assert mtl.metrics.by_task(logs, ["seg", "seg_fine"]) == {
        "seg": {"mean_iou": 0.5},
        "seg_fine": {"mean_iou": 0.4},
    }
    ```
    """
    names = _names(tasks)
    if not isinstance(logs, Mapping):
        return _by_seed(logs, names, metrics)
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    for key, value in logs.items():
        if (task := _task_of(key, names)) is None:
            continue
        metric = key[len(task) + 1 :]
        if metric not in _NO_METRICS:
            found[task][metric] = float(value)
    found = {task: of_task for task, of_task in found.items() if of_task}
    if not found:
        raise ValueError(
            f"`logs` holds no metric of the tasks {names}; those of an evaluation are named "
            f"<task>_<metric>. Received logs of {sorted(logs)}"
        )
    return found if metrics is None else _kept(found, metrics)


def _names(tasks: Any) -> list[str]:
    names = [getattr(task, "name", task) for task in getattr(tasks, "tasks", tasks)]
    if isinstance(tasks, str) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"`tasks` must be a model or names of tasks. Received: tasks={tasks!r}")
    return names


def _by_seed(logs: Sequence[Mapping], names: list[str], metrics: Iterable[str] | None) -> dict:
    logs, metrics = list(logs), None if metrics is None else list(metrics)
    if not logs:
        raise ValueError("`logs` must be a dict, or at least one dict a seed. Received none")
    seeds = [by_task(one, names, metrics) for one in logs]
    keys = [{(task, metric) for task in seed for metric in seed[task]} for seed in seeds]
    for i, found in enumerate(keys):
        if different := sorted(f"{task}_{metric}" for task, metric in found ^ keys[0]):
            raise ValueError(
                f"`logs` of all seeds must hold the same metrics; seeds 0 and {i} differ in "
                f"{different}"
            )
    return {
        task: {metric: [seed[task][metric] for seed in seeds] for metric in of_task}
        for task, of_task in seeds[0].items()
    }


def _task_of(key: str, names: list[str]) -> str | None:
    def likely(name: str) -> tuple[int, int]:
        metric = key[len(name) + 1 :]
        exact = metric in HIGHER_IS_BETTER or metric in _NO_METRICS
        return 2 * exact + (known(metric) is not None), len(name)

    fitting = [name for name in names if key.startswith(f"{name}_") and len(key) > len(name) + 1]
    return max(fitting, key=likely, default=None)


def _kept(found: dict[str, dict], metrics: Iterable[str]) -> dict[str, dict]:
    if isinstance(metrics, str):
        raise ValueError(f"`metrics` must be a list of names. Received: metrics={metrics!r}")
    metrics = list(metrics)
    there = sorted({metric for of_task in found.values() for metric in of_task})
    for metric in metrics:
        if metric not in there:
            raise ValueError(
                f"`metrics` names {metric!r}, which no task has in `logs`"
                f"{near_misses(metric, there)}. The metrics are {there}"
            )
    kept = {
        task: {metric: value for metric, value in of_task.items() if metric in metrics}
        for task, of_task in found.items()
    }
    return {task: of_task for task, of_task in kept.items() if of_task}
