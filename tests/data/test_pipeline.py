import keras
import numpy as np
import pytest
from PIL import Image

from mtl_keras.data import Augment, batches, examples, from_coco

FREE = Augment(scale=(0.4, 2.5), flip="both", rotate90=True, colour=0)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory, coco_folder_class):
    """Eight grey images of several sizes with rectangles, each in a brightness of its own."""
    folder = coco_folder_class(tmp_path_factory.mktemp("shapes"))
    rng = np.random.default_rng(0)
    for i in range(8):
        height, width = (int(v) for v in rng.integers(60, 200, 2))
        key = folder.image(f"{i}.png", width, height)
        pixels = np.full((height, width, 3), 10, "uint8")
        for k in range(0 if i == 0 else 6):
            w, h = (int(v) for v in rng.integers(8, 20, 2))
            x, y = 20 * (k % 3) + int(rng.integers(0, 20 - w + 1)), 30 * (k // 3)
            pixels[y : y + h, x : x + w] = 40 * (k + 1)
            folder.rectangle(key, x, y, w, h, category_id=(3, 8)[k % 2])
        Image.fromarray(pixels).save(folder.images / f"{i}.png")
    return from_coco(folder.write(), folder.images, data_dir=folder.folder / "prepared")


def all_of(ds, unstack):
    return [one for batch in ds for one in unstack(batch)]


def bounds(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


@pytest.mark.parametrize(
    "augment",
    [
        None,
        Augment(scale=(1, 1), flip=None, colour=0),
        Augment(scale=(0.5, 2), flip="horizontal", colour=0),
        Augment(scale=(0.5, 2), flip="vertical", colour=0),
        Augment(scale=(0.5, 2), flip=None, rotate90=True, colour=0),
        FREE,
        Augment(scale=(0.5, 1), flip="both", rotate90=True, colour=0, reference_size=(320, 200)),
    ],
)
def test_image_boxes_and_instances_move_together(shapes, labels_task, unstack, augment):
    size = (96, 160)
    checked = 0
    for epoch in range(1 if augment is None else 3):
        ds = batches(shapes, "train", [labels_task()], size, 4, augment, seed=epoch)
        for image, labels in all_of(ds, unstack):
            assert image.shape == (*size, 3) and image.min() >= 0 and image.max() <= 255.001
            assert (labels["boxes"][:, :2] >= 0).all()
            assert (labels["boxes"][:, 2:] <= size[::-1]).all()
            for i, box in enumerate(labels["boxes"]):
                mask = labels["instances"] == i + 1
                assert mask.any()
                found = bounds(mask)
                # At the border the cut object's visible part is what both describe.
                assert np.abs(found - box).max() <= 1.0
                assert (labels["mask"][mask] == labels["classes"][i] + 1).all()
                if (found[2:] - found[:2]).min() >= 5:
                    x, y = (found[:2] + found[2:]) // 2
                    value = image[y, x].mean()
                    assert abs(value - 40 * round(value / 40)) < 6 and value > 30
                    assert round(value / 40) % 2 == (labels["classes"][i] + 1) % 2
                    checked += 1
    assert checked > 15


def test_real_masks_and_boxes_move_together(nuclei, labels_task, unstack):
    augment = Augment(flip="both", rotate90=True, colour=0.3, reference_size=(512, 512))
    ds = batches(nuclei, "train", [labels_task()], 256, 4, augment)
    errors = []
    for _, labels in all_of(ds, unstack):
        for i, box in enumerate(labels["boxes"]):
            if (box > 0.5).all() and (box < 255.5).all():
                mask = labels["instances"] == i + 1
                errors.append(np.abs(bounds(mask) - box).max() if mask.any() else 99)
    # Nuclei that touch cover one another's border pixels here and there.
    assert len(errors) > 50 and np.quantile(errors, 0.95) <= 1.0 and np.median(errors) <= 0.6


def test_number_of_objects_from_none_to_hundreds(nuclei, labels_task, unstack):
    counts = [len(e["boxes"]) for e in examples(nuclei, "train").as_numpy_iterator()]
    assert max(counts) == 375
    ds = batches(nuclei, "train", [labels_task()], 512, 4)
    assert [len(labels["boxes"]) for _, labels in all_of(ds, unstack)] == counts


def test_letterboxed_labels(shapes, labels_task, unstack):
    ds = batches(shapes, "train", [labels_task()], (128, 96), 3)
    sources = list(examples(shapes, "train").as_numpy_iterator())
    results = all_of(ds, unstack)
    assert len(results) == len(sources) == 8 and len(all_of(ds, unstack)) == 8
    for (image, labels), source in zip(results, sources, strict=True):
        height, width = source["image"].shape[:2]
        scale = min(128 / height, 96 / width, 1.5)
        rows, columns = round(height * scale), round(width * scale)
        factor = np.array([columns / width, rows / height] * 2)
        np.testing.assert_allclose(labels["boxes"], source["boxes"] * factor, rtol=1e-5, atol=1e-4)
        padding = np.ones((128, 96), bool)
        padding[:rows, :columns] = False
        assert (labels["mask"][padding] == 255).all() and (labels["mask"][~padding] < 3).all()
        assert (image[padding] == 114).all() and (labels["instances"][padding] == 0).all()


def test_images_without_objects(shapes, labels_task, unstack):
    for augment in (None, FREE):
        found = all_of(batches(shapes, "train", [labels_task()], 64, 4, augment), unstack)
        empty = [labels for _, labels in found if not len(labels["boxes"])]
        assert empty and any(set(np.unique(e["mask"])) <= {0, 255} for e in empty)


def sums(ds):
    return [float(images.numpy().sum(dtype="float64")) for images, _ in ds]


def test_determinism_and_epochs(shapes, labels_task):
    def make(seed, **kwargs):
        return batches(shapes, "train", [labels_task()], 64, 1, Augment(), seed=seed, **kwargs)

    first = make(0)
    epochs = [sums(first), sums(first)]
    again = make(0)
    assert [sums(again), sums(again)] == epochs
    assert sorted(epochs[0]) != sorted(epochs[1])  # not only another order
    assert sorted(sums(make(1))) != sorted(epochs[0])


def test_no_tuner_holds_up_the_end_of_an_epoch(shapes, labels_task):
    augmented = batches(shapes, "train", [labels_task()], 64, augment=FREE)
    for ds in (augmented, batches(shapes, "train", [labels_task()], 64), examples(shapes, "train")):
        assert ds.options().autotune.enabled is False


def test_shuffling_only_changes_the_order(shapes, labels_task):
    def make(shuffle):
        return batches(shapes, "train", [labels_task()], 64, 1, shuffle=shuffle)

    plain = sums(make(None))
    assert plain == sums(make(False))
    shuffled = make(True)
    orders = [sums(shuffled) for _ in range(4)]
    assert all(sorted(order) == sorted(plain) for order in orders)
    assert len({tuple(order) for order in orders}) > 1


def test_several_tasks_remainder_and_parts_of_splits(shapes, labels_task):
    tasks = [labels_task("one"), labels_task("two", most=7)]
    ds = batches(shapes, "train[:7]", tasks, (32, 64), 4)
    shapes_of = [images.shape for images, _ in ds]
    assert shapes_of == [(4, 32, 64, 3), (3, 32, 64, 3)]
    targets = next(iter(ds))[1]
    assert set(targets) == {"one", "two"} and targets["two"]["boxes"].shape == (4, 7, 4)
    ds = batches(shapes, "train", tasks, (32, 64), 3, drop_remainder=True)
    assert ds.element_spec[0].shape == (3, 32, 64, 3) and len(list(ds)) == 2


def test_crowds_are_ignored_in_masks(coco_folder, labels_task, unstack):
    key = coco_folder.image("a.png", 64, 64)
    coco_folder.rectangle(key, 0, 0, 32, 64, iscrowd=1)
    coco_folder.rectangle(key, 10, 10, 8, 8)
    builder = from_coco(coco_folder.write(), coco_folder.images, data_dir=coco_folder.folder / "p")
    for augment in (None, Augment(scale=(1, 1), flip=None, colour=0)):
        ((_, labels),) = all_of(batches(builder, "train", [labels_task()], 64, 1, augment), unstack)
        assert labels["is_crowd"].tolist() == [True, False]
        assert labels["mask"][40, 10] == 255 and labels["mask"][14, 14] == 1
        assert labels["mask"][40, 40] == 0


def test_objects_that_are_hardly_visible(coco_folder, labels_task, unstack):
    """Images under a narrower window: cut objects are dropped by the share that is left."""
    for k in range(20):
        key = coco_folder.image(f"{k}.png", 64, 64)
        for i in range(4):
            coco_folder.rectangle(key, 16 * i, 0, 16, 64)
    builder = from_coco(coco_folder.write(), coco_folder.images, data_dir=coco_folder.folder / "p")
    for min_visible in (0.0, 0.5, 1.0):
        augment = Augment(
            scale=(1, 1), flip=None, colour=0, min_visible=min_visible, reference_size=(64, 64)
        )
        ds = batches(builder, "train", [labels_task()], (64, 40), 1, augment)
        widths = set()
        for _, labels in all_of(ds, unstack):
            assert (labels["mask"] == 1).all()  # what is dropped is still no background
            assert labels["instances"].max() == len(labels["boxes"])
            widths |= set((labels["boxes"][:, 2] - labels["boxes"][:, 0]).round(3).tolist())
            for i, box in enumerate(labels["boxes"]):
                np.testing.assert_array_equal(bounds(labels["instances"] == i + 1), box)
        assert min(widths) >= max(1, 16 * min_visible)
        assert (len(widths) > 1) == (min_visible < 1)


def test_a_crowd_stays_wherever_it_is_seen(coco_folder, labels_task, unstack):
    for k in range(10):
        key = coco_folder.image(f"{k}.png", 64, 64)
        for i in range(4):
            coco_folder.rectangle(key, 16 * i, 0, 16, 64, iscrowd=int(i % 2 == 0))
    builder = from_coco(coco_folder.write(), coco_folder.images, data_dir=coco_folder.folder / "p")
    augment = Augment(scale=(1, 1), flip=None, colour=0, min_visible=1.0, reference_size=(64, 64))
    cut = 0
    for _, labels in all_of(
        batches(builder, "train", [labels_task()], (64, 40), 1, augment), unstack
    ):
        widths = labels["boxes"][:, 2] - labels["boxes"][:, 0]
        assert (widths[~labels["is_crowd"]] == 16).all()
        cut += int((widths[labels["is_crowd"]] < 16).sum())
        # Nothing else has a mask that is to be ignored.
        assert ((labels["mask"] == 255).any(0)).sum() == widths[labels["is_crowd"]].sum()
    assert cut > 0


def test_tiny_images_and_large_windows(coco_folder, labels_task, unstack):
    for i in range(8):
        coco_folder.image(f"a{i}.png", 1, 1)
        coco_folder.rectangle(coco_folder.image(f"b{i}.png", 3, 300), 0, 10, 3, 100)
    builder = from_coco(coco_folder.write(), coco_folder.images, data_dir=coco_folder.folder / "p")
    for augment in (None, Augment(scale=(0.01, 30), rotate90=True, flip="both")):
        found = all_of(batches(builder, "train", [labels_task()], 48, 2, augment), unstack)
        assert len(found) == 16
        for image, _ in found:
            assert image.shape == (48, 48, 3) and np.isfinite(image).all()


def test_bad_arguments(shapes, labels_task):
    task = labels_task()

    def call(**changes):
        return batches(
            **(dict(builder=shapes, split="train", tasks=[task], image_size=64) | changes)
        )

    for changes, message in (
        ({"split": "test"}, r"`split` should be one of \['train'\].*'test'"),
        ({"split": "train[:0]"}, "holds no images"),
        ({"image_size": 0}, "`image_size`.*0"),
        ({"image_size": (64, 64, 3)}, "`image_size`"),
        ({"batch_size": 0}, "`batch_size`.*0"),
        ({"tasks": [task, labels_task()]}, "name of its own"),
    ):
        with pytest.raises(ValueError, match=message):
            call(**changes)
    with pytest.raises(TypeError, match="`augment`"):
        call(augment=True)


def test_builder_without_instances(tmp_path, labels_task):
    import tensorflow_datasets as tfds

    builder = tfds.dataset_builders.AdhocBuilder(
        name="plain",
        version="1.0.0",
        features=tfds.features.FeaturesDict({"image": tfds.features.Image()}),
        split_datasets={},
        data_dir=tmp_path,
    )
    with pytest.raises(ValueError, match="plain.* lacks the features .*'objects', 'instances'"):
        batches(builder, "train", [labels_task()], 64)


def test_augment_is_serialisable():
    augment = Augment(scale=(0.7, 1.5), flip="both", rotate90=True, reference_size=(9, 8))
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(augment))
    assert copy == augment and copy.scale == (0.7, 1.5) and copy.reference_size == (9, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": (2, 1)}, "`scale`"),
        ({"scale": 1.0}, "`scale`"),
        ({"scale": (0, 1)}, "`scale`"),
        ({"flip": "diagonal"}, "`flip`.*diagonal"),
        ({"colour": 1.0}, "`colour`"),
        ({"grayscale": 1.5}, "`grayscale`"),
        ({"invert": -1}, "`invert`"),
        ({"min_visible": 2}, "`min_visible`"),
        ({"reference_size": 512}, "`reference_size`"),
    ],
)
def test_augment_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Augment(**arguments)


