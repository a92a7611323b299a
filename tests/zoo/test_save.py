"""A model of one's own goes into a folder and comes back."""

import json

import keras
import numpy as np
import pytest
import toy

import mtl_keras as mtl
from mtl_keras.zoo import info, load, save_to_zoo
from mtl_keras.zoo.weights import DTYPES


@pytest.fixture(scope="module")
def both():
    """A model that no test changes."""
    return toy.model()


def images(seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (2, *toy.SIZE, 3)).astype("float32")


def same_outputs(one, other, images, **tolerance):
    a, b = one(images), other(images)
    assert sorted(a) == sorted(b)
    for x, y in zip(keras.tree.flatten(a), keras.tree.flatten(b), strict=True):
        np.testing.assert_allclose(x, y, **(tolerance or {"rtol": 0, "atol": 0}))


@pytest.mark.parametrize("sharing", ["hard", "soft", "cross_stitch"])
def test_what_is_saved_comes_back(tmp_path, sharing):
    tasks = [toy.detection(), toy.segmentation(), toy.distance()]
    model = toy.model(tasks, mtl.sharing.get(sharing))
    assert save_to_zoo(model, tmp_path / "mine", dtype="float32") == tmp_path / "mine"
    again = load(tmp_path / "mine")
    assert again.name == "mine"
    assert {**again.get_config(), "name": model.name} == model.get_config()
    same_outputs(model, again, images())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine"]
    assert sorted(p.name for p in (tmp_path / "mine").iterdir()) == ["card.json", "weights.npz"]


def test_float16_costs_its_rounding_only(both, tmp_path):
    for dtype, bits in (("float16", 11), ("float16_rounded9", 9), ("float16_rounded", 8)):
        save_to_zoo(both, tmp_path / dtype, dtype=dtype)
        again = load(tmp_path / dtype)
        for a, b in zip(both.weights, again.weights, strict=True):
            a, b = np.array(a), np.array(b)
            if a.ndim < 2:
                np.testing.assert_array_equal(a, b)
            else:
                # Half a unit in the last place; below 2 ** -14, float16 has a fixed step.
                np.testing.assert_allclose(a, b, rtol=2.0**-bits, atol=2.0**-25)


def test_rounded_weights_have_eight_bits(tmp_path):
    model = toy.model()
    rng = np.random.default_rng(0)
    kernel = model.get_layer("neck").weights[0]
    value = rng.normal(size=kernel.shape).astype("float32")
    value.flat[:4] = [1.0 + 2**-8, 1.0 + 3 * 2**-8, -(1.0 + 2**-8), 60000.0]
    kernel.assign(value)
    save_to_zoo(model, tmp_path / "mine", dtype="float16_rounded")
    with np.load(tmp_path / "mine" / "weights.npz") as arrays:
        stored = {key: arrays[key] for key in arrays.files}
    for array in stored.values():
        if array.ndim > 1:
            normal = np.abs(array) >= 2.0**-14
            assert array.dtype == "float16"
            assert not (array.view("uint16")[normal] & 0b111).any()
    (found,) = [a for a in stored.values() if a.shape == value.shape and a.max() > 50000]
    # Halves go to the even neighbour.
    assert found.flat[:4].tolist() == [1.0, 1.0 + 2**-6, -1.0, 59904.0]


def test_the_card_says_what_the_model_is(tmp_path):
    model = toy.model([toy.detection(class_names=["a", "b", "c"]), toy.distance()])
    about = {"description": "A toy.", "metrics": {"detection_AP50": 0.5}}
    card = info(save_to_zoo(model, tmp_path / "toy", about))
    assert card["name"] == "toy"
    assert card["description"] == "A toy." and card["metrics"] == {"detection_AP50": 0.5}
    assert card["tasks"] == ["detection", "distance"]
    assert card["classes"] == {"detection": ["a", "b", "c"], "distance": []}
    assert card["input"] == {"letterbox": [64, 64], "channels": "RGB", "range": [0, 255]}
    assert card["parameters"] == model.count_params()
    assert 0 < card["shared_fraction"] < 1
    assert card["versions"]["keras"] == keras.__version__
    assert card["files"]["weights.npz"]["dtype"] == "float16"
    assert list(card)[-1] == "config"
    assert card["sharing"] == "hard"
    card.check()


