"""Distance to the boundary: a number for each pixel that tells touching objects apart."""

from typing import Any

import keras
from keras import layers, ops

from mtl_keras.tasks.by_image import ByImage
from mtl_keras.tasks.distance_transform import instance_distances
from mtl_keras.tasks.resize import Enlarge, resize
from mtl_keras.tasks.task import Geometry, Task

IGNORE = -1.0
PADDING = 255
BETA = 0.1
PRIOR = -2.0


@keras.saving.register_keras_serializable(package="mtl_keras")
class BoundaryDistance(Task):
    """Gives each pixel of an object its distance to the boundary of that object, 0 elsewhere.

    The distance is the Euclidean one to the nearest pixel that is not of the same instance, be it
    background or another object, divided by the largest such distance of the instance. So every
    object is a hill that rises from its boundary to 1, with a valley between objects that touch,
    where a mask has none: one threshold finds the tops of small and of large objects, and a
    watershed from there gives each its pixels. Distances in pixels would leave small objects as
    low as the slopes of large ones, and large ones would rule the loss.

    - An object of one pixel, or of one line, is 1.
    - The edge of the picture, and of the window that training shows, is no boundary: an object
      that it cuts off goes on there, and is measured by the boundary that is seen. An object
      without any is 1.
    - Padding, crowds, and objects of which too little is in the window are ignored.

    The head is that of `Segmentation` with one channel, and a sigmoid. The loss is smooth L1 (with
    beta 0.1): its mean over the pixels of objects and its mean over the others are averaged, so
    that objects count in an image as much as all of its background, however small they are. An
    image without objects has the second alone.

    Targets are `{"distance": float32 (batch, height, width)}` in [0, 1], -1 where ignored. This
    task has no classes: its `num_classes` is 1, the number of channels.

    Args:
        levels: Tuple of pyramid levels that the head reads.
        channels: Integer, width of the head.
        name: String, name of the task.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        - Schmidt et al. 2018, "Cell Detection with Star-Convex Polygons", section 2: the object
          probabilities, which are this number
        - Naylor et al. 2018, "Segmentation of Nuclei in Histopathology Images by Deep Regression
          of the Distance Map"
        - Girshick 2015, "Fast R-CNN", equation 3 (smooth L1)

    Example:

    ```python
    import numpy as np
    import mtl_keras as mtl
    task = mtl.tasks.BoundaryDistance()
    two = np.pad(np.array([[1, 1, 1, 2, 2, 2]] * 3), 1)  # three by three pixels each, touching
    labels = {"instances": two, "mask": np.minimum(two, 1), "is_crowd": np.zeros(2, bool)}
    distance = task.encode(labels, two.shape)["distance"]
    assert distance[2].numpy().tolist() == [0, 0.5, 1, 0.5, 0.5, 1, 0.5, 0]
    ```
    """

    needs = ("instances", "mask")

    def __init__(
        self,
        levels: tuple[str, ...] = ("P2", "P3", "P4", "P5"),
        channels: int = 64,
        name: str = "distance",
    ):
        super().__init__(1, name)
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

    def get_config(self) -> dict:
        return {"levels": list(self.levels), "channels": self.channels, "name": self.name}

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
        # Most pixels are 0: the first numbers are about 0.1, not 0.5.
        prior = keras.initializers.Constant(PRIOR)
        x = layers.Conv2D(1, 1, bias_initializer=prior, dtype="float32", name="logits")(x)
        x = Enlarge(2**finest, dtype="float32", name="enlarge")(x)
        # After the enlargement, so that slopes may be as steep as the picture's pixels.
        x = layers.Activation("sigmoid", dtype="float32", name="output")(x)
        return keras.Model(inputs, x, name=f"{self.name}_head")

    # === Targets ===
    def encode(self, labels: dict, image_size: tuple[int, int]) -> dict:
        import tensorflow as tf

        instances = tf.cast(labels["instances"], "int32")
        mask = tf.cast(labels["mask"], "int32")
        nothing = instances == 0
        # Padding surrounds the picture; crowds that are not listed have its number.
        picture = ~(nothing & (mask == PADDING))
        rows, columns = (_between(tf.reduce_any(picture, axis)) for axis in (1, 0))
        distance = instance_distances(instances, rows[:, None] & columns[None, :])

        count = tf.maximum(tf.reduce_max(instances), tf.size(labels["is_crowd"])) + 1
        largest = tf.math.unsorted_segment_max(distance, instances, count)
        crowd = tf.pad(
            tf.cast(labels["is_crowd"], "bool"), [[1, count - 1 - tf.size(labels["is_crowd"])]]
        )
        relative = tf.math.divide_no_nan(distance, tf.gather(largest, instances))
        unknown = (nothing & (mask != 0)) | tf.gather(crowd, instances)
        distance = tf.where(unknown, IGNORE, relative)
        return {"distance": tf.ensure_shape(distance, image_size)}

    # === Loss ===
    def loss(self, targets: dict, outputs: Any) -> Any:
        truth = ops.cast(targets["distance"], "float32")
        error = ops.abs(ops.cast(outputs, "float32")[..., 0] - ops.maximum(truth, 0.0))
        error = ops.where(error < BETA, 0.5 * error * error / BETA, error - 0.5 * BETA)
        object_, background = parts(truth)
        means, shown = [], []
        for part in (object_, background):
            count = ops.sum(ops.cast(part, "float32"), axis=(1, 2))
            total = ops.sum(ops.where(part, error, 0.0), axis=(1, 2))
            means.append(total / ops.maximum(count, 1.0))
            shown.append(ops.cast(count > 0.0, "float32"))
        return (means[0] + means[1]) / ops.maximum(shown[0] + shown[1], 1.0)

    # === Predictions ===
    def decode(self, outputs: Any, geometry: Geometry | None = None) -> dict:
        """Returns `distance` `(batch, height, width)`, float32 in [0, 1].

        It is relative to the object's own size, so that it is the same number in a picture's own
        pixels and in those of the model.
        """
        distance = ops.cast(outputs, "float32")
        if geometry is not None:
            height, width = geometry.content
            distance = resize(distance[:, :height, :width], geometry.original)
        return {"distance": distance[..., 0]}

    def present(self, predictions: dict, score_threshold: float) -> dict:
        return {"distance": predictions["distance"].astype("float32")}

    def serving_outputs(self, predictions: dict) -> dict:
        return {f"{self.name}_map": predictions["distance"]}

    # === Metrics ===
    def metrics(self) -> list[keras.metrics.Metric]:
        return [DistanceError(self)]

    def image_evaluator(self) -> ByImage:
        return ByImage(DistanceError(self))


