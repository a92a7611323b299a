"""From a model to one of other tasks, with what was learned."""

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from mtl_keras.nearest import did_you_mean
from mtl_keras.sharing.adapters import Adapters, reset
from mtl_keras.sharing.adashare import AdaShare
from mtl_keras.sharing.hard import HardSharing
from mtl_keras.tasks import Task
from mtl_keras.training.convert import Reader, copy_alike, started_anew
from mtl_keras.training.model import MultiTaskModel, heads_of


def with_tasks(model: MultiTaskModel, tasks: Sequence[str | Task]) -> MultiTaskModel:
    """Makes a model of some of a model's tasks, of new ones, or of both.

    Tasks that are named stay as they are: they predict what they predict in `model`. This is
    checked on a picture of noise. Where tasks each have a tower of their own and one task is left,
    it gets a plain network of its tower.

    A new task has a head with random weights on the trunk and the neck of the model. Where the
    tasks of the model each have towers of their own, it gets a copy of that of the task of its
    name, whose place it takes, or else of the first task. If it reads levels that the neck did not
    give, the neck's layers for these are random too; a warning names whatever is random besides
    the heads.

    Args:
        model: `MultiTaskModel`. It is left as it is.
        tasks: List of names of tasks of the model, and of `mtl_keras.tasks.Task` that are new. A
            new task of the name of one of the model's takes its place.

    Returns:
        A new `MultiTaskModel`, not compiled, with the tasks in the order of the list.

    Raises:
        ValueError: If `tasks` is not as described, or a task that is kept can't stay as it is
            without those that are left out, as with cross-stitch units between their towers.

    Example:

    ```python
    import mtl_keras as mtl
    from mtl_keras.training import with_tasks
    model = mtl.build(
        mtl.trunks.create("efficientnet_lite0", weights=None),
        tasks=[mtl.tasks.Detection(num_classes=2), mtl.tasks.Segmentation(num_classes=3)],
        image_size=(64, 64),
    )
    model = with_tasks(model, ["detection", mtl.tasks.BoundaryDistance()])
    assert [task.name for task in model.tasks] == ["detection", "distance"]
    ```
    """
    target, random = retask(model, tasks)
    if random:
        warnings.warn(
            f"besides the heads of new tasks, these have random weights: {', '.join(random)}",
            stacklevel=2,
        )
    return target


def retask(
    model: MultiTaskModel, tasks: Sequence[str | Task], check: bool = True
) -> tuple[MultiTaskModel, list[str]]:
    """Does what `with_tasks` does, and says what is random instead of warning of it.

    Args:
        model: See `with_tasks`.
        tasks: See `with_tasks`.
        check: Whether tasks that stay must predict what they did.

    Returns:
        The model, and the paths of the layers that have random weights besides heads.
    """
    own = {task.name: task for task in model.tasks}
    given = _checked(tasks, model)
    names = [task if isinstance(task, str) else task.name for task in given]
    kept = [task for task in given if isinstance(task, str)]
    target = _build(model, [own[t] if isinstance(t, str) else t for t in given], names)
    heads = {head for name in names if name not in kept for head in heads_of(name)}
    alike = type(target.sharing) is type(model.sharing)
    copied = copy_alike(model, target, heads) if alike else set()
    reader = Reader([model], donor=model.tasks[0].name)
    anew = reader.fill(target, copied | heads) + started_anew(target, copied | heads)
    if isinstance(target.sharing, Adapters):
        for name in set(names) - set(own):
            reset(target, name)
    if check and (changed := _changed(model, target, kept)):
        raise ValueError(
            f"`tasks` must be all of {list(own)}, in this order: by the sharing "
            f"{type(model.sharing).__name__} of {model.name!r}, what {changed} predict follows "
            "from the others too. A new task may take the place of one of its name. To have tasks "
            "apart, convert the whole model first, which changes what they predict: "
            f'`mtl_keras.convert(model, "separate")`. Received: tasks={names}'
        )
    return target, list(dict.fromkeys(_layer(one) for one in anew if " starts anew" in one))


def _checked(tasks: Any, model: MultiTaskModel) -> list[str | Task]:
    """The tasks as a list, or an error that says what is wrong with them."""
    if (
        not isinstance(tasks, (list, tuple))
        or not tasks
        or any(not isinstance(task, (str, Task)) for task in tasks)
    ):
        raise ValueError(
            "`tasks` must be a list of names of tasks and of `mtl_keras.tasks.Task`. "
            f"Received: tasks={tasks!r}"
        )
    own = [task.name for task in model.tasks]
    for name in tasks:
        if isinstance(name, str) and name not in own:
            raise ValueError(
                f"`tasks` names {name!r}, which is no task of {model.name!r}. "
                f"{did_you_mean(name, own)} A new task must be a `mtl_keras.tasks.Task`."
            )
    return list(tasks)


def _build(model: MultiTaskModel, tasks: list[Task], names: list[str]) -> MultiTaskModel:
    config = model.architecture()
    config["tasks"] = [keras.saving.serialize_keras_object(task) for task in tasks]
    sharing = model.sharing
    if len(tasks) < sharing.fewest_tasks:
        sharing = HardSharing(neck_channels=sharing.neck_channels)
    else:
        sharing = _of_tasks(sharing, names)
    config["sharing"] = keras.saving.serialize_keras_object(sharing)
    return MultiTaskModel.from_config(config)


def _of_tasks(sharing: Any, names: list[str]) -> Any:
    """A sharing whose arguments name these tasks only."""
    config = copy.deepcopy(sharing.get_config())
    if isinstance(sharing, HardSharing) and isinstance(config["branch_at"], dict):
        branches = {}
        for key, value in config["branch_at"].items():
            if isinstance(value, str):  # task to stage
                branches.update({key: value} if key in names else {})
            else:  # stage to groups
                groups = [[name for name in group if name in names] for group in value]
                branches[key] = [group for group in groups if group]
        config["branch_at"] = {key: value for key, value in branches.items() if value} or None
    elif isinstance(sharing, AdaShare) and config["policy"]:
        config["policy"] = {k: v for k, v in config["policy"].items() if k in names}
    return type(sharing).from_config(config)


def _changed(one: MultiTaskModel, other: MultiTaskModel, tasks: list[str]) -> list[str]:
    """Those of the tasks for which two models differ in their outputs by more than rounding."""
    if not tasks:
        return []
    trunk = one.trunk
    shape = [side or (64 if trunk.reads_images else 8) for side in trunk.input_shape]
    rng = np.random.default_rng(0)
    if "int" in trunk.input_dtype:
        x = rng.integers(0, 2, (1, *shape)).astype(trunk.input_dtype)
    else:
        x = rng.uniform(0, 255 if trunk.reads_images else 1, (1, *shape)).astype("float32")
    tolerance = 1e-4 if one.dtype_policy.compute_dtype == "float32" else 3e-2

    def differ(a: Any, b: Any) -> bool:
        a, b = (keras.ops.convert_to_numpy(keras.ops.cast(v, "float32")) for v in (a, b))
        return not np.allclose(a, b, rtol=0, atol=tolerance * max(np.abs(a).max(), 1.0))

    before, after = one(x), other(x)
    return [
        task
        for task in tasks
        if any(map(differ, keras.tree.flatten(before[task]), keras.tree.flatten(after[task])))
    ]


def _layer(entry: str) -> str:
    """The layer of an entry such as `"neck starts anew: lateral_P2/kernel"`."""
    outer, _, inner = entry.partition(" starts anew")
    return f"{outer}/{inner[2:].rpartition('/')[0]}" if inner else outer
