"""From one way to share to another, with what was learned."""

import dataclasses
import warnings
from collections.abc import Collection, Sequence
from typing import Any

import keras
import numpy as np

from mtl_keras import sharing as sharings
from mtl_keras.sharing.adapters import merged
from mtl_keras.sharing.parts import Part, marked
from mtl_keras.training.finalize import finalize
from mtl_keras.training.model import MultiTaskModel
from mtl_keras.trunks.fill import variables_by_key


def convert(model: MultiTaskModel | Sequence[MultiTaskModel], sharing: Any) -> MultiTaskModel:
    """Makes a model that shares in another way and starts from the weights of another one.

    Outputs stay the same (to rounding) wherever the new way to share can express the old one:
    from hard sharing to branches, separate or soft towers, cross-stitch units (which start as
    the identity), adapters, experts. Where towers become one, their weights are averaged. What
    is lost is said in a warning, and in the attribute `lost` of the new model. A learned sharing
    (`ltb`, `adashare`) is finalised first.

    Several models become one, e.g. networks of one task each, as Misra et al. 2016 (section 3.2)
    start cross-stitch networks. Their trunks have to have the same stages.

    Args:
        model: `MultiTaskModel`, or a list of such models with different tasks.
        sharing: `mtl_keras.sharing.Sharing`, or a registered name.

    Returns:
        A new `MultiTaskModel`, not compiled. `model` is left as it is.

    Raises:
        ValueError: If there is no such way to share, it does not fit trunk and tasks, or the
            trunks of several models do not match.

    Example:

    ```python
    import mtl_keras as mtl
    hard = mtl.build(
        mtl.trunks.create("efficientnet_lite0", weights=None),
        tasks=[mtl.tasks.Detection(num_classes=2), mtl.tasks.Segmentation(num_classes=3)],
        image_size=(64, 64),
    )
    branched = mtl.convert(hard, mtl.sharing.HardSharing(branch_at="P4"))
    assert branched.lost == []
    ```
    """
    sources = list(model) if isinstance(model, (list, tuple)) else [model]
    for source in sources:
        if not isinstance(source, MultiTaskModel):
            raise ValueError(
                f"`model` must be a `MultiTaskModel`, or a list of them. Received: {source!r}"
            )
    sharing = sharings.get(sharing)
    # What a learned sharing has chosen, unless it goes on learning.
    sources = [
        source
        if type(source.sharing) is type(sharing) or source.sharing.finalize(source) is None
        else finalize(source)
        for source in sources
    ]
    target = MultiTaskModel.from_config(_config(sources, sharing))
    reader = Reader(sources)
    alike = len(sources) == 1 and type(sources[0].sharing) is type(sharing)
    copied = copy_alike(sources[0], target) if alike else set()
    lost = reader.unused(copied) + reader.fill(target, copied)
    lost += started_anew(target, copied) if alike else sharing.preserve(target)
    lost = list(dict.fromkeys(lost))
    target.lost = lost
    if lost:
        warnings.warn(f"converting to {type(sharing).__name__}: {'; '.join(lost)}", stacklevel=2)
    return target


class Reader:
    """What each task has learned: arrays of its stages, its neck and its head, by key.

    Args:
        sources: List of `MultiTaskModel`.
        donor: Optional name of the task whose stages and neck a task gets that is in no source.
    """

    def __init__(self, sources: list[MultiTaskModel], donor: str | None = None):
        self._sources = sources
        self._donor = donor
        self._of_task = {task.name: source for source in sources for task in source.tasks}
        self._cache: dict[tuple, list[dict[str, np.ndarray]]] = {}

    def unused(self, copied: set[str]) -> list[str]:
        """Says which marked layers are neither stage, neck nor head, nor were copied whole."""
        found = []
        for source in self._sources:
            for part, layer in marked(source):
                kept = part.stage or _is_neck(part) or layer.name in _heads(source)
                if not kept and layer.name not in copied and layer.count_params():
                    found.append(f"{layer.name} ({layer.count_params():,} parameters) is left out")
        return found

    def fill(self, target: MultiTaskModel, copied: set[str]) -> list[str]:
        """Fills stages, necks and heads that were not copied; returns what was lost by that."""
        slots: dict[int, _Slot] = {}
        # Layers may share variables (under adapters), also with one that was copied.
        done = {id(v) for layer in target.layers if layer.name in copied for v in layer.weights}
        for part, layer in marked(target):
            taken = part.stage or _is_neck(part) or layer.name in _heads_of(part)
            if not taken or layer.name in copied:
                continue
            for key, variable in variables_by_key(_plain(layer)).items():
                if id(variable) in done:
                    continue
                # Towers that hold a variable together (under adapters) own it together.
                slot = slots.setdefault(id(variable), _Slot(variable, key, part, layer.name))
                slot.tasks.update(dict.fromkeys(part.tasks))
        lost = [entry for slot in slots.values() for entry in self._assign(slot)]
        return list(dict.fromkeys(lost))

    def _assign(self, slot: "_Slot") -> list[str]:
        variable, key, stage = slot.variable, slot.key, slot.part.stage
        tasks = [task for task in slot.tasks if task in self._of_task] or [self._donor]
        of_task = {
            task: [
                arrays[key]
                for arrays in self._arrays(task, slot.part)
                if key in arrays and arrays[key].shape == tuple(variable.shape)
            ]
            for task in tasks
        }
        every = [array for arrays in of_task.values() for array in arrays]
        if not every:
            return [f"{slot.layer} starts anew: {key}"]
        mean = np.mean(every, axis=0, dtype="float64") if len(every) > 1 else every[0]
        variable.assign(mean.astype(variable.dtype))
        lost = [
            f"the {len(arrays)} copies of {stage} that {task!r} used were averaged"
            for task, arrays in of_task.items()
            if _differ(arrays)
        ]
        if _differ([np.mean(arrays, axis=0) for arrays in of_task.values() if arrays]):
            lost.append(f"{slot.layer} is the average of what {list(slot.tasks)} had learned")
        return lost

    def _arrays(self, task: str, part: Part) -> list[dict[str, np.ndarray]]:
        kind = part.stage or ("neck" if _is_neck(part) else "head")
        if (task, kind) not in self._cache:
            source = self._of_task[task]
            if kind == "head":
                layers = [source.get_layer(f"{task}_head")]
            else:
                layers = [
                    own
                    for other, own in marked(source)
                    if task in other.tasks
                    and getattr(own, "task", task) == task
                    and (other.stage == kind if part.stage else _is_neck(other))
                ]
            self._cache[task, kind] = [_arrays(own) for own in layers]
        return self._cache[task, kind]


