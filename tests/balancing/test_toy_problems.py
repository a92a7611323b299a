"""Balancing methods on losses whose Pareto sets and limits are known."""

import csv
import pathlib
import sys

import keras
import numpy as np
import pytest

import mtl_keras as mtl
from mtl_keras.balancing import GradientMethod

ROOT = pathlib.Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import balancing_toys  # noqa: E402
import toy_problems as toys  # noqa: E402

NAMES = mtl.balancing.names()
VALLEY = toys.Valley()
PAIR = toys.Quadratics("pair", (1, 1))
UNEVEN = toys.Quadratics("uneven", (1, 1e3))
THREE = toys.Quadratics("three", (1, 1, 1), seed=1)
# Methods that need not end on the Pareto set of a problem, with the reason.
NOT_PROMISED = {
    ("moco", "uneven"): (
        "Its theorem is of steps without end. With a loss times 1000, the other's share of the "
        "scalar products is a millionth, and weights whose rate falls hardly follow it."
    ),
    ("graddrop", "three"): (
        "Its mean is the sum of the gradients, but what is dropped makes noise also at the "
        "minimum of the sum, and Adam, which divides by its size, ends beside it."
    ),
}


def numpy(x):
    return keras.ops.convert_to_numpy(x)


def valley(theta):
    """The equations as the paper writes them."""
    x1, x2 = theta
    f1 = np.log(max(abs(0.5 * (-x1 - 7) - np.tanh(-x2)), 0.000005)) + 6
    f2 = np.log(max(abs(0.5 * (-x1 + 3) + np.tanh(-x2) + 2), 0.000005)) + 6
    g1 = ((-x1 + 7) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
    g2 = ((-x1 - 7) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
    c1, c2 = max(np.tanh(0.5 * x2), 0), max(np.tanh(-0.5 * x2), 0)
    return np.array([c1 * f1 + c2 * g1, c1 * f2 + c2 * g2])


def train(method, problem, start=0, steps=1500, rate=0.05, full=False):
    """Adam with a falling rate, to the end or until the Pareto set is reached."""
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    trainer = toys.Trainer(method, problem, keras.optimizers.Adam(schedule))

    def near(theta):
        return problem.stationarity(theta) < 1e-3 and problem.distance(theta) < 0.01

    until = {} if full else {"until": near, "patience": 3}
    return trainer.run(problem.starts[start], steps, 50, **until)[-1]


# === The problems ===
def test_valley_by_the_paper():
    for theta in np.random.default_rng(0).uniform(-10, 10, (50, 2)):
        for scales in ((1.0, 1.0), (0.1, 1.0)):
            losses, _ = toys.Valley("valley", scales).losses_and_gradients(theta)
            np.testing.assert_allclose(numpy(losses), scales * (valley(theta) + 21), rtol=1e-9)


@pytest.mark.parametrize("problem", balancing_toys.PROBLEMS.values(), ids=lambda p: p.name)
def test_gradients(problem):
    rng = np.random.default_rng(1)
    for theta in rng.uniform(-9, 9, (20, problem.size)):
        _, gradients = problem.losses_and_gradients(theta)
        steps = 1e-6 * np.eye(problem.size)
        up, down = (
            np.stack([numpy(problem.losses_and_gradients(theta + sign * s)[0]) for s in steps], 1)
            for sign in (1, -1)
        )
        scales = problem.scales[:, None]
        difference = (up - down) / 2e-6 / scales
        np.testing.assert_allclose(numpy(gradients) / scales, difference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("problem", balancing_toys.PROBLEMS.values(), ids=lambda p: p.name)
def test_pareto_set(problem):
    """Its points are stationary for their weights, and no others are near to it."""
    rng = np.random.default_rng(2)
    tasks = len(problem.tasks)
    for weights in (*np.eye(tasks), *rng.dirichlet(np.ones(tasks), 5)):
        point = problem.pareto(weights[None])[0]
        _, gradients = problem.unscaled(point)
        gradients = numpy(gradients)
        longest = np.linalg.norm(gradients, axis=1).max()
        np.testing.assert_allclose(weights @ gradients / longest, 0.0, atol=1e-12)
        assert problem.stationarity(point) < 1e-9 and problem.distance(point) < 1e-5
        off = rng.standard_normal(problem.size)
        off -= 2.0 * min(off[-1], 0.0) * np.eye(problem.size)[-1]
        assert problem.distance(point + 0.1 * off) <= 0.1 * np.linalg.norm(off) + 1e-6
    start = problem.starts[0]
    nearest = problem.pareto(rng.dirichlet(np.full(tasks, 0.5), 20000)) - start
    nearest = np.linalg.norm(nearest, axis=1).min()
    assert nearest - 0.02 * nearest <= problem.distance(start) <= nearest
    assert problem.stationarity(start) > 1e-3


def test_stationarity():
    assert toys.stationarity(np.array([[1.0, 0.0], [-1.0, 1.0]])) == pytest.approx(10**-0.5)
    assert toys.stationarity(np.array([[1.0, 0.0], [3.0, 0.0]])) == pytest.approx(1 / 3)
    assert toys.stationarity(np.array([[1.0, 0.0], [-3.0, 0.0]])) == pytest.approx(0.0)
    triangle = np.array([[1.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert toys.stationarity(triangle) == pytest.approx(0.0, abs=1e-12)


# === Every method ===
@pytest.mark.parametrize("name", NAMES)
def test_reaches_the_pareto_set(name):
    if (name, "pair") in NOT_PROMISED:
        pytest.skip(NOT_PROMISED[name, "pair"])
    theta = train(toys.make(name, 2), PAIR, steps=1000)
    assert PAIR.distance(theta) < 0.05  # The centers are 4 apart.
    assert PAIR.stationarity(theta) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("problem", [UNEVEN, THREE], ids=lambda p: p.name)
@pytest.mark.parametrize("name", NAMES)
def test_reaches_the_pareto_set_of_others(name, problem):
    if (name, problem.name) in NOT_PROMISED:
        pytest.skip(NOT_PROMISED[name, problem.name])
    theta = train(toys.make(name, len(problem.tasks)), problem, steps=4000)
    assert problem.distance(theta) < 0.05


# === Known limits ===
@pytest.mark.parametrize(
    "problem", [PAIR, pytest.param(THREE, marks=pytest.mark.slow)], ids=lambda p: p.name
)
@pytest.mark.parametrize(
    "name, atol",
    [
        ("equal", 2e-3),
        ("fixed", 2e-3),
        ("dwa", 0.02),  # Once losses stand still, all ratios are 1.
        ("cagrad", 2e-3),  # The paper's theorem 3.2: for c < 1, a minimum of the mean.
        ("rlw", 0.2),  # The mean of the weights is equal, and that
        ("graddrop", 0.2),  # of what is kept is the sum of the gradients.
    ],
)
def test_minimum_of_a_sum(name, atol, problem):
    tasks = len(problem.tasks)
    weights = np.arange(1, tasks + 1) if name == "fixed" else np.ones(tasks)
    expected = problem.pareto(weights[None] / weights.sum())[0]
    theta = train(toys.make(name, tasks), problem, full=True, steps=800)
    np.testing.assert_allclose(theta, expected, atol=atol)


@pytest.mark.parametrize("name", ["gls", "log_loss", "uncertainty", "imtl_l"])
def test_minimum_of_the_logarithms(name):
    """Learned scales have their optimum at 1 / loss: with them, all four have one limit."""
    theta = train(toys.make(name, 2), PAIR, full=True, steps=1500)
    losses, gradients = map(numpy, PAIR.unscaled(theta.astype("float64")))
    relative = gradients / losses[:, None]
    assert np.linalg.norm(relative.sum(0)) < 1e-3 * np.linalg.norm(relative, axis=1).max()


def test_stch_ends_where_its_reference_says():
    """With mu = 1, the smooth maximum of the normalised losses is the logarithm of their sum."""
    start = np.asarray(PAIR.starts[0])
    weights = 1.0 / numpy(PAIR.unscaled(start)[0])
    theta = train(mtl.balancing.STCH(mu=1.0, warmup_steps=1), PAIR, full=True)
    np.testing.assert_allclose(theta, PAIR.pareto(weights[None] / weights.sum())[0], atol=2e-3)


@pytest.mark.parametrize("problem", [PAIR, THREE], ids=lambda p: p.name)
def test_mgda_stays_on_the_pareto_set(problem):
    weights = np.arange(1.0, len(problem.tasks) + 1)
    start = problem.pareto(weights[None] / weights.sum())[0]
    trainer = toys.Trainer(mtl.balancing.MGDA(), problem, keras.optimizers.SGD(0.1))
    np.testing.assert_allclose(trainer.run(start, 200, 50)[-1], start, atol=1e-4)
    moved = toys.Trainer(mtl.balancing.Equal(), problem, keras.optimizers.SGD(0.1))
    assert np.linalg.norm(moved.run(start, 200, 50)[-1] - start) > 0.1


# === Scales of losses ===
def way(method, problem, unit):
    """Eight steps, of length 0.1 each or of a tenth of the direction."""
    theta, points = np.asarray(problem.starts[0]), []
    method.build(problem.tasks)
    for _ in range(8):
        losses, gradients = map(numpy, problem.losses_and_gradients(theta))
        if isinstance(method, GradientMethod):
            named = dict(zip(problem.tasks, losses.astype("float32"), strict=True))
            direction = numpy(method.step(gradients, named))
        else:
            direction = numpy(method.weights(losses)) @ gradients
        theta = theta - 0.1 * direction / (np.linalg.norm(direction) if unit else 1.0)
        points.append(theta)
    return np.stack(points)


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("nash_mtl", {}),
        ("nash_mtl", {"max_norm": None}),
        ("fairgrad", {"alpha": 1.0}),  # Proportional fairness; no other alpha has it.
        ("log_loss", {}),
        ("stch", {}),
        ("db_mtl", {}),
    ],
)
def test_same_way_for_any_scale(name, arguments):
    one, other = (
        way(toys.make(name, 2, **arguments), problem, False) for problem in (PAIR, UNEVEN)
    )
    np.testing.assert_allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("name", ["imtl_g", "config", "gls", "famo"])
def test_same_direction_for_any_scale(name):
    """The length of the step changes with the scale, its direction does not."""
    one, other = (way(toys.make(name, 2), problem, True) for problem in (PAIR, UNEVEN))
    np.testing.assert_allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("name", ["equal", "mgda", "pcgrad"])
def test_scale_matters_to_others(name):
    one, other = (way(toys.make(name, 2), problem, True) for problem in (PAIR, UNEVEN))
    assert np.abs(one - other).max() > 0.1


# === The valley ===
def measured(problem):
    with (ROOT / "benchmarks/results/balancing_toys.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["problem"] == problem]
    return balancing_toys.select(rows)


@pytest.mark.parametrize("problem", ["valley", "valley_scaled"])
def test_papers_claims_hold_in_the_results(problem):
    found = measured(problem)
    for name in ("mgda", "pcgrad", "cagrad", "nash_mtl", "famo"):
        assert balancing_toys.count(found[name][problem]) == (5, 5), name
    reached, starts = balancing_toys.count(found["equal"][problem])
    assert reached < starts == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mgda", "nash_mtl"])
def test_leaves_the_gorges(name):
    setting, (problem, _) = balancing_toys.FAMILIES[0]
    trainer = toys.Trainer(toys.make(name, 2), problem, setting.optimizer())
    for start in problem.starts:
        row = balancing_toys.train(trainer, problem, start, setting)
        assert row["reached"] and row["steps"] < 40_000


# === The script ===
def test_script_goes_on_where_it_was(tmp_path, monkeypatch):
    setting = balancing_toys.Setting(lambda: keras.optimizers.Adam(0.05), 100, 50, 0.5)
    path = tmp_path / "rows.csv"
    balancing_toys.run(["equal"], path, [(setting, [PAIR])])
    text = path.read_text("utf-8")
    assert [row["start"] for row in balancing_toys.ROWS.read(path)] == [
        balancing_toys.written(start) for start in PAIR.starts
    ]
    path.write_text(text[:-9], "utf-8")  # Cut off in the last row.
    trained = []
    real = balancing_toys.train
    monkeypatch.setattr(
        balancing_toys, "train", lambda *given: trained.append(given[2]) or real(*given)
    )
    balancing_toys.run(["equal"], path, [(setting, [PAIR])])
    assert trained == [PAIR.starts[-1]] and path.read_text("utf-8") == text


def test_script_draws(tmp_path):
    rows = [
        {
            "method": name,
            "problem": "valley",
            "start": balancing_toys.written(start),
            "path": "1 2;3 4",
            "steps": "500",
            "distance": "0.5",
            "reached": str(start[0] > 0),
        }
        for name in ("equal", "mgda", "no_longer_registered")
        for start in VALLEY.starts
    ]
    assert "2 of 5    500     5e-01" in balancing_toys.table(rows)
    assert list(balancing_toys.select(rows)) == ["equal", "mgda"]
    balancing_toys.plot(rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_thinned_paths_keep_their_corners():
    path = np.array([[0.0, 0.0], [1.0, 0.001], [2.0, 0.0], [2.0, 1.0], [2.0, 3.0]])
    np.testing.assert_allclose(balancing_toys.thinned(path), path[[0, 2, 4]])
