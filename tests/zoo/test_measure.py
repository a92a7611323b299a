import numpy as np
import pytest
import toy
from PIL import Image

import mtl_keras as mtl
from mtl_keras.zoo.measure import Measured, measure, measure_images, resamples


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return mtl.data.digits(2, 5, (64, 64), data_dir=str(tmp_path_factory.mktemp("digits")))


@pytest.fixture(scope="module")
def everything():
    """A model of boxes, masks and distances."""
    tasks = [toy.detection(num_classes=10), toy.segmentation(num_classes=11), toy.distance()]
    return toy.model(tasks)


def test_instances_are_measured_where_tasks_make_them(digits):
    boxes = toy.detection(num_classes=10)
    with_mask = toy.model([boxes, toy.segmentation(num_classes=11)])
    found = measure(with_mask, digits, "val", verbose=False, score_threshold=0.0)
    for name in ("PQ", "SQ", "RQ", "AP", "AP50", "AP75"):
        assert 0 <= found[f"instances_{name}"] <= 1
    assert "instances_PQ_3" in found and "instances_AP_3" in found
    alone = measure(toy.model([boxes]), digits, "val", verbose=False)
    assert not any(name.startswith("instances") for name in alone)
    shared = set(alone) & set(found)
    assert {"detection_AP", "detection_AP50"} <= shared
    assert all(np.isnan(alone[n]) == np.isnan(found[n]) for n in shared)


def test_every_set_of_tasks_is_measured(digits, everything):
    found = measure(everything, digits, "val", verbose=False)
    assert {"detection_AP", "segmentation_dice_1", "distance_mae", "instances_PQ"} <= set(found)
    mask = measure(toy.model([toy.segmentation(num_classes=11)]), digits, "val", verbose=False)
    assert {name.split("_")[0] for name in mask} == {"segmentation"}
    distance = measure(toy.model([toy.distance()]), digits, "val", verbose=False)
    assert set(distance) == {f"distance_{m}" for m in ("mae", "rmse", "background_mae")}


def test_the_first_images_are_measured_alone(digits, everything):
    model = everything
    some = measure(model, digits, "val", verbose=False, images=2)
    measured = measure_images(model, digits, "val", verbose=False)
    assert measured.images == 5
    assert measured.first(2) == pytest.approx(some, abs=1e-9, nan_ok=True)
    assert measured.first(2) != pytest.approx(measured.metrics(), abs=1e-9, nan_ok=True)
    assert measure_images(model, digits, "val", verbose=False, images=99).images == 5
    with pytest.raises(ValueError, match="`images` must be a positive"):
        measure(model, digits, "val", images=0)


def test_boxes_are_shown_from_the_best_confidence_on(digits):
    task = toy.detection(num_classes=10)
    model = toy.model([task, toy.segmentation(num_classes=11)])
    before = measure_images(model, digits, "val", verbose=False, score_threshold=0.0)
    # Without training nothing is found, so that there is no best one.
    assert not before.choose_confidence() and task.confidence == 0.5
    (evaluator,) = (e for e, _ in before._evaluators if hasattr(e, "choose_confidence"))
    evaluator.best_confidence = lambda: 0.0
    assert before.choose_confidence() and task.confidence == 0.0
    assert not before.choose_confidence()
    again = measure(model, digits, "val", verbose=False)
    assert again == pytest.approx(before.metrics(), nan_ok=True)


def test_resamples_are_those_of_an_honest_bootstrap(digits, everything):
    measured = measure_images(everything, digits, "val", verbose=False)
    spread = measured.bootstrap(6)
    assert set(spread) == set(measured.metrics())
    for i, repeats in enumerate(resamples(5, 6)):
        for name, value in measured.metrics(repeats).items():
            np.testing.assert_equal(spread[name][i], value)
    assert len(set(spread["segmentation_mean_iou"])) > 1


def test_images_of_one_scene_are_drawn_together(digits, everything):
    evaluators = measure_images(everything, digits, "val", verbose=False)._evaluators
    spread = Measured(evaluators, 5, ["b", "a", "b", "c", "a"]).bootstrap(6)
    whole = Measured(evaluators, 5)
    for i, (a, b, c) in enumerate(resamples(3, 6)):
        for name, value in whole.metrics([b, a, b, c, a]).items():
            np.testing.assert_equal(spread[name][i], value)


def test_resamples_hold_what_chance_gives():
    drawn = resamples(50, 4000)
    assert (drawn.sum(axis=1) == 50).all()
    # An image is left out with probability (1 - 1/50)^50.
    assert (drawn == 0).mean() == pytest.approx(0.98**50, abs=0.01)
    assert drawn.mean(axis=0) == pytest.approx(np.ones(50), abs=0.1)
    assert (resamples(50, 10) == drawn[:10]).all()


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Pictures with a class for the whole picture; one has none."""
    folder = tmp_path_factory.mktemp("labelled")
    rows = ["image,split,kind,weather"]
    for i in range(4):
        Image.fromarray(np.full((40, 60, 3), 60 * i, "uint8")).save(folder / f"{i}.png")
        rows.append(f"{i}.png,val,{['a', 'b', '', 'a'][i]},{['dry', 'wet', 'dry', 'dry'][i]}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_a_class_of_the_whole_image_is_measured(labelled, tmp_path):
    builder = mtl.data.from_folder(labelled, data_dir=tmp_path)
    kind, weather = (mtl.tasks.Classification(2, name=name) for name in ("kind", "weather"))
    model = toy.model([kind, weather])
    measured = measure_images(model, builder, "val", verbose=False)
    found = measured.metrics()
    assert set(found) == {"kind_accuracy", "weather_accuracy"}
    assert round(3 * found["kind_accuracy"], 6) in range(4)  # of the three that have a label
    # Pictures without a label do not count, however often they are drawn.
    stored = mtl.data.examples(builder, "val").as_numpy_iterator()
    times = [9 if np.isnan(one["values"]["kind"]) else 1 for one in stored]
    assert sorted(times) == [1, 1, 1, 9]
    assert measured.metrics(times)["kind_accuracy"] == found["kind_accuracy"]
    other = toy.model([mtl.tasks.Classification(2, name="sky")])
    with pytest.raises(ValueError, match="no image.*'sky'.*column 'sky'"):
        measure(other, builder, "val", verbose=False)
    renamed = measure(other, builder, "val", verbose=False, columns={"sky": "weather"})
    assert set(renamed) == {"sky_accuracy"}
    with pytest.raises(ValueError, match="`columns` names unknown tasks"):
        measure(other, builder, "val", columns={"wether": "weather"})
