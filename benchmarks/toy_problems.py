"""Losses of a few parameters whose Pareto sets are known, and the loop that trains on them.

A problem gives `losses_and_gradients`, written with `keras.ops` so that it takes NumPy arrays as
well as tensors, and `pareto`, the point of the Pareto set that belongs to weights of the losses.
Used by balancing_toys.py and tests/balancing/test_toy_problems.py.
"""

import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

import mtl_keras as mtl
from mtl_keras.balancing import GradientMethod, SizedGradientMethod

_LOW = 5e-6


# === Problems ===
class Problem:
    """Losses with exact gradients and a known Pareto set.

    Args:
        name: String.
        scales: Numbers by which the losses are multiplied. They move no point of the Pareto set.
        starts: Points to start from.
    """

    def __init__(self, name: str, scales: Any, starts: Any):
        self.name = name
        self.scales = np.asarray(scales, "float64")
        self.starts = [tuple(float(value) for value in start) for start in starts]
        self.tasks = tuple(f"task{i}" for i in range(len(self.scales)))
        self.size = len(self.starts[0])

    def unscaled(self, theta: Any) -> tuple[Any, Any]:
        """Losses `(tasks,)` and gradients `(tasks, size)` at a point `(size,)`, without scales."""
        raise NotImplementedError

    def losses_and_gradients(self, theta: Any) -> tuple[Any, Any]:
        losses, gradients = self.unscaled(theta)
        scales = ops.cast(ops.convert_to_tensor(self.scales), losses.dtype)
        return scales * losses, scales[:, None] * gradients

    def pareto(self, weights: Any) -> np.ndarray:
        """Minima of the weighted sums of the unscaled losses: `(n, tasks)` to `(n, size)`."""
        raise NotImplementedError

    def distance(self, theta: Any) -> float:
        """Distance to the Pareto set: the best of a grid of weights, made finer round by round."""
        theta = np.asarray(theta, "float64")
        tasks = len(self.tasks)
        fine = 400 if tasks == 2 else 60
        grid = _simplex_grid(tasks, fine)
        weights, radius, nearest = grid, 1.0, np.inf
        while radius > 1e-7:
            distances = np.linalg.norm(self.pareto(weights) - theta, axis=1)
            best = int(np.argmin(distances))
            nearest, radius = min(nearest, float(distances[best])), radius * 8.0 / fine
            weights = np.maximum(weights[best] + radius * (grid - 1.0 / tasks), 0.0)
            weights /= weights.sum(axis=1, keepdims=True)
        return nearest

    def stationarity(self, theta: Any) -> float:
        """Length of the shortest vector in the hull of the gradients, over the longest gradient.

        Of the unscaled losses: with one gradient a thousand times as long as another, a point
        anywhere would have a small value.
        """
        _, gradients = self.unscaled(np.asarray(theta, "float64"))
        return stationarity(ops.convert_to_numpy(gradients))


