"""Run by `test_distance.py` in a process of its own, with `KERAS_BACKEND=jax`, no TensorFlow."""

import sys


class NoTensorFlow:
    """Makes `import tensorflow` fail, as where it is not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "tensorflow_datasets"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


sys.meta_path.insert(0, NoTensorFlow())

import keras  # noqa: E402
import numpy as np  # noqa: E402
import toy  # noqa: E402

assert keras.backend.backend() == "jax"
model = toy.model([toy.segmentation(), toy.distance()])
x, y = toy.batch(model.tasks)
model.compile(keras.optimizers.Adam(1e-2))
logs = model.fit(x, y, batch_size=4, epochs=6, verbose=0).history
assert logs["distance_loss"][-1] < logs["distance_loss"][0], logs
measured = model.evaluate(x, y, batch_size=2, verbose=0, return_dict=True)
error = np.abs(y["distance"]["distance"] - model.predict(x, verbose=0)["distance"][..., 0])
truth = y["distance"]["distance"]
np.testing.assert_allclose(measured["distance_mae"], error[truth > 0].mean(), rtol=1e-4)
np.testing.assert_allclose(measured["distance_background_mae"], error[truth == 0].mean(), rtol=1e-4)
(found,) = model.predict_images([np.full((50, 90, 3), 80, "uint8")])
distance = found["distance"]["distance"]
assert distance.shape == (50, 90) and distance.dtype == np.float32
assert np.all((distance >= 0) & (distance <= 1))
print("jax: all well")
