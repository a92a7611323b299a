"""One map of instances and classes, so that both are moved at the price of one (TensorFlow ops)."""

from __future__ import annotations

from typing import Any

from mtl_keras.data.builder import IGNORED

IGNORE = 255


def pack(example: dict[str, Any]) -> Any:
    """Instances and the mask, if the set has its own, as one map `(h, w, 1)` to be moved.

    Instances alone stay uint16, which costs less to move; both together are int32.
    """
    import tensorflow as tf

    if "mask" not in example:
        return example["instances"]
    maps = tf.cast(example["instances"], tf.int32)
    return maps + (IGNORED + 1) * tf.cast(example["mask"], tf.int32)


def unpack(maps: Any, example: dict[str, Any]) -> tuple[Any, Any]:
    """Instances, 0 where nobody knows, and classes of pixels, of moved maps `(H, W)`."""
    import tensorflow as tf

    maps = tf.cast(maps, tf.int32)
    # A remainder takes several times as long as the other operations here together.
    instances = tf.bitwise.bitwise_and(maps, IGNORED) if "mask" in example else maps
    known = instances != IGNORED
    instances = tf.where(known, instances, 0)
    if "mask" in example:
        return instances, tf.bitwise.right_shift(maps, IGNORED.bit_length())
    values = tf.where(example["is_crowd"], IGNORE, example["classes"] + 1)
    mask = tf.gather(tf.concat([[0], values], 0), instances)
    return instances, tf.where(known, mask, IGNORE)
