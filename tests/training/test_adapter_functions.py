import json
import os

import keras
import numpy as np
import pytest
import toy

import mtl_keras as mtl
from mtl_keras.sharing.adapters import wrappers
from mtl_keras.training.adapters import (
    add_task,
    load_adapters,
    merge,
    save_adapters,
    train_only,
)

KINDS = {
    "residual": {"kind": "residual"},
    "lora": {"kind": "lora", "rank": 2, "alpha": 3.0},
    "film": {"kind": "film"},
    "batch_norm": {"kind": None, "task_batch_norm": True},
    "film_and_batch_norm": {"kind": "film", "task_batch_norm": True},
    "some_stages": {"kind": "lora", "stages": ["P3", "P5"]},
}


def build(tasks=("cells", "tissue"), seed=0, trunk=None, **sharing):
    keras.utils.set_random_seed(seed)
    return mtl.build(
        trunk or toy.trunk(),
        [toy.segmentation(name=name) for name in tasks],
        mtl.sharing.Adapters(**{"kind": "film", "neck_channels": 8, **sharing}),
        toy.SIZE,
    )


def images():
    return np.random.default_rng(0).uniform(0, 255, (2, *toy.SIZE, 3)).astype("float32")


def disturb(model, seed=1):
    """Moves every variable, as training would; variances stay positive."""
    rng = np.random.default_rng(seed)
    for v in model.weights:
        if "variance" in v.path:
            v.assign(v * rng.uniform(0.8, 1.2, v.shape))
        else:
            v.assign(v + rng.normal(0, 0.05, v.shape))


def fit(model, task, steps=2):
    x, y = toy.batch([t for t in model.tasks if t.name == task], images=2)
    model.compile(keras.optimizers.AdamW(1e-2, weight_decay=0.1), run_eagerly=True)
    model.fit(x, y, batch_size=2, epochs=steps, verbose=0)


@pytest.mark.parametrize("kind", KINDS)
def test_merged_model_computes_the_same(kind):
    model = build(**KINDS[kind])
    disturb(model)
    outputs = model(images())
    assert not np.allclose(outputs["cells"], outputs["tissue"], atol=1e-3)
    plain = merge(model, "tissue")
    assert isinstance(plain.sharing, mtl.sharing.HardSharing)
    assert [task.name for task in plain.tasks] == ["tissue"]
    np.testing.assert_allclose(plain(images())["tissue"], outputs["tissue"], atol=1e-5, rtol=1e-5)
    # Nothing but the trunk, a neck and a head is left.
    hard = mtl.build(
        toy.trunk(),
        [toy.segmentation(name="tissue")],
        mtl.sharing.HardSharing(neck_channels=8),
        toy.SIZE,
    )
    assert plain.count_params() == hard.count_params()
    np.testing.assert_array_equal(model(images())["tissue"], outputs["tissue"])


@pytest.mark.parametrize("kind", ["film_and_batch_norm", "some_stages"])
def test_a_new_task_leaves_the_others_alone(kind):
    model = build(("cells", "tissue"), **KINDS[kind])
    disturb(model)
    before = model(images())
    larger = add_task(model, toy.segmentation(name="nuclei"))
    assert [task.name for task in model.tasks] == ["cells", "tissue"]
    for name, y in before.items():
        assert np.abs(np.asarray(larger(images())[name]) - np.asarray(y)).max() == 0.0
    # The new task starts on the plain trunk, which is the one of before.
    old = dict(wrappers(model, "cells"))
    for stage, wrapper in wrappers(larger, "nuclei"):
        assert toy.same(wrapper.base.get_weights(), old[stage].base.get_weights())
        x = np.random.default_rng(0).normal(size=(1, 8, 8, wrapper.input.shape[-1]))
        np.testing.assert_array_equal(wrapper(x), wrapper.base(x))

    train_only(larger, "nuclei")
    new = np.asarray(larger(images())["nuclei"])
    weights = toy.arrays(larger.trainable_variables)
    fit(larger, "nuclei")
    after = larger(images())
    for name, y in before.items():
        assert np.abs(np.asarray(after[name]) - np.asarray(y)).max() == 0.0
    assert not np.array_equal(after["nuclei"], new)
    moved = [
        not np.array_equal(a, b)
        for a, b in zip(weights, toy.arrays(larger.trainable_variables), strict=True)
    ]
    assert all(moved)