def test_colours():
    import tensorflow as tf

    image = tf.constant(np.random.default_rng(0).uniform(0, 255, (8, 8, 3)), tf.float32)
    changed = [Augment(colour=0.4).colours(image, tf.constant([i, 0], tf.int64)) for i in range(9)]
    assert all(float(tf.reduce_min(c)) >= 0 and float(tf.reduce_max(c)) <= 255 for c in changed)
    differences = [float(tf.reduce_mean(tf.abs(c - image))) for c in changed]
    assert 2 < np.mean(differences) < 60
    seed = tf.constant([1, 2], tf.int64)
    gray = Augment(colour=0, grayscale=1.0).colours(image, seed).numpy()
    expected = image.numpy() @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(gray, np.repeat(expected[..., None], 3, -1), atol=0.01)
    inverted = Augment(colour=0, invert=1.0).colours(image, seed)
    np.testing.assert_allclose(inverted, 255 - image, atol=0.01)
    np.testing.assert_array_equal(Augment(colour=0).colours(image, seed), image)


def test_cover_shows_large_images_several_times(shapes, labels_task):
    sizes = [e["image"].shape[:2] for e in examples(shapes, "train").as_numpy_iterator()]

    def expected(cover):
        total = 0
        for height, width in sizes:
            scale = min(128 / height, 128 / width, 1.5)
            windows = round(height * scale) * round(width * scale) / 32**2
            total += max(1, round(windows**cover))
        return total

    for cover in (0.0, 0.5, 1.0):
        augment = Augment(reference_size=(128, 128), cover=cover)
        ds = batches(shapes, "train", [labels_task()], 32, 1, augment)
        assert int(ds.cardinality()) == expected(cover) == len(sums(ds))
    assert expected(0.0) == len(sizes) < expected(0.5) < expected(1.0)
