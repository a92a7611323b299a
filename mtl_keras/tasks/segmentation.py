"""Semantic segmentation: a class for each pixel."""

from typing import Any

import keras
from keras import layers, ops

from mtl_keras.tasks.confusion import ConfusionMatrix
from mtl_keras.tasks.dice import MaskEvaluator
from mtl_keras.tasks.resize import Enlarge, resize
from mtl_keras.tasks.task import Geometry, Task

IGNORE = 255


@keras.saving.register_keras_serializable(package="mtl_keras")
class Segmentation(Task):
    """Gives each pixel a class; 0 is background, pixels labelled 255 are ignored.

    The head brings every level to the size of the finest one, adds them up, and ends in one
    convolution and a bilinear enlargement to the size of the image. The loss is cross-entropy
    plus soft Dice over the classes that an image shows.

    Args:
        num_classes: Integer, number of classes, background counted (at least 2).
        levels: Tuple of pyramid levels that the head reads.
        channels: Integer, width of the head.
        dice_weight: Float, weight of the Dice loss beside cross-entropy.
        name: String, name of the task.
        class_names: Optional list of `num_classes` strings, background first.

    Reference:
        - Kirillov et al. 2019, "Panoptic Feature Pyramid Networks", section 3 (head)
        - Milletari et al. 2016, "V-Net", equation for the Dice loss

    Example:

    ```python
    import mtl_keras as mtl
    task = mtl.tasks.Segmentation(num_classes=4)
    head = task.head({level: 32 for level in task.levels})
    assert head.output_shape[-1] == 4
    ```
    """

    needs = ("mask",)
    fewest_classes = 2

    def __init__(
        self,
        num_classes: int,
        levels: tuple[str, ...] = ("P2", "P3", "P4", "P5"),
        channels: int = 64,
        dice_weight: float = 1.0,
        name: str = "segmentation",
        class_names: list[str] | None = None,
    ):
        super().__init__(num_classes, name, class_names)
        if self.num_classes > IGNORE:
            raise ValueError(
                f"`num_classes` of task {name!r} must be at most {IGNORE}, since {IGNORE} marks "
                f"pixels to ignore. Received: num_classes={num_classes}"
            )
        self.levels = tuple(levels)
        bad = [level for level in self.levels if level not in ("P2", "P3", "P4", "P5")]
        if bad or not self.levels or len(set(self.levels)) != len(self.levels):
            raise ValueError(
                '`levels` must be different names of "P2" to "P5", at least one. '
                f"Received: levels={levels!r}"
            )
        if channels < 1:
            raise ValueError(f"`channels` must be at least 1. Received: channels={channels}")
        self.channels = channels
        self.dice_weight = dice_weight

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "levels": list(self.levels),
            "channels": self.channels,
            "dice_weight": self.dice_weight,
        }

    # === Head ===
    def head(self, channels: dict[str, int]) -> keras.Model:
        inputs = {
            level: keras.Input((None, None, channels[level]), name=level) for level in self.levels
        }
        order = sorted(self.levels)
        finest = int(order[0][1:])
        features = []
        for level in order:
            x = layers.Conv2D(self.channels, 1, use_bias=False, name=f"project_{level}")(
                inputs[level]
            )
            factor = 2 ** (int(level[1:]) - finest)
            if factor > 1:
                x = Enlarge(factor, name=f"enlarge_{level}")(x)
            features.append(x)
        x = layers.Add(name="merge")(features) if len(features) > 1 else features[0]
        x = layers.BatchNormalization(momentum=0.97, epsilon=1e-3, name="merge_bn")(x)
        x = layers.Activation("relu", name="merge_relu")(x)
        x = layers.Conv2D(self.channels, 3, padding="same", use_bias=False, name="conv")(x)
        x = layers.BatchNormalization(momentum=0.97, epsilon=1e-3, name="bn")(x)
        x = layers.Activation("relu", name="relu")(x)
        x = layers.Conv2D(self.num_classes, 1, dtype="float32", name="logits")(x)
        x = Enlarge(2**finest, dtype="float32", name="output")(x)
        return keras.Model(inputs, x, name=f"{self.name}_head")

    # === Targets ===
    def encode(self, labels: dict, image_size: tuple[int, int]) -> dict:
        import tensorflow as tf

        mask = tf.cast(labels["mask"], "int32")
        wrong = tf.debugging.Assert(
            tf.reduce_all((mask < self.num_classes) | (mask == IGNORE)),
            [
                f"the mask of an image holds a class that task {self.name!r} with "
                f"num_classes={self.num_classes} (background counted) does not have:",
                tf.reduce_max(tf.where(mask == IGNORE, 0, mask)),
            ],
        )
        with tf.control_dependencies([wrong] if wrong is not None else []):
            mask = tf.identity(tf.cast(mask, "uint8"))
        return {"mask": tf.ensure_shape(mask, image_size)}

    # === Loss ===
    def loss(self, targets: dict, outputs: Any) -> Any:
        logits = ops.cast(outputs, "float32")
        mask = ops.cast(targets["mask"], "int32")
        labelled = ops.cast(mask != IGNORE, "float32")
        truth = ops.one_hot(ops.where(mask == IGNORE, 0, mask), self.num_classes, dtype="float32")
        log_probability = ops.log_softmax(logits, axis=-1)
        entropy = -ops.sum(truth * log_probability, axis=-1) * labelled
        count = ops.sum(labelled, axis=(1, 2))
        entropy = ops.sum(entropy, axis=(1, 2)) / ops.maximum(count, 1.0)

        truth = truth * labelled[..., None]
        probability = ops.exp(log_probability) * labelled[..., None]
        both = ops.sum(truth * probability, axis=(1, 2))
        size = ops.sum(truth, axis=(1, 2))
        dice = 1.0 - (2.0 * both + 1.0) / (size + ops.sum(probability, axis=(1, 2)) + 1.0)
        shown = ops.cast(size > 0.0, "float32")
        dice = ops.sum(dice * shown, axis=-1) / ops.maximum(ops.sum(shown, axis=-1), 1.0)
        return entropy + self.dice_weight * dice

    # === Predictions ===
    def decode(self, outputs: Any, geometry: Geometry | None = None) -> dict:
        logits = ops.cast(outputs, "float32")
        if geometry is not None:
            height, width = geometry.content
            logits = resize(logits[:, :height, :width], geometry.original)
        return {"mask": ops.cast(ops.argmax(logits, axis=-1), "int32")}

    def present(self, predictions: dict, score_threshold: float) -> dict:
        return {"mask": predictions["mask"].astype("int32")}

    def serving_outputs(self, predictions: dict) -> dict:
        return {f"{self.name}_mask": predictions["mask"]}

    # === Metrics ===
    def metrics(self) -> list[keras.metrics.Metric]:
        return [ConfusionMatrix(self)]

    def image_evaluator(self) -> MaskEvaluator:
        return MaskEvaluator(self)
