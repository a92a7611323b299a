"""COCO average precision, computed by `faster_coco_eval` (C++) on the host."""

from typing import Any

import numpy as np
from keras import ops


class CocoEvaluator:
    """Collects predictions and ground truth image by image, then asks the COCO evaluator.

    An image may keep as many boxes as the task's `max_detections`, not COCO's 100: pictures
    with hundreds of objects are measured whole. `AP_at_100` is the value under COCO's own limit.

    Args:
        task: The `Detection` whose predictions are measured.
    """

    def __init__(self, task: Any):
        self.task = task
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._images = 0
        self._truth: list[dict] = []
        self._found: list[np.ndarray] = []

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
        self._images += 1
        image = self._images
        for box, label, crowd in zip(true_boxes, true_classes, true_crowd, strict=True):
            x0, y0, x1, y1 = (float(v) for v in box)
            self._truth.append(
                {
                    "id": len(self._truth) + 1,
                    "image_id": image,
                    "category_id": int(label),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": int(crowd),
                }
            )
        if len(boxes):
            size = boxes[:, 2:] - boxes[:, :2]
            columns = [np.full((len(boxes), 1), image), boxes[:, :2], size]
            columns += [scores[:, None], classes[:, None]]
            self._found.append(np.concatenate(columns, axis=1).astype("float64"))

    def result(self) -> dict[str, float]:
        """Returns `AP`, `AP50`, `AP75`, `AP_at_100` and `AP_<class>` with the task's name in front.

        Classes without ground truth have no AP: they are left out of the mean, and their own is
        NaN. So is everything when there is no ground truth at all.
        """
        precision = self._precision()
        if precision is None:
            precision = np.full((10, 101, self.task.num_classes, 1, 2), -1.0)
        logs = {
            "AP": _mean(precision[..., 1]),
            "AP50": _mean(precision[0, ..., 1]),
            "AP75": _mean(precision[5, ..., 1]),
            "AP_at_100": _mean(precision[..., 0]),
        }
        for c in range(self.task.num_classes):
            logs[f"AP_{self.task.class_name(c)}"] = _mean(precision[:, :, c, :, 1])
        return {f"{self.task.name}_{name}": value for name, value in logs.items()}

    def _precision(self) -> np.ndarray | None:
        """Precision by (IoU, recall, class, area range, limit), or `None` without any object."""
        if not any(not t["iscrowd"] for t in self._truth):
            return None
        if not self._found:
            rows = np.zeros((0, 7))
        else:
            rows = np.concatenate(self._found)
        from faster_coco_eval import COCO, COCOeval_faster

        truth = COCO(
            {
                "images": [{"id": i + 1} for i in range(self._images)],
                "annotations": self._truth,
                "categories": [
                    {"id": c, "name": self.task.class_name(c)} for c in range(self.task.num_classes)
                ],
            }
        )
        if not len(rows):
            shown = {t["category_id"] for t in self._truth if not t["iscrowd"]}
            precision = np.full((10, 101, self.task.num_classes, 1, 2), -1.0)
            precision[:, :, sorted(shown)] = 0.0
            return precision
        evaluation = COCOeval_faster(truth, truth.loadRes(rows), iouType="bbox")
        evaluation.params.maxDets = [100, max(self.task.max_detections, 101)]
        evaluation.params.areaRng = [[0.0, 1e10]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
        return evaluation.eval["precision"]


def _mean(precision: np.ndarray) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else float("nan")
