"""FAMO against a NumPy version of its algorithm, with PyTorch's Adam written out."""

import numpy as np
import pytest
import toy
from balancing_case import numpy
from scipy.special import softmax

import mtl_keras as mtl


def famo(losses, learning_rate, decay):
    """The weights of each step, by the paper, one step at a time."""
    xi, m, v = np.zeros((3, losses.shape[1]))
    found = []
    for t, now in enumerate(losses):
        if t > 0:
            z = softmax(xi)
            jacobian = np.diag(z) - np.outer(z, z)
            gradient = jacobian @ (np.log(losses[t - 1]) - np.log(now)) + decay * xi
            m = 0.9 * m + 0.1 * gradient
            v = 0.999 * v + 0.001 * gradient**2
            xi = xi - learning_rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        z = softmax(xi)
        found.append(z / now / np.sum(z / now))
    return np.array(found)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_by_the_paper(decay):
    losses = np.random.default_rng(0).uniform(0.1, 5.0, (12, 3))
    method = mtl.balancing.FAMO(learning_rate=0.1, decay=decay)
    got = np.stack([numpy(method.weights(row)) for row in losses])
    np.testing.assert_allclose(got, famo(losses, 0.1, decay), rtol=1e-4)
    assert np.ptp(got[-1] * losses[-1]) > 0.05  # the logits have moved


def test_units_of_losses_do_not_matter():
    losses = np.random.default_rng(1).uniform(0.1, 5.0, (6, 2))
    one, other = mtl.balancing.FAMO(), mtl.balancing.FAMO()
    for row in losses:
        a, b = numpy(one.weights(row)), numpy(other.weights(row * [1.0, 50.0]))
    shares = a * losses[-1], b * losses[-1] * [1.0, 50.0]
    np.testing.assert_allclose(*(s / s.sum() for s in shares), rtol=1e-4)


def test_the_slow_task_gets_more():
    method = mtl.balancing.FAMO()
    for step in range(50):
        losses = np.array([0.99**step, 0.8**step])
        share = numpy(method.weights(losses)) * losses
    assert share[0] > 2 * share[1]


def test_absent_tasks():
    """The others go on as if it were not there; its own state waits."""
    losses = np.random.default_rng(2).uniform(0.1, 5.0, (6, 3))
    method = mtl.balancing.FAMO(learning_rate=0.1)
    for row in losses[:3]:
        method.weights(row)
    before = toy.arrays(method.variables)
    for row in losses[3:]:
        weights = numpy(method.weights([*row[:2], np.nan], [True, True, False]))
        assert weights[2] == 0 and weights.sum() == pytest.approx(1)
    after = toy.arrays(method.variables)
    assert all(a[2] == b[2] for a, b in zip(after, before, strict=True))
    assert any(np.any(a[:2] != b[:2]) for a, b in zip(after, before, strict=True))

    alone, late = mtl.balancing.FAMO(), mtl.balancing.FAMO()
    for row in losses:
        expected = numpy(alone.weights(row[:2]))
        got = numpy(late.weights([*row[:2], 1.0], [True, True, False]))
    np.testing.assert_allclose(got[:2], expected, rtol=1e-5)
    assert np.all(np.isfinite(numpy(late.weights(losses[0]))))  # now seen for the first time


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"learning_rate": 0.0}, "learning_rate"), ({"decay": -1.0}, "decay")],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=f"`{message}`"):
        mtl.balancing.FAMO(**arguments)


def test_the_same_batch_before_and_after():
    """Losses (before, after) of steps: only the fall within a step counts."""
    rng = np.random.default_rng(3)
    before, after = rng.uniform(0.1, 5.0, (2, 8, 3))
    method = mtl.balancing.FAMO(learning_rate=0.1, decay=0.0, same_batch=True)
    xi, m, v = np.zeros((3, 3))
    for t in range(8):
        z = softmax(xi)
        expected = z / before[t] / np.sum(z / before[t])
        np.testing.assert_allclose(numpy(method.weights(before[t])), expected, rtol=1e-4)
        method.look_again(after[t], [True] * 3)
        gradient = (np.diag(z) - np.outer(z, z)) @ (np.log(before[t]) - np.log(after[t]))
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        root = np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8
        xi = xi - 0.1 * m / (1 - 0.9 ** (t + 1)) / root


def test_the_same_batch_in_training():
    model = toy.model()
    x, y = toy.batch(model.tasks, images=2)
    method = mtl.balancing.FAMO(same_batch=True)
    model.compile("sgd", balancing=method, run_eagerly=True)
    model.fit(x, y, batch_size=2, verbose=0)
    first = method.variables[0].numpy()
    assert np.any(first != 0)  # after one step: with two batches it would learn from the second

    plain = toy.model()
    plain.compile("sgd", balancing="famo", run_eagerly=True)
    plain.fit(x, y, batch_size=2, verbose=0)
    assert not np.any(plain.balancing.variables[0].numpy())
    # The second forward pass leaves no trace, in statistics neither.
    assert toy.same(toy.arrays(plain.weights), toy.arrays(model.weights))
