"""A trunk, data and models small enough that a test may train them."""

import keras
import numpy as np
from keras import layers

import mtl_keras as mtl

TRUNK = "toy_trunk"
SIZE = (64, 64)


def _block(filters, name):
    def build(x):
        x = layers.Conv2D(
            filters, 3, strides=2, padding="same", use_bias=False, name=f"{name}_conv"
        )(x)
        x = layers.BatchNormalization(name=f"{name}_bn")(x)
        return layers.Activation("relu", name=f"{name}_relu")(x)

    return build


def _with_residual_block(filters, name):
    def build(x):
        x = shortcut = _block(filters, name)(x)
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise_conv")(x)
        x = layers.BatchNormalization(name="depthwise_bn")(x)
        x = layers.Activation("relu", name="depthwise_relu")(x)
        x = layers.Conv2D(filters, 1, use_bias=False, name="project_conv")(x)
        x = layers.BatchNormalization(name="project_bn")(x)
        return layers.Add(name="add")([x, shortcut])

    return build


def _stages():
    def stem(x):
        return _block(8, "stem")(layers.Rescaling(1 / 127.5, -1.0, name="preprocessing")(x))

    levels = ("P2", "P3", "P4", "P5")
    return [
        mtl.trunks.Stage("stem", None, stem),
        *(
            mtl.trunks.Stage(f"stage{p}", p, kind(16, f"stage{p}"))
            for p, kind in zip(
                levels, (_block, _with_residual_block, _with_residual_block, _block), strict=True
            )
        ),
    ]


if TRUNK not in mtl.trunks.names():
    mtl.trunks.register(TRUNK)(_stages)


def trunk():
    """Five convolutions with BatchNorm and two residual blocks, levels P2 to P5."""
    return mtl.trunks.create(TRUNK)


def detection(**arguments):
    """A narrow detection task of three classes."""
    given = {"num_classes": 3, "channels": 8, "depth": 1, "max_objects": 8, "max_detections": 20}
    return mtl.tasks.Detection(**{**given, **arguments})


def segmentation(**arguments):
    """A narrow segmentation task of four classes."""
    return mtl.tasks.Segmentation(**{"num_classes": 4, "channels": 8, **arguments})


def distance(**arguments):
    """A narrow task of distances to the boundary."""
    return mtl.tasks.BoundaryDistance(**{"channels": 8, **arguments})


def model(tasks=None, sharing=None, seed=0):
    """A network of both tasks on the toy trunk."""
    keras.utils.set_random_seed(seed)
    return mtl.build(
        trunk(),
        tasks or [detection(), segmentation()],
        sharing or mtl.sharing.HardSharing(neck_channels=8),
        SIZE,
    )


def labels(objects, size=SIZE, classes=3, seed=0):
    """Random labels of one image, as `mtl_keras.data.batches` hands them to `encode`."""
    rng = np.random.default_rng(seed)
    height, width = size
    low = rng.uniform(0, 0.7, (objects, 2)) * (width, height)
    high = np.minimum(low + rng.uniform(4, 30, (objects, 2)), (width, height))
    boxes = np.concatenate([low, high], -1).astype("float32")
    kinds = rng.integers(0, classes, objects).astype("int32")
    mask = np.zeros(size, "int32")
    instances = np.zeros(size, "int32")
    for i, (x0, y0, x1, y1) in enumerate(np.rint(boxes).astype(int)):
        mask[y0:y1, x0:x1] = kinds[i] + 1
        instances[y0:y1, x0:x1] = i + 1
    crowd = np.zeros(objects, bool)
    return {
        "boxes": boxes,
        "classes": kinds,
        "is_crowd": crowd,
        "mask": mask,
        "instances": instances,
    }


def targets(task, *several):
    """Encodes labels of several images with NumPy only, and batches them."""
    if isinstance(task, mtl.tasks.Segmentation):
        return {"mask": np.stack([one["mask"] for one in several]).astype("uint8")}
    if isinstance(task, mtl.tasks.BoundaryDistance):
        return {"distance": np.stack([relative_distance(one) for one in several])}
    boxes = np.zeros((len(several), task.max_objects, 4), "float32")
    classes = np.full((len(several), task.max_objects), -1, "int32")
    crowd = np.zeros((len(several), task.max_objects), bool)
    for i, one in enumerate(several):
        n = len(one["boxes"])
        boxes[i, :n], classes[i, :n] = one["boxes"], one["classes"]
        crowd[i, :n] = one["is_crowd"]
    return {"boxes": boxes, "classes": classes, "is_crowd": crowd}


def relative_distance(labels):
    """Distances to the boundary by SciPy, one instance after the other, in labels without padding.

    Crowds and what is in the mask alone are -1.
    """
    from scipy.ndimage import distance_transform_edt

    instances = labels["instances"]
    distance = np.where((instances == 0) & (labels["mask"] != 0), -1.0, 0.0).astype("float32")
    for number in set(np.unique(instances)) - {0}:
        own = instances == number
        inside = distance_transform_edt(own).astype("float32")[own]
        relative = inside / inside.max() if not own.all() else 1.0
        distance[own] = -1.0 if labels["is_crowd"][number - 1] else relative
    return distance


def batch(tasks, images=4, seed=0):
    """Images on which the objects can be seen, and the targets of each task."""
    several = [labels(3, seed=seed + i) for i in range(images)]
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 40, (images, *SIZE, 3))
    x += np.stack([one["mask"] for one in several])[..., None] * 60.0
    return x.astype("float32"), {task.name: targets(task, *several) for task in tasks}


def arrays(variables):
    """Copies of variables as NumPy arrays."""
    return [np.array(v.numpy()) for v in variables]


def same(a, b):
    """Whether two lists of arrays are equal bit by bit."""
    return len(a) == len(b) and all(
        x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True)
    )
