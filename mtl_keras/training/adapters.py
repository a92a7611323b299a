"""What adapters are for: tasks that come and go on one trunk (`mtl_keras.sharing.Adapters`)."""

import hashlib
import json
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from mtl_keras.sharing import adapters as sharings
from mtl_keras.sharing.hard import HardSharing
from mtl_keras.sharing.parts import Part, marked, part_of
from mtl_keras.tasks import Task
from mtl_keras.training.model import MultiTaskModel
from mtl_keras.trunks.fill import variables_by_key

_FORMAT = 1
# Arguments of `Adapters` that a file and a model must agree on, by `kind`.
_COMMON = ("kind", "task_batch_norm", "neck_channels")
_OF_KIND = {"residual": ("rank",), "lora": ("rank", "alpha")}


def add_task(model: MultiTaskModel, task: Task) -> MultiTaskModel:
    """Makes a model with one more task; the other tasks stay as they are, bit by bit.

    The new task's adapters start as nothing, so that it starts on the plain trunk. Train it alone
    with `train_only`.

    Args:
        model: `MultiTaskModel` that shares by `mtl_keras.sharing.Adapters`. It is left alone.
        task: `mtl_keras.tasks.Task` with a name of its own.

    Returns:
        A new `MultiTaskModel`, not compiled, with the weights of `model`.

    Raises:
        ValueError: If the model has no adapters, or has a task of this name.

    Example:

    ```python
    import mtl_keras as mtl
    from mtl_keras.training.adapters import add_task, train_only
    model = mtl.build(
        mtl.trunks.create("efficientnet_lite0", weights=None),
        tasks=[mtl.tasks.Detection(num_classes=2)],
        sharing=mtl.sharing.Adapters("film", stages=["P5"]),
        image_size=(64, 64),
    )
    model = add_task(model, mtl.tasks.Segmentation(num_classes=3))
    train_only(model, "segmentation")
    assert sorted(model.output) == ["detection", "segmentation"]
    ```
    """
    names = _names(model)
    if not isinstance(task, Task):
        raise ValueError(f"`task` must be a `mtl_keras.tasks.Task`. Received: task={task!r}")
    if task.name in names:
        raise ValueError(
            f"`task` must have a name that the model's tasks {names} do not have. "
            f"Received: {task.name!r}"
        )
    config = model.architecture()
    config["tasks"] = [*config["tasks"], keras.saving.serialize_keras_object(task)]
    larger = MultiTaskModel.from_config(config)
    layers = {layer.name: layer for layer in larger.layers}
    for layer in model.layers:
        if layer.weights:
            layers[layer.name].set_weights(layer.get_weights())
    sharings.reset(larger, task.name)
    return larger


def train_only(model: MultiTaskModel, tasks: str | Sequence[str]) -> None:
    """Freezes all that does not belong to some tasks alone; the model must be compiled after it.

    What is frozen keeps its BatchNorm statistics too, so that the outputs of other tasks do not
    change. Called with all tasks, it undoes what it did before. What is frozen is saved with the
    model.

    Args:
        model: `MultiTaskModel` that shares by `mtl_keras.sharing.Adapters`. It is changed.
        tasks: Name of a task, or a list of names.

    Raises:
        ValueError: If the model has no adapters, or there is no such task.

    Example:

    ```python
    import mtl_keras as mtl
    from mtl_keras.training.adapters import train_only
    model = mtl.build(
        mtl.trunks.create("efficientnet_lite0", weights=None),
        tasks=[mtl.tasks.Detection(num_classes=2), mtl.tasks.Segmentation(num_classes=3)],
        sharing=mtl.sharing.Adapters("film", stages=["P5"]),
        image_size=(64, 64),
    )
    train_only(model, "detection")
    assert not model.get_layer("segmentation_head").trainable_variables
    ```
    """
    chosen = {tasks} if isinstance(tasks, str) else set(tasks)
    if not chosen:
        raise ValueError(f"`tasks` must name a task or more. Received: tasks={tasks!r}")
    for name in chosen:
        _check_task(model, name, "tasks")
    frozen = not model.sharing.trainable_trunk

    def visit(layer: Any, part: Part | None) -> None:
        part = part_of(layer) or part
        trained = part is not None and set(part.tasks) <= chosen
        if part is not None and part.name in ("trunk", sharings.KEPT):
            trained = trained and part.name == "trunk" and not frozen
        # A model in between stays trainable, or it would hide what is trainable inside.
        layer.trainable = trained or isinstance(layer, keras.Model)
        for child in layer._flatten_layers(include_self=False, recursive=False):
            visit(child, part)

    for layer in model.layers:
        visit(layer, None)


