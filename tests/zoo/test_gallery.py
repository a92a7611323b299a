"""Pictures of predictions: their columns, their places, and that they hold no photograph."""

import os
import pathlib
import re
import sys

import numpy as np
import pytest
import toy
from PIL import Image

import mtl_keras as mtl
from mtl_keras.draw import class_colour
from mtl_keras.training.recipe import Recipe

ROOT = pathlib.Path(__file__).parents[2]
sys.path.append(str(ROOT / "zoo"))

import gallery  # noqa: E402

DATA = pathlib.Path(os.environ.get("MTL_KERAS_DATA", ROOT / "../shared/data"))
SIDE = 256


@pytest.fixture(scope="module")
def digits():
    return mtl.data.digits(train=2, val=7, image_size=(64, 64))


@pytest.fixture(scope="module")
def model():
    return toy.model([toy.detection(num_classes=10), toy.segmentation(num_classes=11)])


@pytest.fixture(scope="module")
def example(digits):
    """Labels of an image and predictions that are the same as these."""
    labels = next(iter(mtl.data.examples(digits, "val").as_numpy_iterator()))
    scores = np.ones(len(labels["boxes"]), "float32")
    boxes = {"boxes": labels["boxes"], "classes": labels["classes"], "scores": scores}
    found = {
        "detection": boxes,
        "segmentation": {"mask": labels["mask"]},
        "instances": {"mask": labels["instances"], **boxes},
    }
    return labels, found


def recipe(**about):
    return Recipe("toy", None, None, None, None, 1, (64, 64), about=about)


def columns(picture, count):
    array = np.asarray(picture.convert("RGB")).astype(int)
    top = gallery.TEXT + gallery.GAP
    step = SIDE + gallery.GAP
    assert array.shape[1] == count * step - gallery.GAP
    return [array[top : top + SIDE, i * step : i * step + SIDE] for i in range(count)]


def is_colour(array, colour):
    return np.abs(array - np.asarray(colour)).max(-1) <= 1


@pytest.mark.parametrize(
    ("count", "expected"), [(103, [0, 34, 68]), (7, [0, 2, 4]), (2, [0, 1]), (1, [0])]
)
def test_positions_follow_from_the_length_of_the_split_alone(count, expected):
    assert gallery.positions(count) == expected


def test_pictures_are_those_at_the_fixed_positions(digits, model):
    every = [one["id"] for one in mtl.data.examples(digits, "val").as_numpy_iterator()]
    examples = gallery.predict(model, digits, "val")
    assert [labels["id"] for labels, _ in examples] == [every[i] for i in (0, 2, 4)]
    for labels, found in examples:
        assert set(found) == {"detection", "segmentation", "instances"}
        assert found["segmentation"]["mask"].shape == labels["image"].shape[:2]


def test_a_card_gets_a_small_picture_and_a_caption(digits, model, tmp_path):
    path = tmp_path / "prediction.png"
    about = {"licences": {"data": "research use"}}
    [said] = gallery.prediction(model, digits, recipe(**about), path)
    assert said["file"] == path.name
    parts = ["labels; predicted boxes; predicted masks; both, with instances.", "0, 2, 4"]
    parts += ["of the 7 of `val`", "score 0.5 or more", "Photographs are left out", "research use"]
    for part in parts:
        assert part in said["caption"]
    assert path.stat().st_size <= gallery.CARD_BYTES
    with Image.open(path) as picture:
        assert picture.width == 4 * (gallery.SIDES[0] + gallery.GAP) - gallery.GAP
        assert picture.height > 3 * gallery.SIDES[0]


def test_no_pixel_of_the_photograph_is_in_the_picture(model, example):
    labels, found = example
    other = {**labels, "image": 255 - labels["image"]}
    plain = gallery.draw(model, [(labels, found)], SIDE)
    assert plain.tobytes() == gallery.draw(model, [(other, found)], SIDE).tobytes()
    whole = gallery.draw(model, [(labels, found)], SIDE, photographs=True)
    assert whole.tobytes() != gallery.draw(model, [(other, found)], SIDE, True).tobytes()


