"""The ledger of parameters: what is shared, what is a task's own, what sharing saves."""

import dataclasses
from typing import Any

import keras
import ml_dtypes
import numpy as np


@dataclasses.dataclass(frozen=True)
class SharingReport:
    """Parameters and bytes of a multi-task network, part by part.

    Print it for a table.

    Attributes:
        rows: Tuple of dicts with `part`, `tasks` (names of the tasks that use the part),
            `parameters` and `bytes`.
        parameters: Integer, all parameters of the network.
        bytes: Integer, bytes of all its variables in memory.
        shared: Integer, parameters that more than one task uses.
        separate_parameters: Integer, parameters of one network a task with the same parts.
        separate_bytes: Integer, bytes of those.
    """

    rows: tuple[dict, ...]
    parameters: int
    bytes: int
    shared: int
    separate_parameters: int
    separate_bytes: int

    @property
    def shared_fraction(self) -> float:
        """Share of the parameters that more than one task uses, in [0, 1]."""
        return self.shared / self.parameters

    @property
    def saved_fraction(self) -> float:
        """Share of the weights' bytes that one network a task would need more, in [0, 1]."""
        return 1.0 - self.bytes / self.separate_bytes

    def to_dict(self) -> dict:
        """Returns everything as plain dicts and numbers."""
        return {
            **dataclasses.asdict(self),
            "shared_fraction": self.shared_fraction,
            "saved_fraction": self.saved_fraction,
        }

    def __str__(self) -> str:
        lines = [f"{'part':<24}{'used by':<28}{'parameters':>12}{'share':>8}{'MB':>9}"]
        for row in self.rows:
            share = row["parameters"] / self.parameters
            lines.append(
                f"{row['part']:<24}{', '.join(row['tasks']):<28}{row['parameters']:>12,}"
                f"{share:>8.1%}{row['bytes'] / 1e6:>9.2f}"
            )
        lines.append(
            f"{'in all':<24}{f'{self.shared_fraction:.1%} shared':<28}{self.parameters:>12,}"
            f"{1:>8.0%}{self.bytes / 1e6:>9.2f}"
        )
        lines.append(
            f"{'one network a task':<24}{f'sharing saves {self.saved_fraction:.1%}':<28}"
            f"{self.separate_parameters:>12,}{'':>8}{self.separate_bytes / 1e6:>9.2f}"
        )
        return "\n".join(lines)


def sharing_report(model: Any) -> SharingReport:
    """Counts the parameters and bytes of each part of a multi-task network.

    Bytes are those of the weights, at the precision in which the variables are kept.

    Args:
        model: `mtl_keras.MultiTaskModel`.

    Returns:
        A `SharingReport`.

    Raises:
        ValueError: If `model` has no tasks.

    Example:

    ```python
    import mtl_keras as mtl
    model = mtl.build(
        mtl.trunks.create("efficientnet_lite0", weights=None),
        tasks=[mtl.tasks.Detection(num_classes=2), mtl.tasks.Segmentation(num_classes=3)],
        image_size=(64, 64),
    )
    report = mtl.sharing_report(model)
    assert report.parameters == model.count_params()
    assert report.shared_fraction > 0.9
    ```
    """
    if not getattr(model, "tasks", None):
        raise ValueError(
            f"`model` must be a `MultiTaskModel` made by `mtl_keras.build`. Received: {model!r}"
        )
    users = _users(model)
    parts: dict[tuple, list] = {}
    for layer in model.layers:
        if layer.weights:
            part = layer.name.split("_")[0] if layer.name.startswith("trunk_") else layer.name
            parts.setdefault((part, users[layer.name]), []).extend(layer.weights)
    rows = tuple(
        {
            "part": part,
            "tasks": tasks,
            "parameters": sum(_size(v) for v in variables),
            "bytes": sum(_bytes(v) for v in variables),
        }
        for (part, tasks), variables in parts.items()
    )
    return SharingReport(
        rows=rows,
        parameters=sum(row["parameters"] for row in rows),
        bytes=sum(row["bytes"] for row in rows),
        shared=sum(row["parameters"] for row in rows if len(row["tasks"]) > 1),
        separate_parameters=sum(row["parameters"] * len(row["tasks"]) for row in rows),
        separate_bytes=sum(row["bytes"] * len(row["tasks"]) for row in rows),
    )


def _users(model: Any) -> dict[str, tuple[str, ...]]:
    """Finds, for each layer, the tasks whose outputs depend on it, by walking the graph back."""
    users: dict[str, set] = {layer.name: set() for layer in model.layers}
    for task in model.tasks:
        seen, queue = set(), list(keras.tree.flatten(model.output[task.name]))
        while queue:
            operation, node_index, _ = queue.pop()._keras_history
            if (operation.name, node_index) in seen:
                continue
            seen.add((operation.name, node_index))
            if operation.name in users:
                users[operation.name].add(task.name)
            queue.extend(operation._inbound_nodes[node_index].input_tensors)
    order = [task.name for task in model.tasks]
    return {name: tuple(t for t in order if t in found) for name, found in users.items()}


def _size(variable: Any) -> int:
    size = 1
    for dimension in variable.shape:
        size *= dimension
    return size


def _bytes(variable: Any) -> int:
    return _size(variable) * np.dtype(getattr(ml_dtypes, variable.dtype, variable.dtype)).itemsize
