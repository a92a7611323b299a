"""Non-maximum suppression in the graph, class by class.

TensorFlow has one operation for it. Elsewhere `keras.ops` do the same work.
"""

from typing import Any

import keras
from keras import ops

from mtl_keras.tasks.boxes import iou


def non_maximum_suppression(
    boxes: Any,
    scores: Any,
    iou_threshold: float,
    score_threshold: float,
    max_detections: int,
) -> dict:
    """Keeps the best of overlapping boxes of one class.

    Args:
        boxes: Float32 tensor `(batch, n, 4)`, xyxy.
        scores: Float32 tensor `(batch, n, num_classes)` in [0, 1].
        iou_threshold: Float, boxes of one class that overlap more than this are one object.
        score_threshold: Float, boxes that score less are dropped.
        max_detections: Integer, how many boxes an image may keep.

    Returns:
        Dict of `boxes` `(batch, max_detections, 4)`, `scores` and `classes`
        `(batch, max_detections)`, best first, padded with zeros, and `count` `(batch,)`.
    """
    if keras.backend.backend() != "tensorflow":
        return _greedy(boxes, scores, iou_threshold, score_threshold, max_detections)
    import tensorflow as tf

    boxes, best, classes, count = tf.image.combined_non_max_suppression(
        boxes[:, :, None, :],
        scores,
        max_output_size_per_class=max_detections,
        max_total_size=max_detections,
        iou_threshold=iou_threshold,
        score_threshold=score_threshold,
        clip_boxes=False,
    )
    return {
        "boxes": boxes,
        "scores": best,
        "classes": tf.cast(classes, "int32"),
        "count": count,
    }


def _greedy(boxes, scores, iou_threshold, score_threshold, max_detections) -> dict:
    """Takes the best box that is left, `max_detections` times."""
    count, num_classes = scores.shape[1:]

    def take_best(i, state):
        left, *kept = state
        flat = ops.reshape(left, (-1, count * num_classes))
        best = ops.argmax(flat, axis=-1)
        score = ops.max(flat, axis=-1)
        label = best % num_classes
        box = ops.take_along_axis(boxes, (best // num_classes)[:, None, None], axis=1)
        same = ops.one_hot(label, num_classes, dtype="bool")[:, None, :]
        rivals = (iou(boxes, box) > iou_threshold)[..., None] & same
        # A box without area does not overlap itself.
        itself = ops.reshape(ops.one_hot(best, count * num_classes, dtype="bool"), left.shape)
        found = (box, score[:, None], ops.cast(label, "int32")[:, None])
        kept = (
            ops.slice_update(all_of, (0, i, 0)[: len(all_of.shape)], one)
            for all_of, one in zip(kept, found, strict=True)
        )
        return (ops.where(rivals | itself, 0.0, left), *kept)

    room = (ops.shape(scores)[0], max_detections)
    state = (
        ops.where(scores > score_threshold, scores, 0.0),
        ops.zeros((*room, 4), "float32"),
        ops.zeros(room, "float32"),
        ops.zeros(room, "int32"),
    )
    _, boxes, scores, classes = ops.fori_loop(0, max_detections, take_best, state)
    valid = scores > 0.0
    return {
        "boxes": ops.where(valid[..., None], boxes, 0.0),
        "scores": scores,
        "classes": ops.where(valid, classes, 0),
        "count": ops.sum(ops.cast(valid, "int32"), axis=-1),
    }
