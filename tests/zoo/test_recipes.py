"""Every recipe of the zoo loads and builds, and one of each kind trains."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import keras
import pytest
import toy
from model_names import TWINS, parts

import mtl_keras as mtl
from mtl_keras.training.recipe import fast, load_recipe, train

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted((ROOT / "zoo" / "recipes").glob("[!_]*.py"))
SLOW = pytest.mark.slow
KINDS = ["hard_kvasir", "cross_stitch_kvasir", "soft_kvasir", "detection_kvasir"]


class Label:
    def __init__(self, names):
        self.names = names


class Builder:
    """Class names, and nothing else."""

    def __init__(self, data):
        label = Label(mtl.data.info(data)["classes"])
        self.info = type("Info", (), {"features": {"objects": {"label": label}}})


@pytest.fixture
def toy_trunk(monkeypatch):
    """The recipes' own trunk takes its time; theirs are the slow tests."""
    trunk = toy.trunk()
    monkeypatch.setattr(mtl.trunks, "create", lambda name, **_: trunk)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_recipe_loads_and_builds(file, toy_trunk):
    recipe = load_recipe(file)
    assert recipe.name == file.stem
    assert f"python zoo/train.py {recipe.name}" in file.read_text("utf-8")
    _, way, data = parts(recipe.name)
    model = recipe.model(Builder(data))
    assert model.name == recipe.name
    tasks = {task.name for task in model.tasks}
    if way in TWINS:
        assert tasks == {way}
    else:
        assert tasks >= set(TWINS)


def smoke(kind, tmp_path):
    recipe = load_recipe(ROOT / f"zoo/recipes/efficientnet_lite0_{kind}.py")

    def digits():
        return mtl.data.digits(8, 4, (64, 64), data_dir=os.environ["TFDS_DATA_DIR"])

    recipe = fast(dataclasses.replace(recipe, data=digits))
    model = train(recipe, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert int(model.optimizer.iterations) == 4 and "val_loss" in lines[-1]
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert toy.same(toy.arrays(loaded.weights), toy.arrays(model.weights))


@pytest.mark.parametrize("kind", [*KINDS[:2], *(pytest.param(k, marks=SLOW) for k in KINDS[2:])])
def test_fast_run(kind, tmp_path, toy_trunk):
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)  # Graphs take longer to make than to run.
    try:
        smoke(kind, tmp_path)
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_fast_run_of_the_real_trunk(kind, tmp_path):
    smoke(kind, tmp_path)


@pytest.mark.slow
@pytest.mark.data
def test_train_and_prepare_on_the_command_line(tmp_path):
    if not (pathlib.Path(os.environ.get("MTL_KERAS_DATA", "/none")) / "kvasir").is_dir():
        pytest.skip("the kvasir pictures are not here; set MTL_KERAS_DATA to their folder")

    def run(program, *arguments):
        command = [sys.executable, ROOT / "zoo" / program, ROOT / f"zoo/recipes/{name}.py"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([*command, "--fast", *arguments], cwd=tmp_path, env=environment, check=True)

    name = "efficientnet_lite0_segmentation_kvasir"
    run("prepare.py", "--seed", "2", "--epochs", "1", "--out", "arrays")
    run("train.py", "--seed", "2", "--arrays", "arrays")
    assert (tmp_path / "runs" / f"{name}-seed2-fast" / "model.keras").is_file()


def test_parts():
    assert parts("resnet50_detection_kvasir") == ("resnet50", "detection", "kvasir")
    assert parts("a_b_cross_stitch_nuclei_distance") == ("a_b", "cross_stitch", "nuclei")
