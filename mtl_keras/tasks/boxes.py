"""Boxes in `xyxy` pixels: overlap, complete IoU, anchor points."""

import math
from typing import Any

from keras import ops

_EPSILON = 1e-7


def area(boxes: Any) -> Any:
    """Returns the area of boxes `(..., 4)` in square pixels; reversed boxes have none."""
    width = ops.maximum(boxes[..., 2] - boxes[..., 0], 0.0)
    height = ops.maximum(boxes[..., 3] - boxes[..., 1], 0.0)
    return width * height


def iou(a: Any, b: Any) -> Any:
    """Computes the intersection over union of boxes, pair by pair.

    Args:
        a: Tensor `(..., 4)`, boxes in xyxy.
        b: Tensor that broadcasts with `a`.

    Returns:
        Tensor `(...)` in [0, 1].

    Example:

    ```python
    from keras import ops
    from mtl_keras.tasks.boxes import iou
    a = ops.convert_to_tensor([[0.0, 0.0, 2.0, 2.0]])
    b = ops.convert_to_tensor([[1.0, 0.0, 3.0, 2.0]])
    assert abs(float(iou(a, b)[0]) - 1 / 3) < 1e-6
    ```
    """
    width = ops.minimum(a[..., 2], b[..., 2]) - ops.maximum(a[..., 0], b[..., 0])
    height = ops.minimum(a[..., 3], b[..., 3]) - ops.maximum(a[..., 1], b[..., 1])
    both = ops.maximum(width, 0.0) * ops.maximum(height, 0.0)
    return both / (area(a) + area(b) - both + _EPSILON)


def complete_iou(target: Any, predicted: Any) -> Any:
    """Computes the complete IoU (CIoU) of boxes, pair by pair.

    The trade-off `alpha` is a constant for the gradient, as in the paper's code.

    Args:
        target: Tensor `(..., 4)`, ground truth in xyxy.
        predicted: Tensor of the same shape.

    Returns:
        Tensor `(...)`, at most 1 (equal boxes).

    Reference:
        Zheng et al. 2020, "Distance-IoU Loss", equations 9 to 11.

    Example:

    ```python
    from keras import ops
    from mtl_keras.tasks.boxes import complete_iou
    a = ops.convert_to_tensor([[0.0, 0.0, 2.0, 2.0]])
    assert abs(float(complete_iou(a, a)[0]) - 1.0) < 1e-6
    ```
    """
    overlap = iou(target, predicted)
    hull_width = ops.maximum(target[..., 2], predicted[..., 2]) - ops.minimum(
        target[..., 0], predicted[..., 0]
    )
    hull_height = ops.maximum(target[..., 3], predicted[..., 3]) - ops.minimum(
        target[..., 1], predicted[..., 1]
    )
    diagonal = ops.square(hull_width) + ops.square(hull_height) + _EPSILON
    offset = target[..., :2] + target[..., 2:] - predicted[..., :2] - predicted[..., 2:]
    distance = ops.sum(ops.square(offset), axis=-1) / 4.0
    angle = _aspect(target) - _aspect(predicted)
    shape = 4.0 / math.pi**2 * ops.square(angle)
    alpha = ops.stop_gradient(shape / (1.0 - overlap + shape + _EPSILON))
    return overlap - distance / diagonal - alpha * shape


def _aspect(boxes: Any) -> Any:
    width = ops.maximum(boxes[..., 2] - boxes[..., 0], _EPSILON)
    height = ops.maximum(boxes[..., 3] - boxes[..., 1], _EPSILON)
    return ops.arctan(width / height)


def stride(level: str) -> int:
    """Returns the stride of a pyramid level in pixels: 4 for `"P2"`."""
    return 2 ** int(level[1:])


def anchor_points(height: Any, width: Any, level: str) -> Any:
    """Returns the centres of the cells of a feature map.

    Args:
        height: Height of the feature map, in cells.
        width: Width of the feature map, in cells.
        level: Pyramid level, which gives the stride.

    Returns:
        Float32 tensor `(height * width, 2)`, x and y in pixels, row by row.
    """
    x = (ops.cast(ops.arange(width), "float32") + 0.5) * stride(level)
    y = (ops.cast(ops.arange(height), "float32") + 0.5) * stride(level)
    x, y = ops.meshgrid(x, y)
    return ops.stack([ops.reshape(x, (-1,)), ops.reshape(y, (-1,))], axis=-1)
