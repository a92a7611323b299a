"""From a TFDS builder to training batches (`tf.data`, so TensorFlow only).

`batches` is the only way data reaches a model: it decodes, augments or letterboxes, lets every task
encode its targets, and stacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_keras.data import maps
from mtl_keras.data.augment import Augment, mixing
from mtl_keras.data.builder import KINDS, MAX_OBJECTS
from mtl_keras.data.epochs import Endless, Epochs, in_order, numbers
from mtl_keras.data.letterbox import letterbox
from mtl_keras.data.maps import IGNORE
from mtl_keras.data.untuned import untuned

SHUFFLE_BYTES = 512 * 2**20


def batches(
    builder: Any,
    split: str,
    tasks: Sequence[Any],
    image_size: int | tuple[int, int],
    batch_size: int = 8,
    augment: Augment | None = None,
    shuffle: bool | None = None,
    seed: int = 0,
    drop_remainder: bool = False,
    columns: dict[str, str] | None = None,
    epochs: Epochs | None = None,
) -> Any:
    """Batches of images and of each task's targets.

    Without `augment`, images are letterboxed: scaled to fit with their aspect kept, placed at the
    top left, the rest filled with the value 114. With `augment` they are changed at random,
    differently in each epoch; two data sets made with the same `seed` give the same batches epoch
    by epoch. So that a training which was interrupted goes on with the epoch it was in, give them
    an [`Epochs`](epochs.py).

    Each task is asked for `task.encode(labels, image_size)`, in graph mode, with labels of the
    image as the model sees it: `boxes` float32 `(n, 4)` xyxy in pixels, `classes` int32 `(n,)`,
    `is_crowd` bool `(n,)`, `mask` int32 `(H, W)` (0 background, class id + 1, 255 to be ignored:
    padding and crowds) and `instances` int32 `(H, W)` (0 none, i + 1 object i). Objects of which
    too little is visible after cropping are not listed and not in `instances`, but stay in `mask`.
    A task with a column of the set (by default that of its own name) is also given `label`, the
    class id or the number that the image has there.

    Images may lack labels: where any image of the set lacks one that a task needs (`task.needs`),
    batches have a third part, weights by task, 0 for images that lack it and 1 for others. Training
    leaves them out of that task, see `MultiTaskModel.compute_loss`. Mosaics and mixups lack labels
    of the whole image.

    Args:
        builder: a prepared builder of `from_coco`, `digits`, or another with the same features.
        split: name of the split, such as `"train"`, or part of one, such as `"train[:80%]"`.
        tasks: the tasks of the model. Each has a `name` and a method `encode`.
        image_size: `(height, width)` of the images in pixels, or one int for both.
        batch_size: number of images in a batch.
        augment: what to do to the images at random, or `None`.
        shuffle: whether to change the order in each epoch; by default only with `augment`.
        seed: integer that fixes the order and the augmentation.
        drop_remainder: whether to leave out a last batch that is not full, so that shapes are
            static.
        columns: dict, task name to the name of the column whose labels of the whole image it
            learns; by default a task learns the column of its own name, if there is one.
        epochs: who knows the number of the epoch; by default the data set counts its iterations.

    Returns:
        A `tf.data.Dataset` of `(images, targets)`: float32 `(B, H, W, 3)` in [0, 255], and a dict
        `{task.name: what its encode returns, stacked}`; or of `(images, targets, weights)`, with a
        dict `{task.name: float32 (B,)}`, if labels are missing.

    Raises:
        ValueError: if the split does not exist, the builder lacks a feature, no image has the
            labels that a task needs, or an argument is outside its range.

    Example:
        ```python
        import tempfile
        import mtl_keras as mtl

        builder = mtl.data.digits(train=4, val=2, image_size=(64, 64), data_dir=tempfile.mkdtemp())

        class Count:
            name = "count"
            def encode(self, labels, image_size):
                import tensorflow as tf
                return tf.shape(labels["boxes"])[0]

        ds = mtl.data.batches(builder, "train", [Count()], 64, batch_size=2)
        images, targets = next(iter(ds))
        assert images.shape == (2, 64, 64, 3) and targets["count"].shape == (2,)
        ```
    """
    import tensorflow as tf
    from tensorflow.data import AUTOTUNE

    size = _size(image_size)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"`batch_size` should be an integer of at least 1, got {batch_size!r}")
    if augment is not None and not isinstance(augment, Augment):
        raise TypeError(f"`augment` should be a mtl_keras.data.Augment or None, got {augment!r}")
    tasks = list(tasks.values()) if isinstance(tasks, dict) else list(tasks)
    names = [task.name for task in tasks]
    if len(set(names)) != len(names):
        raise ValueError(f"every task in `tasks` should have a name of its own, got {names}")

    encoded = _read(builder, split)
    own = _columns(builder, tasks, columns or {})
    partial = _partial(builder, split, tasks, own)
    partial |= bool(own) and augment is not None and augment.hides_values
    shuffle = augment is not None if shuffle is None else shuffle
    if augment is not None and augment.cover:
        encoded = _repeated(encoded, size, augment)
    count = int(encoded.cardinality())
    buffer = max(1, min(count, _shuffle_buffer(builder))) if shuffle else None

    def finish(image: Any, labels: dict[str, Any]) -> Any:
        targets, weights = {}, {}
        for task in tasks:
            given, here = labels, dict(labels["labelled"])
            if task.name in own:
                value = labels["values"][own[task.name]]
                here["label"] = tf.math.is_finite(value)
                given = {**labels, "label": tf.where(here["label"], value, -1.0)}
            targets[task.name] = task.encode(given, size)
            needed = [here[kind] for kind in _needs(task, own)]
            weights[task.name] = tf.cast(tf.reduce_all(needed or [True]), "float32")
        return (image, targets, weights) if partial else (image, targets)

    def finished(order: Any) -> Any:
        if augment is None:
            return order.map(lambda e, _: finish(*_letterboxed(_decode(e), size)), AUTOTUNE)
        # Augmentation has no control flow in Python; tasks may have, and are converted.
        plain = tf.autograph.experimental.do_not_convert
        ds = order.map(plain(lambda e, s: (augment.sample(_decode(e), size, s), s)), AUTOTUNE)
        if augment.mixes:
            most = min([getattr(task, "max_objects", MAX_OBJECTS) for task in tasks] or [0])
            ds = mixing.group(ds, size).map(
                plain(lambda group, i: mixing.mix(augment, group, i, most)), AUTOTUNE
            )
        return ds.map(lambda e, s: finish(*plain(augment.finish)(e, s)), AUTOTUNE)

    def epoch(number: Any) -> Any:
        return in_order(encoded, number, seed, buffer)

    def endless(positions: Any) -> Any:
        """From one position on; what lies before it is left out while it is still encoded."""
        passes = positions.flat_map(
            lambda position: (
                tf.data.Dataset.range(position // count, np.iinfo("int64").max)
                .flat_map(epoch)
                .skip(position % count)
            )
        )
        return finished(passes).prefetch(2)

    ds = finished(numbers(epochs).flat_map(epoch))
    ds = ds.apply(tf.data.experimental.assert_cardinality(count))
    ds = untuned(ds.batch(batch_size, drop_remainder=drop_remainder).prefetch(AUTOTUNE))
    ds.endless = Endless(count, endless)
    return ds


def examples(builder: Any, split: str) -> Any:
    """The images of a split as they are, one by one, with their labels.

    Args:
        builder: a prepared builder of `from_coco`, `digits`, or another with the same features.
        split: name of the split, such as `"val"`, or part of one.

    Returns:
        A `tf.data.Dataset` of dicts: `image` uint8 `(h, w, 3)`, `filename`, `id`, and in pixels of
        that image `boxes` float32 `(n, 4)` xyxy, `classes` int32 `(n,)`, `is_crowd` bool `(n,)`,
        `mask` int32 `(h, w)` and `instances` int32 `(h, w)`; `labelled`, a dict of which of these
        the image really has; and `values`, its labels by column. Always in the same order.

    Raises:
        ValueError: if the split does not exist or the builder lacks a feature.

    Example:
        ```python
        import tempfile
        import mtl_keras as mtl

        builder = mtl.data.digits(train=4, val=2, image_size=(64, 64), data_dir=tempfile.mkdtemp())
        for example in mtl.data.examples(builder, "val").as_numpy_iterator():
            assert example["boxes"].shape == (len(example["classes"]), 4)
        ```
    """
    import tensorflow as tf

    def decode(example: dict[str, Any]) -> dict[str, Any]:
        decoded = _decode(example)
        decoded["instances"], decoded["mask"] = maps.unpack(maps.pack(decoded)[..., 0], decoded)
        decoded["filename"] = example["image/filename"]
        decoded["id"] = example["image/id"]
        return decoded

    ds = _read(builder, split).map(decode, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    return untuned(ds)


def _needs(task: Any, own: dict[str, str]) -> tuple[str, ...]:
    return ("label",) if task.name in own else tuple(getattr(task, "needs", ()))


def _columns(builder: Any, tasks: list, columns: dict[str, str]) -> dict[str, str]:
    """The column of each task that learns one."""
    known = sorted(builder.info.features["values"]) if "values" in builder.info.features else []
    names = [task.name for task in tasks]
    unknown = sorted(set(columns) - set(names))
    if unknown:
        raise ValueError(f"`columns` names unknown tasks {unknown}; the tasks are {names}")
    wrong = sorted(set(columns.values()) - set(known))
    if wrong:
        raise ValueError(f"`columns` names {wrong}; the columns of the set are {known}")
    own = {**{name: name for name in names if name in known}, **columns}
    for task in tasks:
        if "label" in getattr(task, "needs", ()) and task.name not in own:
            raise ValueError(
                f"task {task.name!r} needs a label of the whole image; name the column it learns, "
                f"columns={{{task.name!r}: ...}}; the columns of the set are {known}"
            )
    return own


def _partial(builder: Any, split: str, tasks: list, own: dict[str, str]) -> bool:
    """Whether any image may lack a label that a task needs; an error where all of them do."""
    if "labelled" not in builder.info.features:
        return False
    metadata = builder.info.metadata or {}
    counts = metadata.get("counts", {}).get(split.split("[")[0])
    if counts is None:
        return False
    images = metadata.get("images", {}).get(split.split("[")[0])
    if images is None:
        images = builder.info.splits[split.split("[")[0]].num_examples
    partial = False
    for task in tasks:
        for kind in _needs(task, own):
            count = counts[own[task.name] if kind == "label" else kind]
            if not count:
                raise ValueError(
                    f"task {task.name!r} needs {kind!r}, and no image of split {split!r} is "
                    f"labelled with it; labelled are { ({k: n for k, n in counts.items() if n}) }"
                    f"{'. ' * ('advice' in metadata)}{metadata.get('advice', '')}"
                )
            partial |= count < images
    return partial


def _size(image_size: Any) -> tuple[int, int]:
    size = (image_size, image_size) if isinstance(image_size, (int, np.integer)) else image_size
    if not isinstance(size, (tuple, list)) or len(size) != 2 or min(size) < 1:
        raise ValueError(
            f"`image_size` should be (height, width) in pixels or one positive int, got "
            f"{image_size!r}"
        )
    return int(size[0]), int(size[1])


def _shuffle_buffer(builder: Any) -> int:
    """How many images (still encoded) fit into half a gigabyte."""
    total = sum(info.num_examples for info in builder.info.splits.values())
    bytes_each = max(1, builder.info.dataset_size // max(1, total))
    return SHUFFLE_BYTES // bytes_each


def _read(builder: Any, split: str) -> Any:
    """Examples with images still encoded, so that shuffling holds little in memory."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    lacking = [key for key in ("image", "image/id", "objects", "instances") if key not in features]
    if lacking:
        raise ValueError(
            f"the builder {builder.info.full_name!r} lacks the features {lacking}; make it with "
            "mtl_keras.data.from_coco, or give it the features that from_coco documents"
        )
    known = sorted(builder.info.splits)
    try:
        count = builder.info.splits[split].num_examples
    except (KeyError, ValueError, AttributeError, TypeError, AssertionError) as error:
        raise ValueError(
            f"`split` should be one of {known} or part of one, got {split!r}"
        ) from error
    if not count:
        raise ValueError(f"the split {split!r} holds no images; the splits are {known}")
    if features["objects"]["label"].num_classes > IGNORE - 1:
        raise ValueError(
            f"the builder has {features['objects']['label'].num_classes} classes; masks can tell "
            f"at most "
            f"{IGNORE - 1} apart, because {IGNORE} means ignored"
        )
    pictures = [key for key in ("image", "instances", "mask") if key in features]
    return builder.as_dataset(
        split=split,
        shuffle_files=False,
        decoders={key: tfds.decode.SkipDecoding() for key in pictures},
        read_config=tfds.ReadConfig(try_autocache=False),
    )


