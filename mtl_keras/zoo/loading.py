"""From a name to a model."""

import copy
import os
import warnings
from typing import Any

from mtl_keras.nearest import did_you_mean
from mtl_keras.zoo.registry import Found, find
from mtl_keras.zoo.save import CARD, WEIGHTS

DTYPES = ("float32", "mixed_float16", "mixed_bfloat16")


def load(
    name: str | os.PathLike,
    *,
    num_classes: dict[str, int] | None = None,
    tasks: list | None = None,
    weights: bool = True,
    image_size: tuple[int, int] | None = None,
    trainable: str = "all",
    dtype: str | None = None,
) -> Any:
    """Loads a model: a published one, one of a folder, or one of a hub.

    What has random weights are the heads of tasks in `num_classes` and of new ones in `tasks`,
    besides which nothing has, unless a warning names it.

    Args:
        name: One of

            - a name of `list_models()`, or a pattern with shell wildcards that matches one,
            - a folder, as `save_to_zoo` writes it: a path object, a string with a separator, or
              the name of a folder in the working directory that is no published model's,
            - `"hf://org/repo"`, `"hf://org/repo@revision/folder"`: a repository of Hugging Face,
            - `"kaggle://owner/model/framework/variation"`, with `"/version"` at will.

            Models of hubs need `pip install 'mtl-keras[share]'`. They stay in the cache of the
            hub's own library, from where they are loaded without the network too, if it is told so
            (`HF_HUB_OFFLINE=1`; at Kaggle, by naming a version). Downloads that break off go on, as
            `mtl_keras.zoo.sources.fetch` says.
        num_classes: Optional dict, task name to a number of classes of your own (background counts
            for segmentation). These tasks get new heads; trunk, neck and the other heads keep
            their pretrained weights.
        tasks: Optional list of what the network shall do, in order: names of tasks that the model
            has, which predict what they did if they have their weights, and
            `mtl_keras.tasks.Task` that are new, or take the place of one of their name. By default
            all that the model has. See `mtl_keras.training.with_tasks`.
        weights: Whether the model has its pretrained weights. If not, all of it is random, and the
            file of its weights is not needed.
        image_size: Optional `(height, width)` in pixels, multiples of 32, to letterbox images to,
            in place of the size that the card gives.
        trainable: `"all"`, or `"heads"` to freeze everything else, BatchNorm's statistics too, but
            for layers that are new with `tasks`. It is saved with the model.
        dtype: Optional `"float32"`, `"mixed_float16"` or `"mixed_bfloat16"`: what the network
            computes in, by default what the card says. Variables are float32 in each of them.

    Returns:
        A `mtl_keras.MultiTaskModel`, not compiled.

    Raises:
        ValueError: If there is no such model, a file of it is damaged, an argument is not as
            described, or a task can't be had without the others.
        FileNotFoundError: If a folder, an address or a file of the model does not exist.
        ConnectionError: If a hub can't be reached, and its cache does not hold the model.
        ImportError: If the library of a hub is not installed.

    Example:

    ```python
    import mtl_keras as mtl
    model = mtl.zoo.load(
        "efficientnet_lite0_hard_nuclei", num_classes={"detection": 3, "segmentation": 4}
    )
    assert [task.num_classes for task in model.tasks] == [3, 4]
    model = mtl.zoo.load(
        "efficientnet_lite0_hard_nuclei",
        tasks=["segmentation", mtl.tasks.BoundaryDistance()],
        trainable="heads",
    )
    assert [task.name for task in model.tasks] == ["segmentation", "distance"]
    ```
    """
    _check("weights", weights, (True, False))
    _check("trainable", trainable, ("all", "heads"))
    if dtype is not None:
        _check("dtype", dtype, DTYPES)
    if image_size is not None and not isinstance(image_size, (tuple, list)):
        raise ValueError(
            "`image_size` must be (height, width), multiples of 32. "
            f"Received: image_size={image_size!r}"
        )
    found = find(name, (CARD, WEIGHTS) if weights else (CARD,))

    from mtl_keras.training.freezing import freeze_all_but
    from mtl_keras.training.model import heads_of
    from mtl_keras.training.retask import retask

    own = {task["config"]["name"]: task["config"] for task in found.card["config"]["tasks"]}
    counts = _checked_counts(num_classes, own, tasks, found)
    config = copy.deepcopy(found.card["config"])
    if image_size is not None:
        config["image_size"] = image_size
    if dtype is not None:
        config["policy"] = dtype
    for task in config["tasks"]:
        if task["config"]["name"] in counts:
            task["config"].update(num_classes=counts[task["config"]["name"]], class_names=None)
            # That was the best one for the classes of the old head.
            task["config"].pop("confidence", None)
    model = _build(config, found, set(counts), weights)
    random: list[str] = []
    if tasks is not None:
        model, random = retask(model, tasks, check=weights)
    if random and weights:
        warnings.warn(
            f"besides heads, these have random weights: {', '.join(random)}", stacklevel=2
        )
    if trainable == "heads":
        heads = [head for task in model.tasks for head in heads_of(task.name)]
        freeze_all_but(model, [*heads, *random])
    return model


def _build(config: dict, found: Found, new: set[str], weights: bool) -> Any:
    """Builds what the config describes, with pretrained weights but for the heads of new tasks."""
    from mtl_keras import __version__
    from mtl_keras.training import MultiTaskModel
    from mtl_keras.training.model import heads_of
    from mtl_keras.zoo.weights import load_weights

    path = found.checked(WEIGHTS) if weights else None
    try:
        model = MultiTaskModel.from_config(config)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"the card of {str(found.name)!r} describes a network that can't be built here. It was "
            f"written by mtl-keras {found.card['versions'].get('mtl-keras', '(unknown)')}, this is "
            f"{__version__}; classes of your own have to be imported first. {error}"
        ) from error
    if path is not None:
        load_weights(model, path, skip=tuple(head for task in new for head in heads_of(task)))
    return model


def _checked_counts(given: Any, own: dict[str, dict], tasks: Any, found: Found) -> dict[str, int]:
    """`num_classes` as a dict, or an error that says what is wrong with it."""
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise ValueError(
            "`num_classes` must be a dict, task name to number of classes. "
            f"Received: num_classes={given!r}"
        )
    for name in given:
        if name not in own:
            raise ValueError(
                f"`num_classes` names {name!r}, which is no task of {str(found.name)!r}. "
                f"{did_you_mean(name, own)}"
            )
        if "num_classes" not in own[name]:
            raise ValueError(f"`num_classes` names {name!r}, a task that has no classes")
        if isinstance(tasks, (list, tuple)) and name not in tasks:
            raise ValueError(
                f"`num_classes` names {name!r}, which `tasks` does not name: give the number to "
                "the new `Task` itself, or leave it out"
            )
    return given


def _check(argument: str, value: Any, options: tuple) -> None:
    if value not in options:
        raise ValueError(
            f"`{argument}` must be one of {list(options)}. Received: {argument}={value!r}"
        )
