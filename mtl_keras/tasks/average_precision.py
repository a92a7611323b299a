"""COCO average precision from arrays: greedy matching of all images at once, in NumPy."""

from typing import Any

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
# Pairs of a prediction and an object that are matched together; more cost only memory.
CHUNK = 500_000


class AveragePrecision:
    """Matches predictions to objects as COCO's evaluator does, and averages precision.

    Images come as arrays, with the few pairs of a prediction and an object that overlap by half
    or more: others can't be matched at any of COCO's thresholds, 0.50 to 0.95. From the best
    scored to the worst, each prediction takes the object of its class with which it overlaps most,
    if no other has it and the overlap reaches the threshold; one that takes none and lies in a
    crowd is not counted. All images are matched together: in each round every prediction takes
    its object that is the first to want it, which is what one after the other would give. Of
    each prediction stays at which thresholds it was matched.

    The result is that of `pycocotools` to the last bit or two, over objects of all sizes.

    Args:
        num_classes: Integer, number of classes.
        limits: Tuple of integers: precision is computed for so many best predictions of a class in
            an image.

    Reference:
        Lin et al. 2014, "Microsoft COCO: Common Objects in Context", and `pycocotools`, whose
        matching and interpolation at 101 recalls this is.

    Example:

    ```python
    import numpy as np
    from mtl_keras.tasks.average_precision import AveragePrecision
    measured = AveragePrecision(num_classes=1, limits=(100,))
    # Two objects; the first prediction overlaps with object 0 by 0.8, the second with none.
    pairs = (np.array([0]), np.array([0]), np.array([0.8]))
    measured.add([0.9, 0.4], [0, 0], [0, 0], [False, False], pairs)
    precision = measured.precision()
    assert precision.shape == (10, 101, 1, 1)
    assert precision[0, :51].min() > 0.999 and precision[0, 51:].max() == 0
    ```
    """

    def __init__(self, num_classes: int, limits: tuple[int, ...]):
        self.num_classes = num_classes
        self.limits = tuple(limits)
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        # Of each image, how many objects of each class it shows.
        self._objects: list[np.ndarray] = []
        self._matched: list[dict[str, np.ndarray]] = []
        self._sorted: tuple[dict[str, np.ndarray], np.ndarray] | None = None
        self._forget_waiting()

    def _forget_waiting(self) -> None:
        self._waiting: list[tuple] = []
        self._pairs: list[tuple] = []
        self._count = self._true_count = self._pair_count = 0

    def add(
        self, scores: Any, classes: Any, true_classes: Any, true_crowd: Any, pairs: tuple
    ) -> None:
        """Adds one image.

        Args:
            scores: `(n,)` scores of the predictions.
            classes: `(n,)` their classes, integers below `num_classes`.
            true_classes: `(m,)` classes of the objects.
            true_crowd: `(m,)` booleans, whether an object stands for several.
            pairs: `(predictions, objects, overlaps)`, three arrays `(k,)`: rows of predictions and
                of objects *of the same class* that overlap, and how much. An overlap is
                intersection over union or, for a crowd, intersection over the prediction's area.
        """
        true_crowd = np.asarray(true_crowd, bool)
        real = np.asarray(true_classes, "int64")[~true_crowd]
        self._objects.append(np.bincount(real, minlength=self.num_classes))
        found, true, overlap = pairs
        self._waiting.append(
            (np.asarray(scores, "float64"), np.asarray(classes, "int32"), true_crowd)
        )
        self._pairs.append((found + self._count, true + self._true_count, overlap))
        self._count += len(scores)
        self._true_count += len(true_crowd)
        self._pair_count += len(found)
        if self._pair_count >= CHUNK or self._count >= CHUNK:
            self._match_waiting()

    def _match_waiting(self) -> None:
        """Matches the images that wait; of their predictions stays what `precision` needs."""
        if self._count:
            scores, classes, crowd = map(np.concatenate, zip(*self._waiting, strict=True))
            found, true, overlap = map(np.concatenate, zip(*self._pairs, strict=True))
            first = len(self._objects) - len(self._waiting)
            counts = [len(scores) for scores, *_ in self._waiting]
            image = np.repeat(np.arange(first, len(self._objects)), counts)
            # Image by image, the best first; ties stay in their order.
            order = np.lexsort((-scores, image))
            place = np.empty_like(order)
            place[order] = np.arange(len(order))
            scores, classes, image = scores[order], classes[order], image[order]
            matched, ignored = _match(place[found], true, overlap, crowd, len(scores))
            self._matched.append(
                {
                    "scores": scores,
                    "classes": classes,
                    "image": image.astype("int32"),
                    "rank": _rank(image.astype("int64") * self.num_classes + classes),
                    "matched": matched,
                    "ignored": ignored,
                }
            )
            self._sorted = None
        self._forget_waiting()

    def precision(self, repeats: Any = None) -> np.ndarray | None:
        """Returns precision `(IoU, recall, class, limit)`, or `None` without any object.

        IoUs are 0.50, 0.55, …, 0.95 and recalls 0, 0.01, …, 1. Without objects, a class has -1.

        Args:
            repeats: Optional `(images,)` integers, how many times each image counts, in the order
                in which they were added; once by default. The result is that of as many images,
                but for ties of score within an image: of those, copies of the first come first.
        """
        self._match_waiting()
        if repeats is None:
            objects = np.sum(self._objects, axis=0, initial=0)
        else:
            repeats = np.asarray(repeats, "int64")
            objects = repeats @ np.reshape(self._objects, (-1, self.num_classes))
        if not np.any(objects):
            return None
        shape = (len(THRESHOLDS), len(RECALLS), self.num_classes, len(self.limits))
        precision = np.full(shape, -1.0)
        shown = np.flatnonzero(objects)
        precision[:, :, shown] = 0.0
        if not self._matched:
            return precision
        found, bounds = self._best_first()
        for c in shown:
            rows = np.arange(bounds[c], bounds[c + 1])
            if repeats is not None:
                rows = rows[repeats[found["image"][rows]] > 0]
            rank = found["rank"][rows]
            for m, limit in enumerate(self.limits):
                if m and limit >= self.limits[m - 1] > rank.max(initial=-1):
                    precision[:, :, c, m] = precision[:, :, c, m - 1]
                    continue
                within = rows[rank < limit]
                matched, ignored = found["matched"][within], found["ignored"][within]
                times = None if repeats is None else repeats[found["image"][within]]
                for t in range(len(THRESHOLDS)):
                    hit = (matched >> t & 1).astype(bool)
                    counted = hit | ~(ignored >> t & 1).astype(bool)
                    counts = None if times is None else times[counted]
                    precision[t, :, c, m] = _interpolated(hit[counted], objects[c], counts)
        return precision

    def counts(self, score: float, repeats: Any = None) -> tuple[int, int, int]:
        """Counts what is right where only predictions that score enough are looked at.

        Args:
            score: Float, predictions that score less are left out.
            repeats: See `precision`.

        Returns:
            `(hits, predictions, objects)` of all classes together: predictions that take an object
            of their class with an IoU of 0.5 or more, all that count (those in crowds do not), and
            the objects.
        """
        self._match_waiting()
        objects = np.reshape(self._objects, (-1, self.num_classes)).sum(axis=1)
        if repeats is not None:
            objects = objects * np.asarray(repeats, "int64")
        if not self._matched:
            return 0, 0, int(objects.sum())
        found, _ = self._best_first()
        hit = (found["matched"] & 1).astype(bool)
        enough = found["scores"] >= score
        counted = enough & (hit | ~(found["ignored"] & 1).astype(bool))
        times = 1 if repeats is None else np.asarray(repeats, "int64")[found["image"]]
        return int((times * (hit & enough)).sum()), int((times * counted).sum()), int(objects.sum())

    def _best_first(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """All predictions, class by class, the best first, and where each class begins."""
        if self._sorted is None:
            found = {
                key: np.concatenate([chunk[key] for chunk in self._matched])
                for key in self._matched[0]
            }
            order = np.lexsort((-found["scores"], found["classes"]))
            found = {key: values[order] for key, values in found.items()}
            bounds = np.searchsorted(found["classes"], np.arange(self.num_classes + 1))
            self._sorted = found, bounds
        return self._sorted


def _rank(group: np.ndarray) -> np.ndarray:
    """How many before each are of the same group."""
    order = np.argsort(group, kind="stable")
    sorted_ = group[order]
    starts = np.flatnonzero(np.r_[True, sorted_[1:] != sorted_[:-1]])
    sizes = np.diff(np.r_[starts, len(group)])
    rank = np.empty(len(group), "int32")
    rank[order] = np.arange(len(group)) - np.repeat(starts, sizes)
    return rank


def _match(
    found: np.ndarray, true: np.ndarray, overlap: np.ndarray, crowd: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds, as bits, at which predictions are matched and at which a crowd has them."""
    matched, ignored = np.zeros(count, "uint16"), np.zeros(count, "uint16")
    # The best for each prediction first; of equal ones the last, as pycocotools has it.
    order = np.lexsort((-true, -overlap, found))
    found, true, overlap = found[order], true[order], overlap[order]
    in_crowd = crowd[true]
    for t, threshold in enumerate(np.minimum(THRESHOLDS, 1.0 - 1e-10)):
        enough = overlap >= threshold
        single = enough & ~in_crowd
        taken = _greedy(found[single], true[single], count, len(crowd))
        matched |= taken.astype("uint16") << t
        inside = np.zeros(count, bool)
        inside[found[enough & in_crowd]] = True
        ignored |= (inside & ~taken).astype("uint16") << t
    return matched, ignored


def _greedy(found: np.ndarray, true: np.ndarray, count: int, true_count: int) -> np.ndarray:
    """Which predictions take an object, if one after the other takes the best that is left.

    Pairs are in the order of predictions, and of one prediction the best is first. A prediction
    whose best object no earlier one can take may take it at once, with all others of which this
    is true: the first prediction that is left is always one of them.
    """
    taken, gone = np.zeros(count, bool), np.zeros(true_count, bool)
    first = np.empty(true_count, "int64")
    while len(found):
        first[true[::-1]] = found[::-1]  # of several, NumPy keeps the last: the first prediction
        best = np.r_[True, found[1:] != found[:-1]]
        wins = best & (first[true] == found)
        taken[found[wins]] = True
        gone[true[wins]] = True
        left = ~(taken[found] | gone[true])
        found, true = found[left], true[left]
    return taken


def _interpolated(hit: np.ndarray, objects: int, times: np.ndarray | None = None) -> np.ndarray:
    """The highest precision at each recall or beyond it, of predictions from best to worst.

    A prediction that counts several `times` is passed at once: between its copies, precision rises
    to where a hit ends, and a miss adds no recall.
    """
    if times is None:
        hits, count = np.cumsum(hit), np.arange(1, len(hit) + 1)
    else:
        hits, count = np.cumsum(hit * times), np.cumsum(times)
    precision = hits / (count + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(hits / objects, RECALLS, side="left")
    reached = at < len(hit)
    values = np.zeros(len(RECALLS))
    values[reached] = precision[at[reached]]
    return values