def _repeated(encoded: Any, size: tuple[int, int], augment: Augment) -> Any:
    """Large images several times an epoch."""
    import tensorflow as tf

    def repeats(example: dict[str, Any]) -> Any:
        # The header of a PNG holds width and height; nothing is decoded to know them.
        sides = tf.io.decode_raw(
            tf.strings.substr(example["instances"], 16, 8), tf.int32, little_endian=False
        )
        return augment.repeats(sides[1], sides[0], size)

    count = int(encoded.map(repeats).reduce(tf.constant(0, tf.int64), lambda a, b: a + b))
    repeated = encoded.flat_map(
        lambda example: tf.data.Dataset.from_tensors(example).repeat(repeats(example))
    )
    return repeated.apply(tf.data.experimental.assert_cardinality(count))


def _decode(example: dict[str, Any]) -> dict[str, Any]:
    import tensorflow as tf

    image = tf.io.decode_image(example["image"], channels=3, expand_animations=False)
    objects = example["objects"]
    more = {}
    if "mask" in example:
        more["mask"] = tf.io.decode_png(example["mask"], channels=1)
    every = {kind: tf.constant(True) for kind in KINDS}
    return {
        **more,
        "labelled": {**every, **example.get("labelled", {})},
        "values": example.get("values", {}),
        "image": tf.ensure_shape(image, (None, None, 3)),
        "instances": tf.io.decode_png(example["instances"], channels=1, dtype=tf.uint16),
        "boxes": tf.reshape(objects["bbox"], [-1, 4]),
        "classes": tf.cast(objects["label"], tf.int32),
        "is_crowd": objects["is_crowd"],
    }


def _letterboxed(example: dict[str, Any], size: tuple[int, int]) -> tuple[Any, dict[str, Any]]:
    import tensorflow as tf

    image, (new_h, new_w) = letterbox(example["image"], size)
    shape = tf.shape(example["image"])
    packed = tf.image.resize(maps.pack(example), tf.stack([new_h, new_w]), "nearest")
    pad = [[0, size[0] - new_h], [0, size[1] - new_w]]
    instances, mask = maps.unpack(packed[..., 0], example)
    # The sides are whole pixels, so that each axis has a factor of its own.
    factor = tf.cast(tf.stack([new_w, new_h]), tf.float32) / tf.cast(shape[1::-1], tf.float32)
    return image, {
        "boxes": example["boxes"] * tf.concat([factor, factor], 0),
        "classes": example["classes"],
        "is_crowd": example["is_crowd"],
        "mask": tf.ensure_shape(tf.pad(mask, pad, constant_values=IGNORE), size),
        "instances": tf.ensure_shape(tf.pad(instances, pad), size),
        "labelled": example["labelled"],
        "values": example["values"],
    }
