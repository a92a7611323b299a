"""What a trunk is: a description of a chain of named stages, and the registry of known ones."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

LEVELS = ("P1", "P2", "P3", "P4", "P5")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One link of the chain: a name, a pyramid level, and how to build its layers.

    Args:
        name: Name of the stage, unique in its trunk, e.g. `"stage3"`.
        level: `"P1"` … `"P5"` if the output of this stage is the feature map of that pyramid level
            (`"P3"`: 1/8 of the image's height and width), `None` if it is an intermediate map.
        build: Function from the stage's input (a symbolic `KerasTensor`, channels last) to its
            output. It creates *new* layers at each call; layer names must be the same each time
            and unique in the stage, since stored weights are found by them.

    Example:

    ```python
    import keras
    from mtl_keras import trunks

    stage = trunks.Stage("stem", None, lambda x: keras.layers.Conv2D(8, 3, name="conv")(x))
    assert stage.level is None
    ```
    """

    name: str
    level: str | None
    build: Callable[[keras.KerasTensor], keras.KerasTensor] = dataclasses.field(
        repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.level is not None and self.level not in LEVELS:
            raise ValueError(
                f"`level` of stage {self.name!r} must be None or one of {LEVELS}, "
                f"got {self.level!r}."
            )


# Fills stage models, given by stage name, with pretrained weights.
Filler = Callable[[Mapping[str, keras.Model]], None]


@dataclasses.dataclass(frozen=True)
class _Entry:
    stages: Callable[[], Sequence[Stage]]
    weights: Mapping[str, Filler]


_REGISTRY: dict[str, _Entry] = {}


def register(
    name: str, weights: Mapping[str, Filler] | None = None
) -> Callable[[Callable[[], Sequence[Stage]]], Callable[[], Sequence[Stage]]]:
    """Decorator that makes a function that returns stages known to `create` under a name.

    Args:
        name: Name for `create`, e.g. `"resnet50"`.
        weights: For each set of pretrained weights its name (e.g. `"imagenet"`) and a function
            that fills the stage models, given as a dictionary by stage name; `set_weights` fills
            them from arrays. Called once for each `instantiate`.

    Returns:
        The decorator; it gives the function back unchanged.

    Raises:
        ValueError: If the name is taken.

    Example:

    ```python
    import keras
    from mtl_keras import trunks

    def block(filters, name):
        return lambda x: keras.layers.Conv2D(
            filters, 3, 2, padding="same", activation="relu", name=name
        )(x)

    @trunks.register("four_convolutions")
    def four_convolutions():
        return [
            trunks.Stage("stem", "P1", block(8, "conv1")),
            trunks.Stage("stage1", "P2", block(16, "conv2")),
            trunks.Stage("stage2", "P3", block(32, "conv3")),
            trunks.Stage("stage3", "P4", block(64, "conv4")),
        ]

    assert trunks.create("four_convolutions").levels == ("P1", "P2", "P3", "P4")
    trunks.unregister("four_convolutions")
    ```
    """

    def decorator(function):
        if name in _REGISTRY:
            raise ValueError(f"A trunk named {name!r} is registered already; take another `name`.")
        _REGISTRY[name] = _Entry(function, dict(weights or {}))
        return function

    return decorator


def unregister(name: str) -> None:
    """Forgets a registered trunk.

    Args:
        name: A registered name.

    Raises:
        ValueError: If there is no such trunk.
    """
    _entry(name)
    del _REGISTRY[name]


def names() -> list[str]:
    """The names that `create` knows, sorted.

    Returns:
        A list of strings.

    Example:

    ```python
    from mtl_keras import trunks

    assert "efficientnet_lite0" in trunks.names()
    ```
    """
    return sorted(_REGISTRY)


def weights_names(name: str) -> list[str]:
    """The pretrained weights that exist for a registered trunk.

    Args:
        name: A registered name.

    Returns:
        Values for the argument `weights` of `create` (besides `None`).

    Raises:
        ValueError: If there is no such trunk.

    Example:

    ```python
    from mtl_keras import trunks

    assert trunks.weights_names("efficientnet_lite0") == ["imagenet"]
    ```
    """
    return sorted(_entry(name).weights)


def _entry(name: str) -> _Entry:
    if name not in _REGISTRY:
        near = difflib.get_close_matches(str(name).lower(), _REGISTRY, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise ValueError(
            f"Unknown trunk {name!r}. {hint}Registered: {', '.join(names())}. A "
            "`keras.applications` model or a `keras_hub` backbone can be given as an object."
        )
    return _REGISTRY[name]


def variable_keys(stage: str, model: keras.Model) -> list[str]:
    """Stable keys of a stage model's variables, in the order of `model.layers`' weights.

    Args:
        stage: Name of the stage.
        model: The stage's model.

    Returns:
        One string a variable: `"<stage>/<layer>/<variable>"`, the same for each instantiation.

    Example:

    ```python
    from mtl_keras import trunks

    stem = trunks.create("efficientnet_lite0").instantiate()[0]
    assert trunks.variable_keys("stem", stem)[0] == "stem/stem_conv/kernel"
    ```
    """
    return [f"{stage}/{key}" for key, _ in _variables(model)]


def _variables(model: keras.Model) -> list[tuple[str, keras.Variable]]:
    result = []
    for layer in model.layers:
        for variable in layer.weights:
            # A path begins with the scopes in which the layer was built, then names the layer.
            parts = variable.path.split("/")
            start = parts.index(layer.name) if layer.name in parts else -1
            result.append(("/".join([layer.name, *parts[start + 1 :]]), variable))
    return result


@keras.saving.register_keras_serializable(package="mtl_keras")
class Trunk:
    """Description of a chain of stages that can be instantiated any number of times.

    A trunk holds no variables: `instantiate` builds them. Make one with `mtl_keras.trunks.create`.

    Args:
        name: A registered name, see `mtl_keras.trunks.names`; with `model`, any name.
        weights: Name of pretrained weights, or `None` for random initial weights.
        model: A model to be cut into stages (`keras.applications` model or `keras_hub` backbone)
            in place of a registered trunk. Its weights are the trunk's weights.
        preprocessing: With `model`, layer that turns images in [0, 255] into what it takes.

    Raises:
        ValueError: If the name or the weights are unknown, or the model cannot be cut.

    Example:

    ```python
    import numpy as np
    from mtl_keras import trunks

    trunk = trunks.create("efficientnet_lite0", weights="imagenet")
    x = np.zeros((1, 64, 64, 3), "float32")
    features = {}
    for stage, model in zip(trunk.stages, trunk.instantiate("tower")):
        x = model(x)
        features[stage.level] = x
    assert features["P3"].shape == (1, 8, 8, 40)
    ```
    """

    def __init__(
        self,
        name: str,
        weights: str | None = None,
        *,
        model: keras.Model | None = None,
        preprocessing: keras.layers.Layer | None = None,
    ) -> None:
        self._model = model
        self._preprocessing = preprocessing
        self._stages: tuple[Stage, ...] | None = None
        self.name = name
        self.weights = weights
        if model is None:
            entry = _entry(name)
            if weights is not None and weights not in entry.weights:
                exist = [None, *sorted(entry.weights)]
                raise ValueError(
                    f"Trunk {name!r} has no weights {weights!r}; `weights` must be one of {exist}."
                )
            if preprocessing is not None:
                raise ValueError(
                    f"`preprocessing` is for a given model only: trunk {name!r} normalises images "
                    f"itself, got {preprocessing!r}."
                )
        else:
            if weights is not None:
                raise ValueError(
                    "`weights` must be None when a model is given (its own weights are used), "
                    f"got {weights!r}."
                )
            _ = self.stages  # A model that cannot be cut fails here, not at `instantiate`.

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages from image to coarsest map."""
        if self._stages is None:
            if self._model is None:
                stages = tuple(_entry(self.name).stages())
            else:
                from mtl_keras.trunks import given

                stages = tuple(given.stages(self._model, self._preprocessing))
            _check_stages(self.name, stages)
            self._stages = stages
        return self._stages

    @property
    def levels(self) -> tuple[str, ...]:
        """The pyramid levels that the stages give, finest first, e.g. `("P2", …, "P5")`."""
        return tuple(stage.level for stage in self.stages if stage.level is not None)

    def instantiate(self, name: str = "trunk") -> list[keras.Model]:
        """Builds the stages with new variables.

        Args:
            name: Prefix of the models' names; give each tower its own.

        Returns:
            One `keras.Model` a stage, in order, named `f"{name}_{stage.name}"`, to be chained:
            `for model in models: x = model(x)`. The first takes float images in [0, 255] of shape
            `(batch, height, width, 3)` and normalises them itself. Each call gives new variables
            that hold the same pretrained weights (new random ones if `weights` is `None`). The
            global dtype policy is honoured.

        Raises:
            ValueError: If stored weights do not fit the stages.
        """
        models = []
        shape, dtype = (None, None, None, 3), "float32"
        for stage in self.stages:
            inputs = keras.Input(shape[1:], name=f"{name}_{stage.name}_input", dtype=dtype)
            model = keras.Model(inputs, stage.build(inputs), name=f"{name}_{stage.name}")
            shape, dtype = model.output.shape, model.output.dtype
            models.append(model)
        self._fill({stage.name: model for stage, model in zip(self.stages, models, strict=True)})
        return models

    def _fill(self, models: Mapping[str, keras.Model]) -> None:
        if self._model is not None:
            from mtl_keras.trunks import graph

            graph.copy_weights(self._model)(models)
        elif self.weights is not None:
            _entry(self.name).weights[self.weights](models)

    def get_config(self) -> dict[str, Any]:
        """Configuration from which `from_config` makes an equal description.

        Returns:
            A dictionary of plain values. The architecture of a given model is in it, its weights
            are not: they belong to the file of the model that was built from this trunk.
        """
        config: dict[str, Any] = {"name": self.name, "weights": self.weights}
        if self._model is not None:
            config["model"] = keras.saving.serialize_keras_object(self._model)
            config["preprocessing"] = keras.saving.serialize_keras_object(self._preprocessing)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Trunk:
        """Makes a trunk from `get_config`'s dictionary.

        Args:
            config: What `get_config` returned.

        Returns:
            A `Trunk`. If it describes a given model, that model has new random weights.
        """
        config = dict(config)
        for key in ("model", "preprocessing"):
            if isinstance(config.get(key), dict):
                config[key] = keras.saving.deserialize_keras_object(config[key])
        return cls(**config)

    def __repr__(self) -> str:
        return f"Trunk({self.name!r}, weights={self.weights!r})"


def set_weights(arrays: Mapping[str, np.ndarray], models: Mapping[str, keras.Model]) -> None:
    """Fills stage models with arrays by key, strictly: every variable, every array, equal shapes.

    Args:
        arrays: Arrays by the keys of `variable_keys`.
        models: The stage models by stage name.

    Raises:
        ValueError: If a variable has no array, an array no variable, or a shape differs.

    Example:

    ```python
    from mtl_keras import trunks

    models = dict(stem=trunks.create("efficientnet_lite0").instantiate()[0])
    keys = trunks.variable_keys("stem", models["stem"])
    arrays = dict(zip(keys, models["stem"].get_weights()))
    trunks.set_weights(arrays, models)
    ```
    """
    variables = {
        f"{stage}/{key}": variable
        for stage, model in models.items()
        for key, variable in _variables(model)
    }
    missing = sorted(variables.keys() - arrays.keys())
    extra = sorted(arrays.keys() - variables.keys())
    if missing or extra:
        raise ValueError(
            f"`arrays` does not fit the stages {list(models)}: no array for {len(missing)} "
            f"variables {missing[:3]}, no variable for {len(extra)} arrays {extra[:3]}."
        )
    for key, variable in variables.items():
        if tuple(variable.shape) != tuple(arrays[key].shape):
            raise ValueError(
                f"`arrays` does not fit the stages {list(models)}: {key} has shape "
                f"{tuple(arrays[key].shape)}, its variable {tuple(variable.shape)}."
            )
        variable.assign(np.asarray(arrays[key]).astype(variable.dtype))


def _check_stages(name: str, stages: Sequence[Stage]) -> None:
    if not stages:
        raise ValueError(f"Trunk {name!r} has no stages.")
    stage_names = [stage.name for stage in stages]
    if len(set(stage_names)) != len(stage_names):
        raise ValueError(f"Stage names of trunk {name!r} must be unique, got {stage_names}.")
    levels = [stage.level for stage in stages if stage.level is not None]
    if levels != sorted(set(levels)):
        raise ValueError(f"Levels of trunk {name!r} must increase and not repeat, got {levels}.")


def create(
    name: str | Trunk | keras.Model,
    weights: str | None = None,
    *,
    preprocessing: keras.layers.Layer | None = None,
) -> Trunk:
    """Describes a trunk by name, or one made of a given model.

    Args:
        name: A registered name (`mtl_keras.trunks.names()`), or a functional model of images: of
            `keras.applications`, a `keras_hub` backbone, or one of your own. It is cut into stages
            where all flows through one map, and what comes after 1/32 of the image's size is left
            out. A `Trunk` is given back as it is.
        weights: Name of pretrained weights (e.g. `"imagenet"`), or `None` for random ones. Must be
            `None` when a model is given: the trunk then carries that model's weights.
        preprocessing: For a given model only, layer that turns images in [0, 255] into what the
            model takes, e.g. `keras.layers.Rescaling(1 / 255)`. Not needed for a model that begins
            with a `Rescaling` or `Normalization` layer, nor for `keras.applications` models under
            their own names. For a `keras_hub` backbone the default is what the image converters of
            its ImageNet presets do: mean and standard deviation of ImageNet, or [-1, 1] for
            ResNetV2; give a preset's own image converter where it differs.

    Returns:
        A `Trunk`.

    Raises:
        ValueError: If the name or the weights are unknown (nearest names are offered), or the
            given model cannot be cut into stages, or it is not known how to normalise its images.

    Example:

    ```python
    import keras
    from mtl_keras import trunks

    trunk = trunks.create("efficientnet_lite0", weights="imagenet")
    assert trunk.levels == ("P2", "P3", "P4", "P5")

    model = keras.applications.MobileNetV3Small(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )
    assert trunks.create(model).levels == ("P2", "P3", "P4", "P5")
    ```
    """
    if isinstance(name, str):
        return Trunk(name, weights, preprocessing=preprocessing)
    if isinstance(name, Trunk):
        if weights not in (None, name.weights) or preprocessing is not None:
            raise ValueError(
                "`weights` and `preprocessing` must be None when a Trunk is given, got "
                f"{weights!r} and {preprocessing!r} for {name!r}."
            )
        return name
    if isinstance(name, keras.Model):
        return Trunk(name.name, weights, model=name, preprocessing=preprocessing)
    raise ValueError(
        "`name` must be a registered name, a Trunk, or a keras.Model to be cut into stages, "
        f"got {name!r} of type {type(name).__name__}."
    )
