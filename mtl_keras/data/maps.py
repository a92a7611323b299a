"""One map of instances and classes, so that both are moved at the price of one (TensorFlow ops)."""

from __future__ import annotations

from typing import Any

from mtl_keras.data.builder import IGNORED

IGNORE = 255


def pack(example: dict[str, Any]) -> Any:
    """Instances and the mask, if the set has its own, as one int32 map `(h, w, 1)` to be moved."""
    import tensorflow as tf

    maps = tf.cast(example["instances"], tf.int32)
    if "mask" in example:
        maps += (IGNORED + 1) * tf.cast(example["mask"], tf.int32)
    return maps


def unpack(maps: Any, example: dict[str, Any]) -> tuple[Any, Any]:
    """Instances, 0 where nobody knows, and classes of pixels, of moved maps `(H, W)`."""
    import tensorflow as tf

    instances = maps % (IGNORED + 1)
    known = instances != IGNORED
    instances = tf.where(known, instances, 0)
    if "mask" in example:
        return instances, maps // (IGNORED + 1)
    values = tf.where(example["is_crowd"], IGNORE, example["classes"] + 1)
    mask = tf.gather(tf.concat([[0], values], 0), instances)
    return instances, tf.where(known, mask, IGNORE)
