"""Panoptic quality: one number for how well segments are found, and how well they fit."""

from collections.abc import Iterable
from typing import Any

import numpy as np


def overlap_counts(truth: Any, found: Any, void: Any = None) -> np.ndarray:
    """Counts the pixels of each pair of a true and a found segment.

    Args:
        truth: Integer array `(height, width)`, numbers of true segments, 0 where there is none.
        found: Integer array `(height, width)`, numbers of found segments, 0 where there is none.
        void: Optional boolean array `(height, width)`, where the truth is not known.

    Returns:
        Integer array, a row a number of `truth` and one more, the last, for void; a column a
        number of `found`.

    Raises:
        ValueError: If the maps differ in size or hold negative numbers.
    """
    truth, found = np.asarray(truth), np.asarray(found)
    for name, values in (("truth", truth), ("found", found)):
        if values.ndim != 2 or values.dtype.kind not in "iu" or values.size and values.min() < 0:
            raise ValueError(
                f"`{name}` must be a map (height, width) of integers that are not negative. "
                f"Received: shape {values.shape}, dtype {values.dtype}"
            )
    void = np.zeros(truth.shape, bool) if void is None else np.asarray(void, bool)
    if not truth.shape == found.shape == void.shape:
        raise ValueError(
            "`truth`, `found` and `void` must have one size. Received shapes: "
            f"{truth.shape}, {found.shape}, {void.shape}"
        )
    rows = int(truth.max(initial=0)) + 2
    columns = int(found.max(initial=0)) + 1
    row = np.where(void, rows - 1, truth.astype("int64", copy=False))
    counts = np.bincount((row * columns + found).ravel(), minlength=rows * columns)
    return counts.reshape(rows, columns)


