"""Tasks leave a model, and new ones come."""

import functools
import warnings

import keras
import numpy as np
import pytest
import toy
from test_convert import outputs, trained

import mtl_keras as mtl
from mtl_keras.training import with_tasks

# What a task predicts follows from it alone, whatever tasks are beside it and in which order.
APART = {"adapters", "hard", "separate", "soft"}
# So it does here, as long as there are two tasks.
GATED = {"cgc", "dselect_k", "mmoe", "mtan"}
QUICK = ("cross_stitch", "hard", "soft")
SHARINGS = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
    for name in mtl.sharing.names()
]


@functools.cache
def trio(name):
    tasks = [toy.detection(), toy.segmentation(), toy.distance()]
    return trained(type(mtl.sharing.get(name))(neck_channels=8), tasks)


def silently(model, tasks):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return with_tasks(model, tasks)


def assert_kept(before, after, names):
    a, b = outputs(before), outputs(after)
    for name in names:
        for x, y in zip(a[name], b[name], strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5 * np.abs(x).max())


@pytest.mark.parametrize("name", SHARINGS)
@pytest.mark.parametrize(
    "names", [["detection"], ["detection", "distance"], ["distance", "detection", "segmentation"]]
)
def test_what_is_kept_predicts_what_it_did_or_is_refused(name, names):
    model = trio(name)
    before = toy.arrays(model.weights)
    possible = name in APART or (name in GATED and len(names) > 1)
    if not possible and name != "adashare":  # Its tasks may have come to execute the same blocks.
        match = rf"`tasks` must be all of .*{type(model.sharing).__name__}.*convert"
        with pytest.raises(ValueError, match=match):
            with_tasks(model, names)
        return
    try:
        found = silently(model, names)
    except ValueError:
        assert not possible
    else:
        assert [task.name for task in found.tasks] == names
        assert_kept(model, found, names)
    assert toy.same(before, toy.arrays(model.weights))


@pytest.mark.parametrize("name", SHARINGS)
def test_all_tasks_in_order_can_always_be_had(name):
    names = ["detection", "segmentation", "distance"]
    assert_kept(trio(name), silently(trio(name), names), names)


@pytest.mark.parametrize("name", SHARINGS)
def test_new_tasks_leave_the_others_as_they_are(name):
    new = toy.segmentation(num_classes=2, name="cells")
    tasks = ["detection", "segmentation", "distance", new]
    if name in APART | GATED:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = with_tasks(trio(name), tasks)
        named = " ".join(str(w.message) for w in caught)
        # A gate, or a neck of its own with a level that the first task's neck does not give.
        assert ("random weights: cells_" in named) == (name not in ("hard", "mmoe"))
        assert_kept(trio(name), found, tasks[:3])
        assert outputs(found)["cells"][0].shape[-1] == 2
    elif name != "adashare":
        with pytest.raises(ValueError, match="`tasks` must be all of"):
            with_tasks(trio(name), tasks)


def test_one_of_soft_towers_is_a_plain_network():
    model = trio("soft")
    found = silently(model, ["segmentation"])
    assert isinstance(found.sharing, mtl.sharing.HardSharing)
    assert found.count_params() < model.count_params() / 2
    assert isinstance(silently(model, ["segmentation", "distance"]).sharing, type(model.sharing))


@pytest.mark.parametrize("name", ["hard", "cross_stitch", "soft"])
def test_a_new_task_takes_the_place_of_one(name):
    model = trio(name)
    new = toy.segmentation(num_classes=7)
    found = silently(model, ["detection", new, "distance"])
    assert_kept(model, found, ["detection", "distance"])
    assert outputs(found)["segmentation"][0].shape[-1] == 7
    for layer in model.layers:  # Its tower and its neck too.
        if layer.name.startswith("segmentation_") and not layer.name.endswith("_head"):
            assert toy.same(
                toy.arrays(layer.weights), toy.arrays(found.get_layer(layer.name).weights)
            )


