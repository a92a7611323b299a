"""Δm in the logs of training."""

from collections.abc import Mapping
from typing import Any

import keras

from mtl_keras.metrics.delta_m import DeltaM, Results, delta_m
from mtl_keras.metrics.directions import near_misses


class DeltaMCallback(keras.callbacks.Callback):
    """Logs Δm of the validation at the end of each epoch, against given single-task results.

    It adds `val_delta_m` to the logs, and `val_<task>_delta_m` for each task, in percent.
    Callbacks act in the order of their list: **put this one before those that read it**, such as
    `EarlyStopping`, `ModelCheckpoint` and `CSVLogger`. Keras can't know which way is better, so
    give those that monitor `mode="max"`, or `mode="min"` with `convention="metric"`.

    Tasks and metrics that `single_task` does not name, such as those of auxiliary tasks, are left
    out.

    Args:
        single_task: Dict, task to dict of metric to a number, or to numbers, one a seed, of
            networks of one task each. Metrics have their names in the logs without the task's,
            e.g. `{"segmentation": {"mean_iou": 0.6}}`.
        higher_is_better: See `delta_m`.
        convention: See `delta_m`.
        validation_freq: The same that `fit` is given: integer, validation after each so many
            epochs, or list of the epochs, counted from 1, after which to validate.

    Attributes:
        latest: `DeltaM` of the last validation, `None` before the first.

    Raises:
        ValueError: If an argument is wrong, see `delta_m`. In `fit`: if the model lacks a task, at
            the end of an epoch that should have been validated if there was no validation, and if
            the logs lack a metric or it is not finite.

    Example:

    ```python
    import keras
    import numpy as np
    import mtl_keras as mtl

    tagging = mtl.tasks.Tagging(num_classes=3)
    label = mtl.tasks.Classification(num_classes=2, level="sequence", name="label")
    model = mtl.build(mtl.trunks.sequence.recurrent(units=8, vocabulary=20), [tagging, label])
    model.compile("adam")
    tokens = np.random.default_rng(0).integers(1, 20, (16, 5))
    targets = {"tagging": {"tags": tokens % 3}, "label": {"label": tokens[:, 0] % 2}}
    watch = mtl.metrics.DeltaMCallback({"tagging": {"accuracy": 0.8}, "label": {"accuracy": 0.9}})
    stop = keras.callbacks.EarlyStopping("val_delta_m", mode="max", patience=2)
    history = model.fit(
        tokens, targets, epochs=2, validation_data=(tokens, targets), callbacks=[watch, stop]
    ).history
    assert history["val_delta_m"][-1] == watch.latest.value
    ```
    """

    def __init__(
        self,
        single_task: Results,
        higher_is_better: Mapping[str, bool] | None = None,
        convention: str = "task",
        validation_freq: int | list[int] = 1,
    ):
        super().__init__()
        # Whatever is wrong with the arguments is wrong before training.
        delta_m(single_task, single_task, higher_is_better, convention, resamples=1)
        if isinstance(validation_freq, bool) or not isinstance(validation_freq, int | list):
            raise ValueError(
                "`validation_freq` must be a positive integer or a list of epochs. "
                f"Received: {validation_freq!r}"
            )
        if isinstance(validation_freq, int) and validation_freq < 1:
            raise ValueError(f"`validation_freq` must be positive. Received: {validation_freq!r}")
        self.single_task = {task: dict(metrics) for task, metrics in single_task.items()}
        self.higher_is_better = higher_is_better
        self.convention = convention
        self.validation_freq = validation_freq
        self.latest: DeltaM | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        names = [task.name for task in getattr(self.model, "tasks", ())]
        unknown = [task for task in self.single_task if task not in names]
        if names and unknown:
            raise ValueError(
                f"`single_task` names {unknown}, which the model does not have; its tasks are "
                f"{names}"
            )

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs = {} if logs is None else logs
        validated = [key for key in logs if key.startswith("val_")]
        if not validated:
            if self._due(epoch + 1):
                raise ValueError(
                    "`DeltaMCallback` needs the metrics of a validation, and epoch "
                    f"{epoch + 1} had none. Give fit() `validation_data`; where it has "
                    "`validation_freq`, give the callback the same. "
                    f"Here validation_freq={self.validation_freq!r}"
                )
            return
        self.latest = delta_m(
            self._results(logs, validated),
            self.single_task,
            self.higher_is_better,
            self.convention,
        )
        logs["val_delta_m"] = self.latest.value
        for task, value in self.latest.by_task.items():
            logs[f"val_{task}_delta_m"] = value

    def _due(self, epoch: int) -> bool:
        if isinstance(self.validation_freq, int):
            return epoch % self.validation_freq == 0
        return epoch in self.validation_freq

    def _results(self, logs: dict, validated: list[str]) -> dict[str, dict[str, float]]:
        for task, metrics in self.single_task.items():
            for metric in metrics:
                if (key := f"val_{task}_{metric}") not in logs:
                    raise ValueError(
                        f"`single_task` has metric {metric!r} of task {task!r}, but the logs have "
                        f"no {key!r}{near_misses(key, validated)}. The logs of the validation are "
                        f"{sorted(validated)}"
                    )
        return {
            task: {metric: logs[f"val_{task}_{metric}"] for metric in metrics}
            for task, metrics in self.single_task.items()
        }
