"""From a folder whose images lack labels to weights and metrics: what is lacking has no say."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy
from PIL import Image

import mtl_keras as mtl
from mtl_keras.zoo.measure import measure

SIZE = (64, 64)
XML = "<annotation><object><name>block</name><bndbox>{}</bndbox></object></annotation>"
PARTS = {"whole": range(8), "boxed": range(4), "painted": range(4, 8)}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Pascal VOC: four images with an XML of boxes, four with a mask of classes; and each alone."""
    made = {}
    for part, numbers in PARTS.items():
        folder = tmp_path_factory.mktemp(part)
        for name in ("JPEGImages", "Annotations", "SegmentationClass"):
            (folder / name).mkdir()
        (folder / "class_names.txt").write_text("block\n")
        for i in numbers:
            rng = np.random.default_rng(i)
            x, y, w, h = (int(v) for v in (*rng.integers(4, 30, 2), *rng.integers(12, 30, 2)))
            pixels = np.full((*SIZE, 3), 20, "uint8")
            pixels[y : y + h, x : x + w] = 60 + 20 * i
            Image.fromarray(pixels).save(folder / "JPEGImages" / f"{i}.png")
            if i < 4:
                ends = {"xmin": x + 1, "ymin": y + 1, "xmax": x + w, "ymax": y + h}
                box = "".join(f"<{name}>{value}</{name}>" for name, value in ends.items())
                (folder / "Annotations" / f"{i}.xml").write_text(XML.format(box))
            else:
                mask = Image.fromarray((pixels[..., 0] > 20).astype("uint8"), "L")
                mask.save(folder / "SegmentationClass" / f"{i}.png")
        made[part] = mtl.data.from_folder(folder, data_dir=tmp_path_factory.mktemp("sets"))
    return made


def tasks():
    return [toy.detection(num_classes=1), toy.segmentation(num_classes=2)]


def of(builder, tasks):
    return mtl.data.batches(builder, "train", tasks, SIZE, 8)


def in_order(ds):
    """All in one batch, in the order of the files' names."""
    ((images, *parts),) = ds.unbatch().batch(8)
    brightest = np.max(images, axis=(1, 2, 3))
    assert len(brightest) == 8
    order = np.argsort(brightest)
    return tf.nest.map_structure(lambda value: value.numpy()[order], (images, *parts))


def test_each_task_has_the_images_that_have_its_labels(sets):
    _, targets, weights = in_order(of(sets["whole"], tasks()))
    np.testing.assert_array_equal(weights["detection"], [1] * 4 + [0] * 4)
    np.testing.assert_array_equal(weights["segmentation"], [0] * 4 + [1] * 4)
    assert ((targets["detection"]["classes"] == 0).sum(axis=1) == [1] * 4 + [0] * 4).all()
    assert ((targets["segmentation"]["mask"] == 1).any((1, 2)) == [False] * 4 + [True] * 4).all()


def test_an_evaluation_is_of_the_images_that_have_the_labels(sets):
    model = toy.model(tasks())
    model.compile("sgd")

    def evaluated(part, tasks):
        return model.evaluate(of(sets[part], tasks), verbose=0, return_dict=True)

    whole = evaluated("whole", model.tasks)  # Its batch holds both kinds.
    assert np.isfinite([whole["detection_AP50"], whole["segmentation_mean_iou"]]).all()
    for part, task in zip(("boxed", "painted"), model.tasks, strict=True):
        own = {k: v for k, v in evaluated(part, [task]).items() if k.startswith(task.name)}
        assert len(own) > 1
        for name, value in own.items():
            assert whole[name] == pytest.approx(value, rel=1e-5, nan_ok=True), name


def test_measure_leaves_out_images_without_labels(sets, monkeypatch):
    """Right where there are labels, wrong and surer of it where there are none."""

    def predict(images):
        image = images[0, ..., 0]
        block = image > 20
        boxed = image.max() < 60 + 20 * 4
        rows, columns = np.nonzero(block)
        boxes, scores = np.zeros((1, 20, 4), "float32"), np.zeros((1, 20), "float32")
        boxes[0, 0] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        scores[0, 0] = 0.5 if boxed else 0.9
        if not boxed:
            boxes[0, 0] = 0, 0, 9, 9
        count, classes = np.ones(1, "int32"), np.zeros((1, 20), "int32")
        return {
            "detection": {"boxes": boxes, "scores": scores, "classes": classes, "count": count},
            "segmentation": {"mask": (block != boxed).astype("int32")[None]},
        }

    monkeypatch.setattr("mtl_keras.training.inference.predict_function", lambda model: predict)
    found = measure(toy.model(tasks()), sets["whole"], "train", verbose=False)
    assert found["detection_AP50"] == pytest.approx(1.0)
    assert found["segmentation_mean_iou"] == pytest.approx(1.0)
    # No image has what it takes to tell instances apart.
    assert not any(value > 0 for name, value in found.items() if name.startswith("instances"))


@pytest.mark.parametrize(
    ("sharing", "balancing"),
    [
        ("hard", None),
        pytest.param("cross_stitch", "uncertainty", marks=pytest.mark.slow),
        pytest.param("hard", "mgda", marks=pytest.mark.slow),
    ],
)
def test_a_mix_of_both_parts_trains_as_the_folder_does(sets, sharing, balancing):
    """What stands in place of labels differs between the two, and has no say."""
    model = toy.model(tasks(), sharing)
    detection, segmentation = model.tasks
    model.compile(keras.optimizers.Adam(1e-2), balancing=balancing)
    model.optimizer.build(model.trainable_variables)
    state = [*model.variables, *model.optimizer.variables]
    if model.balancing is not None:
        state += model.balancing.variables
    before = toy.arrays(state)
    sources = {"a": of(sets["boxed"], [detection]), "b": of(sets["painted"], [segmentation])}
    mixed = in_order(mtl.data.mix(sources, 4, "uniform"))
    folder = in_order(of(sets["whole"], model.tasks))
    for one, other in ((mixed[0], folder[0]), *((mixed[2][k], folder[2][k]) for k in folder[2])):
        np.testing.assert_array_equal(one, other)
    same = tf.nest.map_structure(np.array_equal, mixed[1], folder[1])
    assert not all(same["detection"].values()) and not same["segmentation"]["mask"]

    ends, logs = [], []
    for parts in (mixed, folder):
        for variable, value in zip(state, before, strict=True):
            variable.assign(value)
        keras.utils.set_random_seed(1)
        logs.append(model.fit(tf.data.Dataset.from_tensors(parts), verbose=0).history)
        ends.append(toy.arrays(state))
    assert not toy.same(ends[0], before)
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    for name, (value,) in logs[0].items():
        assert logs[1][name][0] == pytest.approx(value, rel=1e-5), name
