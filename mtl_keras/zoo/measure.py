"""Measuring a model as its user sees it: pictures as they are, predictions in their own pixels."""

from typing import Any

import keras
import numpy as np

RESAMPLES = 200


class Measured:
    """What `measure_images` collected of each image; gives metrics of all, or of resamples.

    Args:
        evaluators: List of pairs of an evaluator, whose `result` takes `repeats`, and the numbers
            of the images that were added to it.
        images: Integer, number of images that were looked at.
        scenes: Optional list, what each image shows a part of, where several are of one
            photograph; each is a scene of its own by default.

    Attributes:
        images: Integer, number of images that were looked at.
        scenes: Integer, number of scenes that they show.
    """

    def __init__(
        self, evaluators: list[tuple[Any, list[int]]], images: int, scenes: list | None = None
    ):
        self._evaluators = evaluators
        self.images = images
        known, self._scene_of = np.unique(
            list(range(images)) if scenes is None else scenes, return_inverse=True
        )
        self.scenes = len(known)

    def metrics(self, repeats: Any = None) -> dict[str, float]:
        """Returns the metrics.

        Args:
            repeats: Optional `(images,)` integers, how many times each image counts; once by
                default. An image that counts twice is two images.
        """
        logs: dict[str, float] = {}
        for evaluator, added in self._evaluators:
            own = None if repeats is None else np.asarray(repeats)[added]
            logs.update({name: float(value) for name, value in evaluator.result(own).items()})
        return logs

    def choose_confidence(self) -> bool:
        """Sets the `confidence` of tasks to what is best on these images.

        Returns:
            Whether one changed: what was made of predictions that score enough, as instances are,
            has to be measured again then.
        """
        return any(
            [
                evaluator.choose_confidence()
                for evaluator, _ in self._evaluators
                if hasattr(evaluator, "choose_confidence")
            ]
        )

    def first(self, images: int) -> dict[str, float]:
        """Returns the metrics of the first images alone.

        Args:
            images: Integer, at most so many.
        """
        return self.metrics(np.arange(self.images) < images)

    def bootstrap(self, count: int = RESAMPLES) -> dict[str, np.ndarray]:
        """Returns the metrics of bootstrap resamples over images.

        Images of one scene, as tiles of one photograph, are drawn together. Resamples follow from
        the images alone: of two models that are measured on one split, resample i holds the same
        images, so that differences can be taken pair by pair.

        Args:
            count: Integer, number of resamples.

        Returns:
            Dict, metric to `(count,)` numbers.

        Reference:
            Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 6
        """
        drawn = resamples(self.scenes, count)[:, self._scene_of]
        every = [self.metrics(repeats) for repeats in drawn]
        return {name: np.array([logs[name] for logs in every]) for name in self.metrics()}


def resamples(images: int, count: int = RESAMPLES) -> np.ndarray:
    """Draws bootstrap resamples of images: as many as there are, with replacement.

    Args:
        images: Integer, number of images.
        count: Integer, number of resamples.

    Returns:
        Integers `(count, images)`, how many times each resample holds each image. They are the same
        each time, and the first of many are those of few.

    Example:

    ```python
    from mtl_keras.zoo.measure import resamples
    assert resamples(100, 3).sum(axis=1).tolist() == [100, 100, 100]
    assert (resamples(100, 3) == resamples(100, 5)[:3]).all()
    ```
    """
    generator = np.random.default_rng([2026, images])
    return generator.multinomial(images, np.full(images, 1.0 / images), size=count)


def measure(
    model: Any,
    builder: Any,
    split: str,
    verbose: bool = True,
    score_threshold: float | None = None,
    images: int | None = None,
    columns: dict[str, str] | None = None,
) -> dict[str, float]:
    """Measures a model on a split, by the same path as `predict_images`.

    Args:
        model: `MultiTaskModel`.
        builder: TFDS builder, see `mtl_keras.data`.
        split: String, such as `"val"`.
        verbose: Whether to show a progress bar.
        score_threshold: Optional float, boxes that score less make no instances, as in
            `predict_images`; by default the `confidence` of the task.
        images: Optional integer: only the first so many images of the split, which are always the
            same ones.
        columns: Optional dict, task to the column of its labels, for tasks that have a label for a
            whole image, as `mtl_keras.data.batches` takes it. By default a column with the name of
            the task.

    Returns:
        Dict of metrics. An image that lacks the labels of a task is not measured for it. Boxes are
        compared by the COCO evaluator (`detection_AP` …) and masks by IoU and Dice, over all pixels
        and image by image (`segmentation_mean_iou`, `segmentation_dice_<class>`,
        `segmentation_image_dice_<class>` …, see `mtl_keras.tasks.dice.MaskEvaluator`), both in the
        pixels of the images as they were given. Where the model tells instances apart (see
        `mtl_keras.tasks.instance_tasks`), they are measured too, by panoptic quality and by average
        precision of masks (`instances_PQ`, `instances_AP` …, see `InstanceEvaluator`).

    Raises:
        ValueError: If no image of the split has the labels of a task, or `images` is not positive.

    Example:

    ```python
    import tempfile
    import mtl_keras as mtl
    from mtl_keras.zoo.measure import measure

    digits = mtl.data.digits(train=2, val=3, image_size=(64, 64), data_dir=tempfile.mkdtemp())
    model = mtl.build(
        mtl.trunks.create("efficientnet_lite0", weights=None),
        tasks=[mtl.tasks.Segmentation(num_classes=11)],
        image_size=(64, 64),
    )
    assert 0 <= measure(model, digits, "val", images=2)["segmentation_mean_iou"] <= 1
    ```
    """
    return measure_images(
        model, builder, split, verbose, score_threshold, images, columns
    ).metrics()


