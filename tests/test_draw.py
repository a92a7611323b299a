import sys

import numpy as np
import pytest

from mtl_keras.draw import GAP, class_colour, draw_predictions


def predictions(height, width, boxes=(), classes=(), mask=None):
    mask = np.zeros((height, width), "int32") if mask is None else mask
    boxes = np.asarray(boxes, "float32").reshape(-1, 4)
    return {
        "detection": {"boxes": boxes, "classes": np.asarray(classes, "int32")},
        "segmentation": {"mask": mask},
    }


def panels(picture):
    array = np.asarray(picture)
    width = (array.shape[1] - GAP) // 2
    assert (array[:, width : width + GAP] == 255).all()
    return array[:, :width], array[:, width + GAP :]


def near(pixel, colour):
    return np.abs(np.asarray(pixel, int) - colour).max() <= 1


def test_boxes_stand_where_they_are_and_have_their_class_colours():
    image = np.full((96, 192, 3), 128, "uint8")
    boxes = [[10, 20, 50, 60], [100, 30, 180, 90]]
    left, _ = panels(draw_predictions(image, predictions(96, 192, boxes, [0, 4])))
    assert left.shape == (384, 768, 3)  # four times as large
    for (x1, y1, x2, y2), index in zip(boxes, (0, 4), strict=True):
        middle = 4 * (y1 + y2) // 2
        for x in (x1, x2):
            assert near(left[middle, 4 * x], class_colour(index))
        for y in (y1, y2):
            assert near(left[4 * y, 4 * (x1 + x2) // 2], class_colour(index))
        assert near(left[middle, 4 * x1 + 12], (128, 128, 128))
    drawn = (np.abs(left.astype(int) - 128).max(-1) > 1).mean()
    assert 0 < drawn < 0.05


def test_mask_is_laid_over_the_image():
    image = np.full((768, 768, 3), 100, "uint8")
    mask = np.zeros((768, 768), "int32")
    mask[:300], mask[400:, :200] = 1, 3
    left, right = panels(draw_predictions(image, predictions(768, 768, mask=mask)))
    assert (left == 100).all()
    for place, index in (((100, 100), 0), ((500, 100), 2)):
        half = (np.array(class_colour(index)) + 100) / 2
        assert near(right[place], half)
    assert (right[300:400] == 100).all() and (right[400:, 200:] == 100).all()


def test_distances_are_a_heat_map_over_the_image_in_grey():
    image = np.full((768, 768, 3), (200, 100, 50), "uint8")
    distance = np.tile(np.linspace(-0.2, 1.2, 768, dtype="float32"), (768, 1))
    distance[:100] = 0.0
    panel = np.asarray(draw_predictions(image, {"near": {"distance": distance}})).astype(int)
    assert panel.shape == (768, 768, 3)
    assert np.ptp(panel[50], axis=-1).max() == 0 and 100 < panel[50, 0, 0] < 130
    row = panel[400]
    assert (row[:100] == panel[50, 0]).all() and (row[-100:] == row[-1]).all()
    red, green, blue = row[-1]
    assert red > 220 and green > 220 and blue < 80  # yellow
    # The higher, the brighter, once the image is hidden.
    assert (np.diff(row[400:].sum(-1)) >= -6).all() and row[-1].sum() > row[400].sum() + 60


@pytest.mark.parametrize("size", [(5, 7), (40, 30), (90, 4000), (1, 1)])
def test_panels_are_of_a_size_to_look_at(size):
    picture = draw_predictions(np.zeros((*size, 3), "uint8"), predictions(*size))
    left, right = panels(picture)
    assert left.shape == right.shape and 768 <= max(left.shape) <= 1600
    assert left.shape[0] / left.shape[1] == pytest.approx(size[0] / size[1], rel=0.02)
    assert left.max() == right.max() == 0


def test_names_are_written_where_there_are_several_and_room():
    image = np.zeros((768, 768, 3), "uint8")

    def ink(box, names):
        found = predictions(768, 768, [box], [1 if len(names) > 1 else 0])
        left, _ = panels(draw_predictions(image, found, names))
        return int((left.max(-1) > 0).sum())

    large, small = [300, 300, 500, 500], [300, 300, 320, 330]
    assert ink(large, ["cat", "dog"]) > ink(large, ["dog"]) + 100
    assert ink(small, ["cat", "dog"]) == ink(small, ["dog"])


def test_colours_differ():
    colours = np.array([class_colour(i) for i in range(12)], int)
    apart = np.abs(colours[:, None] - colours[None]).sum(-1) + 1000 * np.eye(12, dtype=int)
    assert apart.min() > 60


def test_many_small_boxes_leave_the_image_visible():
    xs, ys = np.meshgrid(np.arange(0, 500, 12), np.arange(0, 500, 12))
    corners = np.stack([xs.ravel(), ys.ravel()], -1)
    boxes = np.concatenate([corners, corners + 8], -1)
    image = np.full((512, 512, 3), 128, "uint8")
    found = predictions(512, 512, boxes, np.zeros(len(boxes), int))
    left, _ = panels(draw_predictions(image, found))
    assert (left == 128).all(-1).mean() > 0.6


def test_what_can_not_be_drawn_is_refused(monkeypatch):
    image = np.zeros((40, 60, 3), "uint8")
    with pytest.raises(ValueError, match=r"\(40, 60\).*\(30, 60\)"):
        draw_predictions(image, predictions(30, 60))
    with pytest.raises(ValueError, match=r"`distance`.*\(40, 60\).*\(30, 60\)"):
        draw_predictions(image, {"near": {"distance": np.zeros((30, 60))}})
    with pytest.raises(ValueError, match="depth"):
        draw_predictions(image, {"depth": {"map": 0}})
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r"mtl_keras\[draw\]"):
        draw_predictions(image, predictions(40, 60))


def test_instances_that_touch_have_different_colours():
    instances = np.kron(np.arange(1, 65).reshape(8, 8), np.ones((96, 96), int))
    instances[:96] = 0
    found = {"instances": {"mask": instances, "boxes": np.zeros((64, 4))}}
    panel = np.asarray(draw_predictions(np.full((768, 768, 3), 100, "uint8"), found)).astype(int)
    assert (panel[:96] == 100).all()
    centres = panel[48 + 96 :: 96, 48::96]
    for a, b in ((centres[1:], centres[:-1]), (centres[:, 1:], centres[:, :-1])):
        assert np.abs(a - b).max(-1).min() > 20
