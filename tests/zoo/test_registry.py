"""Everything that is listed loads, predicts, and says what its card says."""

import pathlib
import shutil

import numpy as np
import pytest

import mtl_keras as mtl
from mtl_keras.zoo import list_models, load, registry

ROOT = pathlib.Path(__file__).parents[2]
NUCLEI = "efficientnet_lite0_hard_nuclei"


def test_patterns_choose():
    assert NUCLEI in list_models("*nuclei*")
    assert list_models("no such*") == []


def test_published_model_finds_nuclei_in_a_photograph():
    data = pytest.importorskip("skimage.data")
    folder = pathlib.Path(data.__file__).parent
    (found,) = load(NUCLEI).predict_images([folder / "ihc.png"])
    boxes, mask = found["detection"]["boxes"], found["segmentation"]["mask"]
    assert len(boxes) > 30
    assert mask.shape == (512, 512)
    inside = [mask[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1].mean() for x0, y0, x1, y1 in boxes]
    # The model does not know this stain well, yet its two tasks speak of the same places.
    assert np.mean(inside) > 2 * mask.mean() > 0


def test_new_heads_keep_trunk_and_neck():
    old = load(NUCLEI)
    new = load(NUCLEI, num_classes={"detection": 3, "segmentation": 4})
    assert [task.num_classes for task in new.tasks] == [3, 4]
    for layer in old.layers:
        if not layer.name.endswith("_head"):
            for a, b in zip(layer.weights, new.get_layer(layer.name).weights, strict=True):
                np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_one_new_head_leaves_the_other():
    old, new = load(NUCLEI), load(NUCLEI, num_classes={"segmentation": 5})
    image = np.full((1, 64, 64, 3), 80.0, "float32")
    before, after = old(image), new(image)
    for level, value in before["detection"].items():
        np.testing.assert_array_equal(value, after["detection"][level])
    assert after["segmentation"].shape[-1] == 5


def test_image_size_can_be_chosen():
    assert load(NUCLEI, image_size=(256, 320)).image_size == (256, 320)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "efficientnet_lite0_hard_nucleus"}, f"Did you mean '{NUCLEI}'"),
        (
            {"name": NUCLEI, "num_classes": {"depth": 2}},
            r"'depth'.*'detection', 'segmentation'",
        ),
        ({"name": NUCLEI, "num_classes": {"detection": 0}}, "num_classes.*at least 1"),
        ({"name": NUCLEI, "num_classes": {"segmentation": 1}}, "num_classes.*at least 2"),
        ({"name": NUCLEI, "num_classes": {"detection": "3"}}, "num_classes.*integer"),
        ({"name": NUCLEI, "num_classes": 3}, "num_classes.*dict"),
        ({"name": NUCLEI, "image_size": (100, 100)}, "image_size.*multiples of 32"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        load(**arguments)


def test_missing_and_damaged_files_are_named(tmp_path, monkeypatch):
    shutil.copytree(registry.PUBLISHED / NUCLEI, tmp_path / NUCLEI)
    monkeypatch.setattr(registry, "PUBLISHED", tmp_path)
    weights = tmp_path / NUCLEI / "weights.npz"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match="weights.npz.*damaged.*SHA-256"):
        load(NUCLEI)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="weights.npz.*missing"):
        load(NUCLEI)


def test_weights_that_do_not_fit_are_named(tmp_path):
    from mtl_keras.zoo.weights import load_weights, save_weights

    def small(classes):
        return mtl.build(
            mtl.trunks.create("efficientnet_lite0", weights=None),
            [mtl.tasks.Segmentation(classes, channels=8)],
            mtl.sharing.HardSharing(neck_channels=8),
            image_size=(64, 64),
        )

    model = small(2)
    save_weights(model, tmp_path / "w.npz", "float32")
    again = small(2)
    load_weights(again, tmp_path / "w.npz")
    for a, b in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    with pytest.raises(ValueError, match="segmentation_head/logits/kernel.*shape"):
        load_weights(small(3), tmp_path / "w.npz")
    model.get_layer("neck").weights[0].assign(model.get_layer("neck").weights[0] * 0 + 1e6)
    with pytest.raises(ValueError, match="neck/.*float16"):
        save_weights(model, tmp_path / "w.npz")
