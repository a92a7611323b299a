"""Flat logs become metrics by task, whatever the names of the tasks."""

import numpy as np
import pytest
import toy

from mtl_keras.metrics import by_task


def test_logs_of_an_evaluation_are_split(model):
    x, y = toy.batch(model.tasks, images=4)
    logs = model.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)
    found = by_task(logs, model)
    assert found == by_task(logs, ["detection", "segmentation"])
    assert list(found) == ["detection", "segmentation"]
    assert {"AP", "AP50", "AP_0"} <= set(found["detection"])
    assert {"mean_iou", "iou_0"} <= set(found["segmentation"])
    for task, metrics in found.items():
        for metric, value in metrics.items():
            assert metric != "loss"
            np.testing.assert_equal(value, logs[f"{task}_{metric}"])
    left_out = {"loss", "detection_loss", "segmentation_loss"}
    assert sum(map(len, found.values())) == len(set(logs) - left_out)


@pytest.mark.parametrize(
    ("tasks", "key", "task", "metric"),
    [
        (("seg", "seg_fine"), "seg_fine_mean_iou", "seg_fine", "mean_iou"),
        (("seg_fine", "seg"), "seg_fine_mean_iou", "seg_fine", "mean_iou"),
        (("seg_fine", "seg"), "seg_mean_iou", "seg", "mean_iou"),
        (("seg", "seg_mean"), "seg_mean_iou", "seg", "mean_iou"),
        (("seg", "seg_mean"), "seg_mean_mean_iou", "seg_mean", "mean_iou"),
        (("seg", "seg_iou"), "seg_iou_cat", "seg", "iou_cat"),
        (("seg", "seg_iou"), "seg_iou_mean_iou", "seg_iou", "mean_iou"),
        (("seg", "seg_iou"), "seg_iou_iou_cat", "seg_iou", "iou_cat"),
        (("seg", "segment"), "segment_mean_iou", "segment", "mean_iou"),
        (("d", "d_AP"), "d_AP_at_100", "d", "AP_at_100"),
        (("d", "d_AP"), "d_AP_AP50", "d_AP", "AP50"),
        (("depth", "depth_fine"), "depth_fine_error", "depth_fine", "error"),
    ],
)
def test_names_that_begin_as_others_do(tasks, key, task, metric):
    assert by_task({key: 0.5}, tasks) == {task: {metric: 0.5}}


def test_losses_weights_and_other_keys_are_left_out():
    logs = {
        "loss": 1.0,
        "seg_loss": 1.0,
        "seg_iou_loss": 1.0,
        "seg_weight": 1.0,
        "seg_delta_m": 1.0,
        "skipped": 0.0,
        "similarity": 3.0,
        "seg_": 2.0,
        "seg_mean_iou": np.float32(0.5),
    }
    assert by_task(logs, ["seg", "seg_iou"]) == {"seg": {"mean_iou": 0.5}}


def test_several_seeds_become_lists():
    logs = [{"a_accuracy": 0.1 * i, "b_mae": 1.0 + i, "loss": 0.0} for i in range(3)]
    assert by_task(logs, ["a", "b"]) == {
        "a": {"accuracy": [0.0, 0.1, 0.2]},
        "b": {"mae": [1.0, 2.0, 3.0]},
    }


def test_metrics_can_be_chosen():
    logs = {"a_AP": 0.3, "a_AP50": 0.5, "b_mean_iou": 0.6, "b_iou_cat": 0.4, "c_accuracy": 0.9}
    expected = {"a": {"AP": 0.3}, "b": {"mean_iou": 0.6}}
    assert by_task(logs, ["a", "b", "c"], metrics=["AP", "mean_iou"]) == expected
    assert by_task([logs], ["a", "b"], iter(["AP50"])) == {"a": {"AP50": [0.5]}}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (({"val_a_accuracy": 0.5}, ["a"]), r"no metric of the tasks \['a'\].*'val_a_accuracy'"),
        (({"a_loss": 0.5}, ["a"]), "no metric of the tasks"),
        (({"a_accuracy": 0.5}, "a"), "`tasks` must be a model or names"),
        (({"a_accuracy": 0.5}, []), "`tasks` must be a model or names"),
        (([], ["a"]), "at least one dict a seed"),
        (([{"a_mae": 1}, {"a_mae": 1, "a_rmse": 2}], ["a"]), r"seeds 0 and 1.*\['a_rmse'\]"),
        (({"a_accuracy": 0.5}, ["a"], ["acuracy"]), r"'acuracy'.*near are \['accuracy'\]"),
        (({"a_accuracy": 0.5}, ["a"], "accuracy"), "`metrics` must be a list"),
    ],
)
def test_errors_name_what_is_wrong(arguments, words):
    with pytest.raises(ValueError, match=words):
        by_task(*arguments)
