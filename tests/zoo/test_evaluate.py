"""Results are recorded under the recipe and the seed that a run was trained with."""

import dataclasses
import importlib.util
import json
import pathlib
import sys

import pytest
import toy

import mtl_keras as mtl
from mtl_keras.training.recipe import Recipe
from mtl_keras.training.settings import run_settings

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def evaluate():
    sys.path.insert(0, str(ROOT / "zoo"))
    try:
        spec = importlib.util.spec_from_file_location("zoo_evaluate", ROOT / "zoo" / "evaluate.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "zoo"))
    return module


@pytest.fixture(scope="module")
def model():
    made = toy.model([toy.segmentation()])
    made.compile("adam")
    return made


def recipe(**changes):
    given = {"augment": mtl.data.Augment(), "epochs": 14, "train_size": (64, 64)}
    return Recipe("cells", None, None, None, **{**given, **changes})


def write_run(folder, model, made, epochs):
    settings = run_settings(made, model, epochs, "pipeline")
    (folder / "run.json").write_text(json.dumps(settings), encoding="utf-8")


def test_the_seed_is_that_of_the_run(evaluate, model, tmp_path):
    write_run(tmp_path, model, recipe(seed=2), 14)
    found = evaluate.as_trained(recipe(), tmp_path, model)
    assert found == recipe(seed=2)
    assert evaluate.path_of(found.name, found.seed).name == "cells-seed2.json"


@pytest.mark.parametrize(
    ("made", "epochs", "message"),
    [
        (recipe(), 2, "epochs was 14 and is 2"),
        (dataclasses.replace(recipe(), name="others"), 14, "recipe was 'cells' and is 'others'"),
        (recipe(batch_size=4), 14, "batch_size was 8 and is 4"),
        (recipe(augment=mtl.data.Augment(flip="both")), 14, "augment.flip was"),
    ],
)
def test_another_run_is_refused(evaluate, model, tmp_path, made, epochs, message):
    write_run(tmp_path, model, made, epochs)
    with pytest.raises(ValueError, match=message):
        evaluate.as_trained(recipe(), tmp_path, model)


def test_a_folder_that_is_no_run_is_named(evaluate, model, tmp_path):
    with pytest.raises(FileNotFoundError, match="run.json"):
        evaluate.as_trained(recipe(), tmp_path, model)