def test_a_head_of_the_same_shape_is_new_too():
    model = trio("hard")
    found = silently(model, [toy.detection(), "segmentation"])
    old, new = (m.get_layer("detection_head").weights for m in (model, found))
    assert [v.shape for v in old] == [v.shape for v in new]
    assert not toy.same(toy.arrays(old), toy.arrays(new))


@pytest.mark.parametrize("name", ["soft", "separate"])
def test_a_tower_without_a_namesake_is_the_first_tasks(name):
    new = toy.segmentation(name="cells", levels=("P3", "P4"))
    found = silently(trio(name), ["distance", new])
    for stage in trio(name).trunk.stages:
        old = trio(name).get_layer(f"detection_trunk_{stage.name}")
        new = found.get_layer(f"cells_trunk_{stage.name}")
        assert toy.same(toy.arrays(old.weights), toy.arrays(new.weights))


def test_branches_follow_their_tasks():
    tasks = [toy.detection(), toy.segmentation(), toy.distance()]
    tree = {
        "P3": [["detection", "distance"], ["segmentation"]],
        "P4": [["detection"], ["distance"]],
    }
    for branch_at, kept in (
        ("P3", ["segmentation", "distance"]),
        ({"detection": "P3"}, ["segmentation", "distance"]),
        ({"detection": "P3"}, ["distance", "detection"]),
        (tree, ["detection", "segmentation"]),
        (tree, ["distance"]),
    ):
        model = trained(mtl.sharing.HardSharing(branch_at, neck_channels=8), tasks)
        assert_kept(model, silently(model, kept), kept)


def test_levels_that_the_neck_did_not_give_are_named():
    coarse = toy.detection(levels=("P3", "P4"))
    model = trained(mtl.sharing.HardSharing(neck_channels=8), [coarse])
    with pytest.warns(
        UserWarning, match="random weights: neck/lateral_P2, neck/smooth_P2, neck/bn_P2$"
    ):
        found = with_tasks(model, ["detection", toy.segmentation(levels=("P2", "P3"))])
    assert_kept(model, found, ["detection"])
    with pytest.raises(ValueError, match="levels.*P2.*only"):
        with_tasks(
            mtl.build(
                mtl.trunks.create("recurrent", arguments={"features": 3, "units": 4}),
                [mtl.tasks.Tagging(2)],
                "separate",
            ),
            ["tagging", toy.segmentation()],
        )


def test_sequences_have_tasks_too():
    trunk = mtl.trunks.create("recurrent", arguments={"features": 3, "units": 4})
    tasks = [mtl.tasks.Tagging(2, name="words"), mtl.tasks.Tagging(3, name="places")]
    model = mtl.build(trunk, tasks, "soft")
    found = silently(model, ["places"])
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    np.testing.assert_allclose(model(x)["places"], found(x)["places"], rtol=1e-5)


def test_the_new_model_trains_and_is_saved(tmp_path):
    found = with_tasks(trio("hard"), ["detection", toy.segmentation(name="cells", num_classes=4)])
    x, y = toy.batch(found.tasks)
    found.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
    before = toy.arrays(found.weights)
    found.fit(x, y, batch_size=4, verbose=0)
    assert not toy.same(before, toy.arrays(found.weights))
    found.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_kept(found, again, ["detection", "cells"])


@pytest.mark.parametrize(
    "tasks, message",
    [
        (["detectoin"], "Did you mean 'detection'"),
        (["depth"], r"There are \['detection', 'segmentation', 'distance'\]"),
        ([], "`tasks` must be a list"),
        ("detection", "`tasks` must be a list"),
        ([3], "`tasks` must be a list"),
        (["detection", "detection"], "different names"),
        (["detection", toy.detection()], "different names"),
    ],
)
def test_wrong_tasks_are_named(tasks, message):
    with pytest.raises(ValueError, match=message):
        with_tasks(trio("hard"), tasks)
