"""The update of a training step with TensorFlow (only): what must not move stays as it was."""

from typing import Any

import tensorflow as tf

from mtl_keras.training.absent import owned_state
from mtl_keras.training.host import learning_rate_factor, replicas, sum_over_replicas


def update(model: Any, gradients: list, present: dict, finite: Any, statistics: list) -> None:
    """Applies gradients, if they are finite and any task is present.

    Weights, statistics and the state of the optimizer that only absent tasks use stay as they
    were, and all of them in a batch that is left out.

    Args:
        model: Compiled `MultiTaskModel`.
        gradients: Gradients of `model.trainable_variables`, of this device's images.
        present: Dict, task name to whether it has a label in the batch, on any device.
        finite: Boolean tensor, whether losses and gradients of this device are finite.
        statistics: Tensors, `model.non_trainable_variables` before the forward pass.
    """
    variables, optimizer = model.trainable_variables, model.optimizer
    # The optimizer must have its variables before a branch is traced.
    if not optimizer.built:
        with tf.init_scope():
            optimizer.build(variables)
    absent = [name for name, here in present.items() if here is not True]
    owned = [
        (_any(present[name] for name in names), variable)
        for names, variable in owned_state(model, absent)
    ]
    before = {id(v): x for v, x in zip(model.non_trainable_variables, statistics, strict=True)}
    idle = {id(variable) for _, variable in owned}
    gradients = [
        tf.zeros_like(v.value) if g is None and id(v) in idle else g
        for g, v in zip(gradients, variables, strict=True)
    ]
    usable = finite & _any(present.values())
    # With a strategy, even one device may not apply gradients in a branch.
    move = _together if tf.distribute.has_strategy() else _alone
    move(model, gradients, usable, owned, before)


def _alone(model: Any, gradients: list, usable: Any, owned: list, before: dict) -> None:
    def move():
        states = _remember([v for _, v in owned], before)
        with tf.control_dependencies([old for _, old in states]):
            _apply(model, gradients)
        for (here, _), (variable, old) in zip(owned, states, strict=True):
            variable.value.assign(tf.where(here, variable.value, old))
        return tf.constant(True)

    def stay():
        for variable in model.non_trainable_variables:
            variable.value.assign(before[id(variable)])
        return tf.constant(False)

    tf.cond(usable, move, stay)


def _together(model: Any, gradients: list, usable: Any, owned: list, before: dict) -> None:
    """All devices update, and then take back what must not move."""
    usable = sum_over_replicas(tf.cast(~usable, "float32")) == 0.0
    flags = {id(v): here for here, v in owned}
    states = _remember(
        [*model.trainable_variables, *model.non_trainable_variables, *model.optimizer.variables],
        before,
    )
    # The optimizer adds up what the devices have.
    gradients = [
        g if g is None else tf.where(usable, g / tf.cast(replicas(), g.dtype), tf.zeros_like(g))
        for g in gradients
    ]
    with tf.control_dependencies([old for _, old in states]):
        _apply(model, gradients)
    for variable, old in states:
        here = usable & flags.get(id(variable), True)
        variable.value.assign(tf.where(here, tf.convert_to_tensor(variable.value), old))


def _remember(variables: list, before: dict) -> list[tuple[Any, Any]]:
    """Variables with their values before the step."""
    found = []
    for variable in variables:
        old = before.get(id(variable))
        found.append((variable, tf.identity(variable.value) if old is None else old))
    return found


def _apply(model: Any, gradients: list) -> None:
    variables = model.trainable_variables
    fast = [v for v in variables if learning_rate_factor(v) != 1.0]
    old = [tf.identity(v.value) for v in fast]
    with tf.control_dependencies(old):
        model.optimizer.apply(gradients, variables)
    for variable, value in zip(fast, old, strict=True):
        # Every optimizer's step is linear in its learning rate.
        variable.assign(value + learning_rate_factor(variable) * (variable - value))


def _any(values: Any) -> Any:
    found = tf.constant(False)
    for value in values:
        found |= value
    return found
