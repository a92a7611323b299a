"""Gradient methods that remember gradients, against NumPy versions of their papers' algorithms."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy
from balancing_case import make, numpy
from scipy.optimize import minimize

import mtl_keras as mtl
from mtl_keras.balancing import SizedGradientMethod
from mtl_keras.balancing.simplex import among, project

SIZED = [n for n in mtl.balancing.names() if isinstance(make(n), SizedGradientMethod)]
STEPS = 8


def batches(tasks=3, parameters=6, steps=STEPS, seed=0):
    """Noisy gradients around a mean of uneven lengths."""
    rng = np.random.default_rng(seed)
    mean = rng.standard_normal((tasks, parameters)) * np.linspace(0.5, 3.0, tasks)[:, None]
    return mean + 0.5 * rng.standard_normal((steps, tasks, parameters))


def nearest_on_simplex(v):
    found = minimize(
        lambda w: np.sum((w - v) ** 2),
        np.full(len(v), 1 / len(v)),
        bounds=[(0, 1)] * len(v),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return found.x


# === The papers' algorithms ===
def excess_mtl(gradients, step_size=0.5, warmup_steps=1):
    squares, risks = np.zeros(gradients[0].shape), []
    weights = np.full(len(gradients[0]), 1 / len(gradients[0]))
    for step, g in enumerate(gradients):
        squares += g**2
        risks.append(np.sum(g * (1 / np.sqrt(squares)) * g, axis=1))
        if step >= warmup_steps:
            unit = np.mean(risks[:warmup_steps], axis=0)
            weights = weights * np.exp(step_size * risks[-1] / unit)
            weights /= weights.sum()
        yield weights @ g


def moco(gradients, beta=0.7, gamma=0.2, decay=0.5, rho=0.1):
    y = np.zeros(gradients[0].shape)
    weights = np.full(len(y), 1 / len(y))
    for k, g in enumerate(gradients, start=1):
        y = y - beta / k**decay * (y - g)
        gramian = y @ y.T / np.mean(np.sum(y**2, axis=1))
        slope = (gramian + rho * np.eye(len(y))) @ weights
        weights = nearest_on_simplex(weights - gamma / k**decay * slope)
        yield weights @ y


def products(now, before):
    unit = np.mean(np.linalg.norm(now, axis=1) * np.linalg.norm(before, axis=1))
    return now @ before.T / unit


def modo(gradients, gamma=0.2, rho=0.1):
    weights = np.full(len(gradients[0]), 1 / len(gradients[0]))
    for k, g in enumerate(gradients):
        yield weights @ g
        if k > 0:
            slope = products(g, gradients[k - 1]) @ weights + rho * weights
            weights = nearest_on_simplex(weights - gamma * slope)


def sdmgrad(gradients, regularization=0.3, learning_rate=0.7, steps=4):
    tasks = len(gradients[0])
    weights = mean = np.full(tasks, 1 / tasks)
    for k, g in enumerate(gradients):
        yield (weights + regularization * mean) @ g / (1 + regularization)
        if k > 0:
            matrix, velocity = products(g, gradients[k - 1]) / tasks, 0.0
            for _ in range(steps):
                velocity = 0.5 * velocity + matrix @ (weights + regularization * mean)
                weights = nearest_on_simplex(weights - learning_rate * velocity)


def db_mtl(gradients, losses, beta=0.8):
    average = np.zeros(gradients[0].shape)
    for g, loss in zip(gradients, losses, strict=True):
        average = beta * average + (1 - beta) * g / loss[:, None]
        lengths = np.linalg.norm(average, axis=1)
        yield np.sum(lengths.max() / lengths[:, None] * average, axis=0)


@pytest.mark.parametrize(
    ("paper", "name", "arguments"),
    [
        (excess_mtl, "excess_mtl", {"step_size": 0.5}),
        (excess_mtl, "excess_mtl", {"step_size": 0.5, "warmup_steps": 3}),
        (moco, "moco", {"beta": 0.7, "gamma": 0.2, "decay": 0.5, "rho": 0.1}),
        (moco, "moco", {"beta": 1.0, "gamma": 0.1, "decay": 0.0, "rho": 0.0}),
        (modo, "modo", {"gamma": 0.2, "rho": 0.1}),
        (sdmgrad, "sdmgrad", {"regularization": 0.3, "learning_rate": 0.7, "steps": 4}),
        (sdmgrad, "sdmgrad", {"regularization": 0.0, "learning_rate": 2.0, "steps": 3}),
    ],
)
def test_by_the_paper(paper, name, arguments):
    gradients = batches()
    method = mtl.balancing.get(name, **arguments)
    for step, expected in enumerate(paper(gradients, **arguments)):
        got = numpy(method.aggregate(gradients[step]))
        np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())
    weights = method.variables[0].numpy()
    assert np.ptp(weights) > 0.05 and weights.sum() == pytest.approx(1, abs=1e-5)


def test_db_mtl_by_the_paper():
    gradients, losses = batches(), np.random.default_rng(1).uniform(0.1, 9.0, (STEPS, 3))
    method = mtl.balancing.DBMTL(beta=0.8)
    for g, loss, expected in zip(gradients, losses, db_mtl(gradients, losses), strict=True):
        got = numpy(method.step(g, dict(zip("abc", loss, strict=True))))
        np.testing.assert_allclose(got, expected, rtol=1e-4)
    other = mtl.balancing.DBMTL(beta=0.8)
    for g, loss in zip(gradients, losses, strict=True):  # the unit of a loss does not matter
        factor = np.array([1.0, 10.0, 0.01])
        scaled = dict(zip("abc", loss * factor, strict=True))
        again = numpy(other.step(g * factor[:, None], scaled))
    np.testing.assert_allclose(again, got, rtol=1e-3)


@pytest.mark.parametrize("name", ["excess_mtl", "moco", "modo", "sdmgrad", "db_mtl"])
def test_all_gradients_times_a_number(name):
    """Nothing depends on the common unit of losses, in any step."""
    one, other = make(name), make(name)
    for g in batches():
        a, b = numpy(one.aggregate(g)), numpy(other.aggregate(1e-4 * g))
        np.testing.assert_allclose(1e-4 * a, b, rtol=1e-3, atol=1e-7)


def test_products_of_two_batches_are_not_biased_by_noise():
    """Two tasks of one mean gradient, one of them noisy: MGDA avoids the noise, MoDo does not."""
    rng = np.random.default_rng(0)
    method, mgda = mtl.balancing.MoDo(gamma=0.05, rho=0.0), mtl.balancing.MGDA()
    learned, of_mgda = [], []
    for _ in range(150):
        g = np.ones((2, 20)) + [[0.0], [2.0]] * rng.standard_normal((2, 20))
        method.aggregate(g)
        learned.append(method.variables[0].numpy()[1])
        of_mgda.append(numpy(mgda.weights_from_gramian(g @ g.T))[1])
    assert np.mean(of_mgda) < 0.25
    assert np.mean(learned[50:]) > 0.4


def test_excess_of_a_noisy_task_is_small():
    """A loss that can't fall has gradients around zero; weights follow progress, not loss."""
    method = mtl.balancing.ExcessMTL(step_size=0.05)
    rng = np.random.default_rng(0)
    for step in range(100):
        method.aggregate(np.stack([np.ones(50), rng.standard_normal(50) * 0.97**step]))
    far, near = method.variables[0].numpy()
    assert far > near


