"""One model for all tests of this folder: what takes time is to trace its steps."""

import keras
import pytest
import toy


@pytest.fixture(scope="session")
def model():
    """Trained a little, so that its masks show more than one class."""
    model = toy.model()
    model.compile(keras.optimizers.Adam(1e-2))
    x, y = toy.batch(model.tasks, images=4)
    model.fit(x, y, batch_size=4, epochs=3, verbose=0)
    return model
