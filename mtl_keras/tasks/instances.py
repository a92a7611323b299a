"""Instances: the pixels of each object, from boxes and a mask of classes."""

from typing import Any

import numpy as np

from mtl_keras.tasks.detection import Detection
from mtl_keras.tasks.distance import BoundaryDistance
from mtl_keras.tasks.segmentation import Segmentation

# Chosen by benchmarks/instances.py on predictions: what a difference in score of 1 counts beside
# squared distances relative to the sides of a box, which are at most 0.5, and how much of the
# smaller of two boxes of a class may lie in the other one.
SCORE_WEIGHT, MOST_SHARED = 0.3, 0.7


def instance_tasks(tasks: Any) -> tuple | None:
    """Finds the tasks whose predictions together make instances.

    They are one `Detection` and one `Segmentation` with the same classes: class `c` of boxes is
    class `c + 1` of the mask, whose class 0 is background. Where both have names of classes, these
    must be the same. A `BoundaryDistance` joins them where there is one.

    Args:
        tasks: The tasks of a model.

    Returns:
        `(detection, segmentation, distance)`, the last of which may be `None`; or `None` where no
        two tasks fit, or more than one pair does.

    Example:

    ```python
    import mtl_keras as mtl
    boxes, mask = mtl.tasks.Detection(num_classes=3), mtl.tasks.Segmentation(num_classes=4)
    assert mtl.tasks.instance_tasks([boxes, mask]) == (boxes, mask, None)
    assert mtl.tasks.instance_tasks([boxes, mtl.tasks.Segmentation(num_classes=3)]) is None
    ```
    """
    pairs = [
        (detection, segmentation)
        for detection in tasks
        if isinstance(detection, Detection)
        for segmentation in tasks
        if isinstance(segmentation, Segmentation) and _fit(detection, segmentation)
    ]
    if len(pairs) != 1:
        return None
    distances = [task for task in tasks if isinstance(task, BoundaryDistance)]
    return (*pairs[0], distances[0] if len(distances) == 1 else None)


def _fit(detection: Detection, segmentation: Segmentation) -> bool:
    if segmentation.num_classes != detection.num_classes + 1:
        return False
    names, mask_names = detection.class_names, segmentation.class_names
    return names is None or mask_names is None or list(mask_names[1:]) == list(names)


def fuse_instances(
    boxes: Any, classes: Any, mask: Any, distance: Any = None, scores: Any = None
) -> np.ndarray:
    """Gives each pixel of the mask to a box.

    A pixel of class `c + 1` belongs to a box of class `c` that it lies in. Where several do, it is
    the box of which it is most central: the one with the smallest ellipse through the pixel,
    relative to the box. With scores, those of a box that is sure count more: the score is taken off
    the square of the relative distance, so that a weak box inside of a sure one takes little from
    it, and boxes of like scores share as they would without; and of two boxes of a class, one of
    which lies in the other to more than 0.7 of its area, only the surer one gets pixels: they are
    of one object, found twice. Pixels in no box of their class belong to none.

    With distances to the boundary, a pixel first climbs to the top of the hill it stands on, from
    pixel to neighbouring pixel of its class; it belongs to the box of the top where it lies in that
    box too. So the valleys between touching objects part them.

    Args:
        boxes: `(n, 4)` xyxy boxes in pixels.
        classes: `(n,)` their classes, from 0.
        mask: Integer `(height, width)`, 0 is background and class `c` of boxes is `c + 1`.
        distance: Optional float `(height, width)`, distances as `BoundaryDistance` predicts them.
        scores: Optional `(n,)` scores of the boxes.

    Returns:
        Int32 array `(height, width)`: 0 where there is no instance, i + 1 in that of box i. A box
        may get no pixels.

    Raises:
        ValueError: If shapes do not fit.

    Example:

    ```python
    import numpy as np
    import mtl_keras as mtl
    mask = np.ones((2, 6), int)  # two objects that touch, found by boxes that overlap
    boxes = [[0, 0, 4, 2], [2, 0, 6, 2]]
    instances = mtl.tasks.fuse_instances(boxes, [0, 0], mask)
    assert instances.tolist() == [[1, 1, 1, 2, 2, 2]] * 2
    ```
    """
    mask = np.asarray(mask)
    boxes = np.asarray(boxes, "float32").reshape(-1, 4)
    classes = np.asarray(classes, "int64").reshape(-1)
    if mask.ndim != 2 or len(boxes) != len(classes):
        raise ValueError(
            "`mask` must be (height, width) and `classes` have one class a box. Received: "
            f"mask.shape={mask.shape}, {len(boxes)} boxes, {len(classes)} classes"
        )
    if distance is not None and np.shape(distance) != mask.shape:
        raise ValueError(
            f"`distance` must have the shape of `mask`, {mask.shape}. "
            f"Received: distance.shape={np.shape(distance)}"
        )
    twice = np.zeros(len(boxes), bool)
    if scores is None:
        scores = np.zeros(len(boxes), "float32")
    else:
        scores = np.asarray(scores, "float32").reshape(-1)
        if len(scores) != len(boxes):
            raise ValueError(
                f"`scores` must be one a box. Received: {len(scores)} for {len(boxes)}"
            )
        twice = _found_twice(boxes, classes, scores)
    owner = _most_central(boxes, classes, mask, scores, twice)
    if distance is None or not len(boxes):
        return owner
    height, width = mask.shape
    of_top = owner.ravel()[_tops(np.asarray(distance, "float32"), mask)].reshape(mask.shape)
    box = np.concatenate([np.zeros((1, 4), "float32"), boxes])[of_top]
    x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    inside = (x >= box[..., 0]) & (y >= box[..., 1]) & (x <= box[..., 2]) & (y <= box[..., 3])
    return np.where(inside & (of_top > 0), of_top, owner).astype("int32")


