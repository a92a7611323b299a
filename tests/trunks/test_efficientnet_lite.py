"""EfficientNet-Lite: shapes by the paper, weights by PyTorch's logits and by real photographs."""

import pathlib

import numpy as np
import pytest
from PIL import Image
from trunk_case import run_chain, run_mixed_precision_test, run_trunk_test

from mtl_keras import trunks
from mtl_keras.trunks import efficientnet_lite

DATA = pathlib.Path(__file__).parent / "data"

# Numbers of the ImageNet classes that name the photograph right.
NAMES = {
    "camera": {872},  # tripod
    "chelsea": {281, 282, 285},  # tabby, tiger cat, Egyptian cat
    "coffee": {504, 967, 968},  # coffee mug, espresso, cup
    "rocket": {657, 744, 812},  # missile, projectile, space shuttle
}
# Lite2, in PyTorch too, takes the launch tower for a drilling platform.
MISNAMED = {("efficientnet_lite2", "rocket")}


def load(name):
    with np.load(DATA / name, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def photo(name):
    return np.asarray(Image.open(DATA / f"{name}.png"), "float32")[None]


CHANNELS = {"efficientnet_lite0": (24, 40, 112, 320), "efficientnet_lite2": (24, 48, 120, 352)}


@pytest.fixture(scope="module", params=sorted(CHANNELS))
def pretrained(request):
    """A variant and its whole ImageNet network: the trunk of the package and the head."""
    name = request.param
    trunk = trunks.create(name, weights="imagenet").instantiate()
    head = efficientnet_lite.classifier(CHANNELS[name][-1])
    trunks.set_weights(load(f"{name}_classifier.npz"), {"classifier": head})
    return name, [*trunk, head]


@pytest.mark.parametrize("name", sorted(CHANNELS))
def test_pretrained_trunk_keeps_the_contract(name):
    channels = dict(zip(("P2", "P3", "P4", "P5"), CHANNELS[name], strict=True))
    run_trunk_test(name, weights="imagenet", channels=channels)


def test_logits_equal_pytorch(pretrained):
    variant, network = pretrained
    for name, expected in load(f"{variant}_logits.npz").items():
        logits = run_chain(network, photo(name))[-1][0]
        # Logits reach 14; the reference is of float32 kernels, the package's are float16.
        assert np.abs(logits - expected).max() < 0.05, name


@pytest.mark.parametrize("name", sorted(NAMES))
def test_photographs_are_named_right(pretrained, name):
    variant, network = pretrained
    right = run_chain(network, photo(name))[-1].argmax() in NAMES[name]
    assert right == ((variant, name) not in MISNAMED)


def test_a_wrong_normalisation_would_be_seen(pretrained):
    variant, network = pretrained
    name = "chelsea"
    expected = load(f"{variant}_logits.npz")[name]
    assert np.abs(run_chain(network, photo(name) / 255)[-1][0] - expected).max() > 1


def test_mixed_precision():
    run_mixed_precision_test("efficientnet_lite0", weights="imagenet")


# Trainable parameters of the published networks, head included.
@pytest.mark.parametrize(
    ("name", "parameters", "channels"),
    [
        ("efficientnet_lite0", 4_652_008, (24, 40, 112, 320)),
        ("efficientnet_lite1", 5_416_680, (24, 40, 112, 320)),
        ("efficientnet_lite2", 6_092_072, (24, 48, 120, 352)),
        ("efficientnet_lite3", 8_197_096, (32, 48, 136, 384)),
        pytest.param("efficientnet_lite4", 13_006_568, (32, 56, 160, 448), marks=pytest.mark.slow),
    ],
)
def test_variants_have_the_published_size(name, parameters, channels):
    trunk = trunks.create(name)
    models = trunk.instantiate()
    widths = tuple(m.output_shape[-1] for s, m in zip(trunk.stages, models, strict=True) if s.level)
    assert widths == channels
    models.append(efficientnet_lite.classifier(channels[-1]))
    weights = [w for model in models for w in model.trainable_weights]
    assert sum(int(np.prod(w.shape)) for w in weights) == parameters
