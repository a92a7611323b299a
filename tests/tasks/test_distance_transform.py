import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import distance_transform_edt

from mtl_keras.tasks.distance_transform import instance_distances


def by_scipy(instances):
    """One instance after the other; infinite where the picture is one instance."""
    found = np.zeros(instances.shape)
    for number in set(np.unique(instances)) - {0}:
        own = instances == number
        found[own] = np.inf if own.all() else distance_transform_edt(own)[own]
    return found


def disks(rng, height, width, count, radius):
    """Disks that hide each other, cut off by the edges."""
    rows, columns = np.mgrid[:height, :width]
    instances = np.zeros((height, width), "int32")
    for i in range(count):
        y, x, r = rng.uniform(0, height), rng.uniform(0, width), radius * rng.uniform(0.2, 1)
        instances[(rows - y) ** 2 + (columns - x) ** 2 < r**2] = i + 1
    return instances


def nested():
    instances = np.zeros((40, 50), "int32")
    for number in range(1, 6):
        instances[3 * number : 40 - 3 * number, 4 * number : 50 - 3 * number] = number
    return instances


def random_sizes(kind, seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 50, 2)
    if kind == "disks":
        return disks(rng, height, width, rng.integers(1, 12), rng.uniform(2, 25))
    # In many pieces, and pieces of one pixel.
    return rng.integers(0, 3, (height, width)).astype("int32")


PICTURES = {
    "touching": np.repeat(np.repeat(np.arange(1, 13).reshape(3, 4), 9, 0), 7, 1),
    "nested": nested(),
    "at a corner": np.pad(np.ones((20, 30), int), ((0, 5), (0, 7))),
    "a band from edge to edge": np.pad(np.ones((9, 30), int), ((4, 6), (0, 0))),
    "one other pixel": np.where(np.arange(40 * 33).reshape(40, 33) == 17, 2, 1),
    "one pixel each": np.arange(1, 31).reshape(5, 6),
    "one row": np.array([[1, 1, 1, 0, 2, 2, 1]]),
    "one column": np.array([[1, 1, 1, 0, 2, 2, 1]]).T,
    "nothing": np.zeros((7, 9), int),
    "one instance": np.ones((7, 9), int),
    "large numbers": np.where(nested() > 2, 65535, nested()),
    **{f"{kind} {i}": random_sizes(kind, i) for kind in ("disks", "noise") for i in range(6)},
}


@pytest.fixture(scope="module")
def transform():
    """As in `tf.data`: a graph, here of unknown size."""
    signature = [tf.TensorSpec((None, None), kind) for kind in ("int32", "bool")]
    return tf.function(instance_distances, input_signature=signature)


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (0, 3, 0, 5), (2, 1, 4, 3)])
def test_equals_scipy_instance_by_instance(transform, name, padding):
    """Padding around the picture is neither seen nor a boundary."""
    instances = PICTURES[name].astype("int32")
    height, width = instances.shape
    top, bottom, left, right = padding
    around = ((top, bottom), (left, right))
    inside = np.pad(np.ones_like(instances, bool), around)
    found = transform(np.pad(instances, around), inside).numpy()
    assert found.dtype == "float32"
    found = found[top : top + height, left : left + width]
    expected = by_scipy(instances)
    finite = np.isfinite(expected)
    np.testing.assert_allclose(found[finite], expected[finite], atol=1e-4)
    assert np.all(found[~finite] > np.hypot(height, width))


def test_knows_how_to_turn_and_mirror(transform):
    instances = disks(np.random.default_rng(3), 40, 56, 9, 20)
    every = np.ones_like(instances, bool)
    found = transform(instances, every).numpy()
    for change in (np.transpose, np.flipud, np.fliplr, np.rot90):
        other = transform(change(instances), change(every)).numpy()
        np.testing.assert_allclose(other, change(found), atol=1e-5)
