import keras
import numpy as np
import pytest
import tensorflow as tf
import toy
from PIL import Image

from mtl_keras.export import saved_model
from mtl_keras.tasks import Geometry
from mtl_keras.training.inference import predict_images


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Pictures of all kinds, with their heights and widths."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    Image.fromarray(rng.integers(0, 255, (45, 70, 3), "uint8")).save(path)
    return [
        (rng.integers(0, 255, (1, 1, 3), "uint8"), (1, 1)),
        (rng.integers(0, 255, (20, 3000, 3), "uint8"), (20, 3000)),
        (rng.integers(0, 255, (700, 3, 3), "uint8"), (700, 3)),
        (rng.integers(0, 255, (64, 64, 3), "uint8"), (64, 64)),
        (rng.integers(0, 255, (50, 40), "uint8"), (50, 40)),
        (rng.integers(0, 255, (50, 40, 1), "uint8"), (50, 40)),
        (rng.integers(0, 65535, (33, 77), "uint16"), (33, 77)),
        (rng.integers(0, 255, (60, 91, 4), "uint8"), (60, 91)),
        (path, (45, 70)),
        (str(path), (45, 70)),
    ]


def test_pictures_of_all_kinds(lite, pictures):
    results = lite.predict_images([p for p, _ in pictures], score_threshold=0.0)
    assert len(results) == len(pictures)
    for found, (_, (height, width)) in zip(results, pictures, strict=True):
        assert set(found) == {"detection", "segmentation", "instances"}
        boxes, scores, classes = (found["detection"][k] for k in ("boxes", "scores", "classes"))
        assert (boxes.dtype, scores.dtype, classes.dtype) == (np.float32, np.float32, np.int32)
        assert boxes.shape == (len(scores), 4) and classes.shape == scores.shape
        assert np.all(boxes >= 0) and np.all(boxes <= [width, height, width, height])
        assert np.all(boxes[:, 2:] >= boxes[:, :2])
        assert np.all(np.diff(scores) <= 0) and np.all((scores > 0) & (scores <= 1))
        assert np.all((classes >= 0) & (classes < 3))
        mask = found["segmentation"]["mask"]
        assert mask.shape == (height, width) and mask.dtype == np.int32
        assert mask.min() >= 0 and mask.max() < 4
        instances = found["instances"]["mask"]
        assert instances.shape == (height, width) and instances.dtype == np.int32
        own = instances > 0
        assert (classes[instances[own] - 1] + 1 == mask[own]).all()
        assert found["instances"]["boxes"] is boxes
    # The same picture from an array, a path and a string of a path.
    same = lite.predict_images(
        [np.array(Image.open(pictures[-1][0])), *(pictures[i][0] for i in (8, 9))]
    )
    for other in same[1:]:
        for a, b in zip(keras.tree.flatten(same[0]), keras.tree.flatten(other), strict=True):
            np.testing.assert_array_equal(a, b)


def test_each_picture_is_on_its_own(lite, pictures):
    alone = lite.predict_images([pictures[1][0]], score_threshold=0.0)[0]
    among = lite.predict_images([p for p, _ in pictures[:4]], score_threshold=0.0)[1]
    for a, b in zip(keras.tree.flatten(alone), keras.tree.flatten(among), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_score_threshold_only_leaves_out():
    model = toy.model()
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), "uint8")
    head = model.get_layer("detection_head").get_layer("class_output")
    head.kernel.assign(head.kernel * 30.0)
    head.bias.assign(head.bias * 0.0)
    everything = model.predict_images([picture], score_threshold=0.0)[0]["detection"]
    middle = float(np.median(everything["scores"]))
    for threshold in (0.02, middle, 1.0):
        some = model.predict_images([picture], score_threshold=threshold)[0]["detection"]
        keep = everything["scores"] >= threshold
        assert len(keep) > 3 and keep.any() == (threshold < 1.0)
        for key in everything:
            np.testing.assert_array_equal(some[key], everything[key][keep])


def test_by_default_the_confidence_of_the_task_counts():
    model = toy.model()
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), "uint8")
    head = model.get_layer("detection_head").get_layer("class_output")
    head.bias.assign(head.bias * 0.0)
    everything = model.predict_images([picture], score_threshold=0.0)[0]["detection"]
    middle = float(np.median(everything["scores"]))
    (task,) = (task for task in model.tasks if task.name == "detection")
    for confidence in (0.0, middle, 1.0):
        task.confidence = confidence
        shown = model.predict_images([picture])[0]
        assert len(shown["detection"]["scores"]) == (everything["scores"] >= confidence).sum()
    assert len(everything["scores"]) > 3 and not len(shown["detection"]["scores"])


def test_no_pictures_give_no_predictions(lite):
    assert lite.predict_images([]) == []


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_bad_threshold_is_named(lite, threshold):
    with pytest.raises(ValueError, match="`score_threshold`"):
        lite.predict_images([], score_threshold=threshold)


def test_what_is_no_picture_is_an_error(lite, tmp_path):
    with pytest.raises(FileNotFoundError, match="missing.png"):
        lite.predict_images([tmp_path / "missing.png"])
    with pytest.raises(ValueError, match="list"):
        lite.predict_images("picture.png")
    with pytest.raises(ValueError, match="list"):
        lite.predict_images(tmp_path / "picture.png")
    with pytest.raises(ValueError, match="dtype"):
        lite.predict_images([np.zeros((8, 8, 3), "float32")])


SIZES = [(64, 64), (100, 200), (480, 130), (33, 47), (20, 31)]


