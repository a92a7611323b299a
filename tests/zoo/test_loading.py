"""What `load` can be asked for, with a toy model in a folder."""

import json
import shutil
import warnings

import keras
import numpy as np
import pytest
import toy

import mtl_keras as mtl
from mtl_keras.trunks.fill import variables_by_key
from mtl_keras.zoo import info, list_models, load, registry, save_to_zoo
from mtl_keras.zoo.card import Card


@pytest.fixture(scope="module")
def model():
    return toy.model([toy.detection(), toy.segmentation()])


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return save_to_zoo(model, tmp_path_factory.mktemp("saved") / "cells", dtype="float32")


@pytest.fixture
def zoo(folder, tmp_path, monkeypatch):
    """A folder of two models, which `MTL_KERAS_ZOO` names."""
    place = tmp_path / "zoo"
    for name in ("toy_hard_cells", "toy_soft_cells"):
        shutil.copytree(folder, place / name)
    monkeypatch.setenv("MTL_KERAS_ZOO", str(place))
    return place


def images(count=1):
    return np.random.default_rng(0).uniform(0, 255, (count, *toy.SIZE, 3)).astype("float32")


def equal(a, b):
    a, b = keras.tree.flatten(a), keras.tree.flatten(b)
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


# === What is asked for ===
@pytest.mark.parametrize("before", ["float32", "mixed_float16"])
def test_dtype_is_the_model_s_alone(folder, model, before):
    keras.config.set_dtype_policy(before)
    try:
        half = load(folder, dtype="mixed_bfloat16")
        whole = load(folder)
        assert keras.config.dtype_policy().name == before
        with pytest.raises(ValueError, match="dtype.*mixed_float16.*Received: dtype='float64'"):
            load(folder, dtype="float64")
        assert keras.config.dtype_policy().name == before
    finally:
        keras.config.set_dtype_policy("float32")
    assert half.dtype_policy.name == "mixed_bfloat16"
    assert half.get_layer("segmentation_head").compute_dtype == "bfloat16"
    assert {variable.dtype for variable in half.weights} == {"float32"}
    assert equal(half.weights, model.weights)
    # The card says float32, whatever the policy is where it is loaded.
    assert equal(whole(images()), model(images()))


def test_without_weights_all_is_random(folder, model, tmp_path):
    (tmp_path / "cells").mkdir()
    shutil.copy(folder / "card.json", tmp_path / "cells")
    keras.utils.set_random_seed(1)
    fresh = load(tmp_path / "cells", weights=False)
    assert fresh.count_params() == model.count_params()
    kernels = [(a, b) for a, b in zip(model.weights, fresh.weights, strict=True) if a.ndim > 1]
    assert all(not np.array_equal(a, b) for a, b in kernels)
    with pytest.raises(FileNotFoundError, match="weights.npz.*missing"):
        load(tmp_path / "cells")
    with pytest.raises(ValueError, match=r"weights.*\[True, False\].*'imagenet'"):
        load(folder, weights="imagenet")


def test_heads_train_alone(folder):
    loaded = load(folder, trainable="heads")
    heads = {"detection_head", "segmentation_head"}
    trained = [v for layer in loaded.layers if layer.name in heads for v in layer.weights]
    assert {id(v) for v in loaded.trainable_variables} <= {id(v) for v in trained}
    assert loaded.trainable_variables
    frozen = {v.path: v for v in loaded.weights if id(v) not in {id(t) for t in trained}}
    statistics = [path for path in frozen if path.endswith("moving_variance")]
    assert statistics, "the toy has BatchNorm in its trunk"
    before = {path: np.array(v) for path, v in frozen.items()}
    kernels = [np.array(v) for v in loaded.trainable_variables]
    loaded.compile(optimizer=keras.optimizers.SGD(0.01))
    x, y = toy.batch(loaded.tasks)
    loaded.fit(x, y, batch_size=4, verbose=0)
    for path, value in before.items():
        np.testing.assert_array_equal(value, np.array(frozen[path]), err_msg=path)
    after = loaded.trainable_variables
    assert any(not np.array_equal(a, b) for a, b in zip(kernels, after, strict=True))
    with pytest.raises(ValueError, match="trainable.*'all', 'heads'.*'trunk'"):
        load(folder, trainable="trunk")


