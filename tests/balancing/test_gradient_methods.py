"""Gradient methods on matrices: what their papers promise, on plain and degenerate gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from balancing_case import make, numpy
from scipy.optimize import minimize, nnls

import mtl_keras as mtl
from mtl_keras.balancing import GradientMethod, SizedGradientMethod
from mtl_keras.balancing.quadratic import min_norm_weights, nonnegative_qp

METHODS = [n for n in mtl.balancing.names() if isinstance(make(n), GradientMethod)]
RANDOM = {"pcgrad", "gradvac", "graddrop"}
NON_CONFLICTING = {"mgda", "upgrad", "dual_proj", "nash_mtl", "fairgrad", "imtl_g", "config"}
LINEAR = {"mgda", "upgrad", "dual_proj", "cagrad", "imtl_g", "aligned_mtl", "config", "db_mtl"}
SIZED = {n for n in METHODS if isinstance(make(n), SizedGradientMethod)}
SIMPLEX = {"mgda"}


def gradients(tasks, parameters=40, seed=0, spread=0.0):
    rng = np.random.default_rng(seed)
    scale = 10 ** rng.uniform(-spread, spread, (tasks, 1))
    return (scale * rng.standard_normal((tasks, parameters))).astype("float32")


def cases(tasks):
    """Matrices by what is odd about them."""
    plain = gradients(tasks, seed=tasks)
    found = {"plain": plain, "uneven": gradients(tasks, seed=tasks, spread=2.0)}
    found["zero"] = np.zeros_like(plain)
    if tasks > 1:
        found["zero row"] = np.concatenate([plain[:1] * 0, plain[1:]])
        found["twins"] = np.concatenate([plain[1:2], plain[1:]])
        found["opposite"] = np.concatenate([-plain[1:2], plain[1:]])
    return found


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("tasks", [1, 2, 3, 8])
def test_finite_whatever_is_given(name, tasks):
    for kind, matrix in cases(tasks).items():
        direction = numpy(make(name).aggregate(matrix))
        assert direction.shape == (40,) and direction.dtype == "float32", kind
        assert np.all(np.isfinite(direction)), kind
        if kind == "zero":
            assert not np.any(direction)


@pytest.mark.parametrize("name", sorted(NON_CONFLICTING))
@pytest.mark.parametrize("tasks", [2, 3, 5])
def test_no_loss_rises(name, tasks):
    for seed in range(5):
        matrix = gradients(tasks, seed=seed)
        direction = numpy(make(name).aggregate(matrix))
        cosine = matrix @ direction / np.linalg.norm(matrix, axis=1) / np.linalg.norm(direction)
        assert np.all(cosine > -1e-4), cosine


@pytest.mark.parametrize("name", sorted(set(METHODS) - RANDOM))
def test_the_order_of_tasks_does_not_matter(name):
    matrix = gradients(4, seed=3)
    order = [2, 0, 3, 1]
    one, other = (numpy(make(name).aggregate(m)) for m in (matrix, matrix[order]))
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * np.abs(one).max())


@pytest.mark.parametrize("name", sorted(set(METHODS) - SIZED))
@pytest.mark.parametrize("graph", [False, True])
def test_an_absent_task_is_as_if_there_were_none(name, graph):
    matrix = np.concatenate([gradients(3, seed=7), np.zeros((1, 40), "float32")])[[0, 3, 1, 2]]
    names = ("a", "b", "c", "d")

    def step(rows, tasks, present=None):
        method = make(name) if name not in RANDOM else mtl.balancing.get(name, seed=5)
        method.build(tasks)
        call = tf.function(method.step) if graph else method.step
        return numpy(call(tf.constant(rows), dict.fromkeys(tasks, tf.constant(2.0)), present))

    direction = step(matrix, names, tf.constant([True, False, True, True]))
    expected = step(matrix[[0, 2, 3]], ("a", "c", "d"))
    if name in RANDOM:  # Its draws are others with four tasks; alone, nothing is drawn.
        direction = step(matrix[:2], names[:2], tf.constant([True, False]))
        np.testing.assert_allclose(direction, matrix[0], rtol=1e-4, atol=1e-5)
    else:
        np.testing.assert_allclose(direction, expected, rtol=1e-4, atol=1e-5)
    assert not np.any(step(0 * matrix, names, tf.constant([False] * 4)))


def test_scalar_products_of_many_parameters():
    """They are added up in pieces."""
    rows = np.random.default_rng(0).standard_normal((2, 2 * 2**20 + 3)).astype("float32")
    got = numpy(mtl.balancing.MGDA().gramian(tf.constant(rows)))
    exact = rows.astype("float64")
    np.testing.assert_allclose(got, exact @ exact.T, rtol=1e-12)


@pytest.mark.parametrize("name", sorted(LINEAR))
def test_all_gradients_times_a_number(name):
    matrix = gradients(3, seed=4)
    one, other = (numpy(make(name).aggregate(m)) for m in (matrix, 100 * matrix))
    np.testing.assert_allclose(100 * one, other, rtol=1e-3, atol=1e-2 * np.abs(one).max())


@pytest.mark.parametrize("name", sorted(SIMPLEX))
def test_weights_on_the_simplex(name):
    for matrix in cases(4).values():
        weights = numpy(make(name).weights_from_gramian(matrix @ matrix.T))
        assert np.all(weights >= -1e-7) and np.sum(weights) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", sorted(set(METHODS)))
def test_orthogonal_gradients_of_one_length(name):
    """Nothing conflicts and nobody dominates: all methods go along the mean."""
    direction = numpy(make(name).aggregate(np.eye(3, 10)))
    if name == "graddrop":
        np.testing.assert_allclose(direction, np.eye(3, 10).sum(0))
    cosine = direction @ np.eye(3, 10).sum(0) / np.linalg.norm(direction) / np.sqrt(3)
    assert cosine == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_a_config_makes_an_equal_method(name):
    on = "parameters" if name in SIZED else "features"
    method = mtl.balancing.get(name, on=on)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(method))
    assert type(copy) is type(method) and copy.get_config() == method.get_config()
    assert copy.on == on
    with pytest.raises(ValueError, match="`on`"):
        mtl.balancing.get(name, on="logits")


# === Against SciPy and the papers' equations ===
@pytest.mark.parametrize("size", [1, 2, 5, 12, 32])
def test_nonnegative_qp_is_that_of_scipy(size):
    rng = np.random.default_rng(size)
    for spread in (0, 3):
        rows = rng.standard_normal((size, size + 3)) * 10 ** rng.uniform(-spread, spread, (size, 1))
        goal = rng.standard_normal((4, size + 3))
        got = numpy(nonnegative_qp(rows @ rows.T, goal @ rows.T))
        for one, right in zip(got, goal, strict=True):
            expected, residual = nnls(rows.T, right)
            assert np.all(one >= 0)
            assert np.linalg.norm(rows.T @ one - right) == pytest.approx(residual, abs=1e-7)


def test_min_norm_point_is_that_of_scipy():
    for seed in range(5):
        matrix = gradients(4, 6, seed).astype("float64")
        weights = numpy(min_norm_weights(matrix @ matrix.T))
        found = minimize(
            lambda w, m=matrix: np.sum((w @ m) ** 2),
            np.full(4, 0.25),
            jac=lambda w, m=matrix: 2 * m @ (w @ m),
            bounds=[(0, 1)] * 4,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        np.testing.assert_allclose(weights, found.x, atol=1e-4)


def test_cagrad_is_the_maximum_in_the_ball():
    """Against SciPy on the dual as the paper writes it."""
    for seed, c in ((0, 0.4), (1, 0.9), (2, 2.0)):
        matrix = gradients(3, 5, seed).astype("float64")
        mean = matrix.mean(0)
        radius = c * np.linalg.norm(mean)

        def dual(w, m=matrix, g=mean, r=radius):
            return (w @ m) @ g + r * np.linalg.norm(w @ m)

        best = min(
            (
                minimize(
                    dual,
                    start,
                    bounds=[(0, 1)] * 3,
                    constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
                    options={"ftol": 1e-15, "maxiter": 1000},
                )
                for start in np.eye(3) * 0.7 + 0.1
            ),
            key=lambda result: result.fun,
        )
        shared = best.x @ matrix
        expected = mean + radius * shared / np.linalg.norm(shared)
        got = numpy(mtl.balancing.CAGrad(c).aggregate(matrix))
        np.testing.assert_allclose(got, expected, atol=2e-3 * np.linalg.norm(expected))
        least = np.min(matrix @ got)
        assert least >= np.min(matrix @ expected) - 1e-4 * np.abs(matrix @ expected).max()


@pytest.mark.parametrize("alpha", [1.0, 2.0, 0.5, 5.0])
def test_bargaining_equations(alpha):
    method = mtl.balancing.FairGrad(alpha)
    for seed in range(4):
        matrix = gradients(4, 30, seed, spread=1.0).astype("float64")
        gramian = matrix @ matrix.T
        w = numpy(method.weights_from_gramian(gramian)).astype("float64")
        np.testing.assert_allclose((gramian @ w) ** -alpha, w, rtol=1e-3)
        if alpha == 1.0:
            nash = mtl.balancing.NashMTL(max_norm=None)
            np.testing.assert_allclose(w, numpy(nash.weights_from_gramian(gramian)), rtol=1e-5)


def test_nash_is_no_longer_than_it_may_be():
    direction = numpy(mtl.balancing.NashMTL(max_norm=0.5).aggregate(gradients(3)))
    assert np.linalg.norm(direction) == pytest.approx(0.5, rel=1e-4)


def test_upgrad_projects_each_gradient():
    matrix = gradients(3, 4, seed=2).astype("float64")
    parts = []
    for own in matrix:  # the projection onto {d: J d >= 0} is own + J^T u with u from nnls
        u, _ = nnls(matrix.T, -own)
        parts.append(own + matrix.T @ u)
        assert np.all(matrix @ parts[-1] > -1e-8)
    got = numpy(mtl.balancing.UPGrad().aggregate(matrix))
    np.testing.assert_allclose(got, np.mean(parts, 0), atol=1e-5)
    u, _ = nnls(matrix.T, -matrix.mean(0))
    got = numpy(mtl.balancing.DualProj().aggregate(matrix))
    np.testing.assert_allclose(got, matrix.mean(0) + matrix.T @ u, atol=1e-5)


def test_imtl_g_and_config_have_equal_projections():
    matrix = gradients(4, seed=6, spread=1.0)
    units = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    for name in ("imtl_g", "config"):
        projections = units @ numpy(make(name).aggregate(matrix))
        np.testing.assert_allclose(projections, projections[0], rtol=1e-3)
    direction = numpy(mtl.balancing.ConFIG().aggregate(matrix))
    length = np.sum(matrix @ direction) / np.linalg.norm(direction)
    assert np.linalg.norm(direction) == pytest.approx(length, rel=1e-3)


def test_aligned_mtl_makes_the_system_orthogonal():
    matrix = gradients(3, seed=7, spread=0.5).astype("float64")
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    expected = (u @ v * s[-1]).mean(0)
    got = numpy(mtl.balancing.AlignedMTL().aggregate(matrix))
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


def test_pcgrad_by_the_paper_with_two_tasks():
    one, other = np.array([1.0, 0.5, 0.0]), np.array([-2.0, 0.0, 1.0])
    product = one @ other
    expected = one - product / (other @ other) * other + other - product / (one @ one) * one
    got = numpy(mtl.balancing.PCGrad().aggregate([one, other]))
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    agreeing = np.abs(gradients(4))
    got = numpy(mtl.balancing.PCGrad().aggregate(agreeing))
    np.testing.assert_allclose(got, agreeing.sum(0), rtol=1e-5)


def test_gradvac_lifts_to_the_usual_cosine():
    method = mtl.balancing.GradVac(beta=1.0)
    agreeing = np.array([[1.0, 0.0], [0.8, 0.6]])
    method.aggregate(agreeing)  # cosine 0.8, remembered in full
    np.testing.assert_allclose(method.variables[0].numpy()[0, 1], 0.8, rtol=1e-5)
    one, other = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    lifted = one + 0.8 / 0.6 * other, other + 0.8 / 0.6 * one
    for vector, beside in zip(lifted, (other, one), strict=True):
        assert vector @ beside / np.linalg.norm(vector) == pytest.approx(0.8)
    got = numpy(method.aggregate(np.stack([one, other])))
    np.testing.assert_allclose(got, np.sum(lifted, axis=0), rtol=1e-4)


def test_graddrop_keeps_one_sign_as_often_as_it_is_pure():
    method = mtl.balancing.GradDrop(seed=0)
    matrix = np.repeat([[3.0], [-1.0]], 20_000, axis=1)
    kept = numpy(method.aggregate(matrix))
    assert set(np.unique(kept)) == {-1.0, 3.0}
    assert np.mean(kept == 3.0) == pytest.approx(0.75, abs=0.02)
    leaky = numpy(mtl.balancing.GradDrop(leak=[1.0, 1.0]).aggregate(matrix))
    np.testing.assert_allclose(leaky, 2.0)


def test_gradnorm_by_the_paper():
    method = mtl.balancing.GradNorm(alpha=1.0, learning_rate=0.1)
    matrix = np.array([[3.0, 0.0], [0.0, 1.0]])
    method.step(matrix, {"a": 2.0, "b": 4.0})  # the first losses; rates are 1
    # mean norm 2: |3 - 2| + |1 - 2| has the gradient (3, -1)
    expected = np.array([1 - 0.3, 1 + 0.1])
    expected *= 2 / expected.sum()
    weights = method.variables[0].numpy()
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    direction = numpy(method.step(matrix, {"a": 1.0, "b": 4.0}))
    np.testing.assert_allclose(direction, weights @ matrix, rtol=1e-5)
    rate = np.array([0.5, 1.0]) / 0.75
    norms = weights * [3.0, 1.0]
    moved = weights - 0.1 * np.sign(norms - norms.mean() * rate) * [3.0, 1.0]
    np.testing.assert_allclose(method.variables[0].numpy(), moved * 2 / moved.sum(), rtol=1e-5)


@pytest.mark.parametrize("name", ["imtl_g", "aligned_mtl", "config"])
def test_gradients_that_depend_on_each_other(name):
    """The third is the sum of two: only two directions count, as by the singular values."""
    two = gradients(2, seed=11)
    matrix = np.concatenate([two, two.sum(0, keepdims=True)])
    u, s, v = np.linalg.svd(matrix.astype("float64"), full_matrices=False)
    u, s, v = u[:, :2], s[:2], v[:2]
    norms = np.linalg.norm(matrix.astype("float64"), axis=1)
    if name == "aligned_mtl":
        expected = (u @ v * s[-1]).mean(0)
    elif name == "imtl_g":
        w = u @ (u.T @ norms / s**2)
        expected = w / w.sum() @ matrix
    else:
        best = np.linalg.pinv(matrix / norms[:, None], rcond=1e-6) @ np.ones(3)
        best /= np.linalg.norm(best)
        expected = (matrix @ best).sum() * best
    got = numpy(make(name).aggregate(matrix))
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())
