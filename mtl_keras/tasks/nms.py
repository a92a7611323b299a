"""Non-maximum suppression in the graph, by a library of the backend.

TensorFlow has one operation for it. Elsewhere the layer of `keras_hub` does the same work with
`keras.ops`.
"""

from typing import Any

import keras


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

    def take_best(left, _):
        flat = ops.reshape(left, (-1, count * num_classes))
        best = ops.argmax(flat, axis=-1)
        score = ops.max(flat, axis=-1)
        label = best % num_classes
        box = ops.take_along_axis(boxes, (best // num_classes)[:, None, None], axis=1)
        same = ops.one_hot(label, num_classes, dtype="bool")[:, None, :]
        rivals = (iou(boxes, box) > iou_threshold)[..., None] & same
        # A box without area does not overlap itself.
        itself = ops.reshape(ops.one_hot(best, count * num_classes, dtype="bool"), left.shape)
        return ops.where(rivals | itself, 0.0, left), (box[:, 0], score, label)

    left = ops.where(scores > score_threshold, scores, 0.0)
    _, found = ops.scan(take_best, left, length=max_detections)
    boxes, scores, classes = (ops.swapaxes(x, 0, 1) for x in found)
    valid = scores > 0.0
    return {
        "boxes": ops.where(valid[..., None], boxes, 0.0),
        "scores": scores,
        "classes": ops.cast(ops.where(valid, classes, 0), "int32"),
        "count": ops.sum(ops.cast(valid, "int32"), axis=-1),
    }
