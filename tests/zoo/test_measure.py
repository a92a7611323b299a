import numpy as np
import toy

import mtl_keras as mtl
from mtl_keras.zoo.measure import measure


def test_instances_are_measured_where_tasks_make_them(tmp_path):
    builder = mtl.data.digits(2, 3, (64, 64), data_dir=str(tmp_path))
    boxes = toy.detection(num_classes=10)
    with_mask = toy.model([boxes, toy.segmentation(num_classes=11)])
    found = measure(with_mask, builder, "val", verbose=False, score_threshold=0.0)
    for name in ("PQ", "SQ", "RQ", "AP", "AP50", "AP75"):
        assert 0 <= found[f"instances_{name}"] <= 1
    assert "instances_PQ_3" in found and "instances_AP_3" in found
    alone = measure(toy.model([boxes]), builder, "val", verbose=False)
    assert not any(name.startswith("instances") for name in alone)
    shared = set(alone) & set(found)
    assert {"detection_AP", "detection_AP50"} <= shared
    assert all(np.isnan(alone[n]) == np.isnan(found[n]) for n in shared)