def measure_images(
    model: Any,
    builder: Any,
    split: str,
    verbose: bool = True,
    score_threshold: float | None = None,
    images: int | None = None,
    columns: dict[str, str] | None = None,
) -> Measured:
    """Predicts each image of a split once and keeps what metrics, and their resamples, need.

    Args:
        model: See `measure`.
        builder: See `measure`.
        split: See `measure`.
        verbose: See `measure`.
        score_threshold: See `measure`.
        images: See `measure`.
        columns: See `measure`.

    Returns:
        `Measured`.

    Raises:
        ValueError: See `measure`.

    Example:

    ```python
    import tempfile
    import mtl_keras as mtl
    from mtl_keras.zoo.measure import measure_images

    digits = mtl.data.digits(train=2, val=3, image_size=(64, 64), data_dir=tempfile.mkdtemp())
    model = mtl.build(
        mtl.trunks.create("efficientnet_lite0", weights=None),
        tasks=[mtl.tasks.Segmentation(num_classes=11)],
        image_size=(64, 64),
    )
    measured = measure_images(model, digits, "val")
    spread = measured.bootstrap(20)["segmentation_mean_iou"]
    assert spread.min() <= measured.metrics()["segmentation_mean_iou"] <= spread.max()
    ```
    """
    from mtl_keras.data import examples, sets
    from mtl_keras.metrics import InstanceEvaluator
    from mtl_keras.tasks import instance_tasks
    from mtl_keras.training.inference import predict_function, present

    if images is not None and (isinstance(images, bool) or images < 1):
        raise ValueError(f"`images` must be a positive integer or None. Received: {images!r}")
    columns = dict(columns or {})
    if unknown := sorted(set(columns) - {task.name for task in model.tasks}):
        raise ValueError(
            f"`columns` names unknown tasks {unknown}; the tasks are "
            f"{[task.name for task in model.tasks]}"
        )
    predict = predict_function(model)
    needs = {task.name: task.needs for task in model.tasks}
    evaluators = {task.name: (task.image_evaluator(), []) for task in model.tasks}
    together = instance_tasks(model.tasks)
    if together is not None:
        needs["instances"] = ("boxes", "instances")
        evaluators["instances"] = (InstanceEvaluator(together[0]), [])
    count = builder.info.splits[split].num_examples
    count = count if images is None else min(images, count)
    names: list[str] = []
    bar = keras.utils.Progbar(count, verbose=1 if verbose else 0, unit_name="image")
    for number, labels in enumerate(examples(builder, split).take(count).as_numpy_iterator()):
        found = {
            name: {k: keras.ops.convert_to_numpy(v)[0] for k, v in predictions.items()}
            for name, predictions in predict(labels["image"][None]).items()
        }
        if together is not None:
            shown = present(model.tasks, found, score_threshold)
            found["instances"] = shown["instances"]
        for name, (evaluator, added) in evaluators.items():
            known = _known(needs[name], labels, columns.get(name, name))
            if known is not None:
                evaluator.add_image(found[name], known)
                added.append(number)
        names.append(labels["filename"].decode("utf-8"))
        bar.add(1)
    for task in model.tasks:
        if not evaluators[task.name][1]:
            column = f" Its labels are looked for in column {columns.get(task.name, task.name)!r}."
            raise ValueError(
                f"no image of split {split!r} has the labels that task {task.name!r} is measured "
                f"by.{column if 'label' in task.needs else ''}"
            )
    scene = sets.scene_of(builder)
    scenes = None if scene is None else [scene(name) for name in names]
    return Measured([pair for pair in evaluators.values() if pair[1]], count, scenes)


def _known(needs: tuple[str, ...], labels: dict, column: str) -> dict | None:
    """The labels of an image for a task, or `None` if it lacks any."""
    if "label" in needs:
        value = labels["values"].get(column, np.nan)
        return {**labels, "label": value} if np.isfinite(value) else None
    return labels if all(labels["labelled"][kind] for kind in needs) else None
