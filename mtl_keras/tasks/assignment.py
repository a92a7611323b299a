"""Which cell of the pyramid learns which object: task-aligned assignment in centre windows."""

from typing import Any

from keras import ops

from mtl_keras.tasks.boxes import iou, stride


def _window(radius: int) -> list[tuple[int, int]]:
    """Offsets of a square window, nearest to its centre first."""
    cells = range(-radius, radius + 1)
    return sorted(((dx, dy) for dx in cells for dy in cells), key=lambda c: c[0] ** 2 + c[1] ** 2)


def candidates(boxes: Any, shapes: dict[str, tuple[Any, Any]], radius: int) -> tuple[Any, Any]:
    """Finds the cells around the centre of each object, on each level.

    Arithmetic on the grid takes the place of a table of all cells by all objects: an image with
    400 objects costs what 400 windows cost.

    Args:
        boxes: Float32 tensor `(batch, objects, 4)`, xyxy in pixels.
        shapes: Dict, level to `(height, width)` of its feature map, in the order in which the
            levels are concatenated.
        radius: Integer, cells on each side of the centre.

    Returns:
        `(index, inside)`: int32 index of the cell among all cells of an image, and whether the
        cell is on the map with its centre inside the object (or, on the finest level, inside the
        object widened to one stride, so that no object goes without a cell). Both of shape
        `(batch, objects, candidates)`, near cells first.
    """
    window = _window(radius)
    dx = ops.convert_to_tensor([float(c[0]) for c in window], "float32")
    dy = ops.convert_to_tensor([float(c[1]) for c in window], "float32")
    centre_x = (boxes[..., 0] + boxes[..., 2]) / 2.0
    centre_y = (boxes[..., 1] + boxes[..., 3]) / 2.0
    finest = min(shapes, key=stride)
    indices, insides, offset = [], [], 0
    for level, (height, width) in shapes.items():
        step = float(stride(level))
        # An object whose centre lies on the border belongs to the last cell of the map.
        column = _clip(ops.floor(centre_x / step), width)[..., None] + dx
        row = _clip(ops.floor(centre_y / step), height)[..., None] + dy
        x, y = (column + 0.5) * step, (row + 0.5) * step
        least = step / 2.0 if level == finest else 0.0
        half_width = ops.maximum((boxes[..., 2] - boxes[..., 0]) / 2.0, least)[..., None]
        half_height = ops.maximum((boxes[..., 3] - boxes[..., 1]) / 2.0, least)[..., None]
        inside = (ops.abs(x - centre_x[..., None]) <= half_width) & (
            ops.abs(y - centre_y[..., None]) <= half_height
        )
        on_map = (
            (column >= 0)
            & (row >= 0)
            & (column < ops.cast(width, "float32"))
            & (row < ops.cast(height, "float32"))
        )
        column, row = ops.cast(column, "int32"), ops.cast(row, "int32")
        index = ops.where(on_map, row * width + column + offset, 0)
        indices.append(index)
        insides.append(inside & on_map)
        offset = offset + height * width
    return ops.concatenate(indices, axis=-1), ops.concatenate(insides, axis=-1)


def _clip(cell: Any, size: Any) -> Any:
    return ops.minimum(ops.maximum(cell, 0.0), ops.cast(size, "float32") - 1.0)


