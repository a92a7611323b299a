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
        return _by_keras_hub(boxes, scores, iou_threshold, score_threshold, max_detections)
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


def _by_keras_hub(boxes, scores, iou_threshold, score_threshold, max_detections) -> dict:
    from keras import ops

    try:
        from keras_hub.layers import NonMaxSuppression
    except ImportError as error:
        raise ImportError(
            f"decoding boxes with the {keras.backend.backend()} backend needs keras_hub: "
            'pip install "mtl_keras[hub]"'
        ) from error

    layer = NonMaxSuppression(
        bounding_box_format="xyxy",
        from_logits=False,
        iou_threshold=iou_threshold,
        confidence_threshold=score_threshold,
        max_detections=max_detections,
    )
    found = layer(boxes, scores)
    count = ops.cast(found["num_detections"], "int32")
    valid = ops.arange(max_detections)[None] < count[:, None]
    return {
        "boxes": ops.where(valid[..., None], found["boxes"], 0.0),
        "scores": ops.where(valid, found["confidence"], 0.0),
        "classes": ops.cast(ops.where(valid, found["labels"], 0), "int32"),
        "count": count,
    }