def save_adapters(model: MultiTaskModel, task: str, path: str | pathlib.Path) -> None:
    """Writes what is one task's own: its adapters and BatchNorms, its neck and its head.

    The file is small, since the trunk is not in it. It is written beside its place and then
    moved there, so that an interruption leaves no half of a file.

    Args:
        model: `MultiTaskModel` that shares by `mtl_keras.sharing.Adapters`.
        task: Name of the task.
        path: File to write, `*.npz`.

    Raises:
        ValueError: If the model has no adapters or no such task, a weight is not finite, or
            `path` does not end with `.npz`.

    Example:

    ```python
    import mtl_keras as mtl
    from mtl_keras.training.adapters import load_adapters, save_adapters
    model = mtl.build(
        mtl.trunks.create("efficientnet_lite0", weights=None),
        tasks=[mtl.tasks.Segmentation(num_classes=3)],
        sharing=mtl.sharing.Adapters("film", stages=["P5"]),
        image_size=(64, 64),
    )
    save_adapters(model, "segmentation", "cells.npz")
    load_adapters(model, "segmentation", "cells.npz")
    ```
    """
    _check_task(model, task)
    path = pathlib.Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"`path` must end with '.npz'. Received: path={str(path)!r}")
    arrays = {
        key: keras.ops.convert_to_numpy(variable)
        for key, variable in _own_variables(model, task).items()
    }
    _check_finite(arrays, f"task {task!r}")
    about = {
        "format": _FORMAT,
        "task": task,
        "trunk": model.trunk.name,
        "trunk_weights": _fingerprint(model, task),
        "sharing": model.sharing.get_config(),
    }
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        try:
            np.savez(file, about=np.array(json.dumps(about)), **arrays)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            file.close()
            os.unlink(file.name)
            raise


def load_adapters(model: MultiTaskModel, task: str, path: str | pathlib.Path) -> None:
    """Reads what `save_adapters` wrote into a task of a model: swaps the task's adapters.

    Nothing is changed unless all of it fits. The task may have another name than the one that
    was saved.

    Args:
        model: `MultiTaskModel` that shares by `mtl_keras.sharing.Adapters`. It is changed.
        task: Name of the task.
        path: File that `save_adapters` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the model has no adapters or no such task, or the file is of something
            else: of another kind or rank, another trunk, a frozen trunk with other weights, or
            other shapes.
    """
    _check_task(model, task)
    about, arrays = _read(path)
    source = f"`path` {str(path)!r} holds adapters"
    if about["trunk"] != model.trunk.name:
        raise ValueError(
            f"{source} of the trunk {about['trunk']!r}, the model has {model.trunk.name!r}"
        )
    theirs, ours = about["sharing"], model.sharing.get_config()
    for argument in (*_COMMON, *_OF_KIND.get(ours["kind"], ())):
        if theirs[argument] != ours[argument]:
            raise ValueError(
                f"{source} with {argument}={theirs[argument]!r}, the model has "
                f"{argument}={ours[argument]!r}"
            )
    variables = _own_variables(model, task)
    if set(arrays) != set(variables):
        raise ValueError(
            f"{source} of other layers than task {task!r} has: only in the file "
            f"{sorted(set(arrays) - set(variables))[:3]}, only in the model "
            f"{sorted(set(variables) - set(arrays))[:3]}"
        )
    for key, variable in variables.items():
        if arrays[key].shape != tuple(variable.shape):
            raise ValueError(
                f"{source} whose {key!r} has shape {arrays[key].shape}, the model needs "
                f"{tuple(variable.shape)}"
            )
    _check_finite(arrays, f"`path` {str(path)!r}")
    frozen = not (theirs["trainable_trunk"] or ours["trainable_trunk"])
    if frozen and about["trunk_weights"] != _fingerprint(model, task):
        raise ValueError(
            f"{source} that were trained on other weights of the trunk {model.trunk.name!r} than "
            "the model has; a frozen trunk must be the one that they were trained on"
        )
    for key, variable in variables.items():
        variable.assign(arrays[key].astype(variable.dtype))


