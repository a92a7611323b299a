import numpy as np
import pytest
import toy

from mtl_keras.tasks.confusion import ConfusionMatrix


def example(rng, images=3, size=16):
    mask = rng.choice([0, 1, 3, 255], (images, size, size), p=[0.5, 0.2, 0.2, 0.1])
    logits = (
        rng.normal(0, 1, (images, size, size, 4)) + 1.5 * np.eye(4)[np.where(mask > 3, 0, mask)]
    )
    return mask.astype("uint8"), logits.astype("float32")


def expected(mask, logits):
    on = mask != 255
    truth, found = mask[on], logits.argmax(-1)[on]
    iou = []
    for c in range(4):
        either = ((truth == c) | (found == c)).sum()
        iou.append(((truth == c) & (found == c)).sum() / either if either else np.nan)
    return iou


def test_equals_iou_by_hand_and_by_sklearn():
    rng = np.random.default_rng(0)
    metric = ConfusionMatrix(toy.segmentation(class_names=["none", "a", "b", "c"]))
    batches = [example(rng) for _ in range(3)]
    for mask, logits in batches:
        metric.update_state({"mask": mask}, logits, None)
    logs = {key: float(value) for key, value in metric.result().items()}
    mask, logits = (np.concatenate(x) for x in zip(*batches, strict=True))
    iou = expected(mask, logits)
    for name, value in zip(["none", "a", "b", "c"], iou, strict=True):
        assert logs[f"segmentation_iou_{name}"] == pytest.approx(np.nan_to_num(value), abs=1e-6)
    assert logs["segmentation_mean_iou"] == pytest.approx(np.nanmean(iou), abs=1e-6)
    sklearn = pytest.importorskip("sklearn.metrics")
    on = mask != 255
    np.testing.assert_array_equal(
        metric.matrix, sklearn.confusion_matrix(mask[on], logits.argmax(-1)[on], labels=range(4))
    )


def test_a_class_that_never_appears_does_not_count():
    mask = np.zeros((1, 8, 8), "uint8")
    metric = ConfusionMatrix(toy.segmentation())
    metric.update_state({"mask": mask}, 9.0 * np.eye(4, dtype="float32")[mask], None)
    assert float(metric.result()["segmentation_mean_iou"]) == 1.0


def test_images_of_no_weight_are_left_out_and_reset_forgets():
    mask, logits = example(np.random.default_rng(1))
    metric = ConfusionMatrix(toy.segmentation())
    metric.update_state({"mask": mask}, logits, np.array([1.0, 0.0, 2.0], "float32"))
    one = np.array(metric.matrix)
    metric.reset_state()
    metric.update_state({"mask": mask[[0, 2]]}, logits[[0, 2]], None)
    np.testing.assert_array_equal(one, metric.matrix)


def test_counts_beyond_what_float32_can_count():
    metric = ConfusionMatrix(toy.segmentation())
    metric.matrix.assign(np.full((4, 4), 2.0**24))
    mask = np.zeros((1, 8, 8), "uint8")
    mask[0, 1:] = 255
    mask[0, 0, 1:] = 255
    metric.update_state({"mask": mask}, np.zeros((1, 8, 8, 4), "float32"), None)
    assert float(metric.matrix[0, 0]) == 2.0**24 + 1
