"""Trunks from model objects: keras.applications instances, keras_hub backbones, own models."""

import keras
import numpy as np
import pytest
from keras import layers
from trunk_case import (
    images,
    randomise_statistics,
    run_chain,
    run_mixed_precision_test,
    run_saving_test,
    run_trunk_test,
)

from mtl_keras import trunks
from mtl_keras.trunks import keras_applications

APPLICATIONS = keras.applications


def assert_same_features(models, model, preprocess, size=(64, 64)):
    """The last stage's output is the model's own output."""
    x = images(*size)
    expected = np.asarray(model(preprocess(x.copy()), training=False))
    np.testing.assert_allclose(run_chain(models, x)[-1], expected, 1e-3, 1e-4)


FUNCTIONS = {
    "ConvNeXtTiny": APPLICATIONS.convnext,
    "DenseNet121": APPLICATIONS.densenet,
    "EfficientNetV2B0": APPLICATIONS.efficientnet_v2,
    "MobileNet": APPLICATIONS.mobilenet,
    "MobileNetV2": APPLICATIONS.mobilenet_v2,
    "MobileNetV3Large": APPLICATIONS.mobilenet_v3,
    "ResNet50": APPLICATIONS.resnet,
    "ResNet50V2": APPLICATIONS.resnet_v2,
    "VGG16": APPLICATIONS.vgg16,
    "Xception": APPLICATIONS.xception,
}


@pytest.mark.parametrize(
    ("function", "preprocess"),
    [
        pytest.param(
            name, module.preprocess_input, marks=[] if name == "MobileNetV2" else pytest.mark.slow
        )
        for name, module in FUNCTIONS.items()
    ],
)
def test_applications_instance(function, preprocess):
    model = getattr(APPLICATIONS, function)(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )
    randomise_statistics([model])
    before = len(model.layers[-1]._inbound_nodes)
    trunk, models = run_trunk_test(model)
    assert trunk.levels[-3:] == ("P3", "P4", "P5")
    assert_same_features(models, model, preprocess)
    assert len(model.layers[-1]._inbound_nodes) == before  # The given model is left as it was.


def test_classifier_of_one_size_loses_its_top_and_its_size():
    model = APPLICATIONS.MobileNetV3Small(weights=None, input_shape=(128, 128, 3), classes=7)
    randomise_statistics([model])
    models = trunks.create(model).instantiate()
    pools = [x for x in model.layers if isinstance(x, layers.GlobalAveragePooling2D)]
    inner = keras.Model(model.input, pools[-1].input)
    assert_same_features(models, inner, lambda x: x, size=(128, 128))
    assert models[-1].output_shape == (None, None, None, 576)


def test_trained_weights_are_carried_at_the_time_of_instantiation():
    model = APPLICATIONS.MobileNetV3Small(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )
    trunk = trunks.create(model)
    kernel = model.get_layer("conv").kernel
    kernel.assign(kernel * 0 + 0.25)
    stem = trunk.instantiate()[0]
    np.testing.assert_array_equal(np.asarray(stem.get_layer("conv").kernel), 0.25)


def test_a_reloaded_description_builds_the_same_architecture():
    trunk = trunks.create(own_model(layers.Rescaling(1 / 255)))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(trunk))
    for a, b in zip(trunk.instantiate(), again.instantiate(), strict=True):
        assert a.get_config() == b.get_config()


def own_model(begin=None, merge=False, name="own"):
    x = inputs = keras.Input((None, None, 3))
    if begin is not None:
        x = begin(x)
    for i in range(4):
        skip = layers.Conv2D(8, 1, 2, name=f"skip{i}")(x)
        y = layers.Conv2D(8, 3, 2, padding="same", name=f"conv{i}")(x)
        x = keras.ops.relu(layers.BatchNormalization(name=f"bn{i}")(y) + 2.0 * skip)
    if merge:  # A long connection: nothing between can be cut.
        x = layers.Concatenate()([x, layers.AveragePooling2D(16)(inputs)])
    return keras.Model(inputs, x, name=name)