def _arrays(layer: Any) -> dict[str, np.ndarray]:
    """What a layer has learned, by key; with adapters, merged into the weights of the stage."""
    variables = variables_by_key(_plain(layer))
    if not getattr(layer, "replaced", None):
        return {key: keras.ops.convert_to_numpy(v) for key, v in variables.items()}
    values = {id(v): a for v, a in zip(layer.base.weights, merged(layer), strict=True)}
    return {key: values[id(v)] for key, v in variables.items()}


def _plain(layer: Any) -> Any:
    """The stage itself, where a layer wraps one with something of a task's own."""
    return getattr(layer, "base", layer)


def _is_neck(part: Part) -> bool:
    return part.name.endswith("neck")


def _heads(model: MultiTaskModel) -> list[str]:
    return [f"{task.name}_head" for task in model.tasks]


def _heads_of(part: Part) -> list[str]:
    return [f"{task}_head" for task in part.tasks]


def _differ(arrays: list[np.ndarray]) -> bool:
    return any(not np.array_equal(array, arrays[0]) for array in arrays[1:])


@dataclasses.dataclass
class _Slot:
    """A variable of the new model: where it is, and the tasks whose weights go into it."""

    variable: Any
    key: str
    part: Part
    layer: str
    tasks: dict[str, None] = dataclasses.field(default_factory=dict)


def copy_alike(
    source: MultiTaskModel, target: MultiTaskModel, skip: Collection[str] = ()
) -> set[str]:
    """Copies layers of the same name and shape whole: units, gates, experts, adapters too.

    Args:
        source: `MultiTaskModel` to copy from.
        target: `MultiTaskModel` to copy to.
        skip: Names of layers that are not copied.

    Returns:
        Set of the names of the layers that were copied.
    """
    old = {layer.name: layer for layer in source.layers}
    copied = set()
    for _, layer in marked(target):
        twin = None if layer.name in skip else old.get(layer.name)
        if twin is not None and [w.shape for w in twin.weights] == [w.shape for w in layer.weights]:
            layer.set_weights(twin.get_weights())
            copied.add(layer.name)
    return copied


def started_anew(target: MultiTaskModel, copied: set[str]) -> list[str]:
    """Says which layers are neither stage, neck nor head, nor were copied whole."""
    found = []
    for part, layer in marked(target):
        taken = part.stage or _is_neck(part) or layer.name in _heads_of(part)
        if not taken and layer.weights and layer.name not in copied:
            found.append(f"{layer.name} starts anew")
    return found


def _config(sources: list[MultiTaskModel], sharing: Any) -> dict:
    config = sources[0].architecture()
    config["sharing"] = keras.saving.serialize_keras_object(sharing)
    for source in sources[1:]:
        one, other = sources[0].trunk, source.trunk
        if [stage.name for stage in one.stages] != [stage.name for stage in other.stages]:
            raise ValueError(
                "the trunks of the models must have the same stages. Received: "
                f"{one.name!r} with {[s.name for s in one.stages]} and "
                f"{other.name!r} with {[s.name for s in other.stages]}"
            )
        if one.name != other.name:
            raise ValueError(
                f"the models must have the same trunk. Received: {one.name!r} and {other.name!r}"
            )
        config["tasks"] = [*config["tasks"], *source.architecture()["tasks"]]
    return config
