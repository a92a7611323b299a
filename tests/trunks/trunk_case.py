"""What every trunk must do: the shared case of the tests of `mtl_keras.trunks`."""

import json

import keras
import numpy as np

from mtl_keras import trunks


def run_chain(models, images):
    """Outputs of all stages, in order, in inference mode."""
    outputs, x = [], images
    for model in models:
        x = model(x, training=False)
        outputs.append(x)
    return [np.asarray(keras.ops.cast(x, "float32")) for x in outputs]


def images(height, width, batch=1, seed=0):
    """Smooth random images in [0, 255]."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (batch, height // 16, width // 16, 3))
    return np.kron(coarse, np.ones((1, 16, 16, 1))).astype("float32")


def randomise_statistics(models, seed=0):
    """Gives batch normalisation moving statistics that are not the initial ones."""
    rng = np.random.default_rng(seed)
    for model in models:
        for weight in model.non_trainable_weights:
            if weight.name == "moving_mean":
                weight.assign(rng.normal(0, 0.1, weight.shape))
            elif weight.name == "moving_variance":
                weight.assign(rng.uniform(0.5, 1.5, weight.shape))


def scale_depthwise(models, seed=0):
    """Gives depthwise convolutions random weights that keep the scale of their maps.

    Keras' initial ones let the maps of a new MobileNet fade to 1e-10, which half precision cannot
    hold and no trained network has.
    """
    rng = np.random.default_rng(seed)
    for layer in (layer for model in models for layer in model._flatten_layers()):
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            height, width, *_ = shape = layer.kernel.shape
            layer.kernel.assign(rng.normal(0, (2 / height / width) ** 0.5, shape))


def run_trunk_test(name_or_model, weights=None, channels=None, size=(64, 96), same_weights=None):
    """Holds a trunk to the contract.

    Args:
        name_or_model: What `trunks.create` takes.
        weights: Name of its weights.
        channels: Expected channels of the levels, a dict such as `{"P3": 40}`.
        size: Height and width of the test images, multiples of 32.
        same_weights: Whether two instantiations hold the same weights; by default if there are
            `weights` or a model was given.
    """
    trunk = trunks.create(name_or_model, weights=weights)
    if same_weights is None:
        same_weights = weights is not None or not isinstance(name_or_model, str)
    one, two = trunk.instantiate("one"), trunk.instantiate("two")

    # Names and levels.
    assert len(one) == len(trunk.stages) >= 2
    assert [m.name for m in one] == [f"one_{stage.name}" for stage in trunk.stages]
    assert trunk.levels == tuple(s.level for s in trunk.stages if s.level)
    assert trunk.stages[-1].level == trunk.levels[-1]
    assert one[0].input_shape == (None, None, None, 3)
    for before, after in zip(one[:-1], one[1:], strict=True):
        assert after.input_shape == before.output_shape
    if channels is not None:
        widths = {
            s.level: m.output_shape[-1] for s, m in zip(trunk.stages, one, strict=True) if s.level
        }
        assert widths == channels

    # New variables each time; the same weights in them, if they are pretrained.
    variables = [v for model in one + two for v in model.variables]
    assert len({id(v) for v in variables}) == len(variables)
    x = images(*size)
    outputs = run_chain(one, x)
    differences = [np.abs(a - b).max() for a, b in zip(outputs, run_chain(two, x), strict=True)]
    assert (max(differences) == 0) == same_weights

    # Strides, at more than one size.
    other = (size[0] + 32, size[1])
    for height, width, maps in ((*size, outputs), (*other, run_chain(one, images(*other)))):
        for stage, output in zip(trunk.stages, maps, strict=True):
            assert np.isfinite(output).all(), stage
            if stage.level is not None:
                stride = 2 ** int(stage.level[1])
                assert output.shape[1:3] == (height // stride, width // stride), stage

    assert outputs[-1].std() > 0  # It depends on the image.

    # A trunk round-trips through JSON.
    config = json.dumps(keras.saving.serialize_keras_object(trunk))
    again = keras.saving.deserialize_keras_object(json.loads(config))
    assert again.stages == trunk.stages
    assert json.dumps(keras.saving.serialize_keras_object(again)) == config
    return trunk, one


def run_saving_test(models, path):
    """Saves a model made of stage models and loads it again: same outputs."""
    randomise_statistics(models)
    inputs = keras.Input((None, None, 3))
    x, maps = inputs, []
    for model in models:
        x = model(x)
        maps.append(x)
    model = keras.Model(inputs, maps)
    model.save(path)
    again = keras.saving.load_model(path)
    x = images(64, 64)
    for a, b in zip(model(x, training=False), again(x, training=False), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def run_mixed_precision_test(name_or_model, weights=None, tolerance=0.05):
    """Instantiates under mixed_float16: half-precision maps near the float32 ones."""
    trunk = trunks.create(name_or_model, weights=weights)
    x = images(64, 64)
    full = trunk.instantiate()
    if weights is None:
        scale_depthwise(full)
    expected = run_chain(full, x)[-1]
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        half = trunk.instantiate()
    finally:
        keras.config.set_dtype_policy(policy)
    for a, b in zip(full, half, strict=True):
        b.set_weights(a.get_weights())
    assert all(m.output.dtype == "float16" for m in half)
    assert all(w.dtype == "float32" for m in half for w in m.trainable_weights)
    result = run_chain(half, x)[-1]
    assert np.abs(result - expected).max() < tolerance * np.abs(expected).max()
