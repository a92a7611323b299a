"""What rounding of weights costs is judged by metrics that do not jump with single boxes."""

import pytest
import toy
from programs import program

from mtl_keras.zoo import info, list_models


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


def test_the_worst_loss_is_found(publish):
    before = {"detection_AP": 0.625, "distance_mae": 0.075}
    name, loss = publish.worst(before, {"detection_AP": 0.5, "distance_mae": 0.075})
    assert (name, loss) == ("detection_AP", 0.125)
    # Of an error, more is worse.
    name, loss = publish.worst(before, {"detection_AP": 0.75, "distance_mae": 0.1})
    assert name == "distance_mae" and loss == pytest.approx(0.025)


@pytest.mark.parametrize("name", list_models())
def test_rounding_of_published_weights_cost_no_more_than_it_may(publish, name):
    card = info(name)
    assert publish.worst(card["metrics_before_rounding"], card["metrics"])[1] <= publish.TOLERANCE
