"""Measuring a model as its user sees it: pictures as they are, predictions in their own pixels."""

from typing import Any

import keras


def measure(model: Any, builder: Any, split: str, verbose: bool = True) -> dict[str, float]:
    """Measures a model on a split, by the same path as `predict_images`.

    Args:
        model: `MultiTaskModel`.
        builder: TFDS builder, see `mtl_keras.data`.
        split: String, such as `"val"`.
        verbose: Whether to show a progress bar.

    Returns:
        Dict of metrics. Boxes are compared by the COCO evaluator and masks by IoU over all pixels
        of all images, both in the pixels of the images as they were given.
    """
    from mtl_keras.data import examples
    from mtl_keras.training.inference import predict_function

    predict = predict_function(model)
    evaluators = {task.name: task.image_evaluator() for task in model.tasks}
    count = builder.info.splits[split].num_examples
    bar = keras.utils.Progbar(count, verbose=1 if verbose else 0, unit_name="image")
    for labels in examples(builder, split).as_numpy_iterator():
        for name, predictions in predict(labels["image"][None]).items():
            predictions = {k: keras.ops.convert_to_numpy(v)[0] for k, v in predictions.items()}
            evaluators[name].add_image(predictions, labels)
        bar.add(1)
    metrics = {}
    for evaluator in evaluators.values():
        metrics.update({name: float(value) for name, value in evaluator.result().items()})
    return metrics
