import numpy as np
import pytest
from nms_reference import greedy

from mtl_keras.tasks import nms


def clusters(rng, batch, n, num_classes):
    centre = rng.uniform(10, 90, (batch, 6, 2))[:, rng.integers(0, 6, n)]
    low = centre + rng.normal(0, 3, (batch, n, 2))
    boxes = np.concatenate([low, low + rng.uniform(8, 20, (batch, n, 2))], -1)
    boxes[:, 0] = boxes[:, 1]
    return boxes.astype("float32"), rng.uniform(0, 1, (batch, n, num_classes)).astype("float32")


@pytest.mark.parametrize("function", [nms.non_maximum_suppression, nms._greedy])
@pytest.mark.parametrize("most", [7, 60])
def test_equals_greedy_suppression_class_by_class(function, most):
    boxes, scores = clusters(np.random.default_rng(0), 3, 50, 3)
    scores[2] *= 0.2  # nothing here passes the threshold
    found = {k: np.array(v) for k, v in function(boxes, scores, 0.5, 0.3, most).items()}
    assert found["boxes"].shape == (3, most, 4) and found["scores"].shape == (3, most)
    assert found["classes"].dtype == found["count"].dtype == np.int32
    for b in range(3):
        expected = greedy(boxes[b], scores[b], 0.5, 0.3, most)
        n = found["count"][b]
        assert n == len(expected)
        np.testing.assert_allclose(found["scores"][b, :n], [e[1] for e in expected], rtol=1e-6)
        np.testing.assert_array_equal(found["classes"][b, :n], [e[2] for e in expected])
        if n:
            np.testing.assert_allclose(found["boxes"][b, :n], [e[0] for e in expected], rtol=1e-6)
        for key in ("boxes", "scores", "classes"):
            assert not found[key][b, n:].any()
    assert found["count"][2] == 0 and found["count"][0] > 5


def test_candidates_limit_keeps_the_best():
    """More cells than candidates: the best ones enter suppression."""
    import toy

    rng = np.random.default_rng(0)
    outputs = {
        level: rng.normal(0, 2, (1, 64 // s, 64 // s, 7)).astype("float32")
        for level, s in (("P3", 8), ("P4", 16), ("P5", 32))
    }
    everything = toy.detection(candidates=84, max_detections=5).decode(outputs)
    few = toy.detection(candidates=20, max_detections=5).decode(outputs)
    np.testing.assert_allclose(few["scores"], everything["scores"], rtol=1e-6)
    np.testing.assert_allclose(few["boxes"], everything["boxes"], rtol=1e-6)
