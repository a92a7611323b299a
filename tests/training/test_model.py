import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

import mtl_keras as mtl


@pytest.fixture(scope="module")
def trained():
    """A model that has learned four pictures by heart, and these pictures."""
    model = toy.model([toy.detection(channels=16, depth=2), toy.segmentation(channels=16)])
    x, y = toy.batch(model.tasks)
    model.compile(keras.optimizers.Adam(1e-2))
    history = model.fit(x, y, batch_size=4, epochs=240, verbose=0).history
    return model, x, y, history


def eager(model, **arguments):
    model.compile(keras.optimizers.Adam(1e-2), run_eagerly=True, **arguments)
    return model


def dataset(*parts, size=2):
    return tf.data.Dataset.from_tensor_slices(parts).batch(size)


def per_image(model, x, y, names=("detection", "segmentation")):
    outputs = model(x, training=False)
    tasks = [task for task in model.tasks if task.name in names]
    return {t.name: np.array(t.loss(y[t.name], outputs[t.name])) for t in tasks}


def test_training_learns_and_logs_every_task(trained):
    _, _, _, history = trained
    assert set(history) == {"loss", "detection_loss", "segmentation_loss"}
    total = np.add(history["detection_loss"], history["segmentation_loss"])
    np.testing.assert_allclose(history["loss"], total, rtol=1e-5)
    for values in history.values():
        assert values[-1] < 0.5 * values[0]


def test_outputs_are_dicts_by_task(trained):
    model, x, _, _ = trained
    outputs = model.predict(x, verbose=0)
    assert set(outputs) == {"detection", "segmentation"}
    assert outputs["detection"]["P3"].shape == (4, 8, 8, 7)
    assert outputs["segmentation"].shape == (4, 64, 64, 4)


def test_no_xla_on_the_cpu(trained):
    assert trained[0].jit_compile is False


def test_evaluate_equals_metrics_by_hand(trained):
    model, x, y, _ = trained
    # Three images in batches of two: the last batch is not full.
    x, y = x[:3], keras.tree.map_structure(lambda a: a[:3], y)
    logs = model.evaluate(dataset(x, y), verbose=0, return_dict=True)
    again = model.evaluate(dataset(x, y), verbose=0, return_dict=True)
    assert logs == pytest.approx(again, nan_ok=True)
    outputs = model.predict(x, verbose=0)
    detection, segmentation = model.tasks
    evaluator = detection.evaluator()
    found = keras.tree.map_structure(np.array, detection.decode(outputs["detection"]))
    truth = y["detection"]
    evaluator.update(
        **found,
        true_boxes=truth["boxes"],
        true_classes=truth["classes"],
        true_crowd=truth["is_crowd"],
    )
    expected = evaluator.result()
    guess, mask = outputs["segmentation"].argmax(-1), y["segmentation"]["mask"]
    iou = {}
    for c in range(4):
        either = ((guess == c) | (mask == c)).sum()
        iou[c] = ((guess == c) & (mask == c)).sum() / either if either else np.nan
        expected[f"segmentation_iou_{c}"] = np.nan_to_num(iou[c])
    expected["segmentation_mean_iou"] = np.nanmean(list(iou.values()))
    for key, value in expected.items():
        assert logs[key] == pytest.approx(value, abs=1e-5, nan_ok=True), key
    for key in ("AP", "AP50", "AP75", "AP_at_100", "AP_0", "AP_1", "AP_2"):
        assert f"detection_{key}" in logs
    assert logs["detection_AP50"] > 0.3 and logs["segmentation_mean_iou"] > 0.5
    values = model.evaluate(dataset(x, y), verbose=0)
    assert values == pytest.approx(list(logs.values()), nan_ok=True)


def test_loss_is_the_weighted_sum_plus_penalties():
    model = eager(toy.model(), loss_weights={"detection": 0.25})
    x, y = toy.batch(model.tasks)
    kernel = model.get_layer("segmentation_head").get_layer("conv").kernel
    kernel.regularizer = keras.regularizers.L2(0.1)
    penalty = 0.1 * float(np.sum(np.square(kernel)))
    losses = {name: loss.mean() for name, loss in per_image(model, x, y).items()}
    logs = model.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)
    assert logs["detection_loss"] == pytest.approx(losses["detection"], rel=1e-5)
    assert logs["segmentation_loss"] == pytest.approx(losses["segmentation"], rel=1e-5)
    expected = 0.25 * losses["detection"] + losses["segmentation"] + penalty
    assert penalty > 0.01 and logs["loss"] == pytest.approx(expected, rel=1e-5)


