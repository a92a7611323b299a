"""From pictures of any size to predictions in each picture's own pixels."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from mtl_keras.data.images import read_image
from mtl_keras.data.letterbox import MAX_ENLARGEMENT, MULTIPLE, PAD_VALUE
from mtl_keras.tasks import Geometry, fuse_instances, instance_tasks


def predict_images(
    model: Any, images: list, score_threshold: float | None = None, verbose: bool = False
) -> list[dict]:
    """See `MultiTaskModel.predict_images`."""
    if score_threshold is not None and not 0.0 <= score_threshold <= 1.0:
        raise ValueError(
            f"`score_threshold` must be in [0, 1]. Received: score_threshold={score_threshold}"
        )
    if isinstance(images, (str, bytes)) or hasattr(images, "__fspath__"):
        raise ValueError(f"`images` must be a list of images. Received one path: {images!r}")
    if not isinstance(images, (list, tuple)) and len(getattr(images, "shape", ())) in (2, 3):
        raise ValueError(
            "`images` must be a list of images, or a batch of them. Received one image of shape "
            f"{tuple(images.shape)}"
        )
    predict = predict_function(model)
    bar = keras.utils.Progbar(len(images), verbose=1 if verbose else 0, unit_name="image")
    results = []
    for image in images:
        pixels = read_image(image)
        found = {
            name: {key: keras.ops.convert_to_numpy(value)[0] for key, value in predictions.items()}
            for name, predictions in predict(pixels[None]).items()
        }
        results.append(present(model.tasks, found, score_threshold))
        bar.add(1)
    return results


def present(tasks: Any, found: dict, score_threshold: float | None = None) -> dict:
    """Makes of the predictions of one image what its user sees, with instances where there are any.

    Args:
        tasks: The tasks of the model.
        found: Dict, task name to predictions (NumPy, no batch dimension).
        score_threshold: Float, boxes that score less are left out; by default the `confidence` of
            each task.

    Returns:
        Dict, task name to predictions, and `instances` where `instance_tasks` finds tasks for it.
    """
    shown = {
        task.name: task.present(
            found[task.name], task.confidence if score_threshold is None else score_threshold
        )
        for task in tasks
    }
    together = instance_tasks(tasks)
    if together is not None and "instances" not in shown:
        detection, segmentation, distance = together
        boxes = shown[detection.name]
        near = None if distance is None else shown[distance.name]["distance"]
        mask = shown[segmentation.name]["mask"]
        mask = fuse_instances(boxes["boxes"], boxes["classes"], mask, near, boxes["scores"])
        shown["instances"] = {"mask": mask, **boxes}
    return shown


def predict_function(model: Any) -> Callable:
    """Returns the compiled function from one size of uint8 images to predictions.

    Args:
        model: `MultiTaskModel`.

    Returns:
        A function of `(batch, height, width, 3)` uint8 images, all of one size, that gives a
        dict, task name to predictions in the pixels of those images. It is made anew when the
        image size of the model or a setting of its tasks was changed.

    Raises:
        ValueError: If the model reads sequences.
    """
    trunk = getattr(model, "trunk", None)
    if trunk is not None and not trunk.reads_images:
        raise ValueError(
            f"`model` must read images; its trunk {trunk.name!r} reads sequences. Use "
            "`model.predict(sequences)`, and `task.decode` on the outputs of each task"
        )
    settings = _settings(model)
    made_for, made = getattr(model, "_predict_images_function", (None, None))
    if made_for != settings:
        made = _tensorflow(model) if keras.backend.backend() == "tensorflow" else _eager(model)
        model._predict_images_function = (settings, made)
    return made


def _settings(model: Any) -> str:
    """What the function of a model is made of besides weights, in words."""
    # Boxes are chosen by their confidence afterwards.
    tasks = [
        {key: value for key, value in task.get_config().items() if key != "confidence"}
        for task in model.tasks
    ]
    return repr((tuple(model.image_size), tasks))


def _tensorflow(model: Any) -> Callable:
    import tensorflow as tf

    from mtl_keras.data.letterbox import letterbox

    network, names = model, [task.name for task in model.tasks]
    if isinstance(model, keras.Model) and set(model.output) != set(names):
        # Without auxiliary outputs, which only training needs.
        network = keras.Model(model.inputs, {name: model.output[name] for name in names})

    @tf.function(
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")],
        autograph=False,
    )
    def predict(images):
        height, width = tf.unstack(tf.shape(images)[1:3])
        canvas, content = letterbox(images, model.image_size, trim=True)
        outputs = network(canvas, training=False)
        return _decode(model, outputs, Geometry(content, (height, width)))

    return predict


def _eager(model: Any) -> Callable:
    """Other backends: the network is compiled by Keras, the rest runs as it is called."""

    def predict(images):
        original = images.shape[1:3]
        scale = min(to / of for to, of in zip(model.image_size, original, strict=True))
        scale = min(scale, MAX_ENLARGEMENT)
        content = tuple(
            min(max(round(side * scale), 1), limit)
            for side, limit in zip(original, model.image_size, strict=True)
        )
        resized = ops.image.resize(ops.cast(images, "float32"), content, antialias=True)
        pad = [(0, -side % MULTIPLE) for side in content]
        canvas = ops.pad(resized, [(0, 0), *pad, (0, 0)], constant_values=PAD_VALUE)
        outputs = model.predict_on_batch(canvas)
        return _decode(model, outputs, Geometry(content, original))

    return predict


def _decode(model: Any, outputs: dict, geometry: Geometry) -> dict:
    return {task.name: task.decode(outputs[task.name], geometry) for task in model.tasks}
