"""Images and batches that lack the labels of a task."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

import mtl_keras as mtl
from mtl_keras.training.absent import optimizer_slots

METHODS = [
    mtl.balancing.CAGrad(on="features"),
    *(
        pytest.param(method, marks=pytest.mark.slow)
        for method in (
            None,
            "famo",
            "moco",
            "uncertainty",
            "mgda",
            "nash_mtl",
            "graddrop",
            "gradnorm",
            mtl.balancing.MGDA(on="normalized_features"),
        )
    ),
]


def parts(model):
    """Weights, statistics and the optimizer's state of the detection head, and of the trunk."""
    slots = optimizer_slots(model.optimizer)
    found = []
    for name in ("detection_head", "trunk_stageP4"):
        variables = model.get_layer(name).variables
        states = [state for v in variables for state in (v, *slots.get(id(v), ()))]
        found.append([state.numpy() for state in states])
    return found


def data(x, y, weight):
    return tf.data.Dataset.from_tensors((x, y, weight))


def trained(balancing, lacking):
    """A step with all labels, then one that lacks those of detection."""
    if balancing is not None:
        balancing = mtl.balancing.get(balancing)
        balancing = type(balancing).from_config(balancing.get_config())
    model = toy.model(
        [toy.detection(), toy.segmentation(), toy.segmentation(name="other")],
    )
    x, y = toy.batch(model.tasks, images=4)
    model.compile(keras.optimizers.AdamW(1e-2), balancing=balancing)
    keras.utils.set_random_seed(1)
    ones = {task.name: np.ones(4, "float32") for task in model.tasks}
    model.fit(data(x, y, ones), verbose=0)
    before = parts(model)
    if lacking == "targets":
        y = {name: value for name, value in y.items() if name != "detection"}
    else:
        ones = {**ones, "detection": np.zeros(4, "float32")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logs = model.fit(data(x, y, ones), verbose=0).history
    return model, before, parts(model), logs


@pytest.mark.parametrize("balancing", METHODS, ids=lambda m: getattr(m, "on", m))
def test_an_absent_task_moves_nothing_of_its_own(balancing):
    ends = []
    for lacking in ("targets", "weight"):
        model, before, after, logs = trained(balancing, lacking)
        assert toy.same(before[0], after[0]), "the head of the absent task moved"
        assert not toy.same(before[1], after[1]), "the trunk did not move"
        others = [logs[f"{name}_loss"][0] for name in ("segmentation", "other")]
        assert all(value > 0 for value in others) and logs["detection_loss"] == [0.0]
        if balancing is None:
            assert logs["loss"][0] == pytest.approx(sum(others), rel=1e-5)
        state = toy.arrays(model.balancing.variables) if balancing else []
        assert all(np.all(np.isfinite(value)) for value in state)
        ends.append([*toy.arrays(model.weights), *state])
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("balancing", [None, "mgda"])
def test_a_batch_without_any_label_moves_nothing(balancing):
    model = toy.model()
    x, y = toy.batch(model.tasks, images=2)
    model.compile(keras.optimizers.Adam(1e-2), balancing=balancing)
    ones = {task.name: np.ones(2, "float32") for task in model.tasks}
    model.fit(data(x, y, ones), verbose=0)
    before = toy.arrays([*model.weights, *model.optimizer.variables])
    none = {name: 0 * value for name, value in ones.items()}
    logs = model.fit(data(x, y, none), verbose=0).history
    assert logs["loss"] == [0.0]
    assert toy.same(before, toy.arrays([*model.weights, *model.optimizer.variables]))


@pytest.mark.parametrize("name", ["detection", "segmentation", "distance"])
def test_the_loss_is_the_mean_over_images_that_have_a_label(name):
    model = toy.model([toy.detection(), toy.segmentation(), toy.distance()])
    model.compile("sgd")
    x, y = toy.batch(model.tasks, images=4)
    weight = np.array([1, 0, 0, 1], "float32")
    logs = model.evaluate(data(x, y, {name: weight}), verbose=0, return_dict=True)
    kept = [0, 3]
    y = {name: {key: value[kept] for key, value in y[name].items()}}
    fewer = tf.data.Dataset.from_tensors((x[kept], y))
    expected = model.evaluate(fewer, verbose=0, return_dict=True)
    own = [key for key in expected if key.startswith(name)]
    assert len(own) > 1
    for key in own:
        assert logs[key] == pytest.approx(expected[key], rel=1e-5, nan_ok=True), key


@pytest.mark.parametrize(
    "name", ["SGD", "Adam", "RMSprop", "Adafactor", "Lion", "Lamb", "Nadam", "Ftrl", "Adadelta"]
)
def test_every_slot_of_an_optimizer_is_found(name):
    variables = [keras.Variable(np.ones((2, 3)), name=f"v{i}") for i in range(3)]
    arguments = {"momentum": 0.9} if name == "SGD" else {}
    optimizer = getattr(keras.optimizers, name)(0.1, use_ema=True, **arguments)
    optimizer.build(variables)
    before = toy.arrays(optimizer.variables)
    optimizer.apply([keras.ops.ones((2, 3))] * 3, variables)
    known = {id(s) for slots in optimizer_slots(optimizer).values() for s in slots}
    moved = [
        variable
        for variable, old in zip(optimizer.variables, before, strict=True)
        if not np.array_equal(variable.numpy(), old) and variable.shape == (2, 3)
    ]
    assert moved and all(id(variable) in known for variable in moved)
