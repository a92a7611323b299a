import numpy as np
import pytest
import toy

from mtl_keras.metrics import InstanceEvaluator, PanopticQuality


def reference(images, num_classes):
    """Segment by segment with dicts, as panopticapi does it; several crowds of a class add up."""
    iou = np.zeros(num_classes)
    tp, fp, fn = (np.zeros(num_classes) for _ in range(3))
    for found, found_classes, truth, true_classes, crowd, void in images:
        truth = np.where(void, -1, truth)
        pixels: dict = {}
        for pair in zip(truth.ravel().tolist(), found.ravel().tolist(), strict=True):
            pixels[pair] = pixels.get(pair, 0) + 1
        true_area, found_area = {}, {}
        for (t, f), n in pixels.items():
            true_area[t] = true_area.get(t, 0) + n
            found_area[f] = found_area.get(f, 0) + n
        matched_true, matched_found = set(), set()
        for (t, f), n in pixels.items():
            if t < 1 or f < 1 or crowd[t - 1] or true_classes[t - 1] != found_classes[f - 1]:
                continue
            union = true_area[t] + found_area[f] - n - pixels.get((-1, f), 0)
            if n / union > 0.5:
                c = true_classes[t - 1]
                tp[c] += 1
                iou[c] += n / union
                matched_true.add(t)
                matched_found.add(f)
        for t in true_area:
            if t > 0 and not crowd[t - 1] and t not in matched_true:
                fn[true_classes[t - 1]] += 1
        for f in found_area:
            if f < 1 or f in matched_found:
                continue
            unknown = pixels.get((-1, f), 0)
            for t in range(1, len(true_classes) + 1):
                if crowd[t - 1] and true_classes[t - 1] == found_classes[f - 1]:
                    unknown += pixels.get((t, f), 0)
            if unknown / found_area[f] <= 0.5:
                fp[found_classes[f - 1]] += 1
    return iou, tp, fp, fn


def scene(rng, classes=3):
    """Blobs that overlap, crowds and void; the prediction is the truth, moved and mixed up."""
    truth = np.zeros((40, 50), int)
    for i in range(9):
        y, x, h, w = *rng.integers(0, 35, 2), *rng.integers(3, 18, 2)
        truth[y : y + h, x : x + w] = i + 1
    found = np.roll(truth, rng.integers(-2, 3, 2), (0, 1))
    found[rng.integers(0, 40) :, rng.integers(20, 50) :] = 10
    true_classes = rng.integers(0, classes, 9)
    found_classes = np.r_[true_classes, 0]
    found_classes[rng.integers(0, 9, 2)] = rng.integers(0, classes, 2)
    void = np.zeros(truth.shape, bool)
    void[:, rng.integers(20, 45) :] = True
    return found, found_classes, truth, true_classes, rng.random(9) < 0.25, void


@pytest.mark.parametrize("seed", range(4))
def test_equals_segment_by_segment(seed):
    rng = np.random.default_rng(seed)
    images = [scene(rng) for _ in range(12)]
    quality = PanopticQuality(3, ["a", "b", "c"], things=[0, 2], name="all_")
    for image in images:
        quality.add(*image)
    iou, tp, fp, fn = reference(images, 3)
    assert min(tp.min(), fp.sum(), fn.sum()) > 0
    result = quality.result()
    pq = iou / (tp + fp / 2 + fn / 2)
    for i, c in enumerate("abc"):
        assert result[f"all_PQ_{c}"] == pytest.approx(pq[i])
        assert result[f"all_SQ_{c}"] == pytest.approx(iou[i] / tp[i])
        assert result[f"all_RQ_{c}"] == pytest.approx(tp[i] / (tp + fp / 2 + fn / 2)[i])
    assert result["all_PQ"] == pytest.approx(pq.mean())
    assert result["all_PQ_things"] == pytest.approx(pq[[0, 2]].mean())
    assert result["all_PQ_stuff"] == pytest.approx(pq[1])


def one(found, truth, classes=(0, 0), **more):
    quality = PanopticQuality(1)
    quality.add(np.array([found]), [0, 0], np.array([truth]), list(classes), **more)
    return quality.result()


