"""Results are recorded under the recipe and the seed that a run was trained with."""

import dataclasses
import json

import keras
import pytest
import toy
from programs import program

import mtl_keras as mtl
from mtl_keras.training.recipe import Recipe
from mtl_keras.training.settings import run_settings


@pytest.fixture(scope="module")
def evaluate():
    return program("evaluate")


@pytest.fixture(scope="module")
def model():
    return toy.model([toy.segmentation()])


@pytest.fixture(autouse=True)
def steps(evaluate, monkeypatch):
    monkeypatch.setattr(evaluate, "steps_of", lambda *_: 10)


def adam(steps, rate=0.1):
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps))


def recipe(**changes):
    given = {"augment": mtl.data.Augment(), "epochs": 14, "train_size": (64, 64)}
    given |= {"data": None, "optimizer": adam, **changes}
    return Recipe("cells", model=lambda builder: toy.model([toy.segmentation()]), **given)


def write_run(folder, model, made, epochs):
    model.compile(made.optimizer(10))
    settings = run_settings(made, model, epochs, "pipeline")
    (folder / "run.json").write_text(json.dumps(settings), encoding="utf-8")


def test_the_seed_is_that_of_the_run(evaluate, model, tmp_path):
    write_run(tmp_path, model, recipe(seed=2), 14)
    found = evaluate.as_trained(recipe(), tmp_path, None)
    assert (found.name, found.seed, found.epochs) == ("cells", 2, 14)
    assert evaluate.path_of(found.name, found.seed).name == "cells-seed2.json"


@pytest.mark.parametrize(
    ("made", "epochs", "message"),
    [
        (recipe(), 2, "epochs was 14 and is 2"),
        (dataclasses.replace(recipe(), name="others"), 14, "recipe was 'cells' and is 'others'"),
        (recipe(batch_size=4), 14, "batch_size was 8 and is 4"),
        (recipe(augment=mtl.data.Augment(flip="both")), 14, "augment.flip was"),
        (recipe(optimizer=lambda steps: adam(steps, 0.2)), 14, "initial_learning_rate was 0.1 and"),
    ],
)
def test_another_run_is_refused(evaluate, model, tmp_path, made, epochs, message):
    write_run(tmp_path, model, made, epochs)
    with pytest.raises(ValueError, match=message):
        evaluate.as_trained(recipe(), tmp_path, None)


def test_a_folder_that_is_no_run_is_named(evaluate, tmp_path):
    with pytest.raises(FileNotFoundError, match="run.json"):
        evaluate.as_trained(recipe(), tmp_path, None)
