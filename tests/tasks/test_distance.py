import importlib.util
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

import mtl_keras as mtl
from mtl_keras.sharing.cost import random_batch
from mtl_keras.tasks import Geometry

HERE = pathlib.Path(__file__).parent


def labels_of(instances, mask=None, crowds=()):
    """Labels of one image in which every object has class 0."""
    instances = np.asarray(instances, "int32")
    crowd = np.isin(np.arange(1, instances.max() + 1), crowds)
    if mask is None:
        mask = np.where(instances > 0, 1, 0)
        mask = np.where(np.isin(instances, crowds) & (instances > 0), 255, mask)
    return {"instances": instances, "mask": np.asarray(mask, "int32"), "is_crowd": crowd}


def encoded(instances, mask=None, crowds=()):
    labels = labels_of(instances, mask, crowds)
    return toy.distance().encode(labels, labels["instances"].shape)["distance"].numpy()


# === Targets ===
@pytest.mark.parametrize("seed", range(4))
def test_every_object_rises_from_its_boundary_to_one(seed):
    labels = toy.labels(8, seed=seed)
    found = encoded(labels["instances"])
    np.testing.assert_allclose(found, toy.relative_distance(labels), atol=1e-5)
    for number in np.unique(labels["instances"]):
        inside = found[labels["instances"] == number]
        if number == 0:
            assert np.all(inside == 0)
        else:
            assert inside.max() == 1 and inside.min() > 0


