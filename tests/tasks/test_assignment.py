"""Task-aligned assignment against a dense version in loops, and its properties."""

import numpy as np
import pytest
from nms_reference import overlap

from mtl_keras.tasks.assignment import task_aligned_assignment

SIZE = (64, 96)
STRIDES = {"P3": 8, "P4": 16, "P5": 32}
SHAPES = {level: (SIZE[0] // s, SIZE[1] // s) for level, s in STRIDES.items()}
CELLS = sum(h * w for h, w in SHAPES.values())


def points():
    """`(stride, row, column)` of each cell."""
    return [
        (STRIDES[level], row, column)
        for level, (height, width) in SHAPES.items()
        for row in range(height)
        for column in range(width)
    ]


def dense(boxes, classes, predicted, scores, radius=2, top_k=10, alpha=0.5, beta=6.0):
    """One image; looks at every cell for every object. Returns owner and quality of each cell."""
    chosen = {}
    for j, (box, label) in enumerate(zip(boxes, classes, strict=True)):
        if label < 0:
            continue
        cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        mine = []
        for i, (stride, row, column) in enumerate(points()):
            last_row, last_column = SIZE[0] // stride - 1, SIZE[1] // stride - 1
            home = min(cy // stride, last_row), min(cx // stride, last_column)
            if max(abs(row - home[0]), abs(column - home[1])) > radius:
                continue
            least = stride / 2 if stride == 8 else 0
            if abs((column + 0.5) * stride - cx) > max((box[2] - box[0]) / 2, least):
                continue
            if abs((row + 0.5) * stride - cy) > max((box[3] - box[1]) / 2, least):
                continue
            u = overlap(box, predicted[i])
            mine.append((scores[i, label] ** alpha * u**beta, u, i))
        mine = sorted(mine, key=lambda m: -m[0])[:top_k]
        if not mine:
            continue
        most_t, most_u = max(m[0] for m in mine), max(m[1] for m in mine)
        for t, u, i in mine:
            quality = max(t / (most_t + 1e-9) * most_u, 0.01)
            if i not in chosen or u > chosen[i][0]:
                chosen[i] = (u, j, quality)
    owner, quality = np.full(CELLS, -1), np.zeros(CELLS)
    for i, (_, j, q) in chosen.items():
        owner[i], quality[i] = j, q
    return owner, quality


def predictions(rng, batch, num_classes=3, around=None):
    """Boxes around each cell that overlap whatever is near, so that no two qualities tie."""
    at = np.array([((c + 0.5) * s, (r + 0.5) * s, s) for s, r, c in points()])
    reach = rng.uniform(0.6, 4, (batch, CELLS, 4)) * np.maximum(at[None, :, 2:], 16)
    boxes = np.concatenate([at[:, :2] - reach[..., :2], at[:, :2] + reach[..., 2:]], -1)
    return boxes.astype("float32"), rng.uniform(0.01, 0.99, (batch, CELLS, num_classes)).astype(
        "float32"
    )


def objects(rng, batch, count, least=3, most=60):
    centre = rng.uniform(0, 1, (batch, count, 2)) * SIZE[::-1]
    half = rng.uniform(least / 2, most / 2, (batch, count, 2))
    boxes = np.concatenate([centre - half, centre + half], -1)
    boxes = np.clip(boxes, 0, [*SIZE[::-1], *SIZE[::-1]])
    return boxes.astype("float32"), rng.integers(0, 3, (batch, count)).astype("int32")


def assign(boxes, classes, predicted, scores, **arguments):
    found = task_aligned_assignment(boxes, classes, predicted, scores, SHAPES, **arguments)
    return {key: np.array(value) for key, value in found.items()}


def owners(found, boxes):
    """Which object each cell has, told by its box, or -1."""
    same = (found["boxes"][:, :, None] == boxes[:, None]).all(-1)
    assert same.any(-1)[found["score"] > 0].all()
    return np.where(found["score"] > 0, same.argmax(-1), -1)


@pytest.mark.parametrize("arguments", [{}, {"radius": 1, "top_k": 3, "alpha": 1.0, "beta": 2.0}])
def test_equals_the_dense_version(arguments):
    rng = np.random.default_rng(0)
    boxes, classes = objects(rng, 4, 7)
    classes[1, 4:] = -1
    classes[2] = -1
    predicted, scores = predictions(rng, 4)
    found = assign(boxes, classes, predicted, scores, **arguments)
    owner = owners(found, boxes)
    for b in range(4):
        expected, quality = dense(boxes[b], classes[b], predicted[b], scores[b], **arguments)
        np.testing.assert_array_equal(owner[b], expected)
        np.testing.assert_allclose(found["score"][b], quality, rtol=1e-3, atol=1e-5)
        mine = expected >= 0
        np.testing.assert_array_equal(found["classes"][b][mine], classes[b][expected[mine]])


LONELY = {
    "two pixels": [33, 21, 35, 23],
    "half a pixel": [33.2, 21.2, 33.7, 21.7],
    "between four cells": [31, 31, 33, 33],
    "thin": [0, 30, 96, 31],
    "everything": [0, 0, 96, 64],
    "top left": [0, 0, 2, 2],
    "bottom right": [94, 62, 96, 64],
    "centre on the right border": [90, 20, 102, 40],
    "centre on the corner": [92, 60, 100, 68],
    "no area, at the corner": [96, 64, 96, 64],
}


@pytest.mark.parametrize("name", LONELY)
@pytest.mark.parametrize("near", [True, False])
def test_every_object_gets_a_cell(name, near):
    """Also where no prediction overlaps it yet, as at the start of training."""
    box = np.array([[LONELY[name]]], "float32")
    predicted, scores = predictions(np.random.default_rng(0), 1)
    if not near:
        predicted = np.full_like(predicted, -500.0) + np.array([0, 0, 1, 1], "float32")
    found = assign(box, np.array([[1]], "int32"), predicted, scores)
    assert (found["score"] > 0).sum() >= 1
    assert (found["score"] > 0).sum() <= 10
    assert found["score"].max() <= 1.0


def test_quality_of_the_best_cell_is_its_best_overlap():
    rng = np.random.default_rng(3)
    boxes, classes = objects(rng, 6, 1, least=16)
    predicted, scores = predictions(rng, 6)
    found = assign(boxes, classes, predicted, scores)
    for b in range(6):
        mine = found["score"][b] > 0
        best = max(overlap(boxes[b, 0], p) for p in predicted[b][mine])
        assert found["score"][b].max() == pytest.approx(best, rel=1e-3)


def test_order_of_objects_does_not_matter():
    rng = np.random.default_rng(1)
    boxes, classes = objects(rng, 3, 9)
    predicted, scores = predictions(rng, 3)
    order = rng.permutation(9)
    a = assign(boxes, classes, predicted, scores)
    b = assign(boxes[:, order], classes[:, order], predicted, scores)
    mine = a["score"] > 0
    np.testing.assert_array_equal(a["score"], b["score"])
    np.testing.assert_array_equal(a["boxes"][mine], b["boxes"][mine])
    np.testing.assert_array_equal(a["classes"][mine], b["classes"][mine])
    np.testing.assert_array_equal(owners(a, boxes)[mine], order[owners(b, boxes[:, order])[mine]])


def test_padding_does_not_matter():
    rng = np.random.default_rng(2)
    boxes, classes = objects(rng, 2, 5)
    predicted, scores = predictions(rng, 2)
    a = assign(boxes, classes, predicted, scores)
    # What stands in the padding is arbitrary, even a real object's box.
    padding = np.concatenate([boxes, np.zeros((2, 3, 4), "float32")], 1)
    b = assign(
        np.concatenate([padding, boxes], 1),
        np.concatenate([classes, np.full((2, 8), -1, "int32")], 1),
        predicted,
        scores,
    )
    mine = a["score"] > 0
    np.testing.assert_array_equal(a["score"], b["score"])
    np.testing.assert_array_equal(a["boxes"][mine], b["boxes"][mine])


def test_images_of_a_batch_do_not_meet():
    rng = np.random.default_rng(4)
    boxes, classes = objects(rng, 3, 6)
    predicted, scores = predictions(rng, 3)
    together = assign(boxes, classes, predicted, scores)
    for b in range(3):
        alone = assign(*(x[b : b + 1] for x in (boxes, classes, predicted, scores)))
        np.testing.assert_array_equal(alone["score"][0], together["score"][b])


@pytest.mark.parametrize("count", [0, 400])
def test_no_and_many_objects(count):
    rng = np.random.default_rng(5)
    boxes, classes = objects(rng, 2, 400, most=12)
    classes[:, count:] = -1
    found = assign(boxes, classes, *predictions(rng, 2))
    assert np.all(np.isfinite(found["score"]))
    if count:
        # 400 objects on 126 cells: crowded, but no object's cells are lost to nobody.
        assert np.all((found["score"][:, : 8 * 12] > 0).mean(-1) > 0.9)
    else:
        assert not found["score"].any()