def test_rules_by_hand():
    assert one([1, 1, 2, 0], [1, 1, 2, 0])["PQ"] == 1
    # Half is not above half: nothing matches, one is missed and one wrong.
    assert one([1, 0], [1, 1])["PQ"] == 0
    # Void is taken out of what was found, and what lies in it mostly is not counted.
    void = np.array([[False, False, True, True, True]])
    assert one([1, 1, 1, 2, 2], [1, 1, 0, 0, 0], void=void)["PQ"] == 1
    # So with a crowd of the class, which is not missed either.
    found = one([1, 0, 2, 2, 2], [1, 0, 2, 2, 2], is_crowd=[False, True])
    assert found["PQ"] == 1
    assert one([0, 0, 0], [2, 2, 2], is_crowd=[False, True])["PQ"] != 0
    # Wrong ones count by half: 1 / (1 + 1/2).
    assert one([1, 2], [1, 0])["RQ"] == pytest.approx(1 / 1.5)


def test_nothing_is_not_a_number():
    result = PanopticQuality(2).result()
    assert all(np.isnan(v) for v in result.values())


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="one size"):
        one([1, 1], [1, 1, 1])
    with pytest.raises(ValueError, match="`found_classes`"):
        PanopticQuality(1).add(np.array([[2]]), [0], np.array([[0]]), [])
    with pytest.raises(ValueError, match="`true_classes`"):
        PanopticQuality(1).add(np.array([[0]]), [], np.array([[1]]), [1])
    with pytest.raises(ValueError, match="`things`"):
        PanopticQuality(1, things=[1])
    with pytest.raises(ValueError, match="`class_names`"):
        PanopticQuality(1, ["a", "b"])


@pytest.mark.parametrize("seed", [0, 1])
def test_mask_precision_equals_pycocotools(seed):
    mask_tools = pytest.importorskip("pycocotools.mask")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(seed)
    measured = InstanceEvaluator(toy.detection(max_detections=100))
    annotations, results = [], []

    def rle(binary):
        return mask_tools.encode(np.asfortranarray(binary.astype("uint8")))

    images = 10
    for image in range(images):
        found, found_classes, truth, true_classes, crowd, _ = scene(rng)
        scores = rng.permutation(100)[:10] / 100
        values = np.where(crowd, 255, true_classes + 1)
        labels = {
            "instances": truth,
            "mask": np.r_[0, values][truth],
            "classes": true_classes,
            "is_crowd": crowd,
        }
        measured.add_image({"mask": found, "scores": scores, "classes": found_classes}, labels)
        for i in np.unique(truth[truth > 0]) - 1:
            own = rle(truth == i + 1)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(true_classes[i]),
                    "segmentation": own,
                    "area": float(mask_tools.area(own)),
                    "iscrowd": int(crowd[i]),
                }
            )
        for i in np.unique(found[found > 0]) - 1:
            results.append(
                {
                    "image_id": image,
                    "category_id": int(found_classes[i]),
                    "segmentation": rle(found == i + 1),
                    "score": float(scores[i]),
                }
            )
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": i, "height": 40, "width": 50} for i in range(images)],
        "annotations": annotations,
        "categories": [{"id": c} for c in range(3)],
    }
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(results), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    result = measured.result()
    assert 0 < result["instances_AP"] < 1
    assert result["instances_AP"] == pytest.approx(precision[precision > -1].mean(), abs=1e-9)
    first = precision[0]
    assert result["instances_AP50"] == pytest.approx(first[first > -1].mean(), abs=1e-9)


def test_images_that_count_several_times_are_several_images():
    rng = np.random.default_rng(0)
    images = []
    for _ in range(5):
        found, found_classes, truth, true_classes, crowd, _ = scene(rng)
        scores = rng.permutation(100)[:10] / 100
        values = np.r_[0, np.where(crowd, 255, true_classes + 1)]
        labels = {"instances": truth, "mask": values[truth], "classes": true_classes}
        labels["is_crowd"] = crowd
        images.append(({"mask": found, "scores": scores, "classes": found_classes}, labels))

    def measured(repeats):
        evaluator = InstanceEvaluator(toy.detection(max_detections=100))
        for image, times in zip(images, repeats, strict=True):
            for _ in range(times):
                evaluator.add_image(*image)
        return evaluator

    once = measured([1] * 5)
    for repeats in ([0, 2, 1, 0, 3], [1, 0, 0, 0, 0], [2, 2, 2, 2, 2]):
        wanted = measured(repeats).result()
        assert once.result(repeats) == pytest.approx(wanted, abs=1e-12, nan_ok=True)
    assert once.result() == once.result([1] * 5)