@pytest.mark.parametrize("sharing", ["hard", "soft"])
def test_heads_train_with_all_that_is_random(sharing, tmp_path):
    """What a new task reads has to learn too, where it has no pretrained weights."""
    coarse = [toy.detection(levels=("P3", "P4")), toy.segmentation(levels=("P3", "P4"))]
    place = save_to_zoo(toy.model(coarse, sharing), tmp_path / "coarse")
    asked = ["detection", "segmentation", toy.distance(levels=("P2", "P3"))]
    with pytest.warns(UserWarning, match="random weights: .*neck/lateral_P2"):
        loaded = load(place, tasks=asked, trainable="heads")
    necks = {layer.name for layer in loaded.layers if layer.name.endswith("neck")}
    (neck,) = {"hard": {"neck"}, "soft": necks - {"detection_neck", "segmentation_neck"}}[sharing]
    learn = {path.split("/", 1)[1] for path in learning(loaded) if path.startswith(f"{neck}/")}
    assert {path.split("/")[0] for path in learn} == {"lateral_P2", "smooth_P2", "bn_P2"}
    others = {path.split("/")[0] for path in learning(loaded)} - {neck}
    assert others == {"detection_head", "segmentation_head", "distance_head"}


def test_what_learns_is_saved_with_the_model(folder, tmp_path):
    loaded = load(folder, trainable="heads")
    loaded.compile(optimizer="adam")
    x, y = toy.batch(loaded.tasks)
    loaded.fit(x, y, batch_size=4, verbose=0)
    loaded.save(tmp_path / "model.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = mtl.load_model(tmp_path / "model.keras")
    assert learning(again) == learning(loaded) != learning(load(folder))
    assert int(again.optimizer.iterations) == 1
    assert equal(again.optimizer.variables, loaded.optimizer.variables)
    # A published model is whole again, whoever has frozen what.
    assert learning(load(save_to_zoo(loaded, tmp_path / "mine"))) == learning(load(folder))


def learning(model):
    """Paths of the layers and variables that learn."""
    return {
        f"{layer.name}/{key}"
        for layer in model.layers
        for key, variable in variables_by_key(_inner(layer)).items()
        if id(variable) in {id(v) for v in model.trainable_variables}
    }


def _inner(layer):
    return layer if hasattr(layer, "layers") else keras.Sequential([layer])


def test_new_classes_have_a_confidence_of_their_own(tmp_path):
    place = save_to_zoo(toy.model([toy.detection(confidence=0.7)]), tmp_path / "boxes")
    assert load(place).tasks[0].confidence == 0.7
    fresh = load(place, num_classes={"detection": 2}).tasks[0]
    assert fresh.confidence == mtl.tasks.Detection(num_classes=2).confidence != 0.7


def test_towers_that_depend_on_each_other(tmp_path):
    """A task that is kept must predict what it did; what is random keeps nothing."""
    towers = toy.model([toy.detection(), toy.segmentation()], "cross_stitch")
    place = save_to_zoo(towers, tmp_path / "towers")
    with pytest.raises(ValueError, match="`tasks` must be all of"):
        load(place, tasks=["segmentation"])
    alone = load(place, tasks=["segmentation"], weights=False)
    assert list(alone(images())) == ["segmentation"]


def test_a_subset_of_tasks_predicts_what_it_did(folder, model):
    alone = load(folder, tasks=["segmentation"])
    assert [task.name for task in alone.tasks] == ["segmentation"]
    assert alone.count_params() < model.count_params()
    np.testing.assert_allclose(
        alone(images())["segmentation"], model(images())["segmentation"], atol=1e-4
    )
    turned = load(folder, tasks=["segmentation", "detection"])
    assert list(turned(images())) == ["segmentation", "detection"]


def test_what_is_loaded_is_trained_saved_and_used(folder, tmp_path):
    """Tasks old and new, one step, a file, and again from the file."""
    asked = ["segmentation", toy.distance()]
    loaded = load(folder, tasks=asked, num_classes={"segmentation": 2})
    assert loaded.tasks[0].num_classes == 2
    loaded.compile(optimizer="adam")
    x, y = toy.batch(loaded.tasks)
    y["segmentation"]["mask"] = np.minimum(y["segmentation"]["mask"], 1)
    history = loaded.fit(x, y, batch_size=4, verbose=0).history
    assert np.isfinite(history["loss"][0])
    loaded.save(tmp_path / "model.keras")
    again = mtl.load_model(tmp_path / "model.keras")
    picture = images()[0].astype("uint8")
    (one,), (other,) = (m.predict_images([picture]) for m in (loaded, again))
    assert set(one) == {"segmentation", "distance"} == set(other)
    np.testing.assert_array_equal(one["segmentation"]["mask"], other["segmentation"]["mask"])
    np.testing.assert_allclose(one["distance"]["distance"], other["distance"]["distance"])
    # And into a folder, as it came.
    save_to_zoo(loaded, tmp_path / "mine", dtype="float32")
    assert equal(load(tmp_path / "mine")(x), loaded(x))


# === Names ===
def test_folders_that_the_environment_names(zoo, tmp_path, monkeypatch):
    assert list_models("toy_*") == ["toy_hard_cells", "toy_soft_cells"]
    card = info("toy_hard_cells")
    assert isinstance(card, Card) and card["tasks"] == ["detection", "segmentation"]
    # What nobody told is not there, and the rest is shown.
    assert "licences" not in str(card) and "detection (0, 1, 2)" in str(card)
    assert load("toy_soft*", weights=False).name == "cells"
    (tmp_path / "more").mkdir()
    shutil.move(zoo / "toy_soft_cells", tmp_path / "more")
    monkeypatch.setenv("MTL_KERAS_ZOO", f"{zoo}{registry.os.pathsep}{tmp_path / 'more'}")
    assert list_models("toy_*") == ["toy_hard_cells", "toy_soft_cells"]
    monkeypatch.setenv("MTL_KERAS_ZOO", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="MTL_KERAS_ZOO names '.*none'"):
        list_models()


def test_a_pattern_must_match_one(zoo):
    with pytest.raises(ValueError, match=r"'toy_\*'.*\['toy_hard_cells', 'toy_soft_cells'\]"):
        info("toy_*")
    with pytest.raises(ValueError, match="toy_hard_cel'.*Did you mean 'toy_hard_cells'"):
        load("toy_hard_cel")
    with pytest.raises(ValueError, match="no published model 'nothing_"):
        load("nothing_*")
    with pytest.raises(ValueError, match="'soft_cells'. Did you mean 'toy_soft_cells'[?]"):
        load("soft_cells")


def test_the_data_package_is_named_where_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "CHECKOUT", tmp_path / "none")
    if registry._has_package():
        pytest.skip("the data package is installed")
    with pytest.raises(ValueError, match="More models are in the package mtl-keras-zoo"):
        info("efficientnet_lite0_soft_kvasir")