def test_columns_show_labels_boxes_masks_and_both(model, example):
    labels, found = example
    shown, boxes, masks, both = columns(gallery.draw(model, [example], SIDE), 4)
    assert (shown == both).all()  # the predictions are the labels
    ground = np.full(3, gallery.GROUND)
    inside = np.kron(labels["mask"], np.ones((4, 4), int))
    assert is_colour(masks[inside == 0], ground).all()
    for index in labels["classes"]:
        half = (np.array(class_colour(index)) + gallery.GROUND) / 2
        assert is_colour(masks[inside == index + 1], half).all()
        assert is_colour(boxes, class_colour(index)).any()
        assert not is_colour(masks, class_colour(index)).any()
    # Outlines are where instances are, and only in the columns that tell them apart.
    outline = is_colour(both, gallery.INK)
    assert outline.any() and (np.kron(labels["instances"], np.ones((4, 4)))[outline] > 0).all()
    assert not is_colour(boxes, gallery.INK).any() and not is_colour(masks, gallery.INK).any()


def test_photographs_come_first_where_they_are_wanted(model, example):
    first, labelled, *_ = columns(gallery.draw(model, [example], SIDE, photographs=True), 5)
    resized = Image.fromarray(example[0]["image"]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    assert (first == np.asarray(resized)).all()
    assert (labelled != first).any()


@pytest.mark.parametrize(
    ("task", "titles"),
    [
        (lambda: toy.detection(num_classes=10), ["predicted boxes"]),
        (lambda: toy.segmentation(num_classes=11), ["predicted masks"]),
        (toy.distance, ["predicted distances"]),
    ],
)
def test_a_twin_has_labels_and_predictions_of_its_task_alone(example, task, titles):
    twin = toy.model([task()])
    labels, found = example
    found = {name: found[name] for name in found if name == twin.tasks[0].name}
    near = toy.relative_distance(labels)
    found = found or {twin.tasks[0].name: {"distance": np.maximum(near, 0)}}
    assert gallery.titles(twin.tasks) == titles
    shown, predicted = columns(gallery.draw(twin, [(labels, found)], SIDE), 2)
    for panel in (shown, predicted):
        if titles == ["predicted distances"] and panel is shown:
            continue
        assert (panel != gallery.GROUND).any()
    whole = np.kron(labels["mask"], np.ones((4, 4), int)) > 0
    if titles == ["predicted boxes"]:  # nothing of the mask is among the labels
        half = (np.array(class_colour(labels["classes"][0])) + gallery.GROUND) / 2
        assert not is_colour(shown[whole], half).any()


def test_a_file_is_made_in_smaller_panels_until_it_is_small_enough(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (512, 512, 3), "uint8")

    def make(side):
        return Image.fromarray(noise[:side, :side])

    path = tmp_path / "noise.png"
    gallery.save(make, path, 120_000)
    assert path.stat().st_size <= 120_000
    with Image.open(path) as picture:
        assert picture.width == 320
    with pytest.raises(ValueError, match=r"noise\.png is larger than 1000 bytes"):
        gallery.save(make, path, 1000)


def test_photographs_cannot_be_written_into_the_repository(capsys):
    with pytest.raises(SystemExit):
        gallery.main(["--out", str(ROOT / "docs")])
    assert "outside of the repository" in capsys.readouterr().err


def test_the_page_lists_all_sets_and_is_up_to_date():
    page = (ROOT / "docs" / "gallery.md").read_text("utf-8")
    assert page == gallery.page(), "run: python zoo/gallery.py"
    assert re.findall(r"^## (\w+):", page, re.M) == list(gallery.SETS)
    for target in re.findall(r"\]\(([^)]+)\)", page):
        assert (ROOT / "docs" / target).is_file(), target
    for data in gallery.SETS:
        assert (f"(gallery_{data}.png)" in page) == (data in gallery.published())
    assert (ROOT / "docs" / "gallery.png").stat().st_size <= gallery.README_BYTES


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no annotated pictures at {DATA}")
def test_photographs_of_the_sets_are_drawn_for_those_who_have_them(tmp_path, monkeypatch):
    name = gallery.published()["nuclei"]
    monkeypatch.setattr(gallery, "list_models", lambda: [name])
    gallery.main(["--out", str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.png", "gallery.png"}
    with Image.open(tmp_path / f"{name}.png") as picture:
        assert picture.width == 5 * (gallery.SIDES[0] + gallery.GAP) - gallery.GAP
