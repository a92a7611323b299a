"""COCO average precision of boxes, on the host."""

from typing import Any

import numpy as np
from keras import ops

from mtl_keras.tasks.average_precision import THRESHOLDS, AveragePrecision

# Limits of score among which the best is looked for: finer ones follow the luck of the images.
CONFIDENCES = tuple(round(0.05 * i, 2) for i in range(1, 20))


class CocoEvaluator:
    """Collects predictions and ground truth image by image, then gives COCO's average precision.

    It is computed from arrays (`AveragePrecision`) and equals that of `pycocotools`, whose C code
    gives the overlaps of boxes. An image may keep as many boxes as the task's `max_detections`, not
    COCO's 100: pictures with hundreds of objects are measured whole. `AP_at_100` is the value
    under COCO's own limit.

    Args:
        task: The `Detection` whose predictions are measured.
    """

    def __init__(self, task: Any):
        self.task = task
        limits = (100, max(task.max_detections, 101))
        self._measured = AveragePrecision(task.num_classes, limits)

    def reset(self) -> None:
        """Forgets everything."""
        self._measured.reset()

    def inputs(self, targets: dict, outputs: Any) -> dict:
        """Returns the tensors that `update` needs (in the graph)."""
        found = self.task.decode(outputs)
        return {
            "boxes": found["boxes"],
            "scores": found["scores"],
            "classes": found["classes"],
            "count": found["count"],
            "true_boxes": ops.cast(targets["boxes"], "float32"),
            "true_classes": ops.cast(targets["classes"], "int32"),
            "true_crowd": ops.cast(targets["is_crowd"], "int32"),
        }

    def update(
        self, boxes, scores, classes, count, true_boxes, true_classes, true_crowd, weight=None
    ) -> None:
        """Adds a batch of NumPy arrays; images of zero `weight` are left out."""
        for i in range(len(boxes)):
            if weight is not None and not weight[i] > 0:
                continue
            real = true_classes[i] >= 0
            n = int(count[i])
            self.add(
                boxes[i, :n],
                scores[i, :n],
                classes[i, :n],
                true_boxes[i][real],
                true_classes[i][real],
                true_crowd[i][real],
            )

    def add_image(self, predictions: dict, labels: dict) -> None:
        """Adds the predictions of one image, in its own pixels, and its labels."""
        n = int(predictions["count"])
        self.add(
            *(predictions[key][:n] for key in ("boxes", "scores", "classes")),
            *(labels[key] for key in ("boxes", "classes", "is_crowd")),
        )

    def add(self, boxes, scores, classes, true_boxes, true_classes, true_crowd) -> None:
        """Adds one image: `(n, 4)` xyxy boxes with scores and classes, and the truth."""
        pairs = _overlapping(boxes, classes, true_boxes, true_classes, true_crowd)
        self._measured.add(scores, classes, true_classes, true_crowd, pairs)

    def result(self, repeats: Any = None) -> dict[str, float]:
        """Returns the metrics, each with the task's name in front.

        They are `AP`, `AP50`, `AP75`, `AP_at_100` and `AP_<class>`, which look at all predictions,
        and `precision`, `recall` and `F1` of those that score the task's `confidence` or more: all
        classes together, at an IoU of 0.5.

        `repeats` are integers, how many times each image counts, in the order in which they were
        added; once by default.

        Classes without ground truth have no AP: they are left out of the mean, and their own is
        NaN. So is everything when there is no ground truth at all, and precision without
        predictions.
        """
        precision = self._measured.precision(repeats)
        if precision is None:
            precision = np.full((10, 101, self.task.num_classes, 2), -1.0)
        logs = {
            "AP": mean_precision(precision[..., 1]),
            "AP50": mean_precision(precision[0, ..., 1]),
            "AP75": mean_precision(precision[5, ..., 1]),
            "AP_at_100": mean_precision(precision[..., 0]),
        }
        for c in range(self.task.num_classes):
            logs[f"AP_{self.task.class_name(c)}"] = mean_precision(precision[:, :, c, 1])
        logs |= self._at(self.task.confidence, repeats)
        return {f"{self.task.name}_{name}": value for name, value in logs.items()}

    def best_confidence(self) -> float:
        """Returns the score from which on predictions are shown with the best F1.

        It is one of 0.05, 0.10, …, 0.95, the lowest of equal ones; without a single hit, the task's
        own `confidence`.
        """
        found = {score: self._at(score)["F1"] for score in CONFIDENCES}
        best = max(found, key=lambda score: (np.nan_to_num(found[score]), -score))
        return best if found[best] > 0 else self.task.confidence

    def choose_confidence(self) -> bool:
        """Sets the task's `confidence` to the best one; returns whether that changed it."""
        before, self.task.confidence = self.task.confidence, self.best_confidence()
        return self.task.confidence != before

    def _at(self, score: float, repeats: Any = None) -> dict[str, float]:
        hits, shown, objects = self._measured.counts(score, repeats)
        if not objects:
            return dict.fromkeys(("precision", "recall", "F1"), float("nan"))
        return {
            "precision": hits / shown if shown else float("nan"),
            "recall": hits / objects,
            "F1": 2 * hits / (shown + objects),
        }


def mean_precision(precision: np.ndarray) -> float:
    """The mean over classes that have objects; NaN where none has."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else float("nan")


def _overlapping(boxes, classes, true_boxes, true_classes, true_crowd) -> tuple:
    """Pairs of a box and an object of the same class that overlap by half or more."""
    if not len(boxes) or not len(true_boxes):
        return np.zeros(0, "int64"), np.zeros(0, "int64"), np.zeros(0)
    from pycocotools import mask

    found, true = (
        np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        for corners in (np.asarray(given, "float64") for given in (boxes, true_boxes))
    )
    overlap = mask.iou(found, true, np.asarray(true_crowd, "uint8"))
    rows, columns = np.nonzero(overlap >= THRESHOLDS[0])
    same = np.asarray(classes)[rows] == np.asarray(true_classes)[columns]
    rows, columns = rows[same], columns[same]
    return rows, columns, overlap[rows, columns]
