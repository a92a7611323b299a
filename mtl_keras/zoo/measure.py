"""Measuring a model as its user sees it: pictures as they are, predictions in their own pixels."""

from typing import Any

import keras
import numpy as np


def measure(
    model: Any, builder: Any, split: str, verbose: bool = True, score_threshold: float = 0.3
) -> dict[str, float]:
    """Measures a model on a split, by the same path as `predict_images`.

    Args:
        model: `MultiTaskModel`.
        builder: TFDS builder, see `mtl_keras.data`.
        split: String, such as `"val"`.
        verbose: Whether to show a progress bar.
        score_threshold: Float, boxes that score less make no instances, as in `predict_images`.

    Returns:
        Dict of metrics. An image that lacks the labels of a task is not measured for it. Boxes are
        compared by the COCO evaluator and masks by IoU over all pixels of all images, both in the
        pixels of the images as they were given. Where the model tells instances apart (see
        `mtl_keras.tasks.instance_tasks`), they are measured too, by panoptic quality and by average
        precision of masks (`instances_PQ`, `instances_AP` …, see `InstanceEvaluator`).
    """
    from mtl_keras.data import examples
    from mtl_keras.metrics import InstanceEvaluator
    from mtl_keras.tasks import instance_tasks
    from mtl_keras.training.inference import predict_function, present

    predict = predict_function(model)
    evaluators = {task.name: task.image_evaluator() for task in model.tasks}
    needs = {task.name: task.needs for task in model.tasks}
    together = instance_tasks(model.tasks)
    instances = None if together is None else InstanceEvaluator(together[0])
    count = builder.info.splits[split].num_examples
    bar = keras.utils.Progbar(count, verbose=1 if verbose else 0, unit_name="image")
    for labels in examples(builder, split).as_numpy_iterator():
        found = {
            name: {k: keras.ops.convert_to_numpy(v)[0] for k, v in predictions.items()}
            for name, predictions in predict(labels["image"][None]).items()
        }
        for name, predictions in found.items():
            if (known := _known(needs[name], labels, name)) is not None:
                evaluators[name].add_image(predictions, known)
        if instances is not None and _known(("boxes", "instances"), labels, "") is not None:
            shown = present(model.tasks, found, score_threshold)
            instances.add_image(shown["instances"], labels)
        bar.add(1)
    metrics = {}
    for evaluator in (*evaluators.values(), *([instances] if instances else [])):
        metrics.update({name: float(value) for name, value in evaluator.result().items()})
    return metrics


def _known(needs: tuple[str, ...], labels: dict, name: str) -> dict | None:
    """The labels of an image for a task, or `None` if it lacks any."""
    if "label" in needs:
        value = labels["values"].get(name, np.nan)
        return {**labels, "label": value} if np.isfinite(value) else None
    return labels if all(labels["labelled"][kind] for kind in needs) else None
