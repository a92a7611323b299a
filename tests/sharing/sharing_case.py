"""What every way to share has to do."""

import keras
import numpy as np
import tensorflow as tf
import toy

import mtl_keras as mtl
from mtl_keras.training.losses import auxiliary


def run_sharing_test(sharing, folder):
    """Checks a `Sharing` of narrow features, on a toy trunk."""
    check_config(sharing)
    pair = [toy.detection(), toy.segmentation()]
    trio = [toy.detection(), toy.segmentation(name="cells"), toy.segmentation(name="tissue")]
    for tasks in (pair, trio):
        model = toy.model(tasks, sharing)
        check_outputs(model)
        check_report(model)
    check_save(model, folder)
    check_step(model)
    check_mixed(sharing)


def check_config(sharing):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(sharing))
    assert type(copy) is type(sharing) and copy.get_config() == sharing.get_config()


def check_outputs(model):
    """Every task has outputs, and each of them is reached by a trunk's first convolution."""
    x, _ = toy.batch(model.tasks, images=2)
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(x)
        sums = {
            name: sum(tf.reduce_sum(o) for o in keras.tree.flatten(output))
            for name, output in outputs.items()
        }
    names = {task.name for task in model.tasks}
    assert names <= set(outputs) <= names | {auxiliary(name) for name in names}
    first = [v for v in model.trainable_variables if "stem_conv" in v.path]
    assert first
    for task in model.tasks:
        gradients = tape.gradient(sums[task.name], first)
        assert any(g is not None and np.any(g) for g in gradients), task.name
        task.decode(outputs[task.name])


def check_report(model):
    report = mtl.sharing_report(model)
    assert report.parameters == model.count_params()
    assert report.parameters == sum(row["parameters"] for row in report.rows)
    assert report.bytes == sum(row["bytes"] for row in report.rows)
    assert report.separate_parameters == sum(r["parameters"] for r in report.separate_rows)
    assert 0 <= report.shared_fraction <= 1 and report.saved_fraction < 1
    for task in model.tasks:
        used = [row for row in report.rows if task.name in row["tasks"]]
        assert any(row["tasks"] == (task.name,) for row in used), "a head is a task's own"
    assert all(row["part"] in str(report) for row in report.rows)


def check_save(model, folder):
    x, _ = toy.batch(model.tasks, images=2)
    model.save(folder / "model.keras")
    loaded = keras.saving.load_model(folder / "model.keras")
    assert isinstance(loaded, mtl.MultiTaskModel)
    assert [t.get_config() for t in loaded.tasks] == [t.get_config() for t in model.tasks]
    assert loaded.sharing.get_config() == model.sharing.get_config()
    assert loaded.image_size == model.image_size and loaded.name == model.name
    a, b = (keras.tree.flatten(m(x)) for m in (model, loaded))
    for one, other in zip(a, b, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def check_step(model):
    x, y = toy.batch(model.tasks, images=2)
    before = toy.arrays(model.trainable_variables)
    model.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
    # Of an adapter's two factors one starts at zero, so that the other moves in the second step.
    steps = 2 if isinstance(model.sharing, mtl.sharing.Adapters) else 1
    logs = model.fit(x, y, batch_size=2, epochs=steps, verbose=0).history
    assert all(np.all(np.isfinite(values)) for values in logs.values())
    after = toy.arrays(model.trainable_variables)
    still = [
        v.path
        for v, a, b in zip(model.trainable_variables, before, after, strict=True)
        if np.array_equal(a, b)
    ]
    assert not still


def check_mixed(sharing):
    keras.config.set_dtype_policy("mixed_float16")
    model = toy.model([toy.detection(), toy.segmentation()], sharing)
    keras.config.set_dtype_policy("float32")
    x, _ = toy.batch(model.tasks, images=2)
    outputs = keras.tree.flatten(model(x))
    assert all(o.dtype == "float32" and np.all(np.isfinite(o)) for o in outputs)
    assert any(layer.compute_dtype == "float16" for layer in model.layers)
    assert all(v.dtype == "float32" for v in model.trainable_variables)
