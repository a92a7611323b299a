import time

import numpy as np
import pytest
import toy

import mtl_keras as mtl
from mtl_keras.tasks import fuse_instances, instance_tasks


def slowly(boxes, classes, mask):
    """Pixel by pixel."""
    instances = np.zeros(mask.shape, int)
    for y, x in np.ndindex(mask.shape):
        costs = []
        for i, ((x0, y0, x1, y1), c) in enumerate(zip(boxes, classes, strict=True)):
            px, py = x + 0.5, y + 0.5
            if mask[y, x] == c + 1 and x0 <= px < x1 and y0 <= py < y1:
                dx, dy = (px - (x0 + x1) / 2) / (x1 - x0), (py - (y0 + y1) / 2) / (y1 - y0)
                costs.append((dx * dx + dy * dy, i + 1))
        instances[y, x] = min(costs)[1] if costs else 0
    return instances


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_rule_pixel_by_pixel(seed):
    rng = np.random.default_rng(seed)
    low = rng.uniform(-5, 30, (12, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.2, 25, (12, 2))], -1)
    classes, mask = rng.integers(0, 3, 12), rng.integers(0, 4, (33, 41))
    found = fuse_instances(boxes, classes, mask)
    assert found.dtype == np.int32 and found.max() > 3
    assert (found != slowly(boxes, classes, mask)).mean() < 0.002  # ties of float32


def discs():
    """Two discs that touch, one much smaller, and their boxes, distances and instances."""
    y, x = np.mgrid[:60, :90]
    truth = np.where(np.hypot(x - 30, y - 30) < 26, 1, 0)
    truth = np.where((np.hypot(x - 62, y - 30) < 9) & (truth == 0), 2, truth)
    labels = {
        "instances": truth,
        "mask": np.minimum(truth, 1),
        "is_crowd": np.zeros(2, bool),
    }
    boxes = [[3, 3, 57, 57], [52, 20, 72, 40]]
    return truth, labels["mask"], boxes, toy.relative_distance(labels)


def test_distances_part_what_boxes_share():
    truth, mask, boxes, distance = discs()
    assert (fuse_instances(boxes, [0, 0], mask) != truth).mean() < 0.02
    found = fuse_instances(boxes, [0, 0], mask, distance)
    assert (found != truth).sum() <= (fuse_instances(boxes, [0, 0], mask) != truth).sum()
    assert (found != truth).mean() < 0.005
    # Without any relief, distances change nothing.
    flat = fuse_instances(boxes, [0, 0], mask, np.ones(mask.shape))
    np.testing.assert_array_equal(flat, fuse_instances(boxes, [0, 0], mask))


def test_classes_do_not_mix_and_nothing_is_nothing():
    mask = np.array([[1, 1, 2, 2, 0]])
    boxes = [[0, 0, 5, 1], [0, 0, 5, 1]]
    assert fuse_instances(boxes, [0, 1], mask).tolist() == [[1, 1, 2, 2, 0]]
    assert not fuse_instances([], [], mask).any()
    assert not fuse_instances([], [], mask, np.ones((1, 5))).any()
    assert fuse_instances(boxes, [0, 1], np.zeros((0, 4), int)).shape == (0, 4)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="2 boxes, 1 classes"):
        fuse_instances(np.zeros((2, 4)), [0], np.zeros((4, 4), int))
    with pytest.raises(ValueError, match="`distance`"):
        fuse_instances(np.zeros((1, 4)), [0], np.zeros((4, 4), int), np.zeros((3, 4)))


def test_which_tasks_make_instances():
    boxes, mask, near = toy.detection(), toy.segmentation(), toy.distance()
    assert instance_tasks([near, mask, boxes]) == (boxes, mask, near)
    assert instance_tasks([boxes, near]) is None
    assert instance_tasks([boxes, mask, toy.segmentation(name="other")]) is None
    named = mtl.tasks.Segmentation(4, class_names=["background", "a", "b", "c"])
    assert instance_tasks([boxes, named]) is not None
    of = {"num_classes": 3, "class_names": ["a", "b", "d"]}
    assert instance_tasks([mtl.tasks.Detection(**of), named]) is None


def test_many_objects_are_fast():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 970, (400, 2))
    boxes = np.concatenate([low, low + rng.uniform(30, 60, (400, 2))], -1)
    mask = (rng.random((1024, 1024)) < 0.7).astype("int32")
    times = []
    for _ in range(3):
        started = time.thread_time()
        fuse_instances(boxes, np.zeros(400, int), mask)
        times.append(time.thread_time() - started)
    assert min(times) < 0.15


def test_a_weak_box_takes_nothing_from_a_sure_one():
    mask = np.ones((20, 20), int)
    boxes = [[0, 0, 20, 20], [5, 5, 15, 15]]
    alike = fuse_instances(boxes, [0, 0], mask, scores=[0.9, 0.9])
    np.testing.assert_array_equal(alike, fuse_instances(boxes, [0, 0], mask))
    assert (fuse_instances(boxes, [0, 0], mask, scores=[0.9, 0.35]) == 1).all()
    with pytest.raises(ValueError, match="`scores`"):
        fuse_instances(boxes, [0, 0], mask, scores=[0.9])
