"""Metrics of a multi-task network as a whole, and of the instances that its tasks make together."""

from mtl_keras.metrics.by_task import by_task
from mtl_keras.metrics.callback import DeltaMCallback
from mtl_keras.metrics.delta_m import DeltaM, delta_m
from mtl_keras.metrics.instances import InstanceEvaluator
from mtl_keras.metrics.panoptic_quality import PanopticQuality

__all__ = [
    "DeltaM",
    "DeltaMCallback",
    "InstanceEvaluator",
    "PanopticQuality",
    "by_task",
    "delta_m",
]