def _between(any_: Any) -> Any:
    """From the first true element to the last one."""
    import tensorflow as tf

    counts = tf.cast(any_, "int32")
    return (tf.cumsum(counts) > 0) & (tf.cumsum(counts, reverse=True) > 0)


def parts(truth: Any) -> tuple[Any, Any]:
    """Splits pixels by their target: those of objects, and background; the rest is ignored.

    A target that is not a number is an object's, so that it does not go unnoticed.
    """
    background = truth == 0.0
    return ops.logical_not(ops.logical_or(background, truth < 0.0)), background


class DistanceError(keras.metrics.Metric):
    """Errors of distances over all pixels, relative to each object's largest distance.

    `result()` gives `mae` and `rmse`, the mean absolute error and the root of the mean squared
    error over the pixels of objects, and `background_mae`, the mean prediction where no object
    is; all prefixed with the name of the task.

    Args:
        task: The `BoundaryDistance` whose outputs are measured.
    """

    def __init__(self, task: BoundaryDistance):
        super().__init__(name=f"{task.name}_error", dtype="float32")
        self.task = task
        # float32 stops counting at 2**24.
        self.sums = {
            name: self.add_variable((), "zeros", dtype="float64", name=name)
            for name in ("absolute", "squared", "count", "background", "background_count")
        }

    def update_state(self, targets: dict, outputs: Any, sample_weight: Any = None) -> None:
        """Adds a batch; images whose `sample_weight` is zero are left out."""
        self._add(targets["distance"], self.task.decode(outputs)["distance"], sample_weight)

    def add_image(self, predictions: dict, labels: dict) -> None:
        """Adds the predictions of one image, in its own pixels, and its labels."""
        truth = self.task.encode(labels, predictions["distance"].shape)["distance"]
        self._add(ops.convert_to_tensor(truth)[None], predictions["distance"][None], None)

    def _add(self, truth: Any, found: Any, sample_weight: Any) -> None:
        truth = ops.cast(truth, "float32")
        error = ops.abs(ops.cast(found, "float32") - ops.maximum(truth, 0.0))
        object_, background = parts(truth)
        if sample_weight is not None:
            shown = ops.reshape(ops.cast(sample_weight, "float32") > 0.0, (-1, 1, 1))
            object_, background = (ops.logical_and(p, shown) for p in (object_, background))
        for name, values, part in (
            ("absolute", error, object_),
            ("squared", error * error, object_),
            ("count", ops.ones_like(error), object_),
            ("background", error, background),
            ("background_count", ops.ones_like(error), background),
        ):
            total = self.sums[name]
            total.assign_add(ops.cast(ops.sum(ops.where(part, values, 0.0)), total.dtype))

    def result(self) -> dict:
        """Returns the errors as a dict of scalars in [0, 1]."""
        sums, prefix = self.sums, self.task.name
        count = ops.maximum(sums["count"], 1.0)
        return {
            f"{prefix}_mae": sums["absolute"] / count,
            f"{prefix}_rmse": ops.sqrt(sums["squared"] / count),
            f"{prefix}_background_mae": sums["background"]
            / ops.maximum(sums["background_count"], 1.0),
        }