def test_sequences_and_given_trunks_come_back(tmp_path):
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    for i in range(5):
        x = keras.layers.Conv2D(4, 3, 2, "same", name=f"conv{i}")(x)
    given = mtl.build(
        keras.Model(inputs, x, name="mine"), [toy.segmentation()], image_size=(64, 64)
    )
    save_to_zoo(given, tmp_path / "given", dtype="float32")
    same_outputs(given, load(tmp_path / "given"), images())

    trunk = mtl.trunks.create("recurrent", arguments={"features": 3, "units": 4})
    sequences = mtl.build(trunk, [mtl.tasks.Tagging(2)], "separate")
    card = info(save_to_zoo(sequences, tmp_path / "sequences", dtype="float32"))
    assert card["input"] == {"sequence": [None, 3], "dtype": "float32"}
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    same_outputs(sequences, load(tmp_path / "sequences"), x)


def test_saving_again_takes_the_place_of_the_model(both, tmp_path):
    save_to_zoo(both, tmp_path / "mine")
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    model = toy.model([toy.segmentation(name="pixels")], seed=1)
    save_to_zoo(model, tmp_path / "mine", dtype="float32")
    same_outputs(model, load(tmp_path / "mine"), images())
    assert (tmp_path / "mine" / "notes.txt").read_text() == "kept"


def test_folders_of_others_are_left_alone(both, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(FileExistsError, match="folder.*cat.jpg.*another folder"):
        save_to_zoo(both, tmp_path / "photos")
    with pytest.raises(FileExistsError, match="is a file"):
        save_to_zoo(both, tmp_path / "photos" / "cat.jpg")
    (tmp_path / "empty").mkdir()
    save_to_zoo(both, tmp_path / "empty")
    assert info(tmp_path / "empty")["name"] == "empty"


def test_what_fails_leaves_nothing(tmp_path):
    model = toy.model()
    save_to_zoo(model, tmp_path / "mine", dtype="float32")
    before = {p.name: p.read_bytes() for p in (tmp_path / "mine").iterdir()}
    kernel = model.get_layer("neck").weights[0]
    kernel.assign(kernel * 0 + 1e6)
    for dtype in DTYPES[1:]:
        for folder in ("mine", "new"):
            with pytest.raises(ValueError, match="neck/.*float16"):
                save_to_zoo(model, tmp_path / folder, dtype=dtype)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
    assert {p.name: p.read_bytes() for p in (tmp_path / "mine").iterdir()} == before


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"model": keras.Sequential()}, "`model` must be a `MultiTaskModel`"),
        ({"about": {"tasks": [], "files": {}}}, r"`about`.*\['tasks', 'files'\]"),
        ({"about": {"sharing": "soft"}}, r"`about`.*\['sharing'\]"),
        ({"about": {"licence": "MIT"}}, "unknown key 'licence'. Did you mean 'licences'"),
        ({"about": {"data": "our microscope"}}, "card's 'data' must be a dict"),
        ({"about": {"data": {"title": "ours"}}}, "lacks the key 'data.name'"),
        ({"about": {"metrics": {"AP": "0.9"}}}, "card's 'metrics' must be"),
        ({"about": {"cost": {"cpu_hours": 2}}}, "lacks the key 'cost.cores'"),
        ({"about": {"made": {1, 2}}}, "`about`.*'made'"),
        ({"about": "mine"}, "`about` must be a dict"),
        ({"dtype": "int8"}, "`dtype` must be one of.*float16_rounded"),
    ],
)
def test_wrong_arguments_are_named(both, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        save_to_zoo(**{"model": both, "folder": tmp_path / "mine", **arguments})
    assert list(tmp_path.iterdir()) == []


def test_a_card_is_json_that_others_read_too(both, tmp_path):
    text = (save_to_zoo(both, tmp_path / "mine") / "card.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)


def test_home_is_the_same_place_for_saving_and_loading(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    model = toy.model([toy.segmentation()])
    assert save_to_zoo(model, "~/my_cells") == tmp_path / "my_cells"
    assert load("~/my_cells").name == "my_cells"