def test_objects_that_touch_have_a_valley_between_them_at_all_sizes():
    for size in (3, 5, 15, 41):
        two = np.pad(np.repeat([[1] * size + [2] * size], size, 0), 1)
        row = encoded(two)[1 + size // 2, 1:-1]
        top, valley = (size + 1) // 2, 1 / ((size + 1) // 2)
        np.testing.assert_allclose(row[[size // 2, size + size // 2]], 1)
        np.testing.assert_allclose(row[[size - 1, size]], valley)
        assert np.all(row[:top] == row[2 * size : 2 * size - top - 1 : -1])


def test_the_number_does_not_depend_on_the_scale():
    rows, columns = np.mgrid[:40, :60]
    disks = np.where((rows - 19.5) ** 2 + (columns - 17.5) ** 2 < 225, 1, 0)
    disks[(rows - 19.5) ** 2 + (columns - 42.5) ** 2 < 150] = 2
    one = encoded(disks)
    four = encoded(np.kron(disks, np.ones((4, 4), int)))
    mean = four.reshape(40, 4, 60, 4).mean((1, 3))
    # Half a pixel of the boundary, in units of the smaller radius.
    assert np.abs(mean - one)[disks > 0].max() < 0.6 / 11


def test_objects_of_one_pixel_and_of_one_line_are_one():
    small = np.array([[0, 0, 0, 0], [0, 1, 2, 2], [3, 0, 0, 0]])
    np.testing.assert_array_equal(encoded(small), small > 0)
    np.testing.assert_array_equal(encoded([[1, 2], [3, 4]]), np.ones((2, 2)))


def test_the_edge_of_the_picture_is_no_boundary():
    """A cut is measured as far as it is seen; with nothing else in sight it is 1."""
    np.testing.assert_allclose(encoded([[1, 1, 1, 1, 0]] * 5)[2], [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_array_equal(encoded(np.ones((6, 7))), np.ones((6, 7)))


def test_padding_is_no_boundary_and_ignored():
    instances = toy.labels(8)["instances"]
    alone = encoded(instances)
    for around in (((0, 5), (0, 0)), ((0, 0), (0, 9)), ((3, 2), (4, 1))):
        mask = np.pad((instances > 0).astype("int32"), around, constant_values=255)
        found = encoded(np.pad(instances, around), mask)
        (top, _), (left, _) = around
        inner = found[top : top + 64, left : left + 64]
        np.testing.assert_array_equal(inner, alone)
        assert np.all(found[mask == 255] == -1)


def test_crowds_and_objects_that_are_not_listed_are_ignored_but_are_boundaries():
    instances = np.array([[1, 1, 1, 2, 2, 0, 0]] * 3)
    ignored = np.array([0, 0, 0, 1, 1, 0, 0], bool)
    expected = np.where(ignored, -1, [1, 2 / 3, 1 / 3, 0, 0, 0, 0])
    np.testing.assert_allclose(encoded(instances, crowds=[2])[1], expected, rtol=1e-6)
    # Out of the list: the mask still says that there is something, a crowd or an object.
    for value in (255, 1):
        mask = np.where(instances == 2, value, instances > 0)
        found = encoded(np.where(instances == 2, 0, instances), mask)
        np.testing.assert_allclose(found[1], expected, rtol=1e-6)


def test_encodes_in_the_pipeline(tmp_path):
    builder = mtl.data.digits(train=4, val=2, image_size=(48, 80), data_dir=tmp_path)
    tasks = [toy.distance(name="near"), mtl.tasks.Segmentation(11)]
    for augment in (None, mtl.data.Augment()):
        data = mtl.data.batches(builder, "train", tasks, (64, 64), 4, augment)
        assert data.element_spec[1]["near"]["distance"].shape.as_list() == [None, 64, 64]
        _, targets = next(iter(data))
        distance = np.array(targets["near"]["distance"])
        mask = np.array(targets["segmentation"]["mask"])
        assert np.all(distance[mask == 255] == -1) and np.all(distance[mask == 0] == 0)
        assert np.all(distance <= 1) and np.all((distance != 0)[(mask > 0) & (mask < 255)])
        assert all(one.max() == 1 for one in distance)


# === Loss ===
def random_targets(seed=0):
    """Distances of five images: usual, with much ignored, no objects, no background, nothing."""
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random((5, 16, 16)) < 0.3, rng.uniform(0.1, 1, (5, 16, 16)), 0.0)
    truth[1, :, 4:] = -1
    truth[2] = np.minimum(truth[2], 0)
    truth[3] = np.maximum(truth[3], 0.3)
    truth[4] = -1
    outputs = rng.uniform(0, 1, (5, 16, 16, 1))
    return truth.astype("float32"), outputs.astype("float32")


def reference_loss(truth, outputs):
    """Girshick 2015, equation 3, with the knee at 0.1 and slope 1, pixel by pixel."""
    losses = []
    for t, p in zip(np.float64(truth), np.float64(outputs[..., 0]), strict=True):
        means = []
        for part in (t > 0, t == 0):
            e = [abs(x) for x in (t - p)[part]]
            if e:
                means.append(np.mean([x * x / 0.2 if x < 0.1 else x - 0.05 for x in e]))
        losses.append(np.mean(means) if means else 0.0)
    return losses


def test_loss_is_smooth_l1_of_objects_and_of_background():
    truth, outputs = random_targets()
    found = toy.distance().loss({"distance": truth}, outputs)
    assert found.dtype == "float32" and tuple(found.shape) == (5,)
    np.testing.assert_allclose(found, reference_loss(truth, outputs), rtol=1e-5, atol=1e-7)


def test_one_small_object_counts_as_much_as_all_background():
    truth = np.zeros((2, 64, 64), "float32")
    truth[:, 5, 7] = 1.0
    nothing, everything = np.zeros((2, 64, 64, 1), "float32"), np.ones((2, 64, 64, 1), "float32")
    losses = [toy.distance().loss({"distance": truth}, x) for x in (nothing, everything)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert np.all(np.array(losses) > 0.4)


def test_the_truth_costs_nothing_and_ignored_pixels_have_no_say():
    truth, outputs = random_targets()
    task = toy.distance()
    assert np.max(task.loss({"distance": truth}, truth[..., None])) == 0
    other = np.where(truth[..., None] < 0, np.nan, outputs)
    one, another = (task.loss({"distance": truth}, x) for x in (outputs, other))
    np.testing.assert_array_equal(one, another)


def test_gradients_are_finite_and_none_where_ignored():
    truth, outputs = random_targets()
    x = tf.constant(outputs)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(toy.distance().loss({"distance": truth}, x))
    gradient = tape.gradient(total, x).numpy()[..., 0]
    assert np.all(np.isfinite(gradient))
    assert np.all(gradient[truth < 0] == 0) and np.all(gradient[truth >= 0] != 0)


@pytest.mark.parametrize("where", ["truth", "outputs"])
def test_what_is_not_finite_is_not_left_out_silently(where):
    truth, outputs = random_targets()
    (truth if where == "truth" else outputs)[0, 3, 3] = np.nan
    truth[0, 3, 3] = np.nan if where == "truth" else 0.5
    loss = np.array(toy.distance().loss({"distance": truth}, outputs))
    assert np.isnan(loss[0]) and np.all(np.isfinite(loss[1:]))


# === Predictions ===
def test_predictions_are_in_the_pixels_of_the_picture():
    outputs = np.zeros((1, 64, 64, 1), "float32")
    outputs[:, :, 20:40] = 1.0
    outputs[:, 32:] = 0.25  # padding
    task = toy.distance()
    found = task.decode(outputs, Geometry((32, 64), (96, 192)))["distance"].numpy()
    assert found.shape == (1, 96, 192)
    assert np.all(found[:, :, 62:118] == 1) and np.all(found[:, :, :58] == 0)
    assert not np.any(found[:, :, 121:])


def test_the_head_gives_numbers_from_zero_to_one():
    task = toy.distance(levels=("P3", "P4"))
    head = task.head({"P3": 6, "P4": 4})
    x = {"P3": np.full((1, 4, 6, 6), 1e4, "float32"), "P4": np.full((1, 2, 3, 4), -1e4, "float32")}
    found = np.array(head(x))
    assert found.shape == (1, 32, 48, 1) and np.all((found >= 0) & (found <= 1))


# === Metrics ===
def expected_errors(truth, found):
    error = np.abs(np.float64(truth) - found)
    return {
        "distance_mae": error[truth > 0].mean(),
        "distance_rmse": np.sqrt((error[truth > 0] ** 2).mean()),
        "distance_background_mae": error[truth == 0].mean(),
    }


def test_errors_are_over_all_pixels_of_all_batches():
    (metric,) = toy.distance().metrics()
    several = [random_targets(seed) for seed in range(3)]
    for truth, outputs in several:
        metric.update_state({"distance": truth}, outputs, None)
    truth, outputs = (np.concatenate(x) for x in zip(*several, strict=True))
    found = {key: float(value) for key, value in metric.result().items()}
    assert found == pytest.approx(expected_errors(truth, outputs[..., 0]), rel=1e-5)


def test_images_of_no_weight_are_left_out_and_reset_forgets():
    truth, outputs = random_targets()
    (metric,) = toy.distance().metrics()
    broken = outputs.copy()
    broken[1] = np.nan
    metric.update_state({"distance": truth}, broken, np.array([1, 0, 2, 1, 1], "float32"))
    rest = [0, 2, 3, 4]
    found = {key: float(value) for key, value in metric.result().items()}
    assert found == pytest.approx(expected_errors(truth[rest], outputs[rest, ..., 0]), rel=1e-5)
    metric.reset_state()
    assert all(float(value) == 0 for value in metric.result().values())


def test_an_image_is_measured_in_its_own_pixels():
    """Labels of any size, in which crowds do not count."""
    labels = {key: value for key, value in toy.labels(5, (50, 90)).items()}
    labels["is_crowd"][1] = True
    labels["mask"][labels["instances"] == 2] = 255
    truth = toy.relative_distance(labels)
    found = np.random.default_rng(0).uniform(0, 1, (50, 90)).astype("float32")
    own = toy.distance().image_evaluator()
    own.add_image({"distance": found}, labels)
    result = {key: float(value) for key, value in own.result().items()}
    assert result == pytest.approx(expected_errors(truth, found), rel=1e-5)


# === With the rest of the package ===
def three_tasks():
    return [toy.detection(), toy.segmentation(), toy.distance()]


def check_predictions(found, height, width):
    distance = found["distance"]["distance"]
    assert distance.shape == (height, width) and distance.dtype == np.float32
    assert np.all((distance >= 0) & (distance <= 1))


def test_trains_saves_predicts_and_exports(tmp_path):
    model = toy.model([toy.segmentation(), toy.distance()])
    x, y = toy.batch(model.tasks)
    model.compile(keras.optimizers.Adam(1e-2))
    logs = model.fit(x, y, batch_size=4, epochs=12, verbose=0).history
    assert logs["distance_loss"][-1] < 0.8 * logs["distance_loss"][0]
    measured = model.evaluate(x, y, batch_size=2, verbose=0, return_dict=True)
    assert {"distance_mae", "distance_rmse", "distance_background_mae"} <= set(measured)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert [t.get_config() for t in loaded.tasks] == [t.get_config() for t in model.tasks]
    outputs = [np.array(m(x)["distance"]) for m in (model, loaded)]
    np.testing.assert_allclose(*outputs, atol=1e-6)

    picture = np.random.default_rng(0).integers(0, 255, (45, 70, 3), "uint8")
    (found,) = loaded.predict_images([picture])
    check_predictions(found, 45, 70)
    folder = mtl.export.saved_model(loaded, tmp_path / "served")
    served = tf.saved_model.load(str(folder)).signatures["serving_default"](images=picture[None])
    np.testing.assert_allclose(served["distance_map"][0], found["distance"]["distance"], atol=1e-5)


def test_is_converted_and_reported():
    model = toy.model(three_tasks())
    soft = mtl.convert(model, mtl.sharing.SoftSharing(neck_channels=8))
    x, _ = toy.batch(model.tasks)
    np.testing.assert_allclose(model(x)["distance"], soft(x)["distance"], atol=1e-5)
    assert "distance_head" in str(mtl.sharing_report(model))


def test_random_pictures_have_targets_for_measuring_costs():
    model = toy.model(three_tasks())
    _, targets = random_batch(model, (64, 64, 3), size=2)
    distance = targets["distance"]["distance"]
    assert distance.shape == (2, 64, 64)
    assert distance.min() == 0 and distance.max() == 1 and 0.1 < (distance > 0).mean() < 0.9


def test_trains_in_half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    model = toy.model([toy.distance()])
    x, y = toy.batch(model.tasks)
    model.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
    logs = model.fit(x, y, batch_size=4, epochs=3, verbose=0).history["loss"]
    assert np.all(np.isfinite(logs)) and logs[-1] < logs[0]
    assert keras.backend.standardize_dtype(model(x)["distance"].dtype) == "float32"


@pytest.mark.slow  # XLA on the CPU compiles for long.
def test_trains_measures_and_predicts_with_jax():
    """Set MTL_KERAS_JAX_PYTHON to the Python of another environment to use its JAX."""
    python = os.environ.get("MTL_KERAS_JAX_PYTHON")
    if python is None and importlib.util.find_spec("jax") is None:
        pytest.skip("JAX is not installed, and MTL_KERAS_JAX_PYTHON names no Python that has it")
    done = subprocess.run(
        [python or sys.executable, str(HERE / "distance_jax_run.py")],
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.pathsep.join(map(str, (HERE.parents[1], HERE.parent))),
        },
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0 and "jax: all well" in done.stdout, done.stderr[-4000:]
