"""Augmentation: image, boxes, instances and masks stay in step, whatever is done to them."""

import json

import keras
import numpy as np
import pytest

from mtl_keras.data import Augment, batches, builder
from mtl_keras.data.preview import _tile

SIZE = (96, 128)
PLAIN = {"scale": (0.6, 1.6), "flip": None, "colour": 0.0}
ALONE = {
    "window": {"flip": "both", "rotate90": True, "keep_objects": 0.5},
    "scale": {},
    "flip": {"flip": "both"},
    "rotate90": {"rotate90": True},
    "keep_objects": {"keep_objects": 1.0},
    "mosaic": {"mosaic": 1.0},
    "copy_paste": {"copy_paste": 1.0},
    "mixup": {"mixup": 1.0},
    "cutout": {"cutout": 1.0},
    "together": {
        "flip": "both",
        "rotate90": True,
        "keep_objects": 0.5,
        "mosaic": 0.5,
        "copy_paste": 0.7,
        "cutout": 0.5,
    },
    "all": {
        "flip": "both",
        "rotate90": True,
        "keep_objects": 0.5,
        "mosaic": 0.5,
        "copy_paste": 0.5,
        "cutout": 0.5,
        "mixup": 0.5,
        "colour": 0.4,
        "hue": 0.2,
        "grayscale": 0.2,
        "invert": 0.2,
    },
}


class Labels:
    """A stand-in for a task: its targets are its labels."""

    def __init__(self, name="labels", needs=(), **more):
        self.name, self.needs = name, needs
        self.__dict__.update(more)

    def encode(self, labels, image_size):
        keys = ("boxes", "classes", "is_crowd", "mask", "instances", "labelled")
        return {key: labels[key] for key in keys} | (
            {"label": labels["label"]} if "label" in labels else {}
        )


def scene(rng, height, width, objects):
    """An image with ellipses and rectangles, none over another: each of a colour of its own.

    Red tells the class (50, 100, ...), green the object, blue is 30; background is red 0.
    """
    image = np.zeros((height, width, 3), "uint8")
    image[..., 2] = 30
    instances = np.zeros((height, width), "uint16")
    boxes, classes = [], []
    for _ in range(objects * 4):
        h, w = rng.integers(20, 50, 2)
        # Some reach beyond the border, where the image ends.
        y, x = rng.integers(-15, height - 10), rng.integers(-15, width - 10)
        rows, columns = np.mgrid[:height, :width]
        shape = (rows >= y) & (rows < y + h) & (columns >= x) & (columns < x + w)
        if rng.random() < 0.5:
            shape &= ((rows + 0.5 - y - h / 2) / h * 2) ** 2 + (
                (columns + 0.5 - x - w / 2) / w * 2
            ) ** 2 <= 1
        if len(boxes) == objects or shape.sum() < 150 or (instances[shape] > 0).any():
            continue
        kind = int(rng.integers(0, 3))
        image[shape] = (50 * (kind + 1), 40 + 15 * len(boxes), 30)
        boxes.append(bounds(shape))
        classes.append(kind)
        instances[shape] = len(boxes)
    return image, np.array(boxes, "float32").reshape(-1, 4), classes, instances


def bounds(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], "float32")


