import numpy as np
import pytest
import toy


def masks(seed, shape=(9, 13), classes=4, ignored=0.1):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, shape).astype("int32")
    found = np.where(rng.random(shape) < 0.6, truth, rng.integers(0, classes, shape))
    return np.where(rng.random(shape) < ignored, 255, truth), found.astype("int32")


def overlaps(truth, found, c):
    counted = truth != 255
    a, b = (truth == c) & counted, (found == c) & counted
    return (a & b).sum(), a.sum(), b.sum()


def measured(images, **arguments):
    evaluator = toy.segmentation(**arguments).image_evaluator()
    for truth, found in images:
        evaluator.add_image({"mask": found}, {"mask": truth})
    return evaluator


def test_dice_over_pixels_and_over_images_by_their_definitions():
    images = [masks(seed, (5 + seed, 8)) for seed in range(4)]
    # A class that an image neither shows nor is found in is left out of its mean over images.
    images[1] = tuple(np.where(m == 2, 0, m) for m in images[1])
    result = measured(images).result()
    for c in range(4):
        each = np.array([overlaps(truth, found, c) for truth, found in images], float)
        both, size = each[:, 0], each[:, 1] + each[:, 2]
        assert result[f"segmentation_dice_{c}"] == pytest.approx(2 * both.sum() / size.sum())
        iou = both.sum() / (size.sum() - both.sum())
        assert result[f"segmentation_iou_{c}"] == pytest.approx(iou)
        if c:
            both, size = both[size > 0], size[size > 0]
            dice, ious = np.mean(2 * both / size), np.mean(both / (size - both))
            assert result[f"segmentation_image_dice_{c}"] == pytest.approx(dice)
            assert result[f"segmentation_image_iou_{c}"] == pytest.approx(ious)
    assert "segmentation_image_dice_0" not in result


def test_what_is_found_in_vain_counts_as_nothing_found():
    empty, full = np.zeros((4, 4), "int32"), np.ones((4, 4), "int32")
    result = measured([(full, full), (empty, full)]).result()
    assert result["segmentation_image_dice_1"] == 0.5
    assert np.isnan(result["segmentation_image_dice_2"])
    assert np.isnan(result["segmentation_dice_2"])


def test_without_images_there_is_no_dice():
    result = measured([]).result()
    assert np.isnan(result["segmentation_dice_1"]) and result["segmentation_mean_iou"] == 0


def test_classes_have_their_names_and_reset_forgets():
    evaluator = measured([masks(0)], class_names=["none", "a", "b", "c"])
    assert {"segmentation_dice_none", "segmentation_image_iou_c"} <= set(evaluator.result())
    evaluator.reset()
    truth, _ = masks(1)
    found = np.where(truth == 255, 0, truth)
    evaluator.add_image({"mask": found}, {"mask": truth})
    assert evaluator.result()["segmentation_dice_a"] == 1
