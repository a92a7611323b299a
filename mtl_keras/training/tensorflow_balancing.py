"""Gradients of several tasks, balanced (TensorFlow only)."""

from typing import Any

import keras
import tensorflow as tf

from mtl_keras.sharing.users import frontier, variable_users
from mtl_keras.training.host import replicas, sum_over_replicas


class TaskGradients:
    """Computes the gradients of a step with a `GradientMethod`.

    A trainable variable on which several tasks' outputs depend is shared: its gradient is what
    the method makes of those of the tasks. Any other keeps the gradient of its own task's loss.
    Penalties that are no task's loss are outside of the method; their gradients are added.

    Args:
        model: `MultiTaskModel`, compiled with a `GradientMethod`.

    Raises:
        ValueError: If no variable is shared, or with `on="features"`, no features.
    """

    def __init__(self, model: Any):
        users = variable_users(model)
        names = [task.name for task in model.tasks]
        variables = model.trainable_variables
        self._shared = shared_variables(model)
        self._own = {name: [v for v in variables if users.get(id(v)) == (name,)] for name in names}
        if not self._shared:
            raise ValueError(
                f"the balancing {type(model.balancing).__name__} needs parameters that several "
                "tasks use; this model has none (its sharing is "
                f"{type(model.sharing).__name__}). Use a loss weighting, or share something"
            )
        self._model = model
        self._method = model.balancing
        self._lower = self._upper = None
        if self._method.on != "parameters":
            features = frontier(model)
            if not features:
                raise ValueError(
                    f"balancing with on={self._method.on!r} needs features that several "
                    "tasks share and then go on with alone; in this model there are none (its "
                    f"sharing is {type(model.sharing).__name__}). Use on='parameters'"
                )
            self._lower = keras.Model(model.inputs, features)
            self._upper = keras.Model(features, model.output)

    def __call__(self, x: Any, y: Any, sample_weight: Any, scale: Any) -> tuple:
        """Runs forward and backward.

        Args:
            x: Images.
            y: Targets.
            sample_weight: Weights of images, or `None`.
            scale: Function that scales a loss for half precision.

        Returns:
            Tuple of outputs, the total loss, a dict of gradients by `id` of variable, scaled as
            the losses were, and a dict, task name to whether its gradient is finite.
        """
        model = self._model
        with tf.GradientTape(persistent=True) as tape:
            if self._lower is None:
                features = heads_read = None
                outputs = model(x, training=True)
            else:
                features = self._lower(x, training=True)
                features = features if isinstance(features, list) else [features]
                # Cut off, so that what flows on from one of them to another counts once.
                heads_read = [tf.stop_gradient(feature) for feature in features]
                tape.watch(heads_read)
                outputs = self._upper(heads_read, training=True)
            total = model.compute_loss(x, y, outputs, sample_weight, training=True)
            plain, present = model.weighted_losses, model.present(y, sample_weight)
            losses = {name: scale(loss) for name, loss in plain.items()}
            penalties = [tf.cast(penalty, tf.float32) for penalty in model.losses]
            penalty = scale(tf.add_n(penalties)) if penalties else None
        at = self._shared if features is None else heads_read
        factor = tf.cast(scale(one := tf.constant(1.0)), tf.float32)
        scales = factor is not one
        result: dict[int, Any] = {}
        rows, finite = [], {}
        for task in model.tasks:
            name = task.name
            if name not in losses:
                rows.append(None)
                continue
            found = tape.gradient(losses[name], [*at, *self._own[name]])
            row = [_dense(g, v) for g, v in zip(found, at, strict=False)]
            rows.append(tf.concat([tf.reshape(tf.cast(g, tf.float32), [-1]) for g in row], 0))
            finite[name] = tf.math.is_finite(tf.reduce_sum(tf.abs(rows[-1])))
            for variable, gradient in zip(self._own[name], found[len(at) :], strict=True):
                if gradient is not None:
                    result[id(variable)] = gradient
        some = next(row for row in rows if row is not None)
        matrix = tf.stack([tf.zeros_like(some) if row is None else row for row in rows])
        matrix = matrix / factor if scales else matrix
        direction = self._direction(matrix, at, plain, present, finite)
        direction = direction * factor if scales else direction
        sizes = [tf.size(v) for v in at]
        parts = [
            tf.cast(tf.reshape(part, tf.shape(v)), v.dtype)
            for part, v in zip(tf.split(direction, sizes), at, strict=True)
        ]
        if features is not None:
            parts = tape.gradient(features, self._shared, output_gradients=parts)
        for variable, gradient in zip(self._shared, parts, strict=True):
            if gradient is not None:
                result[id(variable)] = gradient
        if penalty is not None:
            variables = model.trainable_variables
            for variable, own in zip(variables, tape.gradient(penalty, variables), strict=True):
                if own is not None:
                    before = result.get(id(variable))
                    result[id(variable)] = own if before is None else before + own
        return outputs, total, result, finite

    def _direction(self, matrix: Any, at: list, losses: dict, present: dict, finite: dict) -> Any:
        """Asks the method; `matrix` has zeros for tasks that are absent."""
        method, names = self._method, [task.name for task in self._model.tasks]
        losses = {name: tf.stop_gradient(losses.get(name, 1.0)) for name in names}
        ok = tf.reduce_all(list(finite.values()))
        if (devices := replicas()) > 1:
            ok = sum_over_replicas(tf.cast(~ok, "float32")) == 0.0
            losses = {n: sum_over_replicas(loss) / devices for n, loss in losses.items()}
        here = tf.stack([tf.cast(present[name], "bool") for name in names])
        # What is not finite must not reach the state of the method, and must not get lost.
        matrix = tf.where(ok, matrix, 0.0)
        size = None
        if method.on == "parameters":
            matrix = sum_over_replicas(matrix) / devices if devices > 1 else matrix
        else:
            matrix = matrix / devices if devices > 1 else matrix
            if method.on == "normalized_features":
                size = image_sizes(matrix, at)
                matrix = tf.math.divide_no_nan(matrix, size)
            method._sum_over_replicas = sum_over_replicas
        everywhere = all(value is True for value in present.values())
        direction = method.step(matrix, losses, None if everywhere else here)
        if method.weighs and method.last_weights is not None:
            self._model.track_weights(method.last_weights, here & ok)
        here = None if everywhere else here
        if size is not None:
            direction = direction * size
        if method.on != "parameters" and devices > 1:
            direction = direction * devices
        if here is not None:
            direction = tf.where(tf.reduce_any(here), direction, 0.0)
        return tf.where(ok, direction, float("nan"))


