"""The losses against their formulas, written again with NumPy and loops."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from mtl_keras.tasks import boxes as B
from mtl_keras.tasks.detection import _varifocal


def random_boxes(rng, n, size=100, least=0.5):
    low = rng.uniform(0, size * 0.8, (n, 2))
    return np.concatenate([low, low + rng.uniform(least, size / 2, (n, 2))], -1).astype("float32")


def ciou(a, b):
    """Zheng et al. 2020, equations 7 to 11, one pair of boxes in float64."""
    a, b = np.float64(a), np.float64(b)
    wa, ha, wb, hb = a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]
    w = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    iou = w * h / (wa * ha + wb * hb - w * h)
    rho2 = ((a[0] + a[2] - b[0] - b[2]) / 2) ** 2 + ((a[1] + a[3] - b[1] - b[3]) / 2) ** 2
    cw = max(a[2], b[2]) - min(a[0], b[0])
    ch = max(a[3], b[3]) - min(a[1], b[1])
    v = 4 / math.pi**2 * (math.atan(wa / ha) - math.atan(wb / hb)) ** 2
    alpha = v / (1 - iou + v) if v > 0 else 0.0
    return iou - rho2 / (cw**2 + ch**2) - alpha * v


def test_complete_iou_is_the_papers():
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 200), random_boxes(rng, 200)
    b[:100] = a[:100] + rng.normal(0, 0.3, (100, 4))
    expected = [ciou(x, y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(B.complete_iou(a, b), expected, atol=1e-5)


def test_complete_iou_of_equal_and_of_empty_boxes():
    a = np.array([[1, 2, 30, 9], [0, 0, 0.1, 64]], "float32")
    np.testing.assert_allclose(B.complete_iou(a, a), 1.0, atol=1e-5)
    empty = np.zeros((2, 4), "float32")
    with tf.GradientTape() as tape:
        x = tf.constant(a)
        tape.watch(x)
        value = B.complete_iou(empty, x)
    assert np.all(np.isfinite(value)) and np.all(np.isfinite(tape.gradient(value, x)))


def test_anchor_points_go_row_by_row():
    points = np.array(B.anchor_points(2, 3, "P3"))
    np.testing.assert_array_equal(points, [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]])


def test_varifocal_is_the_papers():
    """Zhang et al. 2021, equation 2: -q (q log p + (1-q) log(1-p)), and -a p^g log(1-p)."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, 300).astype("float32")
    target = np.where(rng.random(300) < 0.5, rng.random(300), 0.0).astype("float32")
    p = 1 / (1 + np.exp(-np.float64(logits)))
    q = np.float64(target)
    positive = -q * (q * np.log(p) + (1 - q) * np.log(1 - p))
    negative = -0.75 * p**2 * np.log(1 - p)
    expected = np.where(q > 0, positive, negative)
    np.testing.assert_allclose(_varifocal(target, logits), expected, rtol=2e-5, atol=1e-7)


def cross_entropy_and_dice(logits, mask, dice_weight):
    logits = np.float64(logits)
    e = np.exp(logits - logits.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    losses = []
    for pi, mi in zip(p, mask, strict=True):
        on = mi != 255
        if not on.any():
            losses.append(0.0)
            continue
        pi, mi = pi[on], mi[on]
        entropy = -np.log(pi[np.arange(len(mi)), mi]).mean()
        dice = []
        for c in np.unique(mi):
            t = mi == c
            dice.append(1 - (2 * pi[t, c].sum() + 1) / (t.sum() + pi[:, c].sum() + 1))
        losses.append(entropy + dice_weight * np.mean(dice))
    return losses


def test_segmentation_loss_is_cross_entropy_plus_dice_over_labelled_pixels():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4, 16, 16, 4)).astype("float32")
    mask = rng.integers(0, 4, (4, 16, 16))
    mask[0, 3:9] = 255
    mask[1] = np.where(mask[1] == 2, 0, mask[1])  # a class that the image does not show
    mask[2] = 255
    task = toy.segmentation(dice_weight=0.7)
    found = task.loss({"mask": mask.astype("uint8")}, logits)
    np.testing.assert_allclose(found, cross_entropy_and_dice(logits, mask, 0.7), rtol=1e-5)


