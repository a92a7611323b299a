"""Training by a recipe: killed at any moment, it goes on bit by bit as if nothing had happened."""

import dataclasses
import json
import os
import shutil

import keras
import numpy as np
import pytest
import toy
from recipes import lines, state, tiny

import mtl_keras as mtl
from mtl_keras.training import run as runs
from mtl_keras.training.recipe import fast, load_recipe, train


@pytest.fixture(scope="module", autouse=True)
def eager():
    """Without graphs, which take longer to make here than to run."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


class Killed(BaseException):
    """As SIGKILL, nothing in the program catches it."""


def kill(*args, **kwargs):
    raise Killed


def killed(recipe, folder, owner, name, replacement):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, replacement, raising=False)
        with pytest.raises(Killed):
            train(recipe, folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    model = train(tiny(), folder)
    return folder, state(model), lines(folder)


def in_step(epoch, step):
    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations == epoch * 2 + step:
            raise Killed

    return on_train_batch_end


def no_model(source, target):
    if str(target).endswith("model.keras"):
        raise Killed
    os.rename(source, target)


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_bit_by_bit(whole, tmp_path):
    _, expected, history = whole
    killed(tiny(), tmp_path, runs._AfterEpoch, "on_train_batch_end", in_step(0, 1))
    assert not (tmp_path / "history.jsonl").exists() and not (tmp_path / "minutes.json").exists()

    # Of epoch 1 there is a line and half of a state.
    killed(tiny(), tmp_path, runs, "_flush", kill)
    assert len(lines(tmp_path)) == 1
    assert [p.name for p in (tmp_path / "backup").iterdir()] == ["partial.weights.h5"]

    killed(tiny(), tmp_path, runs._AfterEpoch, "on_train_batch_end", in_step(1, 1))
    assert lines(tmp_path) == history[:1]
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"epoch": 2, "lo')  # Killed while it was written.
    killed(tiny(), tmp_path, runs.Run, "finish", kill)  # The last epoch is done, nothing is saved.
    killed(tiny(), tmp_path, runs.os, "replace", no_model)
    assert not (tmp_path / "model.keras").exists() and (tmp_path / "backup").exists()

    model = train(tiny(), tmp_path)
    assert toy.same(state(model), expected)
    assert lines(tmp_path) == history and [line["epoch"] for line in history] == [1, 2, 3]
    looked = ["val_segmentation_mean_iou" in line for line in history]
    assert looked == [False, True, True], "every second epoch, and the last one"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "history.jsonl",
        "minutes.json",
        "model.keras",
        "run.json",
    ]
    saved = keras.saving.load_model(tmp_path / "model.keras")
    assert toy.same(toy.arrays(saved.weights), toy.arrays(model.weights))


def test_a_balancing_goes_on_with_its_state(tmp_path):
    recipe = tiny(balancing=mtl.balancing.GradNorm)
    whole = train(recipe, tmp_path / "whole")
    weights = whole.balancing.variables[0].numpy()
    assert abs(weights[0] - weights[1]) > 0.01, "it has learned something"
    killed(recipe, tmp_path / "cut", runs._AfterEpoch, "on_train_batch_end", in_step(1, 1))
    model = train(recipe, tmp_path / "cut")
    assert toy.same(state(model), state(whole))
    assert toy.same(*(toy.arrays(m.balancing.variables) for m in (model, whole)))
    history = lines(tmp_path / "whole")
    assert lines(tmp_path / "cut") == history and "distance_weight" in history[0]
    with pytest.raises(ValueError, match="balancing was .*GradNorm.* and is None"):
        train(tiny(), tmp_path / "whole")


def test_the_average_is_what_is_saved(whole):
    folder, arrays, _ = whole
    model = keras.saving.load_model(folder / "model.keras")
    averages = [v for v in model.optimizer.variables if "average" in v.path]
    assert len(averages) == len(model.trainable_variables)
    assert toy.same(toy.arrays(averages), toy.arrays(model.trainable_variables))


def test_a_training_that_has_ended_is_not_done_again(whole, tmp_path, capsys):
    folder, arrays, history = whole
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    model = train(tiny(), tmp_path)
    assert toy.same(toy.arrays(model.weights), arrays[: len(model.weights)])
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert "already" in capsys.readouterr().out
    # Folders of earlier versions say nothing of settings.
    (tmp_path / "run.json").unlink()
    train(tiny(), tmp_path)

    with pytest.raises(ValueError, match="seed was 0 and is 7; .*|epochs was 3 and is 2"):
        train(tiny(seed=7), tmp_path, epochs=2)


class Stopwatch:
    """A clock that goes on by a minute whenever it is read."""

    def __init__(self):
        self.now = 0.0

    def time(self):
        self.now += 60.0
        return self.now


def test_minutes_of_a_run_that_was_killed_count(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "time", Stopwatch())
    model = toy.model([toy.segmentation()])
    model.compile("sgd")
    model.optimizer.build(model.trainable_variables)

    def minutes():
        return json.loads((tmp_path / "minutes.json").read_text())

    first = runs.Run(tmp_path)
    for epoch in (1, 2):
        first.after_epoch(model, epoch, {"loss": np.float32(1.0)})
    spent = minutes()
    assert len(spent) == 1 and spent[0] >= 2.0
    # It was killed in epoch 3. The next run adds its own, and keeps those.
    second = runs.Run(tmp_path)
    assert second.restore(model) == 2
    second.after_epoch(model, 3, {"loss": 1.0})
    assert minutes()[:1] == spent and len(minutes()) == 2 and minutes()[1] >= 1.0
    second.finish(model)
    assert len(minutes()) == 2
    text = (tmp_path / "history.jsonl").read_text()
    seconds = [json.loads(line)["seconds"] for line in text.splitlines()]
    assert len(seconds) == 3 and all(value >= 60.0 for value in seconds)


def test_no_epochs_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="`epochs` must be a positive integer.*Received: 0"):
        train(tiny(), tmp_path, epochs=0)


def test_fast_is_the_same_recipe_with_less():
    recipe = tiny(train_split="train[:80%]", batch_size=8, val_every=5, epochs=50)
    small = fast(recipe)
    assert (small.train_split, small.val_split) == ("train[:8]", "val[:4]")
    assert (small.epochs, small.val_every, small.batch_size) == (2, 1, 4)
    assert small.augment == dataclasses.replace(recipe.augment, cover=0.0)
    kept = ("name", "data", "optimizer", "seed", "about")
    assert all(getattr(small, key) == getattr(recipe, key) for key in kept)


def test_load_recipe_reads_the_files_beside_it(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "_common.py").write_text(f"NAME = {folder!r}\n")
        (tmp_path / folder / "mine.py").write_text(
            "from _common import NAME\nfrom mtl_keras.training.recipe import Recipe\n"
            "recipe = Recipe(NAME, None, None, None, None, 1, (64, 64))\n"
        )
        assert load_recipe(tmp_path / folder / "mine.py").name == folder
    (tmp_path / "none.py").write_text("")
    with pytest.raises(ValueError, match="none.py"):
        load_recipe(tmp_path / "none.py")
    with pytest.raises(FileNotFoundError, match="no_such"):
        load_recipe("no_such")
