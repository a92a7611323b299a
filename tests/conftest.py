"""What all tests share: a quiet TensorFlow, an untouched home and an untouched dtype policy."""

import os
import shutil
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Data sets are prepared in a folder that is gone with the tests.
os.environ["TFDS_DATA_DIR"] = tempfile.mkdtemp(prefix="mtl_keras_tests_")

import pytest


@pytest.fixture(scope="session", autouse=True)
def prepared_data():
    """Removes the data sets that tests prepared."""
    yield
    shutil.rmtree(os.environ["TFDS_DATA_DIR"], ignore_errors=True)


@pytest.fixture(autouse=True)
def untouched_policy():
    """A test that sets the global dtype policy does not change those after it."""
    import keras

    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)


@pytest.fixture(scope="session")
def lite():
    """EfficientNet-Lite0 of random weights with hard sharing and both tasks, for 64 x 64."""
    import keras

    import mtl_keras as mtl

    keras.utils.set_random_seed(0)
    return mtl.build(
        mtl.trunks.create("efficientnet_lite0"),
        [mtl.tasks.Detection(3, channels=32), mtl.tasks.Segmentation(4, channels=32)],
        image_size=(64, 64),
    )
