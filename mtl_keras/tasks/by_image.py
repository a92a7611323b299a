"""Metrics whose state is a sum over images, kept image by image."""

from typing import Any

import keras
import numpy as np


class ByImage:
    """Measures images one by one, on the host, with a metric whose variables are sums.

    What each image adds to the variables is kept, so that images can count several times or not
    at all: that is what bootstrap resamples are made of.

    Args:
        metric: A `keras.metrics.Metric` with `add_image(predictions, labels)`, whose variables are
            sums over images and whose `result` follows from them alone. It must be this object's
            own.

    Example:

    ```python
    import numpy as np
    import mtl_keras as mtl
    task = mtl.tasks.Segmentation(num_classes=2)
    measured = task.image_evaluator()
    mask = np.eye(2, dtype="int32")
    measured.add_image({"mask": mask}, {"mask": mask})
    measured.add_image({"mask": mask}, {"mask": 1 - mask})
    assert measured.result()["segmentation_iou_1"] == 1 / 3
    assert measured.result([1, 0])["segmentation_iou_1"] == 1
    ```
    """

    def __init__(self, metric: Any):
        self.metric = metric
        self._rows: list[list[np.ndarray]] = []

    def reset(self) -> None:
        """Forgets everything."""
        self._rows = []

    def add_image(self, predictions: dict, labels: dict) -> None:
        """Adds the predictions of one image, in its own pixels, and its labels."""
        self.metric.reset_state()
        self.metric.add_image(predictions, labels)
        self._rows.append([np.array(keras.ops.convert_to_numpy(v)) for v in self.metric.variables])

    def result(self, repeats: Any = None) -> dict[str, float]:
        """Returns the metrics.

        Args:
            repeats: Optional `(images,)` integers, how many times each image counts, in the order
                in which they were added; once by default.
        """
        repeats = np.ones(len(self._rows)) if repeats is None else np.asarray(repeats, "float64")
        for i, variable in enumerate(self.metric.variables):
            rows = [row[i] for row in self._rows]
            total = np.tensordot(repeats, np.stack(rows), 1) if rows else np.zeros(variable.shape)
            variable.assign(total)
        return {name: float(value) for name, value in self.metric.result().items()}
