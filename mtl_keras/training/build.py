"""From a trunk, tasks and a way to share to a model."""

from typing import Any

import keras

from mtl_keras import sharing as sharings
from mtl_keras import trunks
from mtl_keras.sharing.embedding import head_of
from mtl_keras.sharing.parts import mark
from mtl_keras.tasks import Task, instance_tasks
from mtl_keras.training.losses import auxiliary
from mtl_keras.training.model import MultiTaskModel


def build(
    trunk: Any,
    tasks: list[Task],
    sharing: Any = "hard",
    image_size: tuple[int, int] = (320, 320),
    name: str | None = None,
) -> MultiTaskModel:
    """Builds one network for several tasks.

    Args:
        trunk: `mtl_keras.trunks.Trunk`, or what `mtl_keras.trunks.create` makes one of: a
            registered name, a `keras_hub` backbone or a `keras.applications` model.
        tasks: List of `mtl_keras.tasks.Task`, with different names.
        sharing: `mtl_keras.sharing.Sharing`, or a registered name.
        image_size: `(height, width)` in pixels, multiples of 32: the size to which images are
            letterboxed for prediction. Training may use other sizes where the trunk allows it.
            It means nothing where the trunk reads sequences.
        name: Optional string, name of the model.

    Returns:
        A `MultiTaskModel`, not compiled. Its input is `(batch, height, width, 3)` in [0, 255], or
        the sequences that the trunk reads; its outputs are a dict, task name to raw outputs.

    Raises:
        ValueError: If an argument is not as described.

    Example:

    ```python
    import mtl_keras as mtl
    model = mtl.build(
        mtl.trunks.create("efficientnet_lite0", weights=None),
        tasks=[mtl.tasks.Detection(num_classes=10), mtl.tasks.Segmentation(num_classes=11)],
        sharing="hard",
        image_size=(64, 64),
    )
    assert sorted(model.output) == ["detection", "segmentation"]
    ```
    """
    if not isinstance(trunk, trunks.Trunk):
        trunk = trunks.create(trunk)
    tasks = [tasks] if isinstance(tasks, Task) else tasks
    if (
        not isinstance(tasks, (list, tuple))
        or not tasks
        or any(not isinstance(task, Task) for task in tasks)
    ):
        raise ValueError(f"`tasks` must be a list of `mtl_keras.tasks.Task`. Received: {tasks!r}")
    tasks = tuple(tasks)
    names = [task.name for task in tasks]
    if len(set(names)) != len(names):
        raise ValueError(f"`tasks` must have different names. Received names: {names}")
    if "instances" in names and instance_tasks(tasks) is not None:
        raise ValueError(
            "no task may be named 'instances' beside a detection and a segmentation task of the "
            f"same classes, whose instances have that name. Received names: {names}"
        )
    if (
        not isinstance(image_size, (list, tuple))
        or len(image_size) != 2
        or any(not hasattr(side, "__index__") or side < 32 or side % 32 for side in image_size)
    ):
        raise ValueError(
            "`image_size` must be (height, width), both positive multiples of 32. "
            f"Received: image_size={image_size!r}"
        )
    image_size = tuple(int(side) for side in image_size)
    sharing = sharings.get(sharing)
    sharing.check(trunk, tasks)
    for task in tasks:
        if task.causal and not trunk.causal:
            raise ValueError(
                f"task {task.name!r} predicts what comes next, but trunk {trunk.name!r} is not "
                "causal: it would see what it has to predict; give a transformer `causal=True`"
            )

    kind = "image" if trunk.reads_images else "sequence"
    inputs = keras.Input(trunk.input_shape, dtype=trunk.input_dtype, name=kind)
    features = sharing.features(inputs, trunk, tasks)
    outputs = {}
    for task in tasks:
        own = dict(features[task.name])
        if "auxiliary" in own:
            outputs[auxiliary(task.name)] = own.pop("auxiliary")
        head = head_of(task, inputs, own)
        outputs[task.name] = mark(head, head.name, (task.name,))(own)
    return MultiTaskModel(
        inputs,
        outputs,
        trunk=trunk,
        tasks=tasks,
        sharing=sharing,
        image_size=image_size,
        name=name,
    )
