"""Metrics of a multi-task network as a whole, beside networks of one task each."""

from mtl_keras.metrics.by_task import by_task
from mtl_keras.metrics.callback import DeltaMCallback
from mtl_keras.metrics.delta_m import DeltaM, delta_m

__all__ = ["DeltaM", "DeltaMCallback", "by_task", "delta_m"]