def prepared(folder, examples, name="scenes", labels=("a", "b", "c")):
    def generate():
        for i, one in enumerate(examples):
            image, boxes, classes, instances, more = one
            yield (
                i,
                builder.example(
                    builder.png_bytes(image),
                    f"{i}.png",
                    i,
                    boxes,
                    classes,
                    more.pop("is_crowd", [False] * len(classes)),
                    instances,
                    **more,
                ),
            )

    splits = {"train": (len(examples), generate)}
    return builder.prepare(name, "one", labels, splits, str(folder), "test scenes")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Images of many sizes; one is empty, one has a crowd, one something that nobody knows."""
    rng = np.random.default_rng(0)
    examples = []
    for i in range(24):
        height, width = (int(v) for v in rng.integers(60, 200, 2))
        examples.append([*scene(rng, height, width, 0 if i == 0 else 6), {}])
    examples[1][4]["is_crowd"] = [True] + [False] * (len(examples[1][2]) - 1)
    unknown = examples[2][3]
    unknown[:20, :20] = np.where(unknown[:20, :20] == 0, builder.IGNORED, unknown[:20, :20])
    return prepared(tmp_path_factory.mktemp("scenes"), examples)


def epochs(ds, count):
    for batch in ds.repeat(count):
        targets = {name: {**t} for name, t in batch[1].items()}
        yield batch[0][0].numpy(), keras.tree.map_structure(lambda t: t[0].numpy(), targets)


def same_around(values, by):
    """Where a map holds one value in a square with a radius of `by` pixels."""
    padded = np.pad(values, by, mode="edge")
    height, width = values.shape
    windows = [
        padded[y : y + height, x : x + width] for y in range(2 * by + 1) for x in range(2 * by + 1)
    ]
    return np.min(windows, 0) == np.max(windows, 0)


# By default these are tested in "window" and "together".
SLOW = ("scale", "flip", "rotate90", "keep_objects", "copy_paste", "cutout")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in ALONE]
)
def test_everything_moves_together(scenes, name):
    augment = Augment(**{**PLAIN, **ALONE[name]})
    blends = augment.mixup > 0
    ds = batches(scenes, "train", [Labels()], SIZE, 1, augment, seed=3)
    assert int(ds.cardinality()) == 24
    seen, interior, parts = 0, 0, 0
    for image, targets in epochs(ds, 3):
        labels = targets["labels"]
        boxes, instances, mask = labels["boxes"], labels["instances"], labels["mask"]
        seen += 1
        assert image.shape == (*SIZE, 3) and np.isfinite(image).all()
        assert image.min() >= 0 and image.max() <= 255.01 and np.isfinite(boxes).all()
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= SIZE[::-1]).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= 1).all()
        assert len(boxes) == len(labels["classes"]) == len(labels["is_crowd"])
        assert instances.min() >= 0 and instances.max() <= len(boxes)
        assert set(np.unique(mask)) <= {0, 1, 2, 3, 255}
        assert all(labels["labelled"].values())
        for i, box in enumerate(boxes):
            pixels = instances == i + 1
            if blends and not pixels.any():
                continue  # wholly behind an object of the stronger image, which shows it still
            found = bounds(pixels)
            parts += 1
            if blends:  # partly behind one
                assert (found[:2] >= box[:2] - 1).all() and (found[2:] <= box[2:] + 1).all()
                assert set(np.unique(mask[pixels])) <= {labels["classes"][i] + 1, 255}
            else:
                assert np.abs(found - box).max() <= 1.0
                crowd = labels["is_crowd"][i]
                assert (mask[pixels] == (255 if crowd else labels["classes"][i] + 1)).all()
        if not blends and name != "all":
            # Colours tell what each pixel is, edges apart, where pixels of the image are blended.
            known = same_around(instances * 1000 + mask, 4) & (mask != 255)
            # Beside a seam, the blended edge of an object that ends there may be left.
            right = np.abs(image[known][:, 0] - 50 * mask[known]) < 1.5
            assert right.mean() > 0.99 if augment.mosaic else right.all()
            interior += right.sum()
            for i in range(len(boxes)):
                green = image[known & (instances == i + 1)][:, 1]
                if len(green) and not augment.mosaic:
                    assert np.ptp(green) < 2 and green[0] >= 39
    assert seen == 72 and parts > 150 and (interior > 60_000 or blends)


def test_colours_touch_no_geometry(scenes):
    plain = Augment(scale=(0.6, 1.6), flip="both", colour=0.0, mosaic=0.5, cutout=0.5)
    config = plain.get_config() | {"colour": 0.5, "hue": 0.3, "invert": 0.5, "grayscale": 0.5}
    pairs = zip(
        epochs(batches(scenes, "train", [Labels()], SIZE, 1, plain), 1),
        epochs(batches(scenes, "train", [Labels()], SIZE, 1, Augment(**config)), 1),
        strict=True,
    )
    changed = 0
    for (one, targets), (two, others) in pairs:
        keras.tree.map_structure(np.testing.assert_array_equal, targets, others)
        padding = (targets["labels"]["mask"] == 255) & (one == 114).all(-1)
        assert (two[padding] == 114).all()
        changed += np.abs(one - two).mean() > 5
    assert changed > 20


def test_same_seed_same_batches(scenes):
    augment = Augment.preset("strong", upright=False)

    def sums():
        ds = batches(scenes, "train", [Labels()], 64, 1, augment, seed=5)
        return [
            [float(image.sum(dtype="float64")), float(t["labels"]["boxes"].sum())]
            for image, t in epochs(ds, 2)
        ]

    first = sums()
    assert first == sums() and len(first) == 48
    assert sorted(first[:24]) != sorted(first[24:])


def test_windows_keep_objects(tmp_path):
    """One small object in a large image: found always, or as seldom as chance has it."""
    examples = []
    for i in range(30):
        image = np.zeros((200, 200, 3), "uint8")
        instances = np.zeros((200, 200), "uint16")
        y, x = np.random.default_rng(i).integers(0, 190, 2)
        instances[y : y + 10, x : x + 10] = 1
        examples.append((image, [bounds(instances > 0)], [0], instances, {}))
    small = prepared(tmp_path, examples)

    def whole(**more):
        augment = Augment(scale=(1, 1), flip=None, colour=0, reference_size=(200, 200), **more)
        ds = batches(small, "train", [Labels()], 48, 1, augment)
        return [(t["labels"]["instances"] > 0).sum() == 100 for _, t in epochs(ds, 2)]

    assert all(whole(keep_objects=1.0, rotate90=True))
    assert np.mean(whole()) < 0.3
    # The parts of a mosaic are drawn so, too.
    ds = batches(
        small,
        "train",
        [Labels()],
        48,
        1,
        Augment(**PLAIN | {"scale": (1, 1)}, reference_size=(200, 200), keep_objects=1, mosaic=1),
    )
    assert np.mean([len(t["labels"]["boxes"]) for _, t in epochs(ds, 1)]) > 3.5


def test_extreme_images(tmp_path):
    """1 x 1 and 20000 x 10 pixels, among others, mixed with one another."""
    rng = np.random.default_rng(1)
    examples = [[*scene(rng, 90, 120, 5), {}] for _ in range(3)]
    for height, width in ((1, 1), (20000, 10), (10, 20000), (2, 3)):
        image = rng.integers(0, 255, (height, width, 3), "uint8")
        instances = np.zeros((height, width), "uint16")
        instances[: min(100, height), : min(100, width)] = 1
        examples.append([image, [bounds(instances > 0)], [1], instances, {}])
    extreme = prepared(tmp_path, examples)
    augment = Augment(**{**PLAIN, **ALONE["all"], "scale": (0.05, 8)})
    for image, targets in epochs(batches(extreme, "train", [Labels()], 64, 1, augment), 2):
        labels = targets["labels"]
        assert image.shape == (64, 64, 3) and np.isfinite(image).all()
        assert np.isfinite(labels["boxes"]).all()
        assert labels["instances"].max() <= len(labels["boxes"])


def test_labels_that_images_lack(tmp_path):
    """Partners have the labels of the image; what is said of a whole image is not of a mosaic."""
    rng = np.random.default_rng(2)
    examples = []
    for i in range(24):
        image, boxes, classes, instances = scene(rng, 90, 120, 4)
        image[..., 2] = (100, 200)[i % 2]
        labelled = {"boxes": i % 2 == 0, "instances": i % 2 == 0}
        if i % 2:
            boxes, classes, instances = boxes[:0], [], instances * 0
        mask = (image[..., 0] // 50).astype("uint8")
        more = {"labelled": labelled, "mask": mask, "values": {"grade": float(i)}}
        examples.append((image, boxes, classes, instances, more))
    counts = {"train": {"boxes": 12, "instances": 12, "mask": 24, "grade": 24}}
    names = builder.Labels(("a", "b", "c"), ("a", "b", "c"), {"grade": None}, counts)
    partial = prepared(tmp_path, examples, labels=names)
    tasks = [Labels("objects", ("boxes",)), Labels("pixels", ("mask",)), Labels("grade")]
    for kind, hides in (("mosaic", True), ("mixup", True), ("copy_paste", False)):
        augment = Augment(scale=(0.8, 1.2), flip=None, colour=0, **{kind: 1.0})
        both, weighted = 0, 0
        for images, targets, weights in batches(partial, "train", tasks, SIZE, 1, augment):
            has = bool(weights["objects"][0])
            labels = keras.tree.map_structure(lambda t: t[0].numpy(), targets["objects"])
            assert has == labels["labelled"]["boxes"] and weights["pixels"][0] == 1
            assert (
                has
                or kind != "mosaic"
                or not set(np.unique(labels["instances"])) - {*range(len(labels["boxes"]) + 1)}
            )
            blue = images[0].numpy()[..., 2][labels["mask"] != 255]
            if kind != "mixup" and has:
                assert not (np.abs(blue - 200) < 2).any()  # of an image without boxes
            both += (np.abs(blue - 200) < 2).any() and (np.abs(blue - 100) < 2).any()
            weighted += float(weights["grade"][0])
            label = float(targets["grade"]["label"][0])
            assert np.isfinite(label) and (label == -1) == (weights["grade"][0] == 0)
        assert weighted == (0 if hides else 24)
        assert both > 0 or kind == "mixup"


@pytest.mark.parametrize(
    "kind", ["mosaic", "mixup", pytest.param("copy_paste", marks=pytest.mark.slow)]
)
def test_no_more_objects_than_a_task_takes(scenes, kind):
    augment = Augment(**PLAIN, **{kind: 1.0})
    ds = batches(scenes, "train", [Labels(), Labels("few", max_objects=7)], SIZE, 1, augment)
    counts = [len(t["few"]["boxes"]) for _, t in epochs(ds, 2)]
    assert max(counts) <= 7
    free = [
        len(t["labels"]["boxes"])
        for _, t in epochs(batches(scenes, "train", [Labels()], SIZE, 1, augment), 2)
    ]
    assert max(free) > 7


# === Single parts, by hand ===
def sample(rectangles, height=20, width=30, value=10, box_only=(), **more):
    """A sample of rectangles (x1, y1, x2, y2), the last ones on top; class = index."""
    import tensorflow as tf

    instances = np.zeros((height, width), "int32")
    for i, (x1, y1, x2, y2) in enumerate(rectangles):
        if i not in box_only:
            instances[y1:y2, x1:x2] = i + 1
    n = len(rectangles)
    made = {
        "image": np.full((height, width, 3), value, "uint8"),
        "instances": instances,
        "mask": instances,
        "boxes": np.array(rectangles, "float32").reshape(-1, 4),
        "classes": np.arange(n, dtype="int32"),
        "is_crowd": np.zeros(n, bool),
        "share": np.ones(n, "float32"),
        "drawn": np.array([i not in box_only for i in range(n)], bool),
        "labelled": {},
        "values": {},
    }
    return keras.tree.map_structure(tf.constant, made | more)


def pasted(target, source, min_visible=0.25, most=100):
    """Copy-paste with a seed for which every object of the source is chosen."""
    import tensorflow as tf

    from mtl_keras.data.augment import mixing

    count = len(source["classes"])
    for i in range(1000):
        seed = tf.constant([i, 0], tf.int64)
        if float(tf.reduce_max(tf.random.stateless_uniform([count], seed))) < 0.5:
            return mixing.copy_paste(target, source, min_visible, most, seed)
    raise AssertionError("no such seed")


def test_copy_paste_by_hand():
    target = sample([(0, 0, 10, 10), (20, 0, 25, 5), (12, 12, 18, 18), (26, 12, 30, 16)], 20, 30)
    source = sample([(5, 0, 12, 12), (20, 0, 25, 5), (26, 12, 27, 16)], value=200)
    result = pasted(target, source)
    # Half of the first is hidden, the second wholly, the third not, of the fourth one column.
    np.testing.assert_array_equal(
        result["boxes"],
        [
            [0, 0, 5, 10],
            [12, 12, 18, 18],
            [27, 12, 30, 16],
            [5, 0, 12, 12],
            [20, 0, 25, 5],
            [26, 12, 27, 16],
        ],
    )
    np.testing.assert_array_equal(result["classes"], [0, 2, 3, 0, 1, 2])
    instances = result["instances"].numpy()
    for i, box in enumerate(result["boxes"].numpy()):
        np.testing.assert_array_equal(bounds(instances == i + 1), box)
    np.testing.assert_array_equal(result["image"][..., 0] == 200, np.isin(instances, (4, 5, 6)))
    np.testing.assert_array_equal(result["share"], [0.5, 1, 0.75, 1, 1, 1])
    # What is too little to stay on the list is no object, and no background either.
    strict = pasted(target, source, min_visible=0.6)
    assert strict["classes"].numpy().tolist() == [2, 3, 0, 1, 2]
    assert strict["instances"][0, 0] == 0 and strict["mask"][0, 0] == 1
    # No more than there is room for.
    assert pasted(target, source, most=5)["classes"].numpy().tolist() == [0, 1, 2, 3, 0]
    assert len(pasted(target, source, most=4)["boxes"]) == 4


def test_copy_paste_leaves_what_it_cannot_paste():
    source = sample([(0, 0, 9, 9), (10, 0, 15, 5), (20, 0, 25, 5)], box_only=(1,))
    source["is_crowd"] = np.array([True, False, False])
    target = sample([])
    target["instances"] = np.where(np.arange(30) < 24, 0, -1)[None].repeat(20, 0).astype("int32")
    result = pasted(target, source)
    # A crowd, an object without pixels, and one that would lie on padding.
    assert len(result["boxes"]) == 0 and (result["image"].numpy() == 10).all()


def test_objects_known_by_their_box_alone_are_covered_by_its_area():
    target = sample([(0, 0, 10, 10), (20, 0, 30, 10)], box_only=(0, 1))
    source = sample([(0, 0, 8, 10), (20, 0, 25, 10)])
    result = pasted(target, source)
    np.testing.assert_array_equal(result["classes"], [1, 0, 1])
    np.testing.assert_array_equal(result["boxes"][0], [20, 0, 30, 10])
    assert abs(float(result["share"][0]) - 0.5) < 1e-6


def test_mixup_by_hand():
    import tensorflow as tf

    from mtl_keras.data.augment import mixing

    one = sample([(0, 0, 10, 10)], value=200)
    other = sample([(20, 10, 28, 18), (4, 4, 14, 14)], value=100)
    padding = other["instances"].numpy()
    padding[:, 29] = -1
    other["instances"], other["mask"] = tf.constant(padding), tf.abs(padding)
    weights = []
    for i in range(200):
        result = mixing.mixup(one, other, 10, tf.constant([i, 1], tf.int64))
        image = result["image"].numpy().astype(int)
        weights.append((image[0, 0, 0] - 100) / 100)
        assert (image[:, :29] == image[0, 0]).all() and (image[:, 29] == 200).all()
    assert 0.5 <= min(weights) < 0.52 and 0.95 < max(weights) <= 1
    # E[max(b, 1 - b)] of Beta(1.5, 1.5), whose density is 8 / pi * sqrt(x (1 - x)).
    expected = 0.5 + 8 / np.pi * 2 * (0.25**1.5 / 3)
    assert abs(np.mean(weights) - expected) < 0.03
    np.testing.assert_array_equal(result["classes"], [0, 0, 1])
    np.testing.assert_array_equal(result["boxes"][2], [4, 4, 14, 14])
    instances, mask = result["instances"].numpy(), result["mask"].numpy()
    assert (instances[:10, :10] == 1).all() and instances[12, 12] == 3 and instances[12, 22] == 2
    assert mask[0, 0] == 255 and mask[0, 20] == 0 and (mask[:, 29] == 0).all()
    crowded = mixing.mixup(one, other, 2, tf.constant([0, 1], tf.int64))
    assert len(crowded["boxes"]) == 1 and (crowded["image"].numpy() == 200).all()


def test_cutout_by_hand():
    import tensorflow as tf

    from mtl_keras.data.augment.cutout import cutout

    whole = sample([(0, 0, 30, 20)])
    small = sample([(x, y, x + 2, y + 2) for x in range(0, 30, 3) for y in range(0, 20, 3)][:60])
    sides, dropped = [], 0
    for i in range(60):
        seed = tf.constant([i, 0], tf.int64)
        result = cutout(whole, 0.25, seed)
        hole = result["instances"].numpy() == -1
        np.testing.assert_array_equal(result["mask"].numpy() == 255, hole)
        if hole.any():
            x1, y1, x2, y2 = bounds(hole)
            assert hole.sum() == (x2 - x1) * (y2 - y1)  # a rectangle
            if min(x1, y1) > 0 and x2 < 30 and y2 < 20:
                sides.append(x2 - x1)
                assert abs((x2 - x1) - (y2 - y1)) <= 1
        np.testing.assert_array_equal(result["boxes"][0], bounds(~hole))
        result = cutout(small, 0.3, seed)
        before, after = small["instances"].numpy(), result["instances"].numpy()
        left = [(after[before == k + 1] != -1).sum() / (before == k + 1).sum() for k in range(60)]
        kept = np.flatnonzero(np.array(left) >= 0.3)
        np.testing.assert_array_equal(result["classes"], kept)
        dropped += 60 - len(kept)
    assert min(sides) >= 1 and 6 < max(sides) <= 9 and dropped > 20


def test_hue_turns_and_keeps_luma():
    import tensorflow as tf

    image = np.random.default_rng(0).uniform(80, 160, (4, 4, 3)).astype("float32")
    differences = []
    for i in range(20):
        changed = Augment(colour=0, hue=0.5).colours(
            tf.constant(image), tf.constant([i, 0], "int64")
        )
        differences.append(np.abs(changed - image).mean())
        luma = [x @ np.array([0.299, 0.587, 0.114]) for x in (image, changed.numpy())]
        np.testing.assert_allclose(*luma, atol=0.1)
    assert max(differences) > 15 and min(differences) < 8


# === Configuration ===
@pytest.mark.parametrize("upright", [True, False])
def test_presets(upright):
    presets = {n: Augment.preset(n, upright) for n in ("none", "light", "medium", "strong")}
    assert presets["none"].scale == (1, 1) and not presets["none"].mixes
    assert not presets["light"].mixes and presets["medium"].mixes
    for name, augment in presets.items():
        assert augment.rotate90 == (not upright and name != "none")
        copy = Augment.from_config(json.loads(json.dumps(augment.get_config())))
        assert copy == augment
    assert Augment.preset("strong", upright, flip=None, mosaic=0.0).flip is None
    for field in ("colour", "hue", "mosaic", "copy_paste", "mixup", "cutout"):
        values = [getattr(augment, field) for augment in presets.values()]
        assert values == sorted(values) and values[0] == 0 < values[-1]
    with pytest.raises(ValueError, match="`strength`.*'medium'.*'heavy'"):
        Augment.preset("heavy")


def test_old_configurations_load():
    old = {
        "scale": [0.6, 1.6],
        "flip": "both",
        "rotate90": True,
        "colour": 0.4,
        "grayscale": 0.15,
        "invert": 0.15,
        "min_visible": 0.25,
        "reference_size": [1024, 1024],
        "cover": 0.7,
    }
    augment = Augment.from_config(old)
    assert not augment.mixes and not augment.cutout and not augment.keep_objects
    assert old.items() <= augment.get_config().items()


@pytest.mark.parametrize(
    "field", ["mosaic", "copy_paste", "mixup", "cutout", "keep_objects", "hue"]
)
def test_arguments(field):
    with pytest.raises(ValueError, match=f"`{field}`.*1.5"):
        Augment(**{field: 1.5})


def test_preview(scenes):
    pytest.importorskip("cv2")
    import mtl_keras as mtl

    picture = mtl.data.preview(scenes, "train", Augment.preset("medium"), SIZE, count=5)
    assert picture.size == (3 * 128 + 2 * 8, 2 * 96 + 8) and picture.mode == "RGB"
    pixels = np.asarray(picture)
    assert (pixels[-96:, -128:] == 255).all()  # five images, six places
    few = mtl.data.preview(scenes, "train[:2]", None, 64)
    assert few.size == (2 * 64 + 8, 64)
    # Padding is hatched, and what is not labelled is not drawn.
    (image, targets), _ = epochs(batches(scenes, "train[:2]", [Labels()], 64, 1), 1)
    hatched = (np.asarray(few)[:64, :64] == 150).all(-1)
    assert hatched.any() and (image[hatched] == 114).all()
    unlabelled = dict.fromkeys(("boxes", "mask", "instances"), False)
    bare = _tile(image, targets["labels"] | {"labelled": unlabelled}, [])
    np.testing.assert_array_equal(np.asarray(bare), np.rint(image))
    for count in (0, True, 2.5):
        with pytest.raises(ValueError, match="`count`"):
            mtl.data.preview(scenes, "train", count=count)
