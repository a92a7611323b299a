"""Losses of tasks: each over the images that have a label of it, on all devices."""

import functools
from typing import Any

import keras
from keras import ops

from mtl_keras.training import host


class TaskLosses:
    """The part of a model that compares outputs with targets, task by task."""

    tasks: tuple
    sharing: Any

    def labelled_images(self, images: Any, targets: dict, sample_weight: Any = None) -> dict:
        """Counts the images that have a label, of all devices.

        Args:
            images: Images of the batch.
            targets: Dict, task name to targets.
            sample_weight: See `compute_loss`.

        Returns:
            Dict, task name to a float32 scalar.
        """
        batch = ops.cast(ops.shape(keras.tree.flatten(images)[0])[0], "float32")
        counts = {}
        for task in self.tasks:
            weight = weight_of(sample_weight, task.name)
            count = batch if weight is None else ops.sum(has_label(weight))
            counts[task.name] = ops.cast(task.name in targets, "float32") * count
        total = ops.unstack(host.sum_over_replicas(ops.stack(list(counts.values()))))
        return dict(zip(counts, total, strict=True))

    def present(self, targets: dict, sample_weight: Any = None) -> dict:
        """Says which tasks have a label in the batch, on any device.

        Args:
            targets: Dict, task name to targets.
            sample_weight: See `compute_loss`.

        Returns:
            Dict, task name to a boolean: of Python where it is the same for all batches, else a
            tensor.
        """
        found: dict[str, Any] = {}
        for task in self.tasks:
            weight = weight_of(sample_weight, task.name)
            found[task.name] = task.name in targets
            if found[task.name] and weight is not None:
                found[task.name] = host.sum_over_replicas(ops.sum(has_label(weight))) > 0.0
        return found

    def task_losses(self, targets: dict, outputs: dict, sample_weight: Any = None) -> dict:
        """Computes the loss of each task that has targets.

        Args:
            targets: Dict, task name to targets.
            outputs: Dict, task name to raw outputs.
            sample_weight: See `compute_loss`.

        Returns:
            Dict, task name to a float32 scalar.
        """
        unknown = sorted(set(targets) - {task.name for task in self.tasks})
        if unknown:
            raise ValueError(
                f"targets hold unknown tasks {unknown}; the tasks are "
                f"{[task.name for task in self.tasks]}"
            )
        losses = {}
        for task in self.tasks:
            if task.name in targets:
                weight = weight_of(sample_weight, task.name)
                known, loss_of = known_targets(targets[task.name], weight), task.loss
                if weight is not None:
                    loss_of = functools.partial(task.partial_loss, labelled=has_label(weight))
                loss = loss_of(known, outputs[task.name])
                if auxiliary(task.name) in outputs:
                    loss = loss + self.sharing.auxiliary_weight * loss_of(
                        known, outputs[auxiliary(task.name)]
                    )
                labelled = ops.ones_like(loss)
                if weight is not None:
                    labelled = has_label(weight)
                    weighted = loss * ops.reshape(ops.cast(weight, "float32"), (-1,))
                    loss = ops.where(labelled > 0.0, weighted, 0.0)
                # The mean over devices of what each of them has is the loss of the batch.
                count = host.sum_over_replicas(ops.sum(labelled)) / host.replicas()
                losses[task.name] = ops.sum(loss) / ops.where(count > 0.0, count, 1.0)
        return losses


def auxiliary(name: str) -> str:
    """The key of a task's auxiliary outputs among the outputs of a model."""
    return f"{name}_auxiliary"


def has_label(weight: Any) -> Any:
    """1 for images with a weight, also one that is not a number, 0 for others."""
    return ops.cast(ops.not_equal(ops.reshape(weight, (-1,)), 0), "float32")


def known_targets(targets: dict, weight: Any) -> dict:
    """Targets, with zeros for images of weight 0: whatever stands there, even NaN, has no say."""
    if weight is None:
        return targets
    labelled = has_label(weight) > 0.0

    def known(target: Any) -> Any:
        target = ops.convert_to_tensor(target)
        here = ops.reshape(labelled, (-1,) + (1,) * (len(target.shape) - 1))
        return ops.where(here, target, ops.zeros_like(target))

    return keras.tree.map_structure(known, targets)


def weight_of(sample_weight: Any, name: str) -> Any:
    """What `sample_weight` of Keras holds for a task, or `None`."""
    weight = sample_weight.get(name) if isinstance(sample_weight, dict) else sample_weight
    # Keras repeats weights that come with arrays for every array of the targets.
    return keras.tree.flatten(weight)[0] if isinstance(weight, dict) else weight
