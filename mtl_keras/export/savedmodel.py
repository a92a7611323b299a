"""SavedModel for serving (TensorFlow only): pictures of any size in, predictions out."""

import pathlib
from typing import Any

import keras

from mtl_keras.training.inference import predict_function


def saved_model(model: Any, path: str | pathlib.Path) -> pathlib.Path:
    """Exports a model as a TensorFlow SavedModel.

    The signature `serving_default` takes `images`, uint8 `(batch, height, width, 3)` of any size,
    and gives what clients of the TensorFlow Model Garden expect: `detection_boxes`
    `(batch, n, 4)` as y1, x1, y2, x2 in pixels of the given images, `detection_scores`,
    `detection_classes` (ids from 0) and `num_detections`, best first and padded with zeros; and
    `segmentation_mask` `(batch, height, width)` int32. Letterboxing, suppression and the way back
    to the images' own pixels are in the graph. Neither Keras nor mtl_keras is needed to load it.

    All boxes above the task's `score_threshold` are given; clients choose their own limit.

    Args:
        model: `MultiTaskModel`.
        path: Folder to write; it must not exist, or be empty.

    Returns:
        The folder, as a path.

    Raises:
        ValueError: If `model` is not a `MultiTaskModel`.
        FileExistsError: If the folder holds something already.
        RuntimeError: If the backend is not TensorFlow.

    Example:

    ```python
    import tempfile
    import mtl_keras as mtl
    import tensorflow as tf
    model = mtl.build(
        mtl.trunks.create("efficientnet_lite0", weights=None),
        tasks=[mtl.tasks.Detection(num_classes=2), mtl.tasks.Segmentation(num_classes=3)],
        image_size=(64, 64),
    )
    folder = mtl.export.saved_model(model, tempfile.mkdtemp() + "/model")
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    found = serve(images=tf.zeros((1, 48, 80, 3), "uint8"))
    assert found["segmentation_mask"].shape == (1, 48, 80)
    ```
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "a SavedModel is written with the TensorFlow backend; set KERAS_BACKEND=tensorflow "
            f"before importing keras. The backend is {keras.backend.backend()!r}"
        )
    if not getattr(model, "tasks", None):
        raise ValueError(
            f"`model` must be a `MultiTaskModel` made by `mtl_keras.build`. Received: {model!r}"
        )
    import tensorflow as tf

    path = pathlib.Path(path).expanduser()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"`path` must be a new or empty folder. Received: {str(path)!r}")
    predict = predict_function(model)

    @tf.function(
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")],
        autograph=False,
    )
    def serve(images):
        predictions = predict(images)
        outputs: dict = {}
        for task in model.tasks:
            outputs.update(task.serving_outputs(predictions[task.name]))
        return outputs

    module = tf.Module()
    module.serve = serve
    # What the graph reads has to hang on the module to be saved with it, and nothing else does:
    # strengths of penalties and heads that only training needs stay behind.
    module.variables_of_graph = list(serve.get_concrete_function().graph.variables)
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve})
    return path
