"""keras-cv's input pipeline with what ours does, for input_pipeline.py.

Both ways read the same records with the same encoded pictures, and end in the same targets. Their
scale is that of the letterbox too: keras-cv scales by a factor of the picture's own size, so that
the factors are multiplied by the set's median letterbox scale.

- "as documented": `JitteredResize` in a `map` over single pictures, as its docstring shows it, then
  `ragged_batch` (boxes are ragged), a `map` of `RandomFlip` and `RandomColorJitter` over batches,
  and `to_dense`, as keras-cv's guide of object detection writes it. That guide has all layers
  behind `ragged_batch`, which fails where there are masks of several sizes.
- "best": all layers in one `map` over single pictures, and brightness, contrast and saturation by
  their own layers, since `RandomColorJitter` cannot leave the hue, which is its slowest part.

Where the two sides do not do the same: keras-cv resizes without antialiasing, and resizes the whole
picture before it crops; ours crops first. keras-cv changes hue in "as documented".
"""

from typing import Any

FLIP, SCALE, COLOUR = "horizontal", (0.5, 2.0), 0.3
DOCUMENTED, BEST = "keras-cv as documented", "keras-cv at its best"


def encoded(builder: Any, split: str) -> Any:
    """The records of a split in a new order, pictures as they are in the file."""
    import tensorflow_datasets as tfds

    pictures = [key for key in ("image", "instances") if key in builder.info.features]
    ds = builder.as_dataset(
        split=split,
        decoders={key: tfds.decode.SkipDecoding() for key in pictures},
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    return ds.shuffle(int(ds.cardinality()), seed=0)


def decode(example: dict) -> dict:
    """A record as keras-cv's layers want it."""
    import tensorflow as tf

    objects = example["objects"]
    image = tf.io.decode_image(example["image"], channels=3, expand_animations=False)
    instances = tf.io.decode_png(example["instances"], channels=1, dtype=tf.uint16)
    values = tf.where(objects["is_crowd"], 255, tf.cast(objects["label"], "int32") + 1)
    table = tf.cast(tf.concat([[0], values], 0), "float32")
    known = tf.minimum(tf.cast(instances, "int32"), tf.size(values))
    return {
        "images": tf.cast(tf.ensure_shape(image, (None, None, 3)), "float32"),
        "bounding_boxes": {
            "boxes": tf.reshape(objects["bbox"], [-1, 4]),
            "classes": tf.cast(objects["label"], "float32"),
        },
        "segmentation_masks": tf.gather(table, known),
    }


def median_scale(builder: Any, split: str, size: int) -> float:
    """The letterbox scale in the middle of a split."""
    import numpy as np

    import mtl_keras as mtl

    shapes = [
        (int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big"))
        for png in (example["instances"] for example in encoded(builder, split).as_numpy_iterator())
    ]
    scales = [float(mtl.data.letterbox_scale(*shape, (size, size))[0]) for shape in set(shapes)]
    scale_of = dict(zip(set(shapes), scales, strict=True))
    return float(np.median([scale_of[shape] for shape in shapes]))


def pipeline(
    way: str, builder: Any, split: str, size: int, batch: int, max_objects: int, scale: float
) -> Any:
    """A `tf.data.Dataset` of images and targets of detection and segmentation.

    Args:
        way: `"keras-cv as documented"` or `"keras-cv at its best"`.
        builder: A prepared TFDS builder.
        split: Name of a split.
        size: Height and width in pixels.
        batch: Images in a batch.
        max_objects: Boxes that a picture has at most.
        scale: Letterbox scale of the set.

    Returns:
        The data set; its cardinality is that of the split.
    """
    import tensorflow as tf
    from keras_cv import bounding_box, layers
    from tensorflow.data import AUTOTUNE

    resize = layers.JitteredResize(
        target_size=(size, size),
        scale_factor=(SCALE[0] * scale, SCALE[1] * scale),
        bounding_box_format="xyxy",
    )
    flip = layers.RandomFlip(FLIP, bounding_box_format="xyxy")
    # As strong as our colour=0.3. For keras-cv a saturation of 0.5 leaves the image.
    saturation = (0.5 - COLOUR / 2, 0.5 + COLOUR / 2)
    if way == DOCUMENTED:
        jitter = layers.RandomColorJitter(
            value_range=(0, 255),
            brightness_factor=COLOUR / 4,
            contrast_factor=COLOUR,
            saturation_factor=saturation,
            hue_factor=0.05,
        )
        augmentation = [flip, jitter]
    else:
        augmentation = [
            resize,
            flip,
            layers.RandomBrightness(COLOUR / 4, value_range=(0, 255)),
            layers.RandomContrast((0, 255), COLOUR),
            layers.RandomSaturation(saturation),
        ]

    def augment(inputs: dict) -> dict:
        for layer in augmentation:
            inputs = layer(inputs)
        return inputs

    def finish(inputs: dict) -> tuple:
        dense = bounding_box.to_dense(inputs["bounding_boxes"], max_boxes=max_objects)
        return inputs["images"], {
            "detection": {
                "boxes": dense["boxes"],
                "classes": tf.cast(dense["classes"], "int32"),
                "is_crowd": tf.zeros_like(dense["classes"], "bool"),
            },
            "segmentation": {"mask": tf.cast(inputs["segmentation_masks"][..., 0], "uint8")},
        }

    first = resize if way == DOCUMENTED else augment
    ds = encoded(builder, split).map(lambda example: first(decode(example)), AUTOTUNE)
    ds = ds.ragged_batch(batch)
    if way == DOCUMENTED:
        ds = ds.map(augment, AUTOTUNE)
    return ds.map(finish, AUTOTUNE).prefetch(AUTOTUNE)
