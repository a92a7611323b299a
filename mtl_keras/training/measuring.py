"""Metrics of tasks: what an epoch logs, and what an evaluation measures."""

from typing import Any

import keras
from keras import ops

from mtl_keras.training import host
from mtl_keras.training.losses import known_targets, weight_of


class TaskMetrics:
    """The part of a model that keeps track of losses and weights, and measures predictions."""

    tasks: tuple
    balancing: Any
    compiled: bool

    def make_trackers(self) -> None:
        """Makes what is tracked, anew with each `compile`."""
        names = [task.name for task in self.tasks]
        self._loss_trackers = {name: keras.metrics.Mean(name=f"{name}_loss") for name in names}
        self._penalty_trackers = {
            layer.name: (layer, keras.metrics.Mean(name=layer.name))
            for layer in self._flatten_layers()
            if getattr(layer, "logs_penalty", False)
        }
        self._weight_trackers = {
            name: keras.metrics.Mean(name=f"{name}_weight")
            for name in (names if getattr(self.balancing, "weighs", False) else ())
        }
        self._skipped = keras.metrics.Sum(name="skipped")
        self._task_metrics = {task.name: task.metrics() for task in self.tasks}
        self._evaluators = {
            task.name: evaluator for task in self.tasks if (evaluator := task.evaluator())
        }

    def track_weights(self, weights: Any, present: Any) -> None:
        """Tracks the weights of tasks that are present, where they are finite."""
        for i, task in enumerate(self.tasks):
            counts = ops.isfinite(weights[i]) & present[i]
            self._weight_trackers[task.name].update_state(
                ops.where(counts, weights[i], 0.0), ops.cast(counts, "float32")
            )

    def measure(self, targets: dict, outputs: dict, sample_weight: Any) -> None:
        """Compares outputs with targets; arguments as of `compute_loss`."""
        for task in self.tasks:
            if task.name not in targets:
                continue
            weight = weight_of(sample_weight, task.name)
            known = known_targets(targets[task.name], weight)
            for metric in self._task_metrics[task.name]:
                metric.update_state(known, outputs[task.name], weight)
            if task.name in self._evaluators:
                evaluator = self._evaluators[task.name]
                tensors = evaluator.inputs(known, outputs[task.name])
                if weight is not None:
                    tensors["weight"] = ops.cast(weight, "float32")
                host.call(evaluator.update, tensors)

    @property
    def metrics(self) -> list:
        """Trackers and metrics that Keras resets at the start of each epoch and evaluation."""
        found = super().metrics
        if self.compiled:
            found = [*found, *self._loss_trackers.values(), self._skipped]
            found += [tracker for _, tracker in self._penalty_trackers.values()]
            found += self._weight_trackers.values()
            found += [metric for metrics in self._task_metrics.values() for metric in metrics]
        seen: list = []
        for metric in found:
            if not any(metric is other for other in seen):
                seen.append(metric)
        return seen

    def compute_metrics(self, x, y, y_pred, sample_weight=None) -> dict:
        """Returns the losses of the epoch so far and, in an evaluation, the metrics."""
        logs = {"loss": self._loss_tracker.result()}
        logs.update({f"{n}_loss": tracker.result() for n, tracker in self._loss_trackers.items()})
        if not self._measured:
            logs.update({n: t.result() for n, (_, t) in self._penalty_trackers.items()})
            logs.update({t.name: t.result() for t in self._weight_trackers.values()})
            if self.on_nonfinite == "skip":
                logs["skipped"] = self._skipped.result()
            return logs
        for metrics in self._task_metrics.values():
            for metric in metrics:
                logs.update(metric.result())
        return logs

    def evaluate(self, *args: Any, return_dict: bool = False, **kwargs: Any) -> Any:
        """Measures losses and metrics of all tasks in one pass.

        Arguments are those of `keras.Model.evaluate`. Boxes are measured by the COCO evaluator
        and masks by IoU, in the pixels of the letterboxed images.

        Returns:
            Dict of metrics by name with `return_dict=True`, else the list of its values.
        """
        self._assert_compile_called("evaluate")
        for evaluator in self._evaluators.values():
            evaluator.reset()
        logs = super().evaluate(*args, return_dict=True, **kwargs)
        host.wait()
        strategy = getattr(self, "distribute_strategy", None)  # TensorFlow's
        if getattr(strategy, "num_replicas_in_sync", 1) > 1:
            # Keras gives the mean of what each device found by its images alone.
            for metric in [m for of_task in self._task_metrics.values() for m in of_task]:
                found = metric.result()
                logs.update({key: float(found[key]) for key in found if key in logs})
        for evaluator in self._evaluators.values():
            logs.update(evaluator.result())
        return logs if return_dict else list(logs.values())

    def choose_confidence(self) -> dict[str, float]:
        """Sets the `confidence` of tasks to what was best in the last evaluation.

        From then on `predict_images` shows what scores so much or more: of boxes, those with the
        best F1. It is saved with the model.

        Returns:
            Dict of the metrics of these tasks, at their new confidence.

        Example:

        ```python
        import numpy as np
        import mtl_keras as mtl
        model = mtl.build(
            mtl.trunks.create("efficientnet_lite0", weights=None),
            tasks=[mtl.tasks.Detection(num_classes=1)],
            image_size=(64, 64),
        )
        model.compile(optimizer="adam")
        targets = {
            "boxes": np.array([[[8.0, 8.0, 40.0, 40.0]]] * 2, "float32"),
            "classes": np.zeros((2, 1), "int32"),
            "is_crowd": np.zeros((2, 1), bool),
        }
        model.evaluate(np.zeros((2, 64, 64, 3), "float32"), {"detection": targets}, verbose=0)
        assert "detection_F1" in model.choose_confidence()
        ```
        """
        self._assert_compile_called("choose_confidence")
        logs = {}
        for evaluator in self._evaluators.values():
            if hasattr(evaluator, "choose_confidence"):
                evaluator.choose_confidence()
                logs.update(evaluator.result())
        return logs