def test_own_model_with_bare_operations(tmp_path):
    model = own_model(layers.Rescaling(1 / 255))
    trunk, models = run_trunk_test(model, channels={"P2": 8, "P3": 8, "P4": 8})
    assert [stage.name for stage in trunk.stages] == ["stem", "stage1", "stage2", "stage3"]
    assert_same_features(models, model, lambda x: x)
    run_saving_test(models, tmp_path / "model.keras")


def test_own_preprocessing():
    model = own_model()
    with pytest.raises(ValueError, match="`preprocessing`"):
        trunks.create(model)
    trunk = trunks.create(model, preprocessing=layers.Rescaling(1 / 255))
    assert_same_features(trunk.instantiate(), model, lambda x: x / 255)
    config = keras.saving.serialize_keras_object(trunk)
    again = keras.saving.deserialize_keras_object(config)
    first = again.instantiate()[0].layers[1]
    assert isinstance(first, layers.Rescaling) and first.scale == 1 / 255


def test_nested_and_shared_layers():
    block = keras.Sequential([layers.Conv2D(3, 3, 2, padding="same"), layers.ReLU()], name="block")
    x = inputs = keras.Input((None, None, 3))
    x = layers.Rescaling(1 / 255)(x)
    for _ in range(2):  # The same weights at strides 1 and 2: they must stay in one stage.
        x = block(x)
    x = layers.Conv2D(8, 3, 2, padding="same")(x)
    model = keras.Model(inputs, x, name="shared")
    trunk, models = run_trunk_test(model, channels={"P2": 3, "P3": 8})
    assert [stage.name for stage in trunk.stages] == ["stage1", "stage2"]
    assert_same_features(models, model, lambda x: x)
    run_mixed_precision_test(model)  # The policy reaches the layers inside the block.


def without_padding():
    inner = [layers.Conv2D(4, 3, 2, activation="relu") for _ in range(5)]
    return keras.Sequential([keras.Input((None, None, 3)), layers.Rescaling(1 / 255), *inner])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: own_model(layers.Rescaling(1 / 255), merge=True), None),
        (lambda: keras.Sequential([layers.Dense(2)]), "functional"),
        (lambda: keras.Sequential([keras.Input((4,)), layers.Dense(2)]), "images"),
        (lambda: keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(2, 3)]), "images"),
        (without_padding, "no feature map of stride 4 or 8 or 16 or 32"),
    ],
)
def test_models_that_cannot_be_cut(make, message):
    model = make()
    if message is None:  # Only its last map is left: one stage, said by its level.
        assert trunks.create(model).levels == ("P4",)
    else:
        with pytest.raises(ValueError, match=message):
            trunks.create(model)


def test_weights_are_not_for_given_models():
    with pytest.raises(ValueError, match="`weights` must be None"):
        trunks.create(own_model(layers.Rescaling(1 / 255)), weights="imagenet")


def test_unreachable_download_says_so(monkeypatch):
    def unreachable(function, weights=None):
        if weights:
            raise OSError("URL fetch failure")
        return own_model(layers.Rescaling(1 / 255))

    monkeypatch.setattr(keras_applications, "_model", unreachable)
    with pytest.raises(RuntimeError, match="ResNet50.*URL fetch failure.*efficientnet_lite0"):
        trunks.create("resnet50", weights="imagenet").instantiate()


def test_downloaded_weights_fill_the_stages(monkeypatch):
    original = keras_applications._model
    made = []

    def fake(function, weights=None):
        made.append(original(function))
        randomise_statistics([made[-1]])
        return made[-1]

    monkeypatch.setattr(keras_applications, "_model", fake)
    trunk = trunks.create("mobilenet_v3_small", weights="imagenet")
    models = trunk.instantiate()
    x = images(64, 64)
    np.testing.assert_allclose(
        run_chain(models, x)[-1], np.asarray(made[-1](x, training=False)), 1e-4, 1e-5
    )
