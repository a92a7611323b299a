"""Classification: one class for an image or for a sequence."""

from typing import Any

import keras
from keras import layers, ops

from mtl_keras.tasks.by_image import ByImage
from mtl_keras.tasks.labelling import Accuracy, Labelling
from mtl_keras.tasks.task import Geometry

LEVELS = ("P2", "P3", "P4", "P5", "sequence")


@keras.saving.register_keras_serializable(package="mtl_keras")
class AverageSteps(layers.Layer):
    """Averages the features of a sequence over its steps, without padding.

    Args:
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:

    ```python
    import numpy as np
    from mtl_keras.tasks.classification import AverageSteps

    y = AverageSteps()(np.array([[[2.0], [4.0], [0.0]]], "float32"))
    assert float(y[0, 0]) == 3.0
    ```
    """

    def call(self, inputs: Any) -> Any:
        """Maps `(batch, length, channels)`, all zero where padding is, to `(batch, channels)`."""
        features = ops.cast(inputs, "float32")
        real = ops.any(ops.not_equal(features, 0.0), axis=-1, keepdims=True)
        count = ops.sum(ops.cast(real, "float32"), axis=1)
        return ops.cast(ops.sum(features, axis=1) / ops.maximum(count, 1.0), inputs.dtype)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """The shape without the steps."""
        return (input_shape[0], input_shape[-1])


@keras.saving.register_keras_serializable(package="mtl_keras")
class Classification(Labelling):
    """Gives an image, or a sequence, one class.

    The head averages the features of one level over all places (over all steps of a sequence that
    are not padding) and ends in one dense layer. The loss is cross-entropy.

    Targets are `{"label": integers (batch,)}`; examples labelled -1 are ignored.

    Args:
        num_classes: Integer, number of classes (at least 2).
        level: Name of the level that the head reads, `"P5"` by default; `"sequence"` for a trunk
            that reads sequences.
        name: String, name of the task.
        class_names: Optional list of `num_classes` strings.

    Example:

    ```python
    import mtl_keras as mtl
    task = mtl.tasks.Classification(num_classes=10)
    assert task.head({"P5": 32}).output_shape == (None, 10)
    ```
    """

    needs = ("label",)
    fewest_classes = 2

    def __init__(
        self,
        num_classes: int,
        level: str = "P5",
        name: str = "classification",
        class_names: list[str] | None = None,
    ):
        super().__init__(num_classes, name, class_names)
        if level not in LEVELS:
            raise ValueError(f"`level` must be one of {LEVELS}. Received: level={level!r}")
        self.level = level
        self.levels = (level,)

    def get_config(self) -> dict:
        return {**super().get_config(), "level": self.level}

    # === Head ===
    def head(self, channels: dict[str, int]) -> keras.Model:
        axes = (None,) if self.level == "sequence" else (None, None)
        x = features = keras.Input((*axes, channels[self.level]), name=self.level)
        if self.level == "sequence":
            x = AverageSteps(name="pool")(x)
        else:
            x = layers.GlobalAveragePooling2D(name="pool")(x)
        x = layers.Dense(self.num_classes, dtype="float32", name="logits")(x)
        return keras.Model({self.level: features}, x, name=f"{self.name}_head")

    # === Targets ===
    def encode(self, labels: dict, image_size: tuple[int, int] | None = None) -> dict:
        return {"label": self._known(labels["label"])}

    # === Predictions ===
    def decode(self, outputs: Any, geometry: Geometry | None = None) -> dict:
        """Returns `classes` `(batch, num_classes)`, the best first, and their `scores`."""
        probability = ops.softmax(ops.cast(outputs, "float32"), axis=-1)
        scores, classes = ops.top_k(probability, self.num_classes)
        return {"classes": ops.cast(classes, "int32"), "scores": scores}

    def present(self, predictions: dict, score_threshold: float) -> dict:
        kept = predictions["scores"] >= score_threshold
        return {"classes": predictions["classes"][kept], "scores": predictions["scores"][kept]}

    # === Metrics ===
    def image_evaluator(self) -> ByImage:
        return ByImage(Accuracy(self))
