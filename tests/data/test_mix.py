import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

import mtl_keras as mtl
from mtl_keras.data import batches, mix

SIZE = (64, 64)


def source(images, value, tasks=("a",), batch=4, shape=(3,), weights=None, size=SIZE):
    """Images that all have the brightness `value`, and targets that are their numbers."""
    pictures = np.full((images, *size, 3), value, "float32")
    targets = {task: {"n": np.ones((images, *shape), "float32")} for task in tasks}
    parts = (pictures, targets) if weights is None else (pictures, targets, weights)
    return tf.data.Dataset.from_tensor_slices(parts).batch(batch)


def values(ds):
    """The brightness of each image: `(steps, batch)`."""
    return np.stack([batch[0].numpy()[:, 0, 0, 0] for batch in ds])


def counts(ds, brightness):
    found = values(ds)
    return [int((found == value).sum()) for value in brightness]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return mtl.data.digits(
        train=12, val=4, image_size=SIZE, data_dir=tmp_path_factory.mktemp("digits")
    )


def test_targets_and_weights_of_all_tasks():
    one = source(8, 10, ("a", "b"), weights={"a": np.arange(8.0) % 2, "b": np.full(8, 0.5)})
    other = source(8, 20, ("c",), shape=(2, 2))
    for images, targets, weights in mix({"one": one, "other": other}, batch_size=4):
        first = images.numpy()[:, 0, 0, 0] == 10
        assert first.sum() == 2
        assert set(targets) == set(weights) == {"a", "b", "c"}
        np.testing.assert_array_equal(targets["a"]["n"].numpy()[:, 0], first)
        np.testing.assert_array_equal(targets["c"]["n"].numpy()[:, 0, 0], ~first)
        np.testing.assert_array_equal(weights["b"], np.where(first, 0.5, 0.0))
        np.testing.assert_array_equal(weights["c"], ~first)
        assert (
            set(weights["a"].numpy()[first]) <= {0.0, 1.0}
            and not weights["a"].numpy()[~first].any()
        )
        assert weights["a"].dtype == tf.float32


def test_tasks_of_several_sources():
    weighted = {"one": source(4, 10, ("a", "b")), "other": source(4, 20, ("b",))}
    ds = mix(weighted, batch_size=2)
    assert ds.options().autotune.enabled is False
    _, _, weights = next(iter(ds))
    np.testing.assert_array_equal(sorted(weights["a"].numpy()), [0.0, 1.0])
    np.testing.assert_array_equal(weights["b"], [1.0, 1.0])


@pytest.mark.parametrize("composition", ["stratified", "image", "source"])
@pytest.mark.parametrize(
    ("sampling", "more", "shares"),
    [
        ("proportional", {}, [0.25, 0.75]),
        ("uniform", {}, [0.5, 0.5]),
        ("temperature", {"temperature": 2.0}, np.sqrt([100, 300]) / np.sqrt([100, 300]).sum()),
        ({"one": 0.9, "other": 0.1}, {}, [0.9, 0.1]),
    ],
)
def test_shares(composition, sampling, more, shares):
    sources = {"one": source(100, 1, size=(2, 2)), "other": source(300, 2, size=(2, 2))}
    if composition == "stratified" and min(shares) * 8 < 1:
        sampling, shares = {"one": 0.8, "other": 0.2}, [0.8, 0.2]
    ds = mix(sources, 8, sampling, composition, steps_per_epoch=400, **more)
    found = values(ds)
    assert found.shape == (400, 8) == (int(ds.cardinality()), 8)
    share = (found == 1).mean(axis=1)
    # Three standard deviations of 400 draws, or 3200.
    spread = np.sqrt(shares[0] * shares[1])
    if composition == "stratified":
        assert (np.abs(share - shares[0]) < 1 / 8).all() and share.mean() == pytest.approx(
            shares[0], abs=3 / 8 / np.sqrt(400)
        )
        assert (share > 0).all() and (share < 1).all()
    elif composition == "image":
        assert share.mean() == pytest.approx(shares[0], abs=3 * spread / np.sqrt(3200))
        assert len(np.unique(share)) > 3
    else:
        assert set(share) == {0.0, 1.0}
        assert share.mean() == pytest.approx(shares[0], abs=3 * spread / np.sqrt(400))


