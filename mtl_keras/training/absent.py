"""What belongs to tasks that have no label in a batch, and so is left as it is by its step."""

from typing import Any

import keras

from mtl_keras.sharing.users import variable_users


def owned_state(model: Any, tasks: list[str]) -> list[tuple[tuple[str, ...], Any]]:
    """Finds the state that only some tasks move: weights, statistics, state of the optimizer.

    Args:
        model: Compiled `MultiTaskModel`; its optimizer has been built.
        tasks: Names of the tasks that may be absent.

    Returns:
        List of pairs: names of the tasks that use it, all of them among `tasks`, and a
        `keras.Variable`. What all tasks of the model use is not in it.
    """
    users = variable_users(model)
    slots = optimizer_slots(model.optimizer)
    found: dict[int, tuple] = {}
    for variable in model.variables:
        of = users.get(id(variable), ())
        if of and len(of) < len(model.tasks) and set(of) <= set(tasks):
            for state in (variable, *slots.get(id(variable), ())):
                found[id(state)] = (of, state)
    return list(found.values())


def optimizer_slots(optimizer: Any) -> dict[int, list]:
    """Finds the variables that an optimizer holds for each variable that it trains.

    Args:
        optimizer: Built Keras optimizer. Its slots are lists in the order of what it trains.

    Returns:
        Dict, `id` of the trained variable to a list of `keras.Variable`.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    trained = optimizer._trainable_variables
    lists = [
        value
        for name, value in vars(optimizer).items()
        if isinstance(value, list)
        and name not in ("_variables", "_trainable_variables")
        and len(value) == len(trained)
    ]
    return {
        id(variable): [s for s in slots if isinstance(s, keras.Variable)]
        for variable, *slots in zip(trained, *lists, strict=True)
    }
