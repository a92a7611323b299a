"""Run by `test_jax.py` in a process of its own, with `KERAS_BACKEND=jax` and without TensorFlow."""

import sys


class NoTensorFlow:
    """Makes `import tensorflow` fail, as where it is not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "tensorflow_datasets"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


sys.meta_path.insert(0, NoTensorFlow())

import keras  # noqa: E402
import numpy as np  # noqa: E402
import toy  # noqa: E402
from nms_reference import greedy  # noqa: E402

import mtl_keras as mtl  # noqa: E402
from mtl_keras.tasks.nms import non_maximum_suppression  # noqa: E402
from mtl_keras.training.absent import optimizer_slots  # noqa: E402


def state(model):
    weights = (*model.trainable_variables, *model.non_trainable_variables)
    return toy.arrays((*weights, *model.optimizer.variables))


def run(folder):
    assert keras.backend.backend() == "jax"
    model = toy.model()
    x, y = toy.batch(model.tasks, images=4)

    # Trains, evaluates, saves and predicts.
    model.compile(keras.optimizers.Adam(1e-2))
    before = toy.arrays(model.trainable_variables)
    logs = model.fit(x, y, batch_size=2, epochs=2, verbose=0).history
    assert set(logs) == {"loss", "detection_loss", "segmentation_loss"}, logs
    total = np.add(logs["detection_loss"], logs["segmentation_loss"])
    np.testing.assert_allclose(logs["loss"], total, rtol=1e-5)
    after = toy.arrays(model.trainable_variables)
    moved = sum(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert moved > 0.9 * len(before), (moved, len(before))
    measured = model.evaluate(x, y, batch_size=2, verbose=0, return_dict=True)
    assert "detection_AP" in measured and 0 <= measured["segmentation_mean_iou"] <= 1
    model.save(folder + "/model.keras")
    loaded = keras.saving.load_model(folder + "/model.keras")
    for task in model.tasks:
        a, b = (keras.tree.flatten(m.predict(x, verbose=0)[task.name]) for m in (model, loaded))
        for one, other in zip(a, b, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
    picture = np.full((50, 90, 3), 80, "uint8")
    (found,) = model.predict_images([picture], score_threshold=0.0)
    assert found["segmentation"]["mask"].shape == (50, 90)
    boxes = found["detection"]["boxes"]
    assert boxes.shape == (len(found["detection"]["scores"]), 4)
    assert np.all(boxes >= 0) and np.all(boxes <= [90, 50, 90, 50])

    # Suppression goes class by class, as with TensorFlow.
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 40, (2, 60, 2))
    b = np.concatenate([low, low + rng.uniform(0, 25, (2, 60, 2))], -1).astype("float32")
    s = rng.uniform(0, 1, (2, 60, 3)).astype("float32")
    got = keras.tree.map_structure(np.asarray, non_maximum_suppression(b, s, 0.5, 0.3, 50))
    for i in range(2):
        expected = greedy(b[i], s[i], 0.5, 0.3, 50)
        n = int(got["count"][i])
        assert n == len(expected), (n, len(expected))
        np.testing.assert_allclose(got["scores"][i, :n], [e[1] for e in expected], rtol=1e-6)
        np.testing.assert_array_equal(got["classes"][i, :n], [e[2] for e in expected])
        np.testing.assert_allclose(got["boxes"][i, :n], [e[0] for e in expected], rtol=1e-6)

    # What is not finite is named and reaches nothing.
    ones = np.ones(4, "float32")
    cases = [
        (np.where(np.arange(4)[:, None, None, None] == 1, np.nan, x).astype("float32"), ones, 2),
        (x, np.array([1, np.nan, 1, 1], "float32"), 1),
    ]
    for images, weight, culprits in cases:
        sample_weight = {
            "detection": {key: ones for key in y["detection"]},
            "segmentation": {"mask": weight},
        }
        for mode in ("raise", "skip"):
            model.compile(keras.optimizers.Adam(1e-2), on_nonfinite=mode)
            model.fit(x, y, batch_size=4, verbose=0)
            before = state(model)
            arguments = dict(sample_weight=sample_weight, batch_size=4, verbose=0)
            if mode == "skip":
                logs = model.fit(images, y, **arguments).history
                assert logs["skipped"] == [1.0], logs
                assert np.all(np.isfinite(logs["loss"])), logs
            else:
                try:
                    model.fit(images, y, **arguments)
                except mtl.NonFiniteLossError as error:
                    assert len(error.culprits) == culprits, error.culprits
                    assert "segmentation" in error.culprits
                else:
                    raise AssertionError("NaN was not noticed")
            assert toy.same(before, state(model)), mode
    # An absent task leaves all of its own, and only that, as it was.
    keras.utils.set_random_seed(0)
    model = toy.model()
    model.compile(keras.optimizers.AdamW(1e-2), balancing="famo")
    weight = {name: {key: ones for key in of} for name, of in y.items()}
    model.fit(x, y, sample_weight=weight, batch_size=4, verbose=0)
    slots = optimizer_slots(model.optimizer)

    def parts():
        layers = [model.get_layer(name) for name in ("detection_head", "trunk_stageP4")]
        of = [[s for v in one.variables for s in (v, *slots.get(id(v), ()))] for one in layers]
        return [toy.arrays(one) for one in of]

    before = parts()
    weight["detection"] = {key: 0 * ones for key in y["detection"]}
    logs = model.fit(x, y, sample_weight=weight, batch_size=4, verbose=0).history
    after = parts()
    assert logs["detection_loss"] == [0.0] and logs["segmentation_loss"][0] > 0
    assert toy.same(before[0], after[0]) and not toy.same(before[1], after[1])
    print("jax: all well")


run(sys.argv[1])
