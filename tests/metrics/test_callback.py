"""Δm in the logs of a real fit, before those that monitor it."""

import keras
import numpy as np
import pytest
import toy

from mtl_keras.metrics import DeltaMCallback

SINGLE_IOU = {"segmentation": {"iou_0": 0.8}}
SINGLE = {"detection": {"AP": 0.2}, "segmentation": {"mean_iou": [0.4, 0.6], "iou_0": 0.8}}


def single_task():
    """As many seeds for each metric."""
    return {t: {m: np.resize(v, 2) for m, v in metrics.items()} for t, metrics in SINGLE.items()}


def fit(model, callbacks, epochs=1, validation=True, **arguments):
    x, y = toy.batch(model.tasks, images=4)
    if validation:
        arguments["validation_data"] = (x, y)
    return model.fit(
        x, y, batch_size=4, epochs=epochs, callbacks=callbacks, verbose=0, **arguments
    ).history


@pytest.mark.parametrize("convention", ["task", "metric"])
def test_logs_delta_m_of_the_validation(model, convention):
    watch = DeltaMCallback(single_task(), convention=convention)
    logs = fit(model, [watch], epochs=2)
    assert watch.latest.value == logs["val_delta_m"][-1]
    assert watch.latest.seeds == (1, 2)
    assert not any("delta_m" in name for name in logs if not name.startswith("val_"))
    for epoch in range(2):
        ap, mean, first = (
            100 * (logs[f"val_{name}"][epoch] / baseline - 1)
            for name, baseline in (
                ("detection_AP", 0.2),
                ("segmentation_mean_iou", 0.5),
                ("segmentation_iou_0", 0.8),
            )
        )
        assert mean > -100.0
        if convention == "task":
            expected = (ap + (mean + first) / 2) / 2
            assert logs["val_segmentation_delta_m"][epoch] == pytest.approx((mean + first) / 2)
        else:
            expected = -(ap + mean + first) / 3
            assert logs["val_detection_delta_m"][epoch] == pytest.approx(-ap)
        assert logs["val_delta_m"][epoch] == pytest.approx(expected)


def test_others_may_monitor_it(model, tmp_path):
    best = keras.callbacks.ModelCheckpoint(
        tmp_path / "{epoch}.weights.h5",
        monitor="val_delta_m",
        mode="max",
        save_best_only=True,
        save_weights_only=True,
    )
    stop = keras.callbacks.EarlyStopping("val_delta_m", mode="max", min_delta=1e6, patience=1)
    table = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    logs = fit(model, [DeltaMCallback(single_task()), best, stop, table], epochs=4)
    values = logs["val_delta_m"]
    # The first is the best so far, and no other is better by as much as a million percent.
    assert len(values) == 2
    saved = {int(path.name.split(".")[0]) for path in tmp_path.glob("*.weights.h5")}
    assert saved == {1} | ({2} if values[1] > values[0] else set())
    assert best.best == max(values)
    assert "val_delta_m" in (tmp_path / "log.csv").read_text().splitlines()[0]


def test_those_before_it_do_not_see_it(model):
    stop = keras.callbacks.EarlyStopping("val_delta_m", mode="max")
    with pytest.warns(UserWarning, match="val_delta_m.*not available"):
        fit(model, [stop, DeltaMCallback(single_task())])


def test_metrics_that_are_not_named_are_left_out(model):
    watch = DeltaMCallback({"segmentation": {"iou_0": 0.8}})
    logs = fit(model, [watch])
    assert logs["val_delta_m"][0] == pytest.approx(
        100 * (logs["val_segmentation_iou_0"][0] / 0.8 - 1)
    )
    assert "val_detection_delta_m" not in logs


# === Errors ===
def test_no_validation_is_an_error_at_the_end_of_the_first_epoch(model):
    seen = []
    note = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: seen.append(epoch))
    with pytest.raises(ValueError, match="epoch 1 had none. Give fit.. `validation_data`"):
        fit(model, [note, DeltaMCallback(single_task())], epochs=3, validation=False)
    assert seen == [0]


@pytest.mark.parametrize(("frequency", "measured"), [(2, 1), ([1, 3], 2)])
def test_epochs_may_go_without_validation(model, frequency, measured):
    watch = DeltaMCallback(single_task(), validation_freq=frequency)
    logs = fit(model, [watch], epochs=3, validation_freq=frequency)
    assert len(logs["val_delta_m"]) == measured


def test_another_frequency_than_that_of_fit_is_an_error(model):
    with pytest.raises(ValueError, match="epoch 2 had none.*validation_freq=2"):
        fit(model, [DeltaMCallback(single_task(), validation_freq=2)], 2, validation_freq=3)


@pytest.mark.parametrize(
    ("single", "words"),
    [
        ({"depth": {"rmse": 0.1}}, r"names \['depth'\].*\['detection', 'segmentation'\]"),
        (
            {"segmentation": {"iou_zero": 0.1}},
            "'iou_zero' of task 'segmentation'.*no 'val_segmentation_iou_zero'; near are",
        ),
    ],
)
def test_what_the_logs_lack_is_named(model, single, words):
    with pytest.raises(ValueError, match=words):
        fit(model, [DeltaMCallback(single)])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"single_task": {}}, "`single_task` must be a dict"),
        ({"single_task": {"a": {"accuracy": 0.0}}}, "`single_task` of 'a', 'accuracy', must be p"),
        ({"single_task": {"a": {"acc": 0.5}}}, "metric 'acc' is better when it is higher is not"),
        ({"convention": "mean"}, "`convention` must be one of"),
        ({"validation_freq": 0}, "`validation_freq` must be positive"),
        ({"validation_freq": True}, "`validation_freq` must be a positive integer or a list"),
        ({"validation_freq": "2"}, "`validation_freq` must be a positive integer or a list"),
    ],
)
def test_wrong_arguments_are_errors_before_training(arguments, words):
    with pytest.raises(ValueError, match=words):
        DeltaMCallback(**{"single_task": SINGLE_IOU, **arguments})
