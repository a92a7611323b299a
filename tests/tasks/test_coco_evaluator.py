"""Average precision against `pycocotools`, the reference implementation."""

import contextlib
import io

import numpy as np
import pytest
import toy

from mtl_keras.tasks.coco import CocoEvaluator

pycocotools = pytest.importorskip("pycocotools")


def evaluated(images, num_classes, most):
    """What pycocotools finds."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations, found = [], []
    for i, (boxes, scores, classes, true_boxes, true_classes, crowd) in enumerate(images):
        for b, c, w in zip(true_boxes, true_classes, crowd, strict=True):
            x0, y0, x1, y1 = map(float, b)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": int(c),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": int(w),
                }
            )
        for b, s, c in zip(boxes, scores, classes, strict=True):
            x0, y0, x1, y1 = map(float, b)
            found.append(
                {
                    "image_id": i,
                    "category_id": int(c),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "score": float(s),
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(len(images))],
            "annotations": annotations,
            "categories": [{"id": c} for c in range(num_classes)],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.params.maxDets = [1, 10, most]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def reference(images, num_classes, most):
    """Precision `(IoU, recall, class)` by pycocotools, over all areas."""
    return evaluated(images, num_classes, most).eval["precision"][:, :, :, 0, 2]


def confusion(images, score):
    """Precision, recall and F1 at an IoU of 0.5 by the matches of pycocotools."""
    evaluation = evaluated(images, 3, 400)
    hits = shown = objects = 0
    over_all_areas = evaluation.params.areaRng[0]
    for one in filter(None, evaluation.evalImgs):
        if one["aRng"] != over_all_areas:
            continue
        counted = (np.array(one["dtScores"]) >= score) & ~one["dtIgnore"][0].astype(bool)
        hits += (one["dtMatches"][0][counted] > 0).sum()
        shown += counted.sum()
        objects += (~np.array(one["gtIgnore"], bool)).sum()
    precision, recall = hits / shown, hits / objects
    return {
        "precision": precision,
        "recall": recall,
        "F1": 2 * precision * recall / (precision + recall),
    }


def mean(precision):
    known = precision[precision > -1]
    return known.mean() if known.size else float("nan")


def scene(rng, objects, guesses, num_classes=3, crowds=0):
    low = rng.uniform(0, 200, (objects, 2))
    truth = np.concatenate([low, low + rng.uniform(5, 90, (objects, 2))], -1).astype("float32")
    classes = rng.integers(0, num_classes, objects)
    crowd = np.arange(objects) < crowds
    if objects:
        source = rng.integers(0, objects, guesses)
        boxes = truth[source] + rng.normal(0, 4, (guesses, 4))
        labels = np.where(rng.random(guesses) < 0.8, classes[source], rng.integers(0, 3, guesses))
    else:
        boxes, labels = rng.uniform(0, 50, (guesses, 4)), rng.integers(0, 3, guesses)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    scores = rng.permutation(guesses * 7)[:guesses] / max(guesses * 7, 1)
    return (
        boxes.astype("float32"),
        scores.astype("float32"),
        labels.astype("int32"),
        truth,
        classes.astype("int32"),
        crowd,
    )


SCENES = {
    "ordinary": [(5, 12, 0), (9, 20, 0), (1, 3, 0), (14, 30, 0)],
    "crowds": [(6, 15, 2), (8, 20, 1), (3, 9, 3), (5, 9, 0)],
    "images without objects": [(0, 6, 0), (7, 15, 0), (0, 0, 0)],
    "images without predictions": [(5, 0, 0), (6, 12, 0), (4, 0, 1)],
    "more than 100 boxes": [(60, 260, 0), (40, 230, 3)],
}


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_pycocotools(name, seed):
    rng = np.random.default_rng(seed)
    images = [scene(rng, o, g, crowds=c) for o, g, c in SCENES[name]]
    evaluator = CocoEvaluator(toy.detection(max_detections=400, class_names=["a", "b", "c"]))
    for image in images:
        evaluator.add(*image)
    logs = evaluator.result()
    precision = reference(images, 3, 400)
    expected = {
        "AP": mean(precision),
        "AP50": mean(precision[0]),
        "AP75": mean(precision[5]),
        "AP_at_100": mean(reference(images, 3, 100)),
        **{f"AP_{c}": mean(precision[:, :, i]) for i, c in enumerate("abc")},
        **confusion(images, evaluator.task.confidence),
    }
    assert set(logs) == {f"detection_{key}" for key in expected}
    for key, value in expected.items():
        assert logs[f"detection_{key}"] == pytest.approx(value, abs=1e-6, nan_ok=True), key
    assert 0 < logs["detection_AP"] < 1
    assert 0 < logs["detection_F1"] < 1


def test_best_confidence_has_the_best_f1():
    rng = np.random.default_rng(0)
    images = [scene(rng, 6, 12) for _ in range(5)]
    # Half of the predictions, those with the lowest scores, are far from anything.
    for boxes, scores, *_ in images:
        boxes[scores < np.median(scores)] += 1000
    evaluator = CocoEvaluator(toy.detection())
    for image in images:
        evaluator.add(*image)
    best = evaluator.best_confidence()
    assert 0.2 < best < 0.8
    values = {}
    for score in np.arange(1, 20) / 20:
        evaluator.task.confidence = score
        values[round(score, 2)] = evaluator.result()["detection_F1"]
    assert values[best] == max(values.values()) > min(values.values())


def test_best_confidence_without_a_hit_is_the_one_that_is():
    evaluator = CocoEvaluator(toy.detection(confidence=0.35))
    assert evaluator.best_confidence() == 0.35
    evaluator.add(*scene(np.random.default_rng(0), 4, 0))
    assert evaluator.best_confidence() == 0.35


def test_no_predictions_at_all_is_zero():
    evaluator = CocoEvaluator(toy.detection())
    image = scene(np.random.default_rng(0), 4, 0)
    evaluator.add(*image)
    logs = evaluator.result()
    shown = set(image[4])
    for c in range(3):
        value = logs[f"detection_AP_{c}"]
        assert value == 0 if c in shown else np.isnan(value)
    assert logs["detection_AP"] == 0


@pytest.mark.parametrize("guesses", [0, 5])
@pytest.mark.parametrize("crowds", [0, 2])
def test_no_ground_truth_has_no_precision(guesses, crowds):
    evaluator = CocoEvaluator(toy.detection())
    evaluator.add(*scene(np.random.default_rng(0), crowds, guesses, crowds=crowds))
    assert all(np.isnan(v) for v in evaluator.result().values())
    assert all(np.isnan(v) for v in CocoEvaluator(toy.detection()).result().values())


def test_truth_found_is_one_and_reset_forgets():
    evaluator = CocoEvaluator(toy.detection())
    truth = scene(np.random.default_rng(0), 5, 0)[3:]
    evaluator.add(*scene(np.random.default_rng(1), 5, 5))
    evaluator.reset()
    evaluator.add(truth[0], np.linspace(0.5, 0.9, 5), truth[1], *truth)
    assert evaluator.result()["detection_AP"] == pytest.approx(1.0)


def test_update_leaves_out_padding_and_images_of_no_weight():
    images = [scene(np.random.default_rng(i), 4, 8) for i in range(3)]
    wanted = CocoEvaluator(toy.detection())
    for i in (0, 2):
        wanted.add(*images[i])
    padded = [np.stack([image[k] for image in images]) for k in range(6)]
    padded[3] = np.pad(padded[3], [(0, 0), (0, 2), (0, 0)])
    padded[4] = np.pad(padded[4], [(0, 0), (0, 2)], constant_values=-1)
    padded[5] = np.pad(padded[5], [(0, 0), (0, 2)])
    boxes, scores, classes, *truth = padded
    found = CocoEvaluator(toy.detection())
    found.update(boxes, scores, classes, np.full(3, 8), *truth, weight=np.array([1.0, 0.0, 0.5]))
    assert found.result() == pytest.approx(wanted.result(), nan_ok=True)


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("seed", [0, 1])
def test_images_that_count_several_times_are_several_images(name, seed, monkeypatch):
    monkeypatch.setattr("mtl_keras.tasks.average_precision.CHUNK", 40)
    rng = np.random.default_rng(seed)
    images = [scene(rng, o, g, crowds=c) for o, g, c in SCENES[name]]
    once = CocoEvaluator(toy.detection(max_detections=400))
    for image in images:
        once.add(*image)
    for repeats in ([1] * len(images), rng.integers(0, 4, len(images)), [0] * len(images)):
        several = CocoEvaluator(toy.detection(max_detections=400))
        for image, times in zip(images, repeats, strict=True):
            for _ in range(times):
                several.add(*image)
        # To the last bits: scores that copies share are passed at once.
        assert once.result(repeats) == pytest.approx(several.result(), abs=1e-12, nan_ok=True)
    assert once.result() == pytest.approx(once.result([1] * len(images)), abs=0, nan_ok=True)