def test_two_of_one_name_are_an_error(zoo, tmp_path, monkeypatch):
    shutil.copytree(zoo / "toy_hard_cells", tmp_path / "more" / "toy_hard_cells")
    monkeypatch.setenv("MTL_KERAS_ZOO", f"{zoo}{registry.os.pathsep}{tmp_path / 'more'}")
    with pytest.raises(ValueError, match="two published models 'toy_hard_cells'.*zoo.*more"):
        list_models()
    with pytest.raises(ValueError, match="two published models"):
        load("toy_soft_cells")


def test_what_is_incomplete_is_named(zoo):
    (zoo / "toy_hard_cells" / "weights.npz").unlink()
    with pytest.raises(FileNotFoundError, match="toy_hard_cells' lacks weights.npz"):
        list_models("toy_*")
    assert list_models("toy_soft*") == ["toy_soft_cells"]
    (zoo / "toy_soft_cells" / "card.json").unlink()
    with pytest.raises(FileNotFoundError, match="card.json' of the model 'toy_soft_cells'"):
        load("toy_soft_cells")
    with pytest.raises(FileNotFoundError, match="toy_soft_cells' lacks card.json"):
        list_models("toy_soft*")


def test_damaged_cards_are_named(zoo):
    card = zoo / "toy_hard_cells" / "card.json"
    text = card.read_text()
    card.write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match="card.json' is damaged"):
        load("toy_hard_cells")
    lacking = json.loads(text)
    del lacking["config"]
    card.write_text(json.dumps(lacking))
    with pytest.raises(ValueError, match=r"no card of a model of mtl_keras.*\['config'\]"):
        info("toy_hard_cells")
    for changes, message in (
        ({"schema": 2}, "has schema 2; this version of mtl_keras reads schema 1"),
        ({"files": []}, "damaged: the card's 'files' must be a dict"),
        ({"config": "none"}, "damaged: the card's 'config' must be a dict"),
    ):
        card.write_text(json.dumps({**json.loads(text), **changes}))
        with pytest.raises(ValueError, match=message):
            info("toy_hard_cells")


def test_what_cannot_be_built_here_is_said(zoo):
    card = zoo / "toy_hard_cells" / "card.json"
    about = json.loads(card.read_text())
    about["config"]["tasks"][0].update(class_name="MyTask", registered_name="mine>MyTask")
    about["config"]["tasks"][0]["module"] = "mine"
    card.write_text(json.dumps(about))
    with pytest.raises(ValueError, match="toy_hard_cells' .*classes of your own.*MyTask"):
        load("toy_hard_cells")


def test_folders_are_told_from_names(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert info("cells") == info(folder) == info("./cells")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty'.*a folder without a card.json"):
        load(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="none'.*is no folder"):
        load(str(tmp_path / "none"))
    for name in (3, ""):
        with pytest.raises(ValueError, match=f"`name` must be.*Received: name={name!r}"):
            load(name)
    (tmp_path / "model.keras").write_bytes(b"")
    with pytest.raises(ValueError, match="model.keras' is a file.*mtl_keras.load_model"):
        load(tmp_path / "model.keras")