def merge(model: MultiTaskModel, task: str) -> MultiTaskModel:
    """Makes a plain model of one task, with its adapters merged into the trunk's weights.

    It computes the same (to rounding) with fewer layers, and is exported as any other model.

    Args:
        model: `MultiTaskModel` that shares by `mtl_keras.sharing.Adapters`. It is left alone.
        task: Name of the task.

    Returns:
        A `MultiTaskModel` of hard sharing with this one task, not compiled.

    Raises:
        ValueError: If the model has no adapters or no such task.

    Example:

    ```python
    import mtl_keras as mtl
    from mtl_keras.training.adapters import merge
    model = mtl.build(
        mtl.trunks.create("efficientnet_lite0", weights=None),
        tasks=[mtl.tasks.Detection(num_classes=2), mtl.tasks.Segmentation(num_classes=3)],
        sharing=mtl.sharing.Adapters("film", stages=["P5"]),
        image_size=(64, 64),
    )
    plain = merge(model, "segmentation")
    assert list(plain.output) == ["segmentation"]
    ```
    """
    _check_task(model, task)
    config = model.architecture()
    config["tasks"] = [
        described
        for one, described in zip(model.tasks, config["tasks"], strict=True)
        if one.name == task
    ]
    config["sharing"] = keras.saving.serialize_keras_object(
        HardSharing(neck_channels=model.sharing.neck_channels)
    )
    plain = MultiTaskModel.from_config(config)
    adapted = dict(sharings.wrappers(model, task))
    shared = {part.stage: layer for part, layer in marked(model) if part.stage}
    own = _own_parts(model, task)
    for part, layer in marked(plain):
        if part.stage in adapted:
            layer.set_weights(sharings.merged(adapted[part.stage]))
        elif part.stage:
            layer.set_weights(shared[part.stage].get_weights())
        else:
            layer.set_weights(own[_kind(part, task)].get_weights())
    return plain


# === What is a task's own ===
def _own_parts(model: MultiTaskModel, task: str) -> dict[str, Any]:
    """The neck, if there is one, and the head of a task."""
    return {
        _kind(part, task): layer
        for part, layer in marked(model)
        if part.tasks == (task,) and part.stage is None
    }


def _kind(part: Part, task: str) -> str:
    return part.name.removeprefix(f"{task}_")


def _own_variables(model: MultiTaskModel, task: str) -> dict[str, Any]:
    """Variables by keys that do not have the task's name in them."""
    found: dict[str, Any] = {}
    for stage, wrapper in sharings.wrappers(model, task):
        trunk = {id(v) for v in wrapper.base.weights}
        for _, own in wrapper.replaced:
            for variable in own.weights:
                if id(variable) not in trunk:
                    key = f"{stage}/{own.name.removeprefix(f'{task}_')}/{variable.name}"
                    found[key] = variable
    for kind, layer in _own_parts(model, task).items():
        for key, variable in variables_by_key(layer).items():
            found[f"{kind}/{key}"] = variable
    return found


def _fingerprint(model: MultiTaskModel, task: str) -> str:
    """A hash of the weights of the trunk."""
    digest = hashlib.sha256()
    stages = {part.stage: layer for part, layer in marked(model) if part.stage}
    stages |= {stage: wrapper.base for stage, wrapper in sharings.wrappers(model, task)}
    for stage in model.trunk.stages:
        for variable in stages[stage.name].weights:
            digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).tobytes())
    return digest.hexdigest()


def _read(path: str | pathlib.Path) -> tuple[dict, dict[str, np.ndarray]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        about = json.loads(str(arrays.pop("about")))
        known = about["format"]
    except (ValueError, KeyError, TypeError, EOFError, AttributeError, zipfile.BadZipFile):
        raise ValueError(f"`path` {str(path)!r} is no file that `save_adapters` wrote") from None
    if known != _FORMAT:
        raise ValueError(
            f"`path` {str(path)!r} has the format {known!r}, this version reads {_FORMAT!r}"
        )
    return about, arrays


# === Checks ===
def _names(model: Any) -> list[str]:
    if not isinstance(model, MultiTaskModel) or not isinstance(model.sharing, sharings.Adapters):
        raise ValueError(
            "`model` must be a `MultiTaskModel` that shares by `mtl_keras.sharing.Adapters`. "
            f"Received: {model!r}"
        )
    return [task.name for task in model.tasks]


def _check_task(model: Any, task: Any, argument: str = "task") -> None:
    names = _names(model)
    if task not in names:
        raise ValueError(
            f"`{argument}` must name a task of the model, which has {names}. "
            f"Received: {argument}={task!r}"
        )


def _check_finite(arrays: dict[str, np.ndarray], source: str) -> None:
    bad = [key for key, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise ValueError(f"{source} has weights that are not finite: {bad[:3]}")
