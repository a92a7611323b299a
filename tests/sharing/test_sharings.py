import pytest
import toy
from sharing_case import run_sharing_test

import mtl_keras as mtl

NARROW = {"hard": {"neck_channels": 8}}


@pytest.mark.parametrize("name", mtl.sharing.names())
def test_sharing(name, tmp_path):
    kind = type(mtl.sharing.get(name))
    run_sharing_test(kind(**NARROW.get(name, {})), tmp_path)


def test_hard_sharing_counts_by_hand():
    """Trunk and neck are everyone's; two networks would have them twice."""
    model = toy.model()
    parts = {row["part"]: row for row in mtl.sharing_report(model).rows}
    assert set(parts) == {"trunk", "neck", "detection_head", "segmentation_head"}
    report = mtl.sharing_report(model)
    assert parts["trunk"]["tasks"] == parts["neck"]["tasks"] == ("detection", "segmentation")
    heads = sum(model.get_layer(f"{t.name}_head").count_params() for t in model.tasks)
    assert report.shared == model.count_params() - heads
    assert report.separate_parameters == 2 * report.shared + heads
    assert report.bytes == 4 * model.count_params()


def test_a_network_of_one_task_shares_nothing():
    report = mtl.sharing_report(toy.model([toy.detection()]))
    assert report.shared_fraction == 0 and report.saved_fraction == 0


@pytest.mark.parametrize("bad", [0, -3, 8.0, "64", None])
def test_a_bad_width_is_named(bad):
    with pytest.raises(ValueError, match="`neck_channels`"):
        mtl.sharing.HardSharing(bad)


def test_report_wants_a_multi_task_model():
    with pytest.raises(ValueError, match="`model`"):
        mtl.sharing_report(object())