class Valley(Problem):
    """Two losses of two parameters with two narrow gorges above a wide bowl.

    With `u1 = (-x1 - 7) / 2 + tanh(x2)`, `u2 = (-x1 + 7) / 2 - tanh(x2)`,
    `gorge_i = log(max(|u_i|, 5e-6)) + 6`, `bowl_i = ((x1 -+ 7)^2 + (x2 + 8)^2 / 10) / 10 - 20`:
    `L_i = max(tanh(x2 / 2), 0) gorge_i + max(tanh(-x2 / 2), 0) bowl_i`.

    No loss is below -20. As in the toy of FAMO's authors, 21 is added to each, so that methods
    which divide by losses or take logarithms work; gradients are the same.

    Reference:
        Liu et al. 2021, "Conflict-Averse Gradient Descent for Multi-task Learning", appendix;
        five starts and the first loss times 0.1: Navon et al. 2022, "Multi-Task Learning as a
        Bargaining Game", section 5; lowest losses of -21: Liu et al. 2023, "FAMO".
    """

    def __init__(self, name: str = "valley", scales: Any = (1.0, 1.0)):
        starts = [(-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0)]
        super().__init__(name, scales, starts)

    def unscaled(self, theta: Any) -> tuple[Any, Any]:
        theta = ops.convert_to_tensor(theta)
        x1, x2 = theta[0], theta[1]
        side = ops.cast(ops.convert_to_tensor([1.0, -1.0]), theta.dtype)
        tanh, half = ops.tanh(x2), ops.tanh(0.5 * x2)
        u, away = side * (tanh - 3.5) - 0.5 * x1, x1 - 7.0 * side
        bowl = 0.1 * away**2 + 0.01 * (x2 + 8.0) ** 2 - 20.0
        gorge = ops.log(ops.maximum(ops.abs(u), _LOW)) + 6.0
        inverse = ops.where(ops.abs(u) < _LOW, 0.0, 1.0 / u)
        above = x2 > 0.0
        part = ops.where(above, gorge, -bowl)
        by_x1 = half * ops.where(above, -0.5 * inverse, -0.2 * away)
        by_x2 = half * ops.where(above, (1.0 - tanh**2) * side * inverse, -0.02 * (x2 + 8.0))
        by_x2 = by_x2 + 0.5 * (1.0 - half**2) * part
        return half * part + 21.0, ops.stack([by_x1, by_x2], axis=1)

    def pareto(self, weights: Any) -> np.ndarray:
        """In the bowl: `x1` is the weighted mean of 7 and -7, `x2` the root of the derivative."""
        weights = np.asarray(weights, "float64")
        x1 = 7.0 * (weights[:, 0] - weights[:, 1])
        low, high = np.full(len(x1), -12.0), np.full(len(x1), -8.0)
        for _ in range(50):
            x2 = 0.5 * (low + high)
            bowl = (49.0 - x1**2 + 0.1 * (x2 + 8.0) ** 2) / 10.0 - 20.0
            half = np.tanh(0.5 * x2)
            rises = -0.5 * (1.0 - half**2) * bowl - half * 0.02 * (x2 + 8.0) > 0.0
            low, high = np.where(rises, low, x2), np.where(rises, x2, high)
        return np.stack([x1, x2], axis=1)


class Quadratics(Problem):
    """Bowls `L_i = 1 + (theta - c_i)^T A_i (theta - c_i) / 2` with random axes and centers.

    The 1 keeps logarithms finite. The Pareto set is that of the points
    `(sum w_i A_i)^-1 sum w_i A_i c_i`.

    Args:
        name: String.
        scales: See `Problem`.
        size: Number of parameters.
        seed: Integer.
    """

    def __init__(self, name: str, scales: Any, size: int = 5, seed: int = 0):
        rng = np.random.default_rng(seed)
        starts = 3.0 * rng.standard_normal((3, size))
        super().__init__(name, scales, starts)
        self.centers = 2.0 * rng.standard_normal((len(self.tasks), size))
        axes = np.linalg.qr(rng.standard_normal((len(self.tasks), size, size)))[0]
        curvatures = np.exp(rng.uniform(np.log(0.3), np.log(3.0), (len(self.tasks), 1, size)))
        self.matrices = (axes * curvatures) @ np.swapaxes(axes, 1, 2)

    def unscaled(self, theta: Any) -> tuple[Any, Any]:
        theta = ops.convert_to_tensor(theta)
        centers, matrices = (
            ops.cast(ops.convert_to_tensor(array), theta.dtype)
            for array in (self.centers, self.matrices)
        )
        away = theta[None, :] - centers
        gradients = ops.sum(matrices * away[:, None, :], axis=-1)
        return 1.0 + 0.5 * ops.sum(away * gradients, axis=-1), gradients

    def pareto(self, weights: Any) -> np.ndarray:
        weights = np.asarray(weights, "float64")
        right = np.einsum("tij,tj->ti", self.matrices, self.centers)
        together = np.einsum("nt,tij->nij", weights, self.matrices)
        return np.linalg.solve(together, (weights @ right)[:, :, None])[:, :, 0]


def _simplex_grid(tasks: int, fine: int) -> np.ndarray:
    rows = [
        (*head, fine - sum(head))
        for head in itertools.product(range(fine + 1), repeat=tasks - 1)
        if sum(head) <= fine
    ]
    return np.array(rows) / fine


def stationarity(gradients: np.ndarray) -> float:
    """Length of the shortest vector in the convex hull, over the longest row; by enumeration."""
    count = len(gradients)
    shortest = np.inf
    for chosen in itertools.chain.from_iterable(
        itertools.combinations(range(count), n) for n in range(1, count + 1)
    ):
        first, rest = gradients[chosen[0]], gradients[list(chosen[1:])]
        v = np.linalg.lstsq((rest - first).T, -first, rcond=None)[0] if len(rest) else np.zeros(0)
        if np.all(v >= 0.0) and v.sum() <= 1.0:
            shortest = min(shortest, np.linalg.norm(first + v @ (rest - first)))
    longest = np.linalg.norm(gradients, axis=1).max()
    return float(shortest / longest) if longest > 0.0 else 0.0