def task_aligned_assignment(
    boxes: Any,
    classes: Any,
    predicted_boxes: Any,
    predicted_scores: Any,
    shapes: dict[str, tuple[Any, Any]],
    radius: int = 2,
    top_k: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
) -> dict:
    """Assigns cells to objects by how well they already score and localise them.

    Each object takes the `top_k` of its candidate cells by `t = s^alpha * u^beta` (`s` the score
    of its class, `u` the IoU of the predicted box). A cell that several objects want goes to
    the one that it overlaps most. The target score of a cell is `t`, normalised so that the
    best cell of an object gets its best IoU.

    Args:
        boxes: Float32 tensor `(batch, objects, 4)`, ground truth, xyxy in pixels.
        classes: Int32 tensor `(batch, objects)`, -1 where there is no object.
        predicted_boxes: Float32 tensor `(batch, cells, 4)`.
        predicted_scores: Float32 tensor `(batch, cells, num_classes)` in [0, 1].
        shapes: Dict, level to `(height, width)`, see `candidates`.
        radius: Integer, candidates are at most this many cells from the centre, on each level.
        top_k: Integer, cells an object can have.
        alpha: Float, exponent of the score.
        beta: Float, exponent of the IoU.

    Returns:
        Dict of tensors over all cells, without gradient: `score` `(batch, cells)` (0 for
        background), `boxes` `(batch, cells, 4)`, `classes` `(batch, cells)`.

    Reference:
        Feng et al. 2021, "TOOD: Task-aligned One-stage Object Detection", section 3.2; the
        exponents are those of YOLOv8. Deviation: candidates are the cells in a window around
        the centre of the object on each level (the idea of ATSS, Zhang et al. 2020) instead of
        all cells inside its box, so that the cost does not grow with cells times objects.
    """
    predicted_boxes = ops.stop_gradient(predicted_boxes)
    predicted_scores = ops.stop_gradient(predicted_scores)
    batch, cells, num_classes = ops.shape(predicted_scores)
    objects = ops.shape(boxes)[1]
    index, valid = candidates(boxes, shapes, radius)
    valid = valid & (classes >= 0)[..., None]
    flat = index + (ops.arange(batch, dtype="int32") * cells)[:, None, None]

    found = ops.take(ops.reshape(predicted_boxes, (-1, 4)), flat, axis=0)
    overlap = ops.where(valid, iou(boxes[:, :, None, :], found), 0.0)
    of_class = flat * num_classes + ops.maximum(classes, 0)[..., None]
    score = ops.take(ops.reshape(predicted_scores, (-1,)), of_class, axis=0)
    aligned = ops.power(score + 1e-9, alpha) * ops.power(overlap, beta)

    # -1 keeps what is not a candidate behind candidates that do not overlap yet.
    _, best = ops.top_k(ops.where(valid, aligned, -1.0), min(top_k, index.shape[-1]))
    flat, valid, overlap, aligned = (
        ops.take_along_axis(t, best, axis=-1) for t in (flat, valid, overlap, aligned)
    )
    # Objects that overlap no prediction at all would have a target of zero everywhere: the paper's
    # normalisation is kept, and the floor keeps the gradient of their box alive.
    most_overlap = ops.max(overlap, axis=-1, keepdims=True)
    most_aligned = ops.max(aligned, axis=-1, keepdims=True)
    quality = ops.maximum(aligned / (most_aligned + 1e-9) * most_overlap, 0.01)

    total = batch * cells
    owner_id = ops.broadcast_to(
        ops.reshape(ops.arange(batch * objects, dtype="int32"), (batch, objects, 1)),
        ops.shape(flat),
    )
    flat, owner_id = ops.reshape(flat, (-1,)), ops.reshape(owner_id, (-1,))
    valid, overlap = ops.reshape(valid, (-1,)), ops.reshape(overlap, (-1,))
    quality = ops.reshape(quality, (-1,))
    most = ops.segment_max(ops.where(valid, overlap, -1.0), flat, total)
    wins = valid & (overlap >= ops.take(most, flat, axis=0))
    owner = ops.segment_max(ops.where(wins, owner_id, -1), flat, total)
    owner = ops.maximum(owner, -1)
    wins = wins & (ops.take(owner, flat, axis=0) == owner_id)
    target = ops.maximum(ops.segment_max(ops.where(wins, quality, 0.0), flat, total), 0.0)
    owner = ops.maximum(owner, 0)
    return {
        "score": ops.stop_gradient(ops.reshape(target, (batch, cells))),
        "boxes": ops.reshape(
            ops.take(ops.reshape(boxes, (-1, 4)), owner, axis=0), (batch, cells, 4)
        ),
        "classes": ops.reshape(
            ops.take(ops.reshape(classes, (-1,)), owner, axis=0), (batch, cells)
        ),
    }
