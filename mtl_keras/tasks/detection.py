"""Object detection: anchor-free and dense over the levels of a pyramid."""

import math
from typing import Any

import keras
from keras import layers, ops

from mtl_keras.tasks.assignment import task_aligned_assignment
from mtl_keras.tasks.boxes import anchor_points, complete_iou, stride
from mtl_keras.tasks.coco import CocoEvaluator
from mtl_keras.tasks.nms import non_maximum_suppression
from mtl_keras.tasks.task import Geometry, Task


@keras.saving.register_keras_serializable(package="mtl_keras")
class Detection(Task):
    """Finds objects: a box, a class and a score each.

    The head is two small towers of convolutions, shared by all levels (with a BatchNorm for
    each level), that give for each cell a score for each class and the distances from the centre
    of the cell to the four sides of the box. Cells are assigned to objects by
    `task_aligned_assignment`; the scores learn the quality of the box by varifocal loss, the
    boxes by complete IoU.

    Args:
        num_classes: Integer, number of kinds of object, background not counted.
        levels: Tuple of pyramid levels to look at. `"P2"` finds small objects.
        channels: Integer, width of the towers.
        depth: Integer, convolutions in each tower.
        max_objects: Integer, the most objects that one training image may hold.
        max_detections: Integer, the most boxes that one image can get.
        candidates: Integer, best-scoring cells an image that enter suppression.
        score_threshold: Float, boxes that score less are never predicted.
        confidence: Float, boxes that score less are not shown by `predict_images`, unless it is
            told another limit. `best_confidence` of the evaluator finds it on labelled images.
        iou_threshold: Float, boxes of one class that overlap more than this are one object.
        box_weight: Float, weight of the box loss beside the score loss.
        name: String, name of the task.
        class_names: Optional list of `num_classes` strings.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        - Tian et al. 2019, "FCOS" (cells and distances)
        - Feng et al. 2021, "TOOD" (assignment)
        - Zhang et al. 2021, "VarifocalNet", equation 2 (score loss; gamma 2, alpha 0.75)
        - Zheng et al. 2020, "Distance-IoU Loss" (box loss)

    Example:

    ```python
    import mtl_keras as mtl
    task = mtl.tasks.Detection(num_classes=3, levels=("P3", "P4"))
    head = task.head({"P3": 32, "P4": 32})
    assert head.output["P3"].shape[-1] == 3 + 4
    ```
    """

    needs = ("boxes",)

    def __init__(
        self,
        num_classes: int,
        levels: tuple[str, ...] = ("P3", "P4", "P5"),
        channels: int = 64,
        depth: int = 2,
        max_objects: int = 400,
        max_detections: int = 400,
        candidates: int = 2000,
        score_threshold: float = 0.02,
        confidence: float = 0.5,
        iou_threshold: float = 0.6,
        box_weight: float = 2.0,
        name: str = "detection",
        class_names: list[str] | None = None,
    ):
        super().__init__(num_classes, name, class_names)
        self.levels = tuple(levels)
        bad = [level for level in self.levels if level not in ("P2", "P3", "P4", "P5")]
        if bad or not self.levels or len(set(self.levels)) != len(self.levels):
            raise ValueError(
                '`levels` must be different names of "P2" to "P5", at least one. '
                f"Received: levels={levels!r}"
            )
        for argument, value in (
            ("channels", channels),
            ("max_objects", max_objects),
            ("max_detections", max_detections),
            ("candidates", candidates),
        ):
            if value < 1:
                raise ValueError(f"`{argument}` must be at least 1. Received: {argument}={value}")
        for argument, value in (("depth", depth), ("box_weight", box_weight)):
            if value < 0:
                raise ValueError(f"`{argument}` must not be negative. Received: {value}")
        for argument, value in (
            ("score_threshold", score_threshold),
            ("confidence", confidence),
            ("iou_threshold", iou_threshold),
        ):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"`{argument}` must be in [0, 1]. Received: {argument}={value}")
        self.channels = channels
        self.depth = depth
        self.max_objects = max_objects
        self.max_detections = max_detections
        self.candidates = candidates
        self.score_threshold = score_threshold
        self.confidence = confidence
        self.iou_threshold = iou_threshold
        self.box_weight = box_weight

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "levels": list(self.levels),
            "channels": self.channels,
            "depth": self.depth,
            "max_objects": self.max_objects,
            "max_detections": self.max_detections,
            "candidates": self.candidates,
            "score_threshold": self.score_threshold,
            "confidence": self.confidence,
            "iou_threshold": self.iou_threshold,
            "box_weight": self.box_weight,
        }

    # === Head ===
    def head(self, channels: dict[str, int]) -> keras.Model:
        if len({channels[level] for level in self.levels}) > 1:
            raise ValueError(
                f"the head of task {self.name!r} is one for all levels, so that all of them must "
                f"have the same `channels`, as a neck gives them. Received: {channels}"
            )
        inputs = {
            level: keras.Input((None, None, channels[level]), name=level) for level in self.levels
        }
        towers = {}
        for tower in ("class", "box"):
            features = dict(inputs)
            for i in range(self.depth):
                convolution = layers.Conv2D(
                    self.channels, 3, padding="same", use_bias=False, name=f"{tower}_conv{i}"
                )
                for level in self.levels:
                    x = convolution(features[level])
                    x = layers.BatchNormalization(
                        momentum=0.97, epsilon=1e-3, name=f"{tower}_bn{i}_{level}"
                    )(x)
                    features[level] = layers.Activation("relu", name=f"{tower}_relu{i}_{level}")(x)
            towers[tower] = features
        # The prior keeps the first steps from drowning in background: 1 % of cells hold objects.
        scores = layers.Conv2D(
            self.num_classes,
            3,
            padding="same",
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            bias_initializer=keras.initializers.Constant(-math.log(99.0)),
            dtype="float32",
            name="class_output",
        )
        distances = layers.Conv2D(
            4,
            3,
            padding="same",
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            bias_initializer=keras.initializers.Constant(math.log(2.0)),
            dtype="float32",
            name="box_output",
        )
        outputs = {
            level: layers.Concatenate(dtype="float32", name=f"output_{level}")(
                [scores(towers["class"][level]), distances(towers["box"][level])]
            )
            for level in self.levels
        }
        return keras.Model(inputs, outputs, name=f"{self.name}_head")

    # === Targets ===
    def encode(self, labels: dict, image_size: tuple[int, int]) -> dict:
        import tensorflow as tf

        boxes, classes, crowd = labels["boxes"], labels["classes"], labels["is_crowd"]
        count = tf.shape(boxes)[0]
        enough = tf.debugging.assert_less_equal(
            count,
            self.max_objects,
            message=f"an image holds more objects than max_objects={self.max_objects} of task "
            f"{self.name!r}; make the task with a larger `max_objects`",
        )
        known = tf.debugging.assert_less(
            tf.cast(classes, "int32"),
            self.num_classes,
            message=f"an image holds an object of a class that task {self.name!r} with "
            f"num_classes={self.num_classes} does not have",
        )
        # Run eagerly, assertions return nothing.
        with tf.control_dependencies([one for one in (enough, known) if one is not None]):
            missing = self.max_objects - count
        boxes = tf.pad(boxes, [[0, missing], [0, 0]])
        classes = tf.pad(tf.cast(classes, "int32"), [[0, missing]], constant_values=-1)
        crowd = tf.pad(crowd, [[0, missing]])
        return {
            "boxes": tf.ensure_shape(boxes, (self.max_objects, 4)),
            "classes": tf.ensure_shape(classes, (self.max_objects,)),
            # No booleans: on several devices, Keras adds up a batch to learn its shapes.
            "is_crowd": tf.ensure_shape(tf.cast(crowd, "uint8"), (self.max_objects,)),
        }

    # === Loss ===
    def loss(self, targets: dict, outputs: dict) -> Any:
        every = ops.ones_like(targets["boxes"][:, 0, 0], dtype="float32")
        return self.partial_loss(targets, outputs, every)

    def partial_loss(self, targets: dict, outputs: dict, labelled: Any) -> Any:
        logits, predicted, shapes = self._flatten(outputs)
        # A crowd is no single object: it is neither learned nor, where it is, background.
        crowd = ops.cast(targets["is_crowd"], "bool")
        classes = ops.where(crowd, -1, targets["classes"])
        assigned = task_aligned_assignment(
            targets["boxes"], classes, predicted, ops.sigmoid(logits), shapes
        )
        quality = assigned["score"]
        wanted = (
            ops.one_hot(assigned["classes"], self.num_classes, dtype="float32") * quality[..., None]
        )
        in_crowd = self._inside(targets["boxes"], crowd, shapes)
        keep = 1.0 - ops.cast(in_crowd & (quality == 0.0), "float32")
        score_loss = ops.sum(_varifocal(wanted, logits), axis=-1) * keep
        box_loss = (1.0 - complete_iou(assigned["boxes"], predicted)) * quality
        # A batch without objects has box targets of zero area, and no weight on them.
        box_loss = ops.where(quality > 0.0, box_loss, 0.0)
        # Found in an image, on average over those that have labels.
        found = ops.sum(ops.sum(quality, axis=-1) * labelled) / ops.maximum(ops.sum(labelled), 1.0)
        found = ops.maximum(found, 1.0)
        # No cell is inside a box that is not a number: this keeps it from passing unnoticed.
        unnoticed = ops.sum(targets["boxes"] * 0.0, axis=(1, 2))
        return (
            ops.sum(score_loss, axis=-1) + self.box_weight * ops.sum(box_loss, axis=-1)
        ) / found + unnoticed

    def _flatten(self, outputs: dict) -> tuple[Any, Any, dict]:
        """Joins the levels: logits `(b, cells, classes)`, boxes `(b, cells, 4)`, map sizes."""
        logits, boxes, shapes = [], [], {}
        for level in self.levels:
            x = ops.cast(outputs[level], "float32")
            batch, height, width, _ = ops.shape(x)
            shapes[level] = (height, width)
            x = ops.reshape(x, (batch, height * width, self.num_classes + 4))
            logits.append(x[..., : self.num_classes])
            # Limits keep exp() finite in the first steps; e^7 strides are wider than any image.
            sides = ops.exp(ops.clip(x[..., self.num_classes :], -7.0, 7.0)) * stride(level)
            points = anchor_points(height, width, level)[None]
            boxes.append(
                ops.concatenate([points - sides[..., :2], points + sides[..., 2:]], axis=-1)
            )
        return ops.concatenate(logits, axis=1), ops.concatenate(boxes, axis=1), shapes

    def _inside(self, boxes: Any, crowd: Any, shapes: dict) -> Any:
        """Says which cells have their centre in a crowd, without a table of cells by objects.

        Crowds are few: the largest sixteen of an image are looked at.
        """
        points = ops.concatenate(
            [anchor_points(*shape, level) for level, shape in shapes.items()], axis=0
        )[None, :, None, :]
        size = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
        size = ops.where(crowd, size, 0.0)
        size, index = ops.top_k(size, min(16, size.shape[1] or self.max_objects))
        few = ops.take_along_axis(boxes, index[..., None], axis=1)[:, None]
        inside = (points >= few[..., :2]) & (points <= few[..., 2:])
        return ops.any(ops.all(inside, axis=-1) & (size > 0.0)[:, None], axis=-1)

    # === Predictions ===
    def decode(self, outputs: dict, geometry: Geometry | None = None) -> dict:
        logits, boxes, shapes = self._flatten(outputs)
        height, width = self._canvas(shapes)
        if geometry is not None:
            factor_y, factor_x = (
                ops.cast(to, "float32") / ops.cast(of, "float32")
                for to, of in zip(geometry.original, geometry.content, strict=True)
            )
            boxes = boxes * ops.stack([factor_x, factor_y, factor_x, factor_y])
            height, width = geometry.original
        limit = ops.cast(ops.stack([width, height, width, height]), "float32")
        boxes = ops.minimum(ops.maximum(boxes, 0.0), limit)
        cells = boxes.shape[1]
        if cells is None or cells > self.candidates:
            best = ops.max(logits, axis=-1)
            most = self.candidates if cells else ops.minimum(self.candidates, ops.shape(best)[1])
            _, index = ops.top_k(best, most)
            boxes = ops.take_along_axis(boxes, index[..., None], axis=1)
            logits = ops.take_along_axis(logits, index[..., None], axis=1)
        return non_maximum_suppression(
            boxes,
            ops.sigmoid(logits),
            iou_threshold=self.iou_threshold,
            score_threshold=self.score_threshold,
            max_detections=self.max_detections,
        )

    def _canvas(self, shapes: dict) -> tuple[Any, Any]:
        level = min(shapes, key=stride)
        return shapes[level][0] * stride(level), shapes[level][1] * stride(level)

    def present(self, predictions: dict, score_threshold: float) -> dict:
        keep = predictions["scores"] >= score_threshold
        keep &= keep.cumsum() <= int(predictions["count"])
        return {
            "boxes": predictions["boxes"][keep].astype("float32"),
            "scores": predictions["scores"][keep].astype("float32"),
            "classes": predictions["classes"][keep].astype("int32"),
        }

    def serving_outputs(self, predictions: dict) -> dict:
        boxes = predictions["boxes"]
        return {
            f"{self.name}_boxes": ops.stack([boxes[..., i] for i in (1, 0, 3, 2)], axis=-1),
            f"{self.name}_scores": predictions["scores"],
            f"{self.name}_classes": predictions["classes"],
            "num_detections" if self.name == "detection" else f"{self.name}_count": predictions[
                "count"
            ],
        }

    # === Metrics ===
    def evaluator(self) -> CocoEvaluator:
        return CocoEvaluator(self)

    def image_evaluator(self) -> CocoEvaluator:
        return CocoEvaluator(self)


def _varifocal(target: Any, logits: Any, alpha: float = 0.75, gamma: float = 2.0) -> Any:
    """Varifocal loss: weighted by the target where there is one, focal elsewhere."""
    # log(1 + e^-|x|) form: finite for any logit.
    entropy = ops.maximum(logits, 0.0) - logits * target + ops.log1p(ops.exp(-ops.abs(logits)))
    negative = alpha * ops.power(ops.stop_gradient(ops.sigmoid(logits)), gamma)
    return entropy * ops.where(target > 0.0, target, negative)
