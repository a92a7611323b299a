"""Every published model is what its card says, was made by its recipe, and measures as it did."""

import hashlib
import json
import os
import pathlib

import pytest
from model_names import TWINS, parts

import mtl_keras as mtl
from mtl_keras.training.recipe import load_recipe
from mtl_keras.zoo import info, list_models, load, registry
from mtl_keras.zoo.card import Card
from mtl_keras.zoo.measure import measure

ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(os.environ.get("MTL_KERAS_DATA", ROOT / "../shared/data"))
TOLERANCE = 0.005
# Measured again whenever the tests run, one of each set; the others with the slow tests.
FAST = [f"efficientnet_lite0_hard_{data}" for data in ("facades", "kvasir", "nuclei", "vhr10")]


@pytest.fixture(scope="module", params=list_models())
def name(request):
    return request.param


def test_card_holds_everything(name):
    card = Card(info(name))
    card.check(complete=True)
    assert json.loads(json.dumps(card)) == card
    page = (registry.find(name).folder / "card.md").read_text("utf-8")
    assert page == card.markdown(), "run python zoo/publish.py NAME to write the page anew"
    files = {picture["file"] for picture in card["pictures"]}
    assert files >= {"prediction.png", "training.png"}
    assert all((registry.find(name).folder / file).is_file() for file in files)


def test_model_is_what_its_card_says(name):
    card, model = info(name), load(name)
    assert model.name == card["name"] == name == registry.find(name).folder.name
    assert model.count_params() == card["parameters"]
    assert [task.name for task in model.tasks] == card["tasks"]
    assert list(model.image_size) == card["input"]["letterbox"]
    for file, about in card["files"].items():
        content = (registry.find(name).folder / file).read_bytes()
        assert hashlib.sha256(content).hexdigest() == about["sha256"]
        assert len(content) == about["bytes"]


def test_card_recipe_and_file_agree(name):
    card = info(name)
    path = ROOT / card["recipe"]
    assert path.stem == name
    recipe = load_recipe(path)
    assert recipe.name == name
    trunk, way, data = parts(name)
    assert card["config"]["trunk"]["config"]["name"] == trunk
    assert card["data"]["name"] == data == recipe.about["data"]["name"]
    assert card["tasks"] == [way] if way in TWINS else len(card["tasks"]) > 1
    assert way in (card["sharing"], *card["tasks"])
    training = card["training"]
    assert training["epochs"] == card["epochs"] == recipe.epochs
    assert training["batch_size"] == recipe.batch_size
    assert training["train_size"] == list(recipe.train_size)
    balancing = None if recipe.balancing is None else type(recipe.balancing()).__name__
    assert training.get("balancing", "None").split("(")[0] == str(balancing)
    assert training["augment"] == recipe.augment.get_config()
    for key, value in recipe.about.items():
        assert card[key] == value, key


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in list_models()]
)
def test_metrics_are_measured_again(name):
    card = info(name)
    data = card["data"]["name"]
    if not (DATA / data).is_dir():
        pytest.skip(f"the pictures of {data} are not here; set MTL_KERAS_DATA to their folder")
    expected = card["expected"]
    source = mtl.data.load(data)
    found = measure(load(name), source, card["metrics_split"], False, images=expected["images"])
    known = {key: value for key, value in expected["metrics"].items() if value is not None}
    assert {key: found[key] for key in known} == pytest.approx(known, abs=TOLERANCE)
