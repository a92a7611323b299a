"""Labels that an image does not have leak into nothing, whatever stands in their place."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy
from PIL import Image

import mtl_keras as mtl
from mtl_keras.zoo.measure import measure

SIZE = (64, 64)
WEIGHTS = {
    "detection": np.array([1, 0, 1, 0], "float32"),
    "segmentation": np.array([0, 1, 1, 0], "float32"),
    "distance": np.array([1, 1, 0, 0], "float32"),
}


def tasks():
    return [toy.detection(), toy.segmentation(), toy.distance()]


def spoiled(y, kind):
    """Targets with something else where there is no label."""
    rng = np.random.default_rng(1)

    def garbage(value):
        if kind == "other":
            return value[::-1]
        if kind == "huge" and value.dtype.kind == "f":
            return np.full_like(value, 3e38)
        if kind == "nan" and value.dtype.kind == "f":
            return np.full_like(value, np.nan)
        if value.dtype.kind == "b":
            return ~value
        info = np.iinfo(value.dtype) if value.dtype.kind in "iu" else None
        low, high = (info.min, info.max) if info else (-100, 100)
        return rng.integers(low, high, value.shape).astype(value.dtype)

    return {
        name: {
            key: np.where(
                WEIGHTS[name].reshape(-1, *[1] * (value.ndim - 1)) > 0, value, garbage(value)
            )
            for key, value in targets.items()
        }
        for name, targets in y.items()
    }


class Trained:
    """All that two steps and an evaluation leave behind, always from the same beginning."""

    def __init__(self, sharing, balancing):
        self.model = toy.model(tasks(), sharing)
        self.x, self.y = toy.batch(self.model.tasks, images=4)
        self.model.compile(keras.optimizers.Adam(1e-2), balancing=balancing)
        self.model.optimizer.build(self.model.trainable_variables)
        self.state = [*self.model.variables, *self.model.optimizer.variables]
        if self.model.balancing is not None:
            self.state += self.model.balancing.variables
        self.before = toy.arrays(self.state)

    def __call__(self, y):
        for variable, value in zip(self.state, self.before, strict=True):
            variable.assign(value)
        keras.utils.set_random_seed(1)
        ds = tf.data.Dataset.from_tensors((self.x, y, WEIGHTS))
        logs = self.model.fit(ds.repeat(2), verbose=0).history
        found = toy.arrays(self.state)
        metrics = self.model.evaluate(ds, verbose=0, return_dict=True)
        return found, {**{k: v[0] for k, v in logs.items()}, **metrics}


@pytest.mark.parametrize(
    ("sharing", "balancing"),
    [
        ("hard", None),
        pytest.param("cross_stitch", "uncertainty", marks=pytest.mark.slow),
        pytest.param("hard", mtl.balancing.CAGrad(on="features"), marks=pytest.mark.slow),
        pytest.param("hard", "pcgrad", marks=pytest.mark.slow),
        pytest.param("cross_stitch", "mgda", marks=pytest.mark.slow),
        pytest.param("mtan", "famo", marks=pytest.mark.slow),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_stands_in_place_of_a_label_changes_nothing(sharing, balancing):
    train = Trained(sharing, balancing)
    plain, logs = train(train.y)
    assert not toy.same(plain, train.before)
    for kind in ("other", "huge", "nan"):
        wrong = spoiled(train.y, kind)
        assert not all(
            np.array_equal(wrong[name][key], value)
            for name, targets in train.y.items()
            for key, value in targets.items()
        )
        found, its = train(wrong)
        for a, b in zip(plain, found, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7, err_msg=kind)
        for key, value in logs.items():
            assert its[key] == pytest.approx(value, rel=1e-5, nan_ok=True), (kind, key)


@pytest.fixture
def halves(tmp_path):
    """Eight images with a box each, every second one with a mask too."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    annotations, images = [], []
    for i in range(8):
        pixels = np.full((*SIZE, 3), 20, "uint8")
        x, y, w, h = (int(v) for v in (*rng.integers(4, 30, 2), *rng.integers(12, 30, 2)))
        pixels[y : y + h, x : x + w] = 200
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 64})
        one = {"id": i, "image_id": i, "category_id": 1, "bbox": [x, y, w, h]}
        if i % 2:
            one["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        annotations.append(one)
    categories = [{"id": 1, "name": "block"}]
    text = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "train.json").write_text(json.dumps(text))
    return mtl.data.from_folder(tmp_path, data_dir=tmp_path / "sets")


def test_from_a_folder_to_metrics(halves):
    """Images without masks count for boxes alone: in batches, training, evaluation, `measure`."""
    detection, segmentation = toy.detection(num_classes=1), toy.segmentation(num_classes=2)
    ds = mtl.data.batches(halves, "train", [detection, segmentation], SIZE, 8)
    _, targets, weights = next(iter(ds))
    np.testing.assert_array_equal(weights["detection"], np.ones(8))
    assert weights["segmentation"].numpy().sum() == 4
    lacking = weights["segmentation"].numpy() == 0
    assert (targets["segmentation"]["mask"].numpy()[lacking] != 1).all()

    model = toy.model([detection, segmentation])
    model.compile("adam")
    whole = model.evaluate(ds, verbose=0, return_dict=True)
    kept = ds.unbatch().filter(lambda x, y, w: w["segmentation"] > 0).batch(4)
    fewer = model.evaluate(kept, verbose=0, return_dict=True)
    for key in ("segmentation_loss", "segmentation_mean_iou"):
        assert whole[key] == pytest.approx(fewer[key], rel=1e-5)
    assert whole["detection_loss"] != pytest.approx(fewer["detection_loss"], rel=1e-5)

    found = measure(model, halves, "train", verbose=False)
    assert found["segmentation_mean_iou"] == pytest.approx(fewer["segmentation_mean_iou"], abs=0.02)