def image_sizes(matrix: Any, features: list) -> Any:
    """The size of each image's gradients, at each of its features.

    Args:
        matrix: Float32 tensor of shape `(tasks, values)`, gradients at features, one after the
            other.
        features: List of tensors, each of shape `(images, ...)`.

    Returns:
        Float32 tensor of shape `(values,)`: for each value, the root of the sum of squares over
        all tasks and values of its image.
    """
    images = tf.shape(features[0])[0]
    squares = tf.split(tf.reduce_sum(matrix**2, axis=0), [tf.size(f) for f in features])
    total = tf.add_n([tf.reduce_sum(tf.reshape(s, (images, -1)), axis=1) for s in squares])
    root = tf.sqrt(total)
    return tf.concat([tf.repeat(root, tf.size(f) // images) for f in features], axis=0)


def shared_variables(model: Any) -> list:
    """Finds the trainable variables on which the outputs of several tasks depend.

    Args:
        model: `MultiTaskModel`.

    Returns:
        List of `keras.Variable`, in the order in which gradient methods get their gradients.
    """
    users = variable_users(model)
    return [v for v in model.trainable_variables if len(users.get(id(v), ())) > 1]


def _dense(gradient: Any, like: Any) -> Any:
    return tf.zeros_like(like) if gradient is None else tf.convert_to_tensor(gradient)
