"""EfficientNet-Lite 0 to 4: EfficientNet without squeeze-and-excitation and with ReLU6.

ImageNet weights of Lite0 and Lite2 are part of the package (`weights/NOTICE` says where they come
from), so that a pretrained trunk needs no network.

Reference: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
ICML 2019, arXiv:1905.11946; Liu, "Higher accuracy on vision models with EfficientNet-Lite",
TensorFlow blog, 2020.
"""

from __future__ import annotations

import functools
import math
import pathlib

import keras
import numpy as np
from keras import layers

from mtl_keras.trunks.fill import set_weights
from mtl_keras.trunks.registry import register
from mtl_keras.trunks.stage import Stage

# width multiplier, depth multiplier
VARIANTS = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
    "efficientnet_lite3": (1.2, 1.4),
    "efficientnet_lite4": (1.4, 1.8),
}

# blocks, kernel, stride, expansion, filters, level of the last block's output
_STAGES = (
    (1, 3, 1, 1, 16, None),
    (2, 3, 2, 6, 24, "P2"),
    (2, 5, 2, 6, 40, "P3"),
    (3, 3, 2, 6, 80, None),
    (3, 5, 1, 6, 112, "P4"),
    (4, 5, 2, 6, 192, None),
    (1, 3, 1, 6, 320, "P5"),
)
_STEM_FILTERS = 32  # The Lite variants scale neither stem nor head,
_HEAD_FILTERS = 1280  # nor the number of blocks of the first and the last stage.

_KERNEL_INITIALIZER = {
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0, "mode": "fan_out", "distribution": "truncated_normal"},
}


def stages(width: float = 1.0, depth: float = 1.0) -> list[Stage]:
    """Stages of an EfficientNet-Lite: `stem`, `stage1` … `stage7`.

    Args:
        width: Factor of the number of filters (rounded to multiples of 8).
        depth: Factor of the number of blocks a stage (rounded up).

    Returns:
        Eight stages; at width 1 the levels are P2 (24 channels), P3 (40), P4 (112) and P5 (320).

    Reference:
        [EfficientNet](https://arxiv.org/abs/1905.11946)

    Example:

    ```python
    from mtl_keras.trunks import efficientnet_lite

    assert [s.name for s in efficientnet_lite.stages()][:2] == ["stem", "stage1"]
    ```
    """
    result = [Stage("stem", None, _stem)]
    for i, (blocks, kernel, stride, expansion, filters, level) in enumerate(_STAGES):
        if 0 < i < len(_STAGES) - 1:
            blocks = math.ceil(depth * blocks)
        build = functools.partial(
            _stage,
            blocks=blocks,
            kernel=kernel,
            stride=stride,
            expansion=expansion,
            filters=_round_filters(filters, width),
        )
        result.append(Stage(f"stage{i + 1}", level, build))
    return result


def classifier(channels: int = 320, classes: int = 1000, name: str = "classifier") -> keras.Model:
    """The ImageNet head of an EfficientNet-Lite, on top of the last stage's output.

    The package holds no weights for it; it is here to prove the trunk's weights.

    Args:
        channels: Channels of the P5 map.
        classes: Number of classes.
        name: Name of the model.

    Returns:
        A `keras.Model` from P5 `(batch, height, width, channels)` to logits `(batch, classes)`.

    Example:

    ```python
    from mtl_keras.trunks import efficientnet_lite

    assert efficientnet_lite.classifier().output_shape == (None, 1000)
    ```
    """
    inputs = keras.Input((None, None, channels))
    x = _conv_bn(inputs, _HEAD_FILTERS, 1, 1, "head")
    x = layers.ReLU(6.0, name="head_relu")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(0.2, name="dropout")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name=name)


def _stem(x):
    x = layers.Rescaling(1 / 128, -127 / 128, name="rescale")(x)
    x = _conv_bn(x, _STEM_FILTERS, 3, 2, "stem")
    return layers.ReLU(6.0, name="stem_relu")(x)


def _stage(x, *, blocks, kernel, stride, expansion, filters):
    for i in range(blocks):
        x = _block(x, kernel, stride if i == 0 else 1, expansion, filters, f"block{i + 1}")
    return x


def _block(inputs, kernel, stride, expansion, filters, name):
    x = inputs
    channels = inputs.shape[-1]
    if expansion != 1:
        x = _conv_bn(x, channels * expansion, 1, 1, f"{name}_expand")
        x = layers.ReLU(6.0, name=f"{name}_expand_relu")(x)
    x = layers.DepthwiseConv2D(
        kernel,
        stride,
        padding="same",
        use_bias=False,
        depthwise_initializer=_KERNEL_INITIALIZER,
        name=f"{name}_depthwise_conv",
    )(x)
    x = _batch_norm(x, f"{name}_depthwise")
    x = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(x)
    x = _conv_bn(x, filters, 1, 1, f"{name}_project")
    if stride == 1 and channels == filters:
        x = layers.Add(name=f"{name}_add")([x, inputs])
    return x


def _conv_bn(x, filters, kernel, stride, name):
    x = layers.Conv2D(
        filters,
        kernel,
        stride,
        padding="same",
        use_bias=False,
        kernel_initializer=_KERNEL_INITIALIZER,
        name=f"{name}_conv",
    )(x)
    return _batch_norm(x, name)


def _batch_norm(x, name):
    return layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=f"{name}_bn")(x)


def _round_filters(filters: int, width: float) -> int:
    if width == 1.0:
        return filters
    rounded = max(8, int(filters * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * filters * width else rounded


def _fill(models, *, file):
    path = pathlib.Path(__file__).parent / "weights" / file
    with np.load(path, allow_pickle=False) as arrays:
        set_weights({key: arrays[key] for key in arrays.files}, models)


_PRETRAINED = ("efficientnet_lite0", "efficientnet_lite2")

for _name, (_width, _depth) in VARIANTS.items():
    _imagenet = {"imagenet": functools.partial(_fill, file=f"{_name}.npz")}
    register(_name, weights=_imagenet if _name in _PRETRAINED else None)(
        functools.partial(stages, _width, _depth)
    )