@pytest.mark.parametrize("height, width", SIZES)
def test_decode_maps_boxes_back(height, width):
    task = toy.detection(levels=("P3",))
    scale = min(64 / height, 64 / width)
    content = (round(height * scale), round(width * scale))
    box = np.array([0.21 * width, 0.13 * height, 0.77 * width, 0.6 * height])
    on_canvas = box * (np.array([*content[::-1]] * 2) / [width, height, width, height])
    outputs = np.full((1, 8, 8, 7), -20.0, "float32")
    column, row = (int((on_canvas[i] + on_canvas[i + 2]) / 2 // 8) for i in (0, 1))
    x, y = (column + 0.5) * 8, (row + 0.5) * 8
    sides = [x - on_canvas[0], y - on_canvas[1], on_canvas[2] - x, on_canvas[3] - y]
    outputs[0, row, column] = [-20, -20, 9, *np.log(np.array(sides) / 8)]
    found = task.decode({"P3": outputs}, Geometry(content, (height, width)))
    assert int(found["count"][0]) == 1 and int(found["classes"][0, 0]) == 2
    np.testing.assert_allclose(found["boxes"][0, 0], box, atol=1e-2)


class Seer:
    """In place of a network: finds the white rectangle on black exactly, from the canvas alone."""

    def __init__(self):
        self.tasks = (toy.detection(levels=("P3",)), toy.segmentation())
        self.image_size = (64, 64)

    def __call__(self, canvas, training=False):
        # The padding is 114, and black and white are what they are.
        white = tf.where(tf.abs(canvas[..., 0] - 114.0) < 1e-3, 0.0, canvas[..., 0] / 255.0)
        logits = tf.stack([0.5 - white, white - 0.5, white - 9.0, white - 9.0], -1)
        sides = []
        for axis in (1, 2):  # Columns first: the extent of the mass, where pixels may be partial.
            mass = tf.reduce_sum(white, axis)[0]
            full = mass / tf.reduce_max(mass)
            length = tf.reduce_sum(full)
            at = tf.range(tf.shape(mass)[0])
            centre = tf.reduce_sum(full * (tf.cast(at, "float32") + 0.5)) / length
            sides.append((centre, length))
        (x, width), (y, height) = sides
        column, row = tf.floor(x / 8), tf.floor(y / 8)
        px, py = (column + 0.5) * 8, (row + 0.5) * 8
        reach = tf.stack(
            [px - x + width / 2, py - y + height / 2, x + width / 2 - px, y + height / 2 - py]
        )
        cell = tf.concat([[-20.0, 9.0, -20.0], tf.math.log(reach / 8)], 0)
        down, across = tf.unstack(tf.shape(canvas)[1:3] // 8)
        index = tf.cast(row, "int32") * across + tf.cast(column, "int32")
        cells = tf.one_hot(index, down * across)[:, None]
        outputs = tf.where(cells > 0, cell, [-20.0, -20, -20, 0, 0, 0, 0])
        outputs = tf.reshape(outputs, (1, down, across, 7))
        return {"detection": {"P3": outputs}, "segmentation": logits}


@pytest.mark.parametrize("height, width", SIZES)
def test_what_is_seen_comes_back_where_it_was(height, width):
    """The whole way: picture, letterbox, network, decode, own pixels; to half a model pixel."""
    x0, y0 = round(0.1 * width), round(0.3 * height)
    x1, y1 = round(0.9 * width), round(0.95 * height)
    picture = np.zeros((height, width, 3), "uint8")
    picture[y0:y1, x0:x1] = 255
    (found,) = predict_images(Seer(), [picture], score_threshold=0.5)
    tolerance = 0.5 * max(1.0, height / 64, width / 64)
    assert found["detection"]["classes"].tolist() == [1]
    np.testing.assert_allclose(found["detection"]["boxes"][0], [x0, y0, x1, y1], atol=tolerance)
    mask = found["segmentation"]["mask"]
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    edges = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    np.testing.assert_allclose(edges, [x0, y0, x1, y1], atol=tolerance)
    assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.97


def test_other_names_and_several_masks_are_kept_apart():
    tasks = [toy.segmentation(name="cells"), toy.segmentation(name="tissue", num_classes=2)]
    (found,) = toy.model(tasks).predict_images([np.zeros((30, 20, 3), "uint8")])
    assert set(found) == {"cells", "tissue"} and found["tissue"]["mask"].max() < 2


def test_a_task_named_like_instances_is_refused():
    with pytest.raises(ValueError, match="'instances'"):
        toy.model([toy.detection(), toy.segmentation(name="instances")])
    # Without instances, the name is free.
    toy.model([toy.detection(), toy.segmentation(name="instances", num_classes=3)])


def test_one_picture_is_not_taken_for_many():
    model = toy.model([toy.segmentation()])
    with pytest.raises(ValueError, match=r"one image of shape \(48, 40, 3\)"):
        model.predict_images(np.zeros((48, 40, 3), "uint8"))
    assert len(model.predict_images(np.zeros((2, 48, 40, 3), "uint8"))) == 2


def test_what_is_set_after_a_prediction_counts(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), "uint8")
    model = toy.model([toy.detection(score_threshold=0.0), toy.segmentation()])
    before = model.predict_images([image], score_threshold=0.0)[0]
    assert len(before["detection"]["scores"]) > 2
    made = model._predict_images_function
    model.predict_images([image])
    assert model._predict_images_function is made, "it is made once where nothing is set"
    model.tasks[0].max_detections = 2
    found = model.predict_images([image], score_threshold=0.0)[0]
    assert len(found["detection"]["scores"]) == 2
    serve = tf.saved_model.load(str(saved_model(model, tmp_path / "served")))
    found = serve.signatures["serving_default"](images=image[None])
    assert found["detection_boxes"].shape[1] == 2
    model.image_size = (32, 32)
    assert not np.array_equal(
        model.predict_images([image])[0]["segmentation"]["mask"], before["segmentation"]["mask"]
    )