# === Weights on the simplex ===
def test_nearest_point_of_the_simplex():
    rng = np.random.default_rng(0)
    for size in (1, 2, 5):
        for spread in (0.1, 1.0, 30.0):
            values = rng.standard_normal(size) * spread
            got = numpy(project(values.astype("float32"), np.ones(size, "float32")))
            np.testing.assert_allclose(got, nearest_on_simplex(values), atol=2e-5)
    present = np.array([1, 0, 1, 0], "float32")
    for values in ([0.3, 50.0, 0.1, -50.0], [-900.0, 0.0, -901.0, 0.0]):
        got = numpy(project(np.array(values, "float32"), present))
        np.testing.assert_allclose(
            got[[0, 2]], nearest_on_simplex([values[0], values[2]]), atol=1e-5
        )
        assert not got[[1, 3]].any()


def test_weights_among_those_present():
    weights, total = among(np.float32([0.2, 0.5, 0.3]), np.float32([1, 0, 1]))
    np.testing.assert_allclose(weights, [0.4, 0, 0.6], rtol=1e-6)
    assert float(total) == pytest.approx(0.5)
    weights, total = among(np.float32([0.0, 1.0, 0.0]), np.float32([1, 0, 1]))
    np.testing.assert_allclose(weights, [0.5, 0, 0.5])
    assert float(total) == 0