def test_sample_weight_of_a_task_is_its_own_and_left_as_it_was():
    model = eager(toy.model())
    x, y = toy.batch(model.tasks)
    w = np.array([1.0, 0.0, 3.0, 0.5], "float32")
    copy = w.copy()

    def check(logs, detection, segmentation):
        # The weights of both forms below are those of one batch, in Keras' own order.
        for name, weight in (("detection", detection), ("segmentation", segmentation)):
            weight = np.broadcast_to(weight, 4)
            kept = weight > 0  # those that have a label
            some = {key: value[kept] for key, value in y[name].items()}
            losses = per_image(model, x[kept], {**y, name: some}, [name])[name]
            by_hand = (losses * weight[kept]).sum() / kept.sum()
            assert logs[f"{name}_loss"] == pytest.approx(by_hand, rel=1e-5)

    arguments = dict(verbose=0, return_dict=True)
    check(model.evaluate(dataset(x, y, {"detection": w}, size=4), **arguments), w, 1)
    check(model.evaluate(dataset(x, y, {"segmentation": w}, size=4), **arguments), 1, w)
    check(model.evaluate(dataset(x, y, w, size=4), **arguments), w, w)
    check(model.evaluate(x, y, sample_weight=w, batch_size=4, **arguments), w, w)
    model.fit(x, y, sample_weight=w, batch_size=4, verbose=0)
    model.fit(dataset(x, y, {"detection": w}), verbose=0)
    assert w.tobytes() == copy.tobytes()


def test_an_image_of_no_weight_moves_nothing():
    """The trained weights are the same whatever stands in an image's targets of weight zero."""
    ends = []
    for change in (False, True):
        model = toy.model()
        x, y = toy.batch(model.tasks)
        if change:
            y["segmentation"]["mask"][1] = 3
        w = np.array([1, 0, 1, 1], "float32")
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        model.train_on_batch(x, y, sample_weight=w)
        ends.append(toy.arrays(model.trainable_variables))
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_batch_may_lack_a_task():
    model = eager(toy.model())
    x, y = toy.batch(model.tasks)
    y = {"segmentation": y["segmentation"]}
    head = toy.arrays(model.get_layer("detection_head").trainable_variables)
    logs = model.fit(dataset(x, y), verbose=0).history
    assert logs["loss"] == pytest.approx(logs["segmentation_loss"], rel=1e-5)
    assert toy.same(head, toy.arrays(model.get_layer("detection_head").trainable_variables))
    logs = model.evaluate(dataset(x, y), verbose=0, return_dict=True)
    assert logs["segmentation_mean_iou"] >= 0 and np.isnan(logs["detection_AP"])


def test_targets_of_an_unknown_task_are_an_error():
    model = eager(toy.model())
    x, y = toy.batch(model.tasks)
    with pytest.raises(ValueError, match="unknown tasks.*depth.*detection"):
        model.fit(dataset(x, {**y, "depth": y["segmentation"]}), verbose=0)


def test_compiling_again_starts_anew():
    model = eager(toy.model())
    x, y = toy.batch(model.tasks)
    model.fit(x, y, batch_size=4, verbose=0)
    eager(model, loss_weights={"segmentation": 0.0})
    logs = model.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(logs["detection_loss"], rel=1e-5)
    assert logs["segmentation_loss"] > 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"loss_weights": {"depth": 1.0}}, "`loss_weights`.*depth"),
        ({"on_nonfinite": "ignore"}, "`on_nonfinite`.*ignore"),
        ({"loss": "mse"}, "`loss` belongs to the tasks"),
        ({"metrics": ["accuracy"]}, "`metrics` belongs to the tasks"),
    ],
)
def test_a_bad_argument_of_compile_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        toy.model().compile(**arguments)


def test_the_best_confidence_of_an_evaluation_is_kept_with_the_model(trained, tmp_path):
    model, x, y, _ = trained
    task = model.tasks[0]
    task.confidence = 0.95
    before = model.evaluate(x, y, verbose=0, return_dict=True)
    chosen = model.choose_confidence()
    after = model.evaluate(x, y, verbose=0, return_dict=True)
    assert chosen == {name: after[name] for name in chosen}
    assert after["detection_F1"] > 0.7 > before["detection_F1"] and task.confidence < 0.95
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.tasks[0].confidence == task.confidence


def test_evaluate_before_compile_says_so():
    model = toy.model()
    x, y = toy.batch(model.tasks)
    with pytest.raises(ValueError, match="compile"):
        model.evaluate(x, y)


def test_lite_trains_and_evaluates(lite):
    """The trunk that people use, once through everything."""
    x, _ = toy.batch([])
    y = {t.name: toy.targets(t, *(toy.labels(3, seed=i) for i in range(4))) for t in lite.tasks}
    before = toy.arrays(lite.trainable_variables)
    lite.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
    logs = lite.fit(x, y, batch_size=4, verbose=0).history
    assert all(np.isfinite(v[0]) for v in logs.values())
    after = toy.arrays(lite.trainable_variables)
    moved = sum(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert moved == len(before)
    assert mtl.sharing_report(lite).shared_fraction > 0.9