class PanopticQuality:
    """Panoptic quality (PQ), its segmentation quality (SQ) and recognition quality (RQ).

    A true and a found segment of one class match if their intersection over union is above 0.5,
    which leaves each at most one match. SQ is the mean IoU of matches (the true positives, TP), RQ
    the F1 score `TP / (TP + FP / 2 + FN / 2)`, and PQ their product. They are computed for each
    class over all images, then averaged over the classes that occur in truth or prediction.

    Where the truth is not known:

    - *Void* pixels are taken out of found segments when an IoU is computed. A found segment that
      has no match and lies by more than half in void is not counted as a false positive.
    - *Crowds* are not matched and never missed. A found segment that has no match and lies by more
      than half in crowds of its class is not counted. Void and crowds add up, as they do in
      `panopticapi`; here several crowds of a class add up too, of which that takes the last.

    Segments without pixels do not exist: neither is found, nor missed.

    Args:
        num_classes: Integer, number of classes.
        class_names: Optional list of `num_classes` strings.
        things: Optional classes, by id, that are things (with instances); the others are stuff,
            which has one segment an image. By default all are things.
        name: String that the names of results begin with.

    Raises:
        ValueError: If `class_names` or `things` do not fit `num_classes`.

    Reference:
        Kirillov et al. 2019, "Panoptic Segmentation", equations 1 and 2 and section 4

    Example:

    ```python
    import numpy as np
    import mtl_keras as mtl
    quality = mtl.metrics.PanopticQuality(num_classes=1)
    truth = np.array([[1, 1, 1, 1, 0, 2]])
    found = np.array([[1, 1, 1, 0, 0, 0]])  # one of two, by 3 of its 4 pixels
    quality.add(found, [0], truth, [0, 0])
    result = quality.result()
    assert result["SQ"] == 0.75 and abs(result["RQ"] - 1 / 1.5) < 1e-9 and result["PQ"] == 0.5
    ```
    """

    def __init__(
        self,
        num_classes: int,
        class_names: list[str] | None = None,
        things: Iterable[int] | None = None,
        name: str = "",
    ):
        if class_names is not None and len(class_names) != num_classes:
            raise ValueError(
                f"`class_names` must hold num_classes={num_classes} names. "
                f"Received {len(class_names)}: class_names={class_names!r}"
            )
        things = range(num_classes) if things is None else list(things)
        wrong = [c for c in things if not 0 <= c < num_classes]
        if wrong:
            raise ValueError(
                f"`things` must be classes below num_classes={num_classes}. Received: {wrong}"
            )
        self.num_classes = num_classes
        self.class_names = class_names or [str(c) for c in range(num_classes)]
        self.things = np.isin(np.arange(num_classes), list(things))
        self.name = name
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        # Of each image and class: matches, the sum of their IoUs, wrong and missed segments.
        self._images: list[np.ndarray] = []

    def add(
        self,
        found: Any,
        found_classes: Any,
        truth: Any,
        true_classes: Any,
        is_crowd: Any = None,
        void: Any = None,
    ) -> None:
        """Adds one image.

        Args:
            found: Integer map `(height, width)`, 0 where nothing was found, i + 1 in segment i.
            found_classes: `(n,)` class of each found segment.
            truth: Integer map `(height, width)`, 0 where nothing is, i + 1 in segment i.
            true_classes: `(m,)` class of each true segment.
            is_crowd: Optional `(m,)` booleans, whether a segment stands for several.
            void: Optional boolean map `(height, width)`, where the truth is not known.

        Raises:
            ValueError: If the maps differ in size, or number a segment that has no class.
        """
        self.add_counts(overlap_counts(truth, found, void), found_classes, true_classes, is_crowd)

    def add_counts(
        self, counts: np.ndarray, found_classes: Any, true_classes: Any, is_crowd: Any = None
    ) -> None:
        """Adds one image by its `overlap_counts`; for the rest see `add`."""
        found_classes = self._classes(found_classes, "found_classes")
        true_classes = self._classes(true_classes, "true_classes")
        rows, columns = counts.shape[0] - 1, counts.shape[1]
        for name, classes, most in (
            ("found_classes", found_classes, columns - 1),
            ("true_classes", true_classes, rows - 1),
        ):
            if len(classes) < most:
                raise ValueError(
                    f"`{name}` must name the class of each segment. Received {len(classes)} "
                    f"classes for a map with segment {most}"
                )
        # Segments beyond the last that the map shows have no pixels.
        found_classes, true_classes = found_classes[: columns - 1], true_classes[: rows - 1]
        crowd = np.zeros(rows - 1, bool)
        if is_crowd is not None:
            crowd = np.asarray(is_crowd, bool)[: rows - 1]
        both, in_void = counts[1:-1, 1:], counts[-1, 1:]
        found_area, true_area = counts[:, 1:].sum(0), counts[1:-1].sum(1)
        same = true_classes[:, None] == found_classes

        union = true_area[:, None] + found_area - both - in_void
        iou = both / np.maximum(union, 1)
        match = (iou > 0.5) & same & ~crowd[:, None]
        row, column = np.nonzero(match)
        n = self.num_classes
        matched = np.bincount(true_classes[row], minlength=n)
        quality = np.bincount(true_classes[row], iou[row, column], minlength=n)

        missed = (true_area > 0) & ~crowd & ~match.any(1)
        unknown = in_void + (both * (same & crowd[:, None])).sum(0)
        wrong = (found_area > 0) & ~match.any(0) & (2 * unknown <= found_area)
        of_class = (
            np.bincount(c, minlength=n) for c in (found_classes[wrong], true_classes[missed])
        )
        self._images.append(np.stack([matched, quality, *of_class]))

    def _classes(self, classes: Any, name: str) -> np.ndarray:
        classes = np.asarray(classes, "int64").reshape(-1)
        if len(classes) and not 0 <= classes.min() <= classes.max() < self.num_classes:
            raise ValueError(
                f"`{name}` must be in [0, {self.num_classes}). Received: {classes.tolist()!r:.200}"
            )
        return classes

    def result(self, repeats: Any = None) -> dict[str, float]:
        """Returns `PQ`, `SQ` and `RQ`, in [0, 1], after the evaluator's own name.

        `repeats` are integers, how many times each image counts, in the order in which they were
        added; once by default.

        They are averages over classes; `PQ_<class>` and so on are those of a class. Where there are
        things and stuff, `PQ_things`, `PQ_stuff` and so on are averages over these. What has no
        segments, neither true nor found (nor any but uncounted ones), is NaN and left out.
        """
        sums = np.zeros((4, self.num_classes))
        if self._images:
            repeats = np.ones(len(self._images)) if repeats is None else np.asarray(repeats)
            sums = np.tensordot(repeats.astype("float64"), np.stack(self._images), 1)
        matched, quality, wrong, missed = sums
        counted = matched + (wrong + missed) / 2
        shown = counted > 0
        with np.errstate(invalid="ignore"):
            rq = matched / counted
        sq = np.where(shown, quality / np.maximum(matched, 1), np.nan)
        values = {"PQ": sq * rq, "SQ": sq, "RQ": rq}
        groups = {"": shown}
        if self.things.any() and not self.things.all():
            groups |= {"_things": shown & self.things, "_stuff": shown & ~self.things}
        logs = {}
        for group, chosen in groups.items():
            for name, of_class in values.items():
                mean = float(of_class[chosen].mean()) if chosen.any() else float("nan")
                logs[f"{self.name}{name}{group}"] = mean
        for c, class_name in enumerate(self.class_names):
            for name, of_class in values.items():
                logs[f"{self.name}{name}_{class_name}"] = float(of_class[c])
        return logs
