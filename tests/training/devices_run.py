"""Run by `test_devices.py` in a process of its own, with two CPU devices."""

import dataclasses
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf
from recipes import lines, tiny

from mtl_keras.training import devices
from mtl_keras.training.recipe import train
from mtl_keras.training.sources import Pipeline

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
PAIR = ["CPU:0", "CPU:1"]


def frozen(recipe):
    """Without the statistics of batches, which are those of each device's images."""

    def model(builder):
        made = recipe.model(builder)
        for layer in made._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
        return made

    return dataclasses.replace(recipe, model=model, optimizer=momentum)


def momentum(steps):
    """Adam divides by gradients' size: what is nothing but rounding would become a step.

    Its graph on two devices is large too: it takes minutes and gigabytes to make.
    """
    return keras.optimizers.SGD(1e-2, momentum=0.9, use_ema=True, ema_momentum=0.9)


def measure(recipe, two, folder):
    """Metrics of a model on two devices are those of the same weights on one."""
    one = keras.saving.load_model(folder / "model.keras")
    _, val, (_, images) = Pipeline(recipe).batches(one)
    expected = one.evaluate(val, verbose=0, return_dict=True)
    parted = devices.for_devices(val, two.distribute_strategy, images, recipe.batch_size)
    found = two.evaluate(parted, verbose=0, return_dict=True)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        if "detection_loss" not in key and key != "loss":  # Divided by the objects of a device.
            np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


def equal(out):
    # Five images in batches of four: the last one would leave a device without any.
    recipe = tiny(train_split="train[:5]", epochs=2, val_every=1)
    one = train(frozen(recipe), out / "one")
    two = train(frozen(recipe), out / "two", devices=PAIR)
    assert two.distribute_strategy.num_replicas_in_sync == 2
    for a, b in zip(one.weights, two.weights, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-3, atol=1e-5, err_msg=a.path)
    for a, b in zip(lines(out / "one"), lines(out / "two"), strict=True):
        assert a.keys() == b.keys()
        # Where classes are near each other, metrics of theirs turn on rounding; see `measure`.
        for key, value in ((k, v) for k, v in a.items() if k.endswith("_loss")):
            if key == "val_loss":  # As `loss`, a mean over batches that counts what fills them up.
                continue
            np.testing.assert_allclose(value, b[key], rtol=5e-3, atol=1e-4, err_msg=key)
    measure(recipe, two, out / "two")


def norm(out):
    # With BatchNorm and boxes it trains as well, finite, and the file is a plain model.
    recipe = tiny(
        ("detection",), train_split="train[:5]", epochs=2, val_every=1, optimizer=momentum
    )
    trained = train(recipe, out / "norm", devices=PAIR)
    assert "val_detection_AP" in lines(out / "norm")[-1]
    assert all(np.isfinite(v.numpy()).all() for v in trained.weights)
    loaded = keras.saving.load_model(out / "norm" / "model.keras")
    for a, b in zip(trained.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    try:
        train(dataclasses.replace(recipe, batch_size=3), out / "odd", devices=PAIR)
    except ValueError as error:
        assert "evenly among 2 devices" in str(error), error
    else:
        raise AssertionError("three images were parted among two devices")


# One case a program: a second strategy would share the names of its sums with the first.
{"equal": equal, "norm": norm}[sys.argv[1]](pathlib.Path(sys.argv[2]))
print("two devices: all well")
