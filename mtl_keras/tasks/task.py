"""The contract of a task."""

from typing import Any, NamedTuple

import keras


class Geometry(NamedTuple):
    """How an image was letterboxed: it was resized, then placed at the top left of the canvas.

    Attributes:
        content: `(height, width)` of the resized image on the canvas, in model pixels.
        original: `(height, width)` of the image itself, in its own pixels.
    """

    content: tuple[Any, Any]
    original: tuple[Any, Any]


class Task:
    """Base class: what one task brings to a multi-task network.

    A task is a description. It holds no variables: `head` makes a new Keras model each time,
    and everything else is a pure function of tensors. Subclasses implement `head`, `encode`,
    `loss`, `decode` and `get_config`, and set `levels`.

    Args:
        num_classes: Integer, number of classes (the subclass says what it counts).
        name: String, key of this task in targets, outputs, predictions and logs.
        class_names: Optional list of `num_classes` strings.

    Attributes:
        levels: Tuple of pyramid levels (`"P2"` … `"P5"`) that the head reads, or `("sequence",)`.
        needs: Tuple of the kinds of labels without which an image says nothing about the task:
            `"boxes"`, `"mask"`, `"instances"`, `"label"` (of the whole image).
        causal: Boolean, whether features of a step must not depend on later steps of a sequence.
        tie_embeddings: Boolean, whether the head uses the trunk's embedding of tokens. Its method
            `head` is then given that layer as `embedding`.
    """

    levels: tuple[str, ...]
    needs: tuple[str, ...] = ()
    causal = False
    tie_embeddings = False

    def __init__(self, num_classes: int, name: str, class_names: list[str] | None = None):
        least = self.fewest_classes
        if isinstance(num_classes, bool) or not hasattr(num_classes, "__index__"):
            raise ValueError(
                f"`num_classes` of task {name!r} must be an integer of at least {least}. "
                f"Received: num_classes={num_classes!r}"
            )
        self.num_classes = int(num_classes)
        if self.num_classes < least:
            raise ValueError(
                f"`num_classes` of task {name!r} must be at least {least}. "
                f"Received: num_classes={num_classes!r}"
            )
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"`name` of a task must be an identifier. Received: name={name!r}")
        if class_names is not None and len(class_names) != self.num_classes:
            raise ValueError(
                f"`class_names` of task {name!r} must hold num_classes={num_classes} names. "
                f"Received {len(class_names)}: class_names={class_names!r}"
            )
        self.name = name
        self.class_names = list(class_names) if class_names is not None else None

    fewest_classes = 1
    # What scores less is not shown by `predict_images`, unless it is told another limit.
    confidence = 0.3

    def class_name(self, index: int) -> str:
        """Returns the name of a class, or its number where no names were given."""
        return self.class_names[index] if self.class_names else str(index)

    def head(self, channels: dict[str, int]) -> keras.Model:
        """Makes the head: a new model with new variables.

        Args:
            channels: Dict, pyramid level to the number of channels of its features.

        Returns:
            A `keras.Model` from a dict of features, level to `(batch, height, width, channels)`,
            to the raw outputs of this task.
        """
        raise NotImplementedError

    def encode(self, labels: dict, image_size: tuple[int, int]) -> dict:
        """Turns the ground truth of one image into training targets (`tf.data`, TensorFlow only).

        Args:
            labels: Dict of tensors of one image, see `mtl_keras.data.batches`.
            image_size: `(height, width)` of the image in pixels.

        Returns:
            Dict of tensors of static shape, so that images can be batched.
        """
        raise NotImplementedError

    def loss(self, targets: dict, outputs: Any) -> Any:
        """Computes the loss of each image.

        Args:
            targets: Batched targets, as `encode` made them.
            outputs: Raw outputs of the head.

        Returns:
            Float32 tensor of shape `(batch,)`. Its mean is the loss of the task.
        """
        raise NotImplementedError

    def partial_loss(self, targets: dict, outputs: Any, labelled: Any) -> Any:
        """Computes the loss of each image of a batch in which images may lack the task's labels.

        A task in whose `loss` images depend on each other, as by a mean over the batch, leaves the
        images without labels out of that here; others need not define it.

        Args:
            targets: Batched targets, zeros for images without labels.
            outputs: Raw outputs of the head.
            labelled: Float32 tensor of shape `(batch,)`, 1 for images that have labels, else 0.

        Returns:
            Float32 tensor of shape `(batch,)`, finite, of which those without labels do not count.
        """
        return self.loss(targets, outputs)

    def decode(self, outputs: Any, geometry: Geometry | None = None) -> dict:
        """Turns raw outputs into predictions, in the graph.

        Args:
            outputs: Raw outputs of the head.
            geometry: `Geometry` that all images of the batch share. With it, predictions are in
                the pixels of the image that was given; without, in the pixels of the model.

        Returns:
            Dict of tensors, each with a leading batch dimension.
        """
        raise NotImplementedError

    def present(self, predictions: dict, score_threshold: float) -> dict:
        """Turns the predictions of one image (NumPy, no batch dimension) into what a user sees."""
        raise NotImplementedError

    def serving_outputs(self, predictions: dict) -> dict:
        """Names the predictions as the clients of an exported model expect them."""
        raise NotImplementedError

    def metrics(self) -> list[keras.metrics.Metric]:
        """Makes metrics that are updated in the graph with `update_state(targets, outputs, w)`."""
        return []

    def evaluator(self) -> Any:
        """Makes the evaluator that runs on the host, or `None`.

        It has `reset()`, `result() -> dict`, `update(**arrays)`, and
        `inputs(targets, outputs) -> dict` of tensors, which is what `update` is called with.
        """
        return None

    def image_evaluator(self) -> Any:
        """Makes the evaluator of predictions in the images' own pixels, on the host.

        It has `add_image(predictions, labels)`, with the predictions of one image as `decode` made
        them (NumPy, no batch dimension) and its labels (see `mtl_keras.data.examples`), and
        `result(repeats=None) -> dict`, where `repeats` are integers: how many times each image
        that was added counts, once by default. An image that counts twice is two images.
        """
        raise NotImplementedError

    def get_config(self) -> dict:
        """Returns the arguments that make an equal task."""
        return {
            "num_classes": self.num_classes,
            "name": self.name,
            "class_names": self.class_names,
        }

    @classmethod
    def from_config(cls, config: dict) -> "Task":
        """Makes the task that `get_config` described."""
        return cls(**config)