def test_annealed_shares_are_those_of_the_paper():
    sources = {"one": source(100, 1, size=(2, 2)), "other": source(900, 2, size=(2, 2))}
    epochs = mtl.data.Epochs()
    ds = mix(sources, 50, "annealed", total_epochs=5, steps_per_epoch=40, epochs=epochs)
    for number in (0, 2, 4, 7):
        epochs.on_epoch_begin(number)
        alpha = 1 - 0.8 * min(number / 4, 1.0)  # Stickland and Murray 2019
        share = 100**alpha / (100**alpha + 900**alpha)
        assert (values(ds) == 1).mean() == pytest.approx(share, abs=0.01)


def test_an_epoch_shows_every_image_of_a_proportional_mix_about_once(digits):
    task = mtl.tasks.Segmentation(11)
    parts = {"few": "train[:4]", "many": "train[4:]"}
    sources = {
        name: batches(digits, part, [task], SIZE, 3, shuffle=True) for name, part in parts.items()
    }
    ds = mix(sources, batch_size=3)
    assert int(ds.cardinality()) == len(list(ds)) == 4
    seen = np.concatenate([batch[0].numpy().sum(axis=(1, 2, 3)) for batch in ds])
    assert len(seen) == 12 and len(np.unique(seen)) == 12


def test_a_small_source_is_repeated_in_another_order_and_changed_otherwise(digits):
    task = mtl.tasks.Segmentation(11)
    sources = {
        "few": batches(digits, "train[:2]", [task], SIZE, augment=mtl.data.Augment(colour=0.5)),
        "many": batches(digits, "train[2:]", [task], SIZE),
    }
    ds = mix(sources, 2, "uniform", steps_per_epoch=10)
    few = np.stack([batch[0].numpy()[0] for batch in ds])
    assert len(np.unique(few.sum(axis=(1, 2, 3)))) == 10


def numbered(images, batch=3):
    """Images without order, of which each has a brightness of its own, from 100 on."""
    pictures = 100 + np.arange(images, dtype="float32").reshape(-1, 1, 1, 1) * np.ones((2, 2, 3))
    targets = {"a": {"n": np.ones((images, 3), "float32")}}
    return tf.data.Dataset.from_tensor_slices((pictures.astype("float32"), targets)).batch(batch)


