"""IoU and Dice of masks in pictures' own pixels, over all pixels and picture by picture."""

from typing import Any

import numpy as np

from mtl_keras.tasks.by_image import ByImage
from mtl_keras.tasks.confusion import ConfusionMatrix


class MaskEvaluator(ByImage):
    """Measures masks, image by image, on the host.

    With TP, FP and FN the pixels of a class that are found, found in vain and missed, IoU is
    TP / (TP + FP + FN) and Dice 2 TP / (2 TP + FP + FN). Pixels labelled 255 do not count.
    `result()` gives, each after the task's name:

    - `mean_iou`, `iou_<class>` and `dice_<class>`: of the pixels of all images together, so that
      a large object counts more than a small one. The mean is over the classes that appear.
    - `image_iou_<class>` and `image_dice_<class>`, of all classes but background: computed for
      each image, then averaged over the images in which the class is labelled or found. This is
      what papers on Kvasir-SEG report (mIoU and DSC of ColonSegNet). They scale pictures to one
      size first; here each is measured in its own pixels. An image in which the class is
      neither labelled nor found has no Dice and is left out; Kvasir-SEG has none.

    Args:
        task: The `Segmentation` whose predictions are measured.

    Reference:
        - Jha et al. 2020, "Kvasir-SEG: A Segmented Polyp Dataset"
        - Jha et al. 2021, "Real-Time Polyp Detection, Localization and Segmentation in
          Colonoscopy Using Deep Learning" (ColonSegNet)

    Example:

    ```python
    import numpy as np
    import mtl_keras as mtl
    measured = mtl.tasks.Segmentation(num_classes=2).image_evaluator()
    large, small = np.zeros((2, 10, 10), "int32")
    large[:], small[0, 0] = 1, 1
    measured.add_image({"mask": large}, {"mask": large})
    measured.add_image({"mask": np.zeros_like(small)}, {"mask": small})
    found = measured.result()
    assert found["segmentation_dice_1"] > 0.99 and found["segmentation_image_dice_1"] == 0.5
    ```
    """

    def __init__(self, task: Any):
        super().__init__(ConfusionMatrix(task))
        self.task = task

    def result(self, repeats: Any = None) -> dict[str, float]:
        logs = super().result(repeats)
        n = self.task.num_classes
        repeats = np.ones(len(self._rows)) if repeats is None else np.asarray(repeats, "float64")
        images = np.stack([row[0] for row in self._rows]) if self._rows else np.zeros((0, n, n))
        both, sizes = _parts(images)
        all_both, all_sizes = repeats @ both, repeats @ sizes
        shown = repeats[:, None] * (sizes > 0)
        count = shown.sum(axis=0)
        prefix = self.task.name
        for c in range(n):
            name = self.task.class_name(c)
            logs[f"{prefix}_dice_{name}"] = _ratio(2.0 * all_both[c], all_sizes[c])
        for c in range(1, n):
            name = self.task.class_name(c)
            dice = 2.0 * both[:, c] / np.maximum(sizes[:, c], 1.0)
            iou = both[:, c] / np.maximum(sizes[:, c] - both[:, c], 1.0)
            logs[f"{prefix}_image_iou_{name}"] = _ratio(shown[:, c] @ iou, count[c])
            logs[f"{prefix}_image_dice_{name}"] = _ratio(shown[:, c] @ dice, count[c])
        return logs


def _parts(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each image and class the pixels found rightly, and those labelled plus those found."""
    both = np.diagonal(matrices, axis1=1, axis2=2)
    return both, matrices.sum(axis=1) + matrices.sum(axis=2)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")
