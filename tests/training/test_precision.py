"""Half precision: it trains, and a saved model keeps its policy."""

import keras
import numpy as np
import toy


def test_mixed_float16_trains_and_keeps_its_policy(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    model = toy.model()
    x, y = toy.batch(model.tasks)
    model.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    kernel = model.get_layer("segmentation_head").get_layer("conv").kernel
    kernel.regularizer = keras.regularizers.L2(1e-3)
    logs = model.fit(x, y, batch_size=4, epochs=3, verbose=0).history
    assert all(np.all(np.isfinite(values)) for values in logs.values())
    assert logs["loss"][-1] < logs["loss"][0]
    assert all(v.dtype == "float32" for v in model.trainable_variables)
    model.save(tmp_path / "model.keras")

    # It keeps its policy where another is in force, and leaves that one alone.
    keras.config.set_dtype_policy("float32")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert keras.config.dtype_policy().name == "float32"
    assert loaded.dtype_policy.name == "mixed_float16"
    policies = [[layer.dtype_policy.name for layer in m.layers] for m in (model, loaded)]
    assert policies[0] == policies[1]
    inside = loaded.get_layer("segmentation_head").get_layer("conv")
    assert inside.compute_dtype == "float16" and inside.kernel.dtype == "float32"
    optimizer = loaded.optimizer
    assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    assert not isinstance(optimizer.inner_optimizer, keras.optimizers.LossScaleOptimizer)
    a, b = (keras.tree.flatten(m.predict(x, verbose=0)) for m in (model, loaded))
    for one, other in zip(a, b, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    # Half-precision steps differ from run to run; where they start from does not.
    assert len(optimizer.variables) > 2 * len(model.trainable_variables)
    assert toy.same(toy.arrays(model.optimizer.variables), toy.arrays(optimizer.variables))
    before = toy.arrays(loaded.trainable_variables)
    loaded.train_on_batch(x, y)
    assert not toy.same(before, toy.arrays(loaded.trainable_variables))


def test_a_float32_model_stays_so_under_a_half_precision_policy(tmp_path):
    model = toy.model()
    model.save(tmp_path / "model.keras")
    keras.config.set_dtype_policy("mixed_float16")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert keras.config.dtype_policy().name == "mixed_float16"
    x, _ = toy.batch(model.tasks, images=1)
    a, b = keras.tree.flatten(model(x)), keras.tree.flatten(loaded(x))
    for one, other in zip(a, b, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