@pytest.mark.parametrize("images", [24, 25])
def test_a_large_source_is_seen_whole_over_several_epochs(images):
    """Each epoch goes on where the one before it ended, which is not where the source begins."""
    ds = mix({"few": source(8, 1, size=(2, 2)), "many": numbered(images)}, 4, "uniform")
    assert int(ds.cardinality()) == (8 if images == 24 else 9)
    shown = np.concatenate([values(ds).ravel() for _ in range(6)])
    many = shown[shown >= 100] - 100
    whole = many[: len(many) // images * images].reshape(-1, images)
    assert len(whole) >= 3
    if images % 3 == 0:
        np.testing.assert_array_equal(whole, [np.arange(images)] * len(whole))
    else:  # The last batch of the source is not full, which only counting all would tell.
        assert set(many) == set(range(images))


@pytest.mark.parametrize("shuffle", [False, True])
def test_so_is_a_large_source_of_batches(digits, shuffle):
    task = mtl.tasks.Segmentation(11)
    sources = {
        "few": source(2, 1, size=SIZE).map(lambda x, y: (x, {"few": y["a"]["n"]})),
        "many": batches(digits, "train", [task], SIZE, 5, shuffle=shuffle, seed=4),
    }
    # 4 of the 12 in each epoch.
    ds = mix(sources, 2, "uniform", steps_per_epoch=4)
    found = [np.stack([batch[0].numpy()[1].sum() for batch in ds]) for _ in range(6)]
    first, second = np.concatenate(found[:3]), np.concatenate(found[3:])
    assert len(np.unique(first)) == len(np.unique(second)) == 12
    assert np.array_equal(first, second) != shuffle


def test_annealed_epochs_go_on_too():
    sources = {"few": source(4, 1, size=(2, 2)), "many": numbered(96)}
    epochs = mtl.data.Epochs()
    ds = mix(sources, 25, "annealed", total_epochs=3, steps_per_epoch=2, epochs=epochs)
    shown = []
    for number in range(5):
        epochs.on_epoch_begin(number)
        shown.append(values(ds).ravel())
    many = np.concatenate(shown)
    many = many[many >= 100] - 100
    # An epoch shows one or two more or fewer than is expected.
    steps = np.diff(many) % 96
    assert (np.abs(steps - 1) <= 2).all() and (steps == 1).sum() >= len(steps) - 4


@pytest.mark.parametrize("task", [toy.detection(), toy.segmentation(), toy.distance()])
def test_nothing_of_an_absent_task_is_learned(task):
    """Filled-in targets: finite losses and gradients, and neither moves the head."""
    others = toy.segmentation(name="other")
    model = toy.model([task, others])
    x, y = toy.batch(model.tasks, images=4)
    lacking = tf.data.Dataset.from_tensor_slices((x, {"other": y["other"]})).batch(4)
    having = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    shares = {"lacking": 1.0, "having": 0.0}
    ds = mix({"lacking": lacking, "having": having}, 4, shares, "image", steps_per_epoch=1)
    _, targets, weights = next(iter(ds))
    assert not any(np.any(value) for value in targets[task.name].values())
    outputs = tf.nest.map_structure(tf.Variable, model(x)[task.name])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(task.loss(targets[task.name], outputs))
    gradients = tf.nest.flatten(tape.gradient(loss, tf.nest.flatten(outputs)))
    assert np.isfinite(loss) and all(np.isfinite(g).all() for g in gradients if g is not None)
    head = model.get_layer(f"{task.name}_head")
    before = toy.arrays(head.weights)
    model.compile("sgd", on_nonfinite="raise")
    logs = model.fit(ds, verbose=0).history
    assert toy.same(before, toy.arrays(head.weights)) and logs[f"{task.name}_loss"] == [0.0]
    assert logs["other_loss"][0] > 0


@pytest.mark.slow
def test_training_on_halves_with_one_label_each(digits):
    detection = toy.detection(num_classes=10, max_objects=40)
    segmentation = toy.segmentation(num_classes=11)
    model = toy.model([detection, segmentation])
    ds = mix(
        {
            "boxes": batches(digits, "train[:6]", [detection], SIZE),
            "masks": batches(digits, "train[6:]", [segmentation], SIZE),
        },
        batch_size=4,
        steps_per_epoch=10,
    )
    model.compile(keras.optimizers.Adam(3e-3), balancing="mgda")
    history = model.fit(ds, epochs=4, verbose=0).history
    for name in ("detection_loss", "segmentation_loss"):
        assert 0 < history[name][-1] < history[name][0]


@pytest.mark.parametrize(
    ("sources", "arguments", "message"),
    [
        ({}, {}, "at least one data set"),
        ({"one": [1, 2]}, {}, "source 'one' should be a tf.data.Dataset"),
        ({"one": source(4, 1).map(lambda x, y: x)}, {}, "source 'one' should give"),
        ({"one": source(4, 1).repeat()}, {}, "source 'one' has no known end"),
        ({"one": source(4, 1).take(0)}, {}, "source 'one' is empty"),
        (
            {"one": source(4, 1), "other": source(4, 1, size=(32, 32))},
            {},
            "one size.*'one' gives .*64.*'other' .*32",
        ),
        (
            {"one": source(4, 1), "other": source(4, 1, shape=(5,))},
            {},
            "task 'a' should be alike.*'one'.*'other'",
        ),
        ({"one": source(4, 1)}, {"sampling": "even"}, "`sampling` should be one of"),
        ({"one": source(4, 1)}, {"sampling": {"other": 1.0}}, "each of the sources"),
        ({"one": source(4, 1)}, {"sampling": {"one": 0.7}}, "add up to 1"),
        ({"one": source(4, 1)}, {"composition": "even"}, "`composition` should be one of"),
        ({"one": source(4, 1)}, {"sampling": "temperature", "temperature": 0.0}, "`temperature`"),
        ({"one": source(4, 1)}, {"sampling": "annealed"}, "`total_epochs`"),
        ({"one": source(4, 1)}, {"batch_size": 0}, "`batch_size`"),
        ({"one": source(4, 1)}, {"steps_per_epoch": 0}, "`steps_per_epoch`"),
        (
            {"one": source(4, 1), "other": source(96, 1)},
            {"batch_size": 8},
            r"can't all hold.*\{'one': 0.04\}",
        ),
    ],
)
def test_bad_arguments(sources, arguments, message):
    with pytest.raises(ValueError, match=message):
        mix(sources, **arguments)