def test_segmentation_ignores_what_stands_at_unlabelled_pixels():
    rng = np.random.default_rng(0)
    task = toy.segmentation()
    mask = rng.integers(0, 4, (2, 16, 16))
    mask[:, :, 8:] = 255
    logits = rng.normal(0, 2, (2, 16, 16, 4)).astype("float32")
    other = logits.copy()
    other[:, :, 8:] = rng.normal(0, 9, (2, 16, 8, 4))
    targets = {"mask": mask.astype("uint8")}
    np.testing.assert_array_equal(task.loss(targets, logits), task.loss(targets, other))


def test_segmentation_loss_of_the_truth_is_zero():
    mask = np.random.default_rng(0).integers(0, 4, (2, 16, 16))
    perfect = 50.0 * np.eye(4, dtype="float32")[mask]
    assert np.max(toy.segmentation().loss({"mask": mask.astype("uint8")}, perfect)) < 1e-5


def perfect_outputs(task, target, size):
    """Raw outputs that score each box 1 at the cell of its centre, on the finest level."""
    outputs = {}
    finest = min(task.levels)
    for level in task.levels:
        stride = 2 ** int(level[1:])
        shape = (len(target["boxes"]), size[0] // stride, size[1] // stride)
        x = np.full((*shape, task.num_classes + 4), -20.0, "float32")
        x[..., task.num_classes :] = 0.0
        outputs[level] = x
    stride = 2 ** int(finest[1:])
    for i, (boxes, classes) in enumerate(zip(target["boxes"], target["classes"], strict=True)):
        for (x0, y0, x1, y1), c in zip(boxes, classes, strict=True):
            if c < 0:
                continue
            column, row = int((x0 + x1) / 2 // stride), int((y0 + y1) / 2 // stride)
            px, py = (column + 0.5) * stride, (row + 0.5) * stride
            sides = np.array([px - x0, py - y0, x1 - px, y1 - py]) / stride
            outputs[finest][i, row, column, c] = 20.0
            outputs[finest][i, row, column, task.num_classes :] = np.log(sides)
    return outputs


def test_detection_loss_of_the_truth_is_small_and_decodes_to_the_truth():
    task = toy.detection(levels=("P3",))
    labels = toy.labels(0)
    labels["boxes"] = np.array([[3, 5, 40, 30], [30, 33, 63, 64]], "float32")
    labels["classes"] = np.array([1, 2], "int32")
    labels["is_crowd"] = np.zeros(2, bool)
    target = toy.targets(task, labels)
    outputs = perfect_outputs(task, target, toy.SIZE)
    wrong = {level: np.zeros_like(x) for level, x in outputs.items()}
    # Cells beside the best one have targets, too, which these outputs do not score.
    assert float(task.loss(target, outputs)[0]) < 0.2 * float(task.loss(target, wrong)[0])
    found = keras.tree.map_structure(lambda x: np.array(x)[0], task.decode(outputs))
    assert found["count"] == 2
    order = np.argsort(found["classes"][:2])
    np.testing.assert_allclose(found["boxes"][:2][order], labels["boxes"], atol=1e-3)
    np.testing.assert_array_equal(found["classes"][:2][order], [1, 2])
    np.testing.assert_allclose(found["scores"][:2], 1.0, atol=1e-6)


def test_a_crowd_is_not_background():
    """Scores inside a crowd cost nothing, scores outside do."""
    task = toy.detection(levels=("P3",))
    labels = toy.labels(0)
    labels["boxes"] = np.array([[0, 0, 32, 64]], "float32")
    labels["classes"], labels["is_crowd"] = np.zeros(1, "int32"), np.ones(1, bool)
    target = toy.targets(task, labels)
    quiet = np.full((1, 8, 8, 7), -20.0, "float32")
    inside, outside = quiet.copy(), quiet.copy()
    inside[:, :, :4, :3] = 3.0
    outside[:, :, 4:, :3] = 3.0
    loss = [float(task.loss(target, {"P3": x})[0]) for x in (quiet, inside, outside)]
    assert loss[0] == pytest.approx(0, abs=1e-6)
    assert loss[1] == pytest.approx(loss[0], abs=1e-6) and loss[2] > 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_box_that_is_not_finite_is_not_left_out_silently(bad):
    task = toy.detection()
    target = toy.targets(task, toy.labels(2), toy.labels(2))
    target["boxes"][0, 0, 2] = bad
    outputs = {f"P{p}": np.zeros((2, 64 >> p, 64 >> p, 7), "float32") for p in (3, 4, 5)}
    loss = np.array(task.loss(target, outputs))
    assert not np.isfinite(loss[0])
