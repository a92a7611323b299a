import numpy as np
import pytest
import tensorflow as tf

from mtl_keras.data import letterbox
from mtl_keras.data.letterbox import MAX_ENLARGEMENT, scale_to

SIZES = [(1, 1), (1, 500), (333, 7), (64, 96), (96, 64), (512, 512), (100, 131)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("size", [(64, 96), (32, 32)])
def test_geometry(height, width, size):
    image = np.full((height, width, 3), 200, "uint8")
    canvas, content = letterbox(image, size)
    canvas = canvas.numpy()
    assert canvas.shape == (*size, 3) and canvas.dtype == np.float32
    scale = min(size[0] / height, size[1] / width, MAX_ENLARGEMENT)
    covered = np.isclose(canvas, 200, atol=1e-3).all(-1)
    new_h, new_w = covered.any(1).sum(), covered.any(0).sum()
    assert (new_h, new_w) == tuple(int(side) for side in content)
    assert covered[:new_h, :new_w].all() and (canvas[~covered] == 114).all()
    assert abs(new_h - max(1, height * scale)) <= 0.5
    assert abs(new_w - max(1, width * scale)) <= 0.5
    assert new_h == size[0] or new_w == size[1] or scale == MAX_ENLARGEMENT


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_trimmed_canvas_is_the_full_one_without_padding(height, width):
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), "uint8")
    full, content = letterbox(image, (96, 128))
    trimmed, same = letterbox(image, (96, 128), trim=True)
    rows, columns = trimmed.shape[:2]
    assert [int(side) for side in same] == [int(side) for side in content]
    assert rows % 32 == columns % 32 == 0
    assert 0 <= rows - int(content[0]) < 32 and 0 <= columns - int(content[1]) < 32
    np.testing.assert_array_equal(trimmed, full[:rows, :columns])


def test_inverse():
    """A rectangle's place on the canvas, scaled back along each axis, is its place in the image."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        height, width = rng.integers(80, 400, 2)
        image = np.zeros((height, width, 3), "uint8")
        y1, x1 = int(rng.integers(0, height - 40)), int(rng.integers(0, width - 40))
        y2, x2 = int(rng.integers(y1 + 20, height)), int(rng.integers(x1 + 20, width))
        image[y1:y2, x1:x2] = 255
        canvas, (new_h, new_w) = letterbox(image, (160, 192))
        inside = canvas.numpy()[: int(new_h), : int(new_w), 0] > 127
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        back = np.array([width / int(new_w), height / int(new_h)] * 2)
        found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) * back
        assert np.abs(found - [x1, y1, x2, y2]).max() <= 1.1 * back.max()


def test_same_size_is_identity():
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3), "uint8")
    canvas, content = letterbox(image, (40, 50))
    assert [int(side) for side in content] == [40, 50]
    np.testing.assert_allclose(canvas, image, atol=1e-3)


def test_in_a_graph_and_a_batch():
    import tensorflow as tf

    images = np.random.default_rng(0).integers(0, 255, (2, 30, 20, 3)).astype("float32")
    graph = tf.function(
        lambda x: letterbox(x, (24, 24)), input_signature=[tf.TensorSpec((None, None, 3))]
    )
    batched = letterbox(images, (24, 24))[0]
    for i in range(2):
        np.testing.assert_allclose(graph(images[i])[0], batched[i], atol=1e-4)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(
    "size", [(30, 47), (31, 50), (45, 60), (20, 50), (44, 30), (11, 17), (1, 1)]
)
def test_scaled_as_with_antialiasing(size, dtype):
    """Also what is only enlarged, where antialiasing is left out."""
    image = np.random.default_rng(0).integers(0, 256, (30, 47, 3)).astype(dtype)
    expected = tf.image.resize(image, size, "bilinear", antialias=True)
    found = tf.function(scale_to)(tf.constant(image), tf.unstack(tf.constant(size)))
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, expected, atol=1e-2)
    np.testing.assert_array_equal(scale_to(tf.constant(image)[None], size)[0], found)