def learning(model):
    return [v.path for v in model.trainable_variables]


def again(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def test_what_learns_is_saved_whatever_was_built(tmp_path):
    """The trunk is built frozen: one that was made to learn learns again from the file."""
    model = build()
    frozen = learning(model)
    assert learning(again(model, tmp_path)) == frozen
    for layer in model._flatten_layers(include_self=False):
        layer.trainable = True
    assert learning(again(model, tmp_path)) == learning(model) != frozen


def test_train_only_freezes_statistics_and_a_trained_trunk(tmp_path):
    model = build(trainable_trunk=True, task_batch_norm=True)
    everything = {v.path for v in model.trainable_variables}
    train_only(model, ["cells"])
    own = {v.path for v in model.trainable_variables}
    assert own and not any("tissue" in path for path in own)
    assert not any(v.trainable for _, w in wrappers(model, "cells") for v in w.base.weights)
    before = np.asarray(model(images())["tissue"])
    fit(model, "cells", steps=1)
    np.testing.assert_array_equal(model(images())["tissue"], before)
    train_only(model, ["cells", "tissue"])
    assert {v.path for v in model.trainable_variables} == everything

    train_only(model, ["cells"])
    assert learning(again(model, tmp_path)) == learning(model)

    frozen = build()
    train_only(frozen, ["cells", "tissue"])
    assert not any(v.trainable for _, w in wrappers(frozen, "cells") for v in w.base.weights)


@pytest.mark.parametrize("kind", ["residual", "film_and_batch_norm"])
def test_swap(kind, tmp_path):
    model = build(**KINDS[kind])
    blank = np.asarray(model(images())["tissue"])
    save_adapters(model, "cells", tmp_path / "start.npz")
    start = np.asarray(model(images())["cells"])
    for _, wrapper in wrappers(model, "cells"):
        trunk = {id(v) for v in wrapper.base.weights}
        for v in wrapper.weights:
            if id(v) not in trunk:
                v.assign(v + 0.1)
    for layer in ("cells_neck", "cells_head"):
        disturb(model.get_layer(layer))
    trained = np.asarray(model(images())["cells"])
    assert not np.array_equal(trained, start)
    save_adapters(model, "cells", tmp_path / "trained.npz")
    for file, y in (("start", start), ("trained", trained)):
        load_adapters(model, "cells", tmp_path / f"{file}.npz")
        np.testing.assert_array_equal(model(images())["cells"], y)
    np.testing.assert_array_equal(model(images())["tissue"], blank)
    # Into another task of the same shape, and another model with the same trunk.
    load_adapters(model, "tissue", tmp_path / "trained.npz")
    np.testing.assert_array_equal(model(images())["tissue"], trained)
    other = add_task(model, toy.segmentation(name="nuclei"))
    load_adapters(other, "nuclei", tmp_path / "trained.npz")
    np.testing.assert_array_equal(other(images())["nuclei"], trained)
    assert sorted(os.listdir(tmp_path)) == ["start.npz", "trained.npz"]


def test_a_file_is_small_and_says_what_it_is(tmp_path):
    model = build(**KINDS["lora"])
    save_adapters(model, "cells", tmp_path / "cells.npz")
    with np.load(tmp_path / "cells.npz") as file:
        about = json.loads(str(file["about"]))
        numbers = sum(file[key].size for key in file.files if key != "about")
    assert about["trunk"] == toy.TRUNK and about["sharing"] == model.sharing.get_config()
    rows = mtl.sharing_report(model).rows
    assert numbers == sum(row["parameters"] for row in rows if row["tasks"] == ("cells",))


SMALL_LORA = {"kind": "lora", "rank": 2, "alpha": 3.0, "stages": ["P4"]}


@pytest.fixture(scope="module")
def lora_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("adapters") / "cells.npz"
    save_adapters(build(("cells",), **SMALL_LORA), "cells", path)
    return path


@pytest.mark.parametrize(
    "change, message",
    [
        ({"kind": "film"}, "kind='lora'.*kind='film'"),
        ({"rank": 3}, "rank=2.*rank=3"),
        ({"alpha": 4.0}, "alpha=3.0.*alpha=4.0"),
        ({"task_batch_norm": True}, "task_batch_norm=False"),
        ({"neck_channels": 4}, "neck_channels=8"),
        ({"stages": ["P5"]}, "other layers"),
        ({"seed": 5}, "other weights of the trunk"),
    ],
)
def test_a_file_that_does_not_fit(change, message, lora_file):
    other = build(("cells",), **{**SMALL_LORA, **change})
    before = toy.arrays(other.weights)
    with pytest.raises(ValueError, match=message):
        load_adapters(other, "cells", lora_file)
    assert toy.same(before, toy.arrays(other.weights))


def test_a_file_of_another_head_or_trunk(tmp_path):
    model = build(("cells",), stages=["P5"])
    save_adapters(model, "cells", tmp_path / "cells.npz")
    wider = add_task(model, toy.segmentation(name="wide", num_classes=7))
    with pytest.raises(ValueError, match="'head/logits/.*shape"):
        load_adapters(wider, "wide", tmp_path / "cells.npz")
    detects = add_task(model, toy.detection())
    with pytest.raises(ValueError, match="other layers"):
        load_adapters(detects, "detection", tmp_path / "cells.npz")
    vit = build(("cells",), trunk=mtl.trunks.vit.vit(width=12, heads=2, depth=4))
    with pytest.raises(ValueError, match="toy_trunk.*vit"):
        load_adapters(vit, "cells", tmp_path / "cells.npz")


def test_a_trained_trunk_may_have_moved(tmp_path):
    model = build(("cells",), trainable_trunk=True, stages=["P5"])
    save_adapters(model, "cells", tmp_path / "cells.npz")
    disturb(model)
    load_adapters(model, "cells", tmp_path / "cells.npz")


def test_files_that_are_no_adapters(tmp_path):
    model = build(("cells",), stages=["P5"])
    for name, content in (("text.npz", b"no file of NumPy"), ("empty.npz", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="no file that `save_adapters` wrote"):
            load_adapters(model, "cells", tmp_path / name)
    np.savez(tmp_path / "arrays.npz", a=np.ones(3))
    with pytest.raises(ValueError, match="no file that `save_adapters` wrote"):
        load_adapters(model, "cells", tmp_path / "arrays.npz")
    with pytest.raises(FileNotFoundError):
        load_adapters(model, "cells", tmp_path / "missing.npz")
    with pytest.raises(ValueError, match="`path`"):
        save_adapters(model, "cells", tmp_path / "cells.h5")
    model.get_layer("cells_head").weights[0].assign(
        np.full(model.get_layer("cells_head").weights[0].shape, np.nan)
    )
    with pytest.raises(ValueError, match="not finite.*head/"):
        save_adapters(model, "cells", tmp_path / "cells.npz")
    assert not (tmp_path / "cells.npz").exists()


def test_an_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch):
    model = build(("cells",), stages=["P5"])
    save_adapters(model, "cells", tmp_path / "cells.npz")
    old = (tmp_path / "cells.npz").read_bytes()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        save_adapters(model, "cells", tmp_path / "cells.npz")
    assert os.listdir(tmp_path) == ["cells.npz"]
    assert (tmp_path / "cells.npz").read_bytes() == old


def test_errors(tmp_path):
    model = build(("cells",), stages=["P5"])
    hard = toy.model([toy.segmentation(name="cells")])
    for function in (merge, train_only):
        with pytest.raises(ValueError, match="Adapters"):
            function(hard, "cells")
        with pytest.raises(ValueError, match="must name a task.*'nuclei'"):
            function(model, "nuclei")
    with pytest.raises(ValueError, match="`tasks`"):
        train_only(model, [])
    with pytest.raises(ValueError, match="`task`.*'cells'"):
        add_task(model, toy.segmentation(name="cells"))
    with pytest.raises(ValueError, match="`task`"):
        add_task(model, "cells")
    with pytest.raises(ValueError, match="Adapters"):
        save_adapters(hard, "cells", tmp_path / "cells.npz")