# === What all have in common ===
@pytest.mark.parametrize("name", SIZED)
def test_absent_tasks_keep_their_rows(name):
    method, gradients = make(name), batches()
    names = ("a", "b", "c")
    for g in gradients[:3]:
        method.step(g, dict.fromkeys(names, 2.0))
    before = toy.arrays(method.variables)
    losses = {"a": 3.0, "b": np.nan, "c": 1.0}
    direction = numpy(method.step(gradients[3], losses, [True, False, True]))
    after = toy.arrays(method.variables)
    moved = set()
    for a, b in zip(after, before, strict=True):
        if a.ndim:
            np.testing.assert_array_equal(a[1], b[1])
            moved |= {i for i in (0, 2) if np.any(a[i] != b[i])}
    assert moved == {0, 2}
    # The others go as they would without it: they have all of the weight.
    pair = make(name)
    for g in gradients[:3]:
        pair.step(g[[0, 2]], {"a": 2.0, "c": 2.0})
    if name == "db_mtl":  # has no weights that could have moved among three
        expected = numpy(pair.step(gradients[3][[0, 2]], {"a": 3.0, "c": 1.0}))
        np.testing.assert_allclose(direction, expected, rtol=1e-4)
    if len(before[0]) == 3 and before[0].ndim == 1:
        assert after[0].sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", SIZED)
def test_a_task_alone_in_the_batch(name):
    method = make(name)
    method.build(("a", "b"))
    for g in batches(2):
        direction = numpy(method.step(g[:2], {"a": 1.0, "b": 1.0}, [True, False]))
        assert np.all(np.isfinite(direction))
    if name in ("excess_mtl", "modo", "sdmgrad"):
        np.testing.assert_allclose(direction, g[0], rtol=1e-5)


@pytest.mark.parametrize("name", SIZED)
def test_no_task_in_the_batch(name):
    method, gradients = make(name), batches()
    losses = dict.fromkeys("abc", 1.0)
    method.step(gradients[0], losses)
    before = [v for v in toy.arrays(method.variables) if v.ndim]
    method.step(gradients[1], losses, [False] * 3)
    assert toy.same(before, [v for v in toy.arrays(method.variables) if v.ndim])


@pytest.mark.parametrize("name", SIZED)
def test_features_are_refused(name):
    with pytest.raises(ValueError, match="`on` must be 'parameters'.*remembers"):
        mtl.balancing.get(name, on="features")


@pytest.mark.parametrize("name", SIZED)
def test_another_size(name):
    method = make(name)
    method.build(("a", "b"), 4)
    kept = method.variables
    method.build(("a", "b"), 4)
    assert all(a is b for a, b in zip(method.variables, kept, strict=True))
    with pytest.raises(ValueError, match="4 values.*Received: 5.*compile"):
        method.step(np.ones((2, 5)), {"a": 1.0, "b": 1.0})
    method.build(("a", "b"), 5)
    method.step(np.ones((2, 5)), {"a": 1.0, "b": 1.0})


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("excess_mtl", {"step_size": 0.0}, "step_size"),
        ("excess_mtl", {"warmup_steps": 0}, "warmup_steps"),
        ("moco", {"beta": 1.5}, "beta"),
        ("moco", {"gamma": float("nan")}, "gamma"),
        ("moco", {"decay": -1.0}, "decay"),
        ("moco", {"rho": float("inf")}, "rho"),
        ("modo", {"gamma": -1.0}, "gamma"),
        ("modo", {"rho": -1.0}, "rho"),
        ("sdmgrad", {"regularization": -1.0}, "regularization"),
        ("sdmgrad", {"learning_rate": 0.0}, "learning_rate"),
        ("sdmgrad", {"steps": 2.0}, "steps"),
        ("db_mtl", {"beta": 1.0}, "beta"),
    ],
)
def test_bad_arguments_are_named(name, arguments, message):
    with pytest.raises(ValueError, match=f"`{message}`"):
        mtl.balancing.get(name, **arguments)