# === Methods and training ===
# What methods must be given: weights of rising size.
REQUIRED = {"fixed": lambda tasks: {"task_weights": [float(i + 1) for i in range(tasks)]}}


def make(name: str, tasks: int, **arguments: Any) -> mtl.balancing.Balancing:
    """A method with its default arguments, and the seed 0 where it draws numbers."""
    required = REQUIRED[name](tasks) if name in REQUIRED else {}
    config = mtl.balancing.get(name, **{**required, **arguments}).get_config()
    if config.get("seed", 0) is None:
        config["seed"] = 0
    return mtl.balancing.get(name, **config)


class Trainer:
    """Trains a point with a method and an optimizer of Keras, in a graph (TensorFlow only).

    What `MultiTaskModel` does for shared parameters: a loss weighting makes one loss, whose
    gradient moves the point and what the method learns; a gradient method gets the gradients.

    Args:
        method: `Balancing`.
        problem: `Problem`.
        optimizer: `keras.optimizers.Optimizer`.
    """

    def __init__(
        self,
        method: mtl.balancing.Balancing,
        problem: Problem,
        optimizer: keras.optimizers.Optimizer,
    ):
        import tensorflow as tf

        self.method, self.problem, self.optimizer = method, problem, optimizer
        self.theta = keras.Variable(np.zeros(problem.size, "float32"), name="theta")
        self.scales = keras.Variable(np.ones(len(problem.tasks), "float32"), name="scales")
        if isinstance(method, SizedGradientMethod):
            method.build(problem.tasks, problem.size)
        else:
            method.build(problem.tasks)
        self._learned = [v for v in method.variables if v.trainable]
        optimizer.build([self.theta, *self._learned])
        self._state = [*method.variables, *optimizer.variables]
        self._initial = [ops.convert_to_numpy(v) for v in self._state]
        step = self._gradients if isinstance(method, GradientMethod) else self._weights

        @tf.function(input_signature=[tf.TensorSpec((), "int32")])
        def advance(steps):
            for _ in tf.range(steps):
                step()

        self._advance = advance

    def _evaluate(self) -> tuple[Any, Any]:
        losses, gradients = self.problem.unscaled(self.theta.value)
        scales = ops.convert_to_tensor(self.scales.value)
        return scales * losses, scales[:, None] * gradients

    def _gradients(self) -> None:
        losses, gradients = self._evaluate()
        by_name = dict(zip(self.problem.tasks, ops.unstack(losses), strict=True))
        self.optimizer.apply([self.method.step(gradients, by_name)], [self.theta])

    def _weights(self) -> None:
        import tensorflow as tf

        losses, gradients = self._evaluate()
        learned = [v.value for v in self._learned]
        with tf.GradientTape() as tape:
            tape.watch(losses)
            total, _ = self.method.loss_and_weights(losses)
        by_loss, *own = tape.gradient(total, [losses, *learned])
        direction = ops.matmul(by_loss[None, :], gradients)[0]
        self.optimizer.apply([direction, *own], [self.theta, *self._learned])

    def run(
        self,
        start: Any,
        steps: int,
        epoch: int,
        scales: Any = None,
        until: Callable[[np.ndarray], bool] = lambda theta: False,
        patience: int = 1,
    ) -> np.ndarray:
        """Trains anew.

        Args:
            start: Point of shape `(size,)`.
            steps: Integer, steps at most.
            epoch: Integer, steps of an epoch.
            scales: Numbers by which the losses are multiplied, the problem's own by default.
            until: Whether a point is good enough; asked after each epoch.
            patience: Integer, epochs in a row after which `until` ends the training.

        Returns:
            Array of shape `(epochs + 1, size)`: the start, and the point after each epoch.
        """
        for variable, value in zip(self._state, self._initial, strict=True):
            variable.assign(value)
        self.theta.assign(np.asarray(start, "float32"))
        self.scales.assign(self.problem.scales if scales is None else scales)
        points, good = [ops.convert_to_numpy(self.theta)], 0
        for done in range(0, steps, epoch):
            self._advance(min(epoch, steps - done))
            self.method.on_epoch_end()
            points.append(ops.convert_to_numpy(self.theta))
            good = good + 1 if until(points[-1]) else 0
            if good == patience:
                break
        return np.stack(points)
