"""Measuring a model as its user sees it: pictures as they are, predictions in their own pixels."""

from typing import Any

import keras
import numpy as np


def measure(model: Any, builder: Any, split: str, verbose: bool = True) -> dict[str, float]:
    """Measures a model on a split, by the same path as `predict_images`.

    Args:
        model: `MultiTaskModel`.
        builder: TFDS builder, see `mtl_keras.data`.
        split: String, such as `"val"`.
        verbose: Whether to show a progress bar.

    Returns:
        Dict of metrics. An image that lacks the labels of a task is not measured for it. Boxes are
        compared by the COCO evaluator and masks by IoU over all pixels of all images, both in the
        pixels of the images as they were given.
    """
    from mtl_keras.data import examples
    from mtl_keras.training.inference import predict_function

    predict = predict_function(model)
    evaluators = {task.name: task.image_evaluator() for task in model.tasks}
    needs = {task.name: task.needs for task in model.tasks}
    count = builder.info.splits[split].num_examples
    bar = keras.utils.Progbar(count, verbose=1 if verbose else 0, unit_name="image")
    for labels in examples(builder, split).as_numpy_iterator():
        for name, predictions in predict(labels["image"][None]).items():
            if (known := _known(needs[name], labels, name)) is not None:
                predictions = {k: keras.ops.convert_to_numpy(v)[0] for k, v in predictions.items()}
                evaluators[name].add_image(predictions, known)
        bar.add(1)
    metrics = {}
    for evaluator in evaluators.values():
        metrics.update({name: float(value) for name, value in evaluator.result().items()})
    return metrics


def _known(needs: tuple[str, ...], labels: dict, name: str) -> dict | None:
    """The labels of an image for a task, or `None` if it lacks any."""
    if "label" in needs:
        value = labels["values"].get(name, np.nan)
        return {**labels, "label": value} if np.isfinite(value) else None
    return labels if all(labels["labelled"][kind] for kind in needs) else None
