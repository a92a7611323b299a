"""What rounding of weights costs is judged by metrics that do not jump with single boxes."""

import pytest
import toy
from programs import program


@pytest.fixture(scope="module")
def publish():
    return program("publish")


def test_metrics_that_jump_are_left_out(publish):
    kept = {"detection_AP": 0.5, "detection_AP75": 0.4, "segmentation_mean_iou": 0.9}
    jump = {
        "detection_F1": 0.8,
        "instances_PQ": 0.7,
        "detection_AP_cat": 0.1,
        "detection_AP50": None,
    }
    names = ["cat", "dog", "cow"]
    several = toy.model([toy.detection(class_names=names), toy.segmentation()])
    assert publish.steady({**kept, **jump}, several) == kept
    # The metric of the only class is that of all.
    one = toy.model([toy.detection(num_classes=1, class_names=["cat"])])
    assert publish.steady(jump, one) == {"detection_AP_cat": 0.1}


def test_the_worst_loss_is_that_of_what_pages_show(publish):
    before = {"detection_AP": 0.62760, "distance_mae": 0.0804}
    assert publish.worst(before, {"detection_AP": 0.62501, "distance_mae": 0.0804}) == (
        "detection_AP",
        0.003,
    )
    # Of an error, more is worse.
    found = {"detection_AP": 0.7, "distance_mae": 0.0826}
    assert publish.worst(before, found) == ("distance_mae", 0.003)
