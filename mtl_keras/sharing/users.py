"""Which tasks' outputs depend on what, by the graph."""

from typing import Any

import keras


def layer_users(model: Any) -> dict[str, tuple[str, ...]]:
    """Finds, for each layer, the tasks whose outputs depend on it, by walking the graph back.

    Args:
        model: `MultiTaskModel`.

    Returns:
        Dict, name of the layer to names of tasks, in their order.
    """
    users: dict[str, set] = {layer.name: set() for layer in model.layers}
    for task in model.tasks:
        for operation, _ in _above(model.output[task.name]):
            if operation.name in users:
                users[operation.name].add(task.name)
    order = [task.name for task in model.tasks]
    return {name: tuple(t for t in order if t in found) for name, found in users.items()}


def variable_users(model: Any) -> dict[int, tuple[str, ...]]:
    """Finds the tasks whose outputs depend on each variable, trainable or not.

    Args:
        model: `MultiTaskModel`.

    Returns:
        Dict, `id` of the variable to names of tasks, in their order.
    """
    found: dict[int, set] = {}
    for name, tasks in layer_users(model).items():
        for variable in model.get_layer(name).variables:
            found.setdefault(id(variable), set()).update(tasks)
    order = [task.name for task in model.tasks]
    return {key: tuple(t for t in order if t in tasks) for key, tasks in found.items()}


def frontier(model: Any) -> list[keras.KerasTensor]:
    """Finds the tensors at which what several tasks use ends and what one uses begins.

    Args:
        model: `MultiTaskModel`.

    Returns:
        List of `keras.KerasTensor`, each made by a part of the network that several tasks use
        and read by a part that one task uses; empty if there are none.
    """
    by_node: dict[tuple, set] = {}
    for task in model.tasks:
        for operation, index in _above(model.output[task.name]):
            by_node.setdefault((operation, index), set()).add(task.name)
    found: dict[int, keras.KerasTensor] = {}
    for (operation, index), tasks in by_node.items():
        if len(tasks) != 1:
            continue
        for tensor in operation._inbound_nodes[index].input_tensors:
            parent, parent_index, _ = tensor._keras_history
            if len(by_node[parent, parent_index]) > 1:
                found[id(tensor)] = tensor
    return list(found.values())


def _above(outputs: Any) -> list[tuple[Any, int]]:
    """The operations, with the index of the call, on which tensors depend."""
    seen: dict[tuple, None] = {}
    queue = list(keras.tree.flatten(outputs))
    while queue:
        operation, index, _ = queue.pop()._keras_history
        if (operation, index) not in seen:
            seen[operation, index] = None
            queue.extend(operation._inbound_nodes[index].input_tensors)
    return list(seen)
