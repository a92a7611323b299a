import pickle

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mtl_keras.data.segmentations import cut, of_polygons, of_rle


def full(found, height, width):
    canvas = np.zeros((height, width), bool)
    if found is not None:
        top, left, mask = found
        assert mask.dtype == bool and mask.any(0)[[0, -1]].all() and mask.any(1)[[0, -1]].all()
        canvas[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return canvas


def counts(mask):
    flat = mask.ravel(order="F")
    runs = np.diff([0, *(np.flatnonzero(np.diff(flat)) + 1), len(flat)]).tolist()
    return [0, *runs] if flat[0] else runs


@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 1.0])
def test_rle_of_any_mask(density):
    generator = np.random.default_rng(0)
    for height, width in ((1, 1), (7, 300), (700, 1000)):
        mask = generator.random((height, width)) < density
        mask[generator.random(height) < 0.5] = density == 1.0  # long runs, of several letters
        text = coco_mask.encode(np.asfortranarray(mask.astype("uint8")))["counts"]
        for value in (text, text.decode(), counts(mask)):
            found = pickle.loads(pickle.dumps(of_rle({"size": [height, width], "counts": value})))
            np.testing.assert_array_equal(full(found(height, width), height, width), mask)


def test_cut():
    mask = np.zeros((9, 8), bool)
    assert cut(mask) is None
    mask[2, 3] = mask[6, 5] = True
    top, left, pixels = cut(mask)
    assert (top, left, pixels.shape) == (2, 3, (5, 3))
    np.testing.assert_array_equal(full((top, left, pixels), 9, 8), mask)


def test_polygons():
    square, other = [5, 6, 25, 6, 25, 16, 5, 16], [30, 1, 34, 1, 34, 4, 30, 4]
    expected = np.zeros((40, 60), bool)
    expected[6:16, 5:25] = True
    np.testing.assert_array_equal(full(of_polygons([square])(40, 60), 40, 60), expected)
    expected[1:4, 30:34] = True
    together = pickle.loads(pickle.dumps(of_polygons([square, [1, 1, 2, 2], [], other])))
    np.testing.assert_array_equal(full(together(40, 60), 40, 60), expected)
    reaching = of_polygons([[-9, -9, 5, -9, 5, 3, -9, 3]])(40, 60)
    assert reaching[:2] == (0, 0) and reaching[2].shape == (3, 5) and reaching[2].all()
    for nothing in ([], [[]], [[1, 2, 3, 4]], [[70, 1, 80, 1, 80, 9]]):
        assert of_polygons(nothing)(40, 60) is None


@pytest.mark.parametrize(
    "polygon",
    [
        [1, 2, 3, 4, 5, 6, 7],
        [1, 2, 3],
        [1, 2, 3, 4, 5, float("nan")],
        [1, 2, 3, 4, 5, 1e9],
        [1, 2, 3, 4, 5, 10**400],
        [1, 2, 3, 4, 5, "x"],
        "123456",
        5.0,
        None,
    ],
)
def test_bad_polygons(polygon):
    with pytest.raises(ValueError, match="finite x, y pairs in pixels. Received: "):
        of_polygons([[1, 1, 5, 1, 5, 5], polygon])


def text(mask):
    return coco_mask.encode(np.asfortranarray(mask.astype("uint8")))["counts"].decode()


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        ({"size": [4, 6]}, "'size' and 'counts'"),
        ([1, 2], "'size' and 'counts'"),
        ({"size": [4], "counts": [24]}, "height, width"),
        ({"size": [4, 0], "counts": []}, "height, width"),
        ({"size": [4.5, 6], "counts": [27]}, "height, width"),
        ({"size": "46", "counts": [24]}, "height, width"),
        ({"size": [4, 6], "counts": [20, 5]}, r"add up to 25.*4 \* 6 = 24"),
        ({"size": [4, 6], "counts": [20]}, "add up to 20"),
        ({"size": [4, 6], "counts": [30, -6]}, "below 0"),
        ({"size": [4, 6], "counts": [12.5, 11.5]}, "integers"),
        ({"size": [4, 6], "counts": [10**30]}, "can't be read"),
        ({"size": [4, 6], "counts": 24}, "neither a list nor a text"),
        ({"size": [4, 6], "counts": text(np.ones((5, 6)))}, "add up to 30"),
        ({"size": [4, 6], "counts": text(np.ones((4, 5)))}, "add up to 20"),
        ({"size": [4, 6], "counts": ""}, "add up to 0"),
        ({"size": [40, 60], "counts": text(np.zeros((40, 60)))[:-1]}, "cut short"),
        ({"size": [4, 6], "counts": "P" * 40 + "0"}, "32 bits"),
        ({"size": [4, 6], "counts": "8 \n"}, "letter"),
        ({"size": [4, 6], "counts": "é"}, "can't be read"),
        ({"size": [4, 6], "counts": "LT0"}, "below 0"),
    ],
)
def test_bad_rle(rle, message):
    with pytest.raises(ValueError, match=message):
        of_rle(rle)


def test_rle_of_another_size():
    with pytest.raises(ValueError, match=r"\[4, 6\].*\[6, 4\]"):
        of_rle({"size": [4, 6], "counts": [24]})(6, 4)
