"""Mean and per-class IoU from one confusion matrix over all pixels."""

from typing import Any

import keras
from keras import ops


class ConfusionMatrix(keras.metrics.Metric):
    """Adds up which class was predicted where which class is, over all labelled pixels.

    `result()` gives `mean_iou` over the classes that appear in truth or prediction, and `iou_c`
    for each class, prefixed with the name of the task.

    Args:
        task: The `Segmentation` whose outputs are measured.
    """

    def __init__(self, task: Any):
        super().__init__(name=f"{task.name}_confusion", dtype="float32")
        self.task = task
        # Counts of pixels: float32 stops counting at 2**24, one picture of 4096 x 4096.
        self.matrix = self.add_variable(
            (task.num_classes, task.num_classes), "zeros", dtype="float64", name="matrix"
        )

    def update_state(self, targets: dict, outputs: Any, sample_weight: Any = None) -> None:
        """Adds a batch; images whose `sample_weight` is zero are left out."""
        self._add(targets["mask"], self.task.decode(outputs)["mask"], sample_weight)

    def add_image(self, predictions: dict, labels: dict) -> None:
        """Adds the predictions of one image, in its own pixels, and its labels."""
        self._add(labels["mask"][None], predictions["mask"][None], None)

    def _add(self, truth: Any, found: Any, sample_weight: Any) -> None:
        n = self.task.num_classes
        truth = ops.cast(truth, "int32")
        counted = ops.cast(truth < n, "float32")
        if sample_weight is not None:
            shown = ops.cast(ops.cast(sample_weight, "float32") > 0.0, "float32")
            counted = counted * ops.reshape(shown, (-1, 1, 1))
        pair = ops.reshape(ops.where(truth < n, truth, 0) * n + ops.cast(found, "int32"), (-1,))
        # Exact while a batch has fewer than 2**24 pixels of a pair; the sum is kept in float64.
        counts = ops.segment_sum(ops.reshape(counted, (-1,)), pair, n * n)
        self.matrix.assign_add(ops.reshape(ops.cast(counts, self.matrix.dtype), (n, n)))

    def result(self) -> dict:
        """Returns the IoUs as a dict of scalars in [0, 1]."""
        both = ops.diagonal(self.matrix)
        either = ops.sum(self.matrix, axis=0) + ops.sum(self.matrix, axis=1) - both
        iou = both / ops.maximum(either, 1.0)
        shown = ops.cast(either > 0.0, iou.dtype)
        mean = ops.sum(iou * shown) / ops.maximum(ops.sum(shown), 1.0)
        prefix = self.task.name
        logs = {f"{prefix}_mean_iou": mean}
        for c in range(self.task.num_classes):
            logs[f"{prefix}_iou_{self.task.class_name(c)}"] = iou[c]
        return logs
