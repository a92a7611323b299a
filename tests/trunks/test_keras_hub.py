"""Trunks from keras_hub backbones, made of explicit arguments (no presets: no network)."""

import keras
import numpy as np
import pytest
from trunk_case import images, randomise_statistics, run_chain, run_saving_test, run_trunk_test

from mtl_keras import trunks

keras_hub = pytest.importorskip("keras_hub")


def resnet(**kwargs):
    return keras_hub.models.ResNetBackbone(
        **{
            "input_conv_filters": [64],
            "input_conv_kernel_sizes": [7],
            "stackwise_num_filters": [64, 16, 24, 32],
            "stackwise_num_blocks": [2, 1, 1, 1],
            "stackwise_num_strides": [1, 2, 2, 2],
            "block_type": "basic_block",
            **kwargs,
        }
    )


def efficientnet():
    return keras_hub.models.EfficientNetBackbone(
        stackwise_width_coefficients=[1.0] * 5,
        stackwise_depth_coefficients=[1.0] * 5,
        stackwise_kernel_sizes=[3, 3, 5, 3, 5],
        stackwise_num_repeats=[1, 1, 2, 1, 1],
        stackwise_input_filters=[32, 16, 24, 40, 80],
        stackwise_output_filters=[16, 24, 40, 80, 112],
        stackwise_expansion_ratios=[1, 6, 6, 6, 6],
        stackwise_strides=[1, 2, 2, 2, 2],
        stackwise_squeeze_and_excite_ratios=[0.25] * 5,
        stackwise_block_types=["unfused"] * 5,
        stackwise_force_input_filters=[0] * 5,
        stackwise_nores_option=[False] * 5,
        dropout=0.2,
        last_bn_momentum=0.99,
    )


def mobilenet():
    return keras_hub.models.MobileNetBackbone(
        stackwise_expansion=[[40, 56], [64, 144, 144]],
        stackwise_num_blocks=[2, 3],
        stackwise_num_filters=[[16, 16], [24, 24, 24]],
        stackwise_kernel_size=[[3, 3], [5, 5, 5]],
        stackwise_num_strides=[[2, 1], [2, 1, 1]],
        stackwise_se_ratio=[[None, None], [0.25, 0.25, 0.25]],
        stackwise_activation=[["relu6", "relu6"], ["hard_swish"] * 3],
        stackwise_padding=[[1, 1], [2, 2, 2]],
        output_num_filters=32,
        depthwise_filters=16,
        depthwise_stride=1,
        depthwise_residual=True,
        last_layer_filter=48,
        squeeze_and_excite=0.5,
        input_num_filters=16,
        input_activation="hard_swish",
        output_activation="hard_swish",
        image_shape=(None, None, 3),
    )


def densenet():
    return keras_hub.models.DenseNetBackbone(
        stackwise_num_repeats=[2, 1, 2, 1], compression_ratio=0.5, growth_rate=8
    )


def cspnet():
    return keras_hub.models.CSPNetBackbone(
        stem_filters=16,
        stem_kernel_size=3,
        stem_strides=2,
        stackwise_depth=[1, 2, 2, 1],
        stackwise_strides=[2, 2, 2, 2],
        stackwise_num_filters=[16, 24, 32, 48],
        bottle_ratio=0.5,
        block_ratio=1.0,
        expand_ratio=2.0,
        block_type="dark_block",
        stage_type="csp",
    )


@pytest.mark.parametrize("make", [resnet, efficientnet, mobilenet, densenet, cspnet])
def test_backbone(make, tmp_path):
    backbone = make()
    randomise_statistics([backbone])
    trunk, models = run_trunk_test(backbone)
    x = images(64, 64)
    maps = run_chain(models, x)
    levels = dict(zip((stage.level for stage in trunk.stages), maps, strict=True))
    normalised = (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    pyramid = getattr(backbone, "pyramid_outputs", None) or {trunk.levels[-1]: backbone.output}
    expected = keras.Model(backbone.input, pyramid)(normalised.astype("float32"), training=False)
    assert levels.keys() - {None} >= expected.keys() - {"P1"}
    for level in expected.keys() - {"P1"}:
        np.testing.assert_allclose(levels[level], np.asarray(expected[level]), 1e-3, 1e-3)
    run_saving_test(models, tmp_path / "model.keras")


def test_resnet_has_a_stage_a_level():
    trunk = trunks.create(resnet())
    assert [(stage.name, stage.level) for stage in trunk.stages] == [
        ("stem", None),
        ("stage1", "P2"),
        ("stage2", "P3"),
        ("stage3", "P4"),
        ("stage4", "P5"),
    ]


def test_resnet_v2_takes_the_unit_range():
    backbone = resnet(use_pre_activation=True)
    randomise_statistics([backbone])
    x = images(64, 64)
    inner = keras.Model(backbone.input, backbone.pyramid_outputs["P5"])  # Before its last ReLU.
    expected = np.asarray(inner(x / 127.5 - 1, training=False))
    maps = run_chain(trunks.create(backbone).instantiate(), x)
    np.testing.assert_allclose(maps[-1], expected, 1e-3, 1e-4)


def test_a_presets_image_converter_is_taken():
    converter = keras_hub.layers.ResNetImageConverter(scale=1 / 100, offset=-1.0)
    backbone = resnet()
    x = images(64, 64)
    trunk = trunks.create(backbone, preprocessing=converter)
    expected = np.asarray(backbone(x / 100 - 1, training=False))
    np.testing.assert_allclose(run_chain(trunk.instantiate(), x)[-1], expected, 1e-3, 1e-4)


def test_channels_first_is_refused():
    with pytest.raises(ValueError, match="channels_last"):
        trunks.create(resnet(data_format="channels_first", image_shape=(3, 64, 64)))
