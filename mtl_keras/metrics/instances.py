"""How good the instances are that a model tells apart: panoptic quality and mask precision."""

from typing import Any

import numpy as np

from mtl_keras.metrics.panoptic_quality import PanopticQuality, overlap_counts
from mtl_keras.tasks.average_precision import THRESHOLDS, AveragePrecision
from mtl_keras.tasks.coco import mean_precision

UNKNOWN = 255


class InstanceEvaluator:
    """Measures `instances` of `predict_images`, in pictures' own pixels, against labels.

    Panoptic quality is that of `PanopticQuality`. Average precision is COCO's, of masks: what
    counts is the intersection over union of the pixels of two instances; the score is the box's.
    Instances do not overlap, so that each is measured without what another has taken.

    Pixels whose label is 255 and that are of no object are void: for the average precision they are
    a crowd of any class. Objects without pixels of their own in the labels (others cover them) and
    predicted ones without pixels are left out of both.

    Args:
        detection: The `Detection` task that gave boxes and classes.
        name: String that the names of results begin with.

    Reference:
        - Kirillov et al. 2019, "Panoptic Segmentation"
        - Lin et al. 2014, "Microsoft COCO: Common Objects in Context"

    Example:

    ```python
    import numpy as np
    import mtl_keras as mtl
    measured = mtl.metrics.InstanceEvaluator(mtl.tasks.Detection(num_classes=1))
    instances = np.kron([[1, 0], [0, 2]], np.ones((4, 4), int))
    labels = {
        "instances": instances, "mask": np.minimum(instances, 1),
        "classes": np.zeros(2, int), "is_crowd": np.zeros(2, bool),
    }
    found = {"mask": instances, "classes": np.zeros(2, int), "scores": np.array([0.9, 0.8])}
    measured.add_image(found, labels)
    assert measured.result()["instances_PQ"] == measured.result()["instances_AP50"] == 1.0
    ```
    """

    def __init__(self, detection: Any, name: str = "instances"):
        classes = detection.num_classes
        self.names = [detection.class_name(c) for c in range(classes)]
        self.name = name
        self._quality = PanopticQuality(classes, self.names, name=f"{name}_")
        self._precision = AveragePrecision(classes, limits=(max(detection.max_detections, 100),))

    def reset(self) -> None:
        """Forgets everything."""
        self._quality.reset()
        self._precision.reset()

    def add_image(self, found: dict, labels: dict) -> None:
        """Adds one image.

        Args:
            found: Dict with `mask`, `scores` and `classes`, as `predict_images` gives `instances`.
            labels: Dict with `instances`, `mask`, `classes` and `is_crowd`, see
                `mtl_keras.data.examples`.
        """
        instances = np.asarray(labels["instances"])
        void = (instances == 0) & (np.asarray(labels["mask"]) == UNKNOWN)
        counts = overlap_counts(instances, found["mask"], void)
        classes, crowd = labels["classes"], np.asarray(labels["is_crowd"], bool)
        self._quality.add_counts(counts, found["classes"], classes, crowd)

        found_area, true_area = counts[:, 1:].sum(0), counts[1:-1].sum(1)
        shown, real = np.flatnonzero(found_area), np.flatnonzero(true_area)
        # The last row is void, in which predictions of all classes may lie.
        both = counts[np.r_[real + 1, len(counts) - 1]][:, shown + 1]
        crowd = np.r_[crowd[real], True]
        union = np.r_[true_area[real], 0][:, None] + found_area[shown] - both
        overlap = both / np.where(crowd[:, None], found_area[shown], union)
        classes = np.r_[np.asarray(classes, "int64")[real], -1][:, None]
        found_classes = np.asarray(found["classes"], "int64")[shown]
        fits = (overlap >= THRESHOLDS[0]) & ((classes == found_classes) | (classes < 0))
        row, column = np.nonzero(fits)
        self._precision.add(
            np.asarray(found["scores"])[shown],
            found_classes,
            np.maximum(classes[:, 0], 0),
            crowd,
            (column, row, overlap[row, column]),
        )

    def result(self, repeats: Any = None) -> dict[str, float]:
        """Returns `PQ`, `SQ`, `RQ`, `AP`, `AP50` and `AP75`, and all but the last two by class.

        `repeats` are integers, how many times each image counts, in the order in which they were
        added; once by default. All begin with the evaluator's name. What has no objects is NaN,
        and left out of averages.
        """
        precision = self._precision.precision(repeats)
        if precision is None:
            precision = np.full((10, 101, len(self.names), 1), -1.0)
        logs = {
            **self._quality.result(repeats),
            f"{self.name}_AP": mean_precision(precision),
            f"{self.name}_AP50": mean_precision(precision[0]),
            f"{self.name}_AP75": mean_precision(precision[5]),
        }
        for c, class_name in enumerate(self.names):
            logs[f"{self.name}_AP_{class_name}"] = mean_precision(precision[:, :, c])
        return logs