# === In training ===
@pytest.mark.parametrize("name", SIZED)
def test_training_goes_on_where_it_stopped(name, tmp_path):
    """The state is saved with the model, and both go on alike, as a graph and eagerly."""
    model = toy.model()
    x, y = toy.batch(model.tasks, images=4)
    arguments = {"batch_size": 2, "verbose": 0, "shuffle": False}
    model.compile(keras.optimizers.SGD(1e-3), balancing=name)
    assert model.balancing.size == sum(
        int(np.prod(v.shape))
        for layer in model.layers
        if not layer.name.endswith("_head")
        for v in layer.trainable_variables
    )
    model.fit(x, y, **arguments)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    state = toy.arrays(model.balancing.variables)
    assert any(np.any(array) for array in state)
    assert toy.same(state, toy.arrays(loaded.balancing.variables))
    loaded.run_eagerly = True
    one, other = (m.fit(x, y, **arguments).history for m in (model, loaded))
    for key in one:
        assert one[key] == pytest.approx(other[key], rel=1e-3), key
    for a, b in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-2, atol=1e-5, err_msg=a.path)
    for a, b in zip(model.balancing.variables, loaded.balancing.variables, strict=True):
        np.testing.assert_allclose(
            a.numpy(), b.numpy(), rtol=1e-2, atol=1e-3 * np.abs(a.numpy()).max(), err_msg=a.path
        )


def test_a_batch_that_is_not_finite_leaves_no_trace():
    model = toy.model()
    x, y = toy.batch(model.tasks, images=2)
    model.compile("sgd", balancing="moco", on_nonfinite="skip", run_eagerly=True)
    model.fit(x, y, batch_size=2, verbose=0)
    before = toy.arrays(model.balancing.variables)
    weight = {"detection": np.array([1, np.nan], "float32"), "segmentation": np.ones(2, "float32")}
    logs = model.fit(tf.data.Dataset.from_tensors((x, y, weight)), verbose=0).history
    assert logs["skipped"] == [1.0]
    assert toy.same(before, toy.arrays(model.balancing.variables))


def test_frozen_layers_need_another_compilation():
    model = toy.model()
    x, y = toy.batch(model.tasks, images=2)
    model.compile("sgd", balancing="modo", run_eagerly=True)
    size = model.balancing.size
    model.get_layer("trunk_stem").trainable = False
    with pytest.raises(ValueError, match="compile the model again"):
        model.fit(x, y, batch_size=2, verbose=0)
    model.compile("sgd", balancing="modo", run_eagerly=True)
    model.fit(x, y, batch_size=2, verbose=0)
    assert model.balancing.size < size


def test_half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    model = toy.model()
    keras.config.set_dtype_policy("float32")
    x, y = toy.batch(model.tasks, images=2)
    model.compile(keras.optimizers.Adam(1e-3), balancing="db_mtl", run_eagerly=True)
    logs = model.fit(x, y, batch_size=2, verbose=0).history
    assert all(np.all(np.isfinite(value)) for value in logs.values())
    assert all(v.dtype == "float32" for v in model.balancing.variables)


def test_a_model_that_was_frozen_loads(tmp_path):
    """What learns is stored, so that the state has the same size; of another one it starts anew."""
    model = toy.model()
    model.get_layer("trunk_stem").trainable = False
    model.compile("sgd", balancing="db_mtl", run_eagerly=True)
    x, y = toy.batch(model.tasks, images=2)
    model.fit(x, y, batch_size=2, verbose=0)
    model.save(tmp_path / "model.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
    for kept in ("weights", "trainable_variables"):
        assert toy.same(toy.arrays(getattr(loaded, kept)), toy.arrays(getattr(model, kept)))
    state = toy.arrays(model.balancing.variables)
    assert toy.same(toy.arrays(loaded.balancing.variables), state)
    model.get_layer("trunk_stem").trainable = True  # After compile, which does not see it.
    model.save(tmp_path / "other.keras")
    with pytest.warns(UserWarning, match="starts anew"):
        keras.saving.load_model(tmp_path / "other.keras")