def _found_twice(boxes: np.ndarray, classes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Which boxes are of an object that a surer box of the class has found already."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0.0), axis=-1)
    area = np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1), 1e-6)
    rivals = shared > MOST_SHARED * np.minimum(area[:, None], area[None])
    rivals &= classes[:, None] == classes[None]
    twice = np.zeros(len(boxes), bool)
    kept = np.zeros(len(boxes), bool)
    for i in np.argsort(-scores, kind="stable"):
        twice[i] = (rivals[i] & kept).any()
        kept[i] = not twice[i]
    return twice


def _most_central(
    boxes: np.ndarray,
    classes: np.ndarray,
    mask: np.ndarray,
    scores: np.ndarray,
    left_out: np.ndarray,
) -> np.ndarray:
    height, width = mask.shape
    best = np.full(mask.shape, np.inf, "float32")
    owner = np.zeros(mask.shape, "int32")
    x, y = np.arange(width, dtype="float32") + 0.5, np.arange(height, dtype="float32") + 0.5
    # Pixels whose centres are in the box.
    low = np.maximum(np.ceil(boxes[:, :2] - 0.5), 0).astype(int).tolist()
    high = np.minimum(np.floor(boxes[:, 2:] + 0.5), (width, height)).astype(int).tolist()
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
    for i, ((x0, y0), (x1, y1)) in enumerate(zip(low, high, strict=True)):
        if x1 <= x0 or y1 <= y0 or left_out[i]:
            continue
        window = (slice(y0, y1), slice(x0, x1))
        across = np.square((x[x0:x1] - centres[i, 0]) / sides[i, 0])
        down = np.square((y[y0:y1] - centres[i, 1]) / sides[i, 1])
        cost = (down - np.float32(SCORE_WEIGHT * scores[i]))[:, None] + across
        better = (cost < best[window]) & (mask[window] == classes[i] + 1)
        np.copyto(best[window], cost, where=better)
        np.copyto(owner[window], np.int32(i + 1), where=better)
    return owner


def _tops(distance: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The flat index of the top to which each pixel climbs by the steepest way in its class."""
    height, width = distance.shape
    place = np.arange(height * width).reshape(height, width)
    best, to = distance.copy(), place.copy()
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            if not (down or right):
                continue
            here = (slice(max(-down, 0), height - max(down, 0)),) + (
                slice(max(-right, 0), width - max(right, 0)),
            )
            there = (slice(max(down, 0), height + min(down, 0)),) + (
                slice(max(right, 0), width + min(right, 0)),
            )
            higher = (distance[there] > best[here]) & (mask[there] == mask[here])
            np.copyto(best[here], distance[there], where=higher)
            np.copyto(to[here], place[there], where=higher)
    to = to.ravel()
    # Each look doubles the way that is climbed.
    while True:
        further = to[to]
        if np.array_equal(further, to):
            return to
        to = further
