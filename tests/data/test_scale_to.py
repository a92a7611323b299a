"""Images are enlarged without antialiasing, which must give the same pixels as with it."""

import numpy as np
import pytest
import tensorflow as tf

from mtl_keras.data.letterbox import scale_to


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(
    "size", [(30, 47), (31, 50), (45, 60), (20, 50), (44, 30), (11, 17), (1, 1)]
)
def test_same_pixels_as_with_antialiasing(size, dtype):
    image = np.random.default_rng(0).integers(0, 256, (30, 47, 3)).astype(dtype)
    expected = tf.image.resize(image, size, "bilinear", antialias=True)
    found = tf.function(scale_to)(tf.constant(image), tf.unstack(tf.constant(size)))
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, expected, atol=1e-2)
    np.testing.assert_array_equal(scale_to(tf.constant(image)[None], size)[0], found)
