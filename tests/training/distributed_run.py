"""Run by `test_distributed.py` in a process of its own, with two CPU devices."""

import sys

import keras
import numpy as np
import tensorflow as tf
import toy
from keras import layers

import mtl_keras as mtl

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
# A second one would share the names of its sums with the first.
PAIR = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def smooth_trunk():
    """Without BatchNorm, whose statistics are those of each device's images."""

    def stage(filters, name):
        def build(x):
            return layers.Conv2D(filters, 3, 2, "same", activation="tanh", name=f"{name}_conv")(x)

        return build

    def stem(x):
        return stage(8, "stem")(layers.Rescaling(1 / 127.5, -1.0, name="preprocessing")(x))

    levels = ("P2", "P3", "P4", "P5")
    stages = [mtl.trunks.Stage(f"stage{p}", p, stage(8, f"stage{p}")) for p in levels]
    return [mtl.trunks.Stage("stem", None, stem), *stages]


mtl.trunks.register("smooth_trunk")(smooth_trunk)


def freeze_norms(model):
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False


def run(balancing, weight, devices):
    """Three steps; what is left of weights, optimizer and balancing, and the logs."""
    method = mtl.balancing.get(balancing) if balancing else None
    strategy = PAIR if devices > 1 else tf.distribute.get_strategy()
    keras.utils.set_random_seed(0)
    tasks = [mtl.tasks.Segmentation(4, channels=8, name=name) for name in ("one", "two", "three")]
    x, y = toy.batch(tasks, images=8)
    weights = {task.name: np.ones(8, "float32") for task in tasks}
    weights["two"] = np.array(weight, "float32")
    data = tf.data.Dataset.from_tensor_slices((x, y, weights)).repeat(3).batch(8)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    with strategy.scope():
        trunk = mtl.trunks.create("smooth_trunk")
        model = mtl.build(trunk, tasks, mtl.sharing.HardSharing(neck_channels=8), toy.SIZE)
        freeze_norms(model)
        model.compile(keras.optimizers.Adam(1e-3), balancing=method)
    logs = model.fit(data.with_options(options), verbose=0).history
    state = [*model.trainable_variables, *model.optimizer.variables]
    state += model.balancing.variables if model.balancing else []
    return [np.asarray(v.value) if devices == 1 else local(v) for v in state], logs, model


def local(variable):
    """The value, after making sure that both devices have the same."""
    values = [np.asarray(v) for v in variable.value.values]
    if variable.dtype.startswith("float"):
        np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-6, err_msg=variable.path)
    return values[0]


half, none = [1, 0, 1, 1, 0, 0, 0, 1], [0] * 8  # uneven on the two devices
for case in sys.argv[1:]:
    name, _, on = case.partition(":")
    method = None if name == "none" else mtl.balancing.get(name, **({"on": on} if on else {}))
    for weight in (half, none):
        config = (type(method), method.get_config()) if method else None
        made = [config[0].from_config(config[1]) if config else None for _ in range(2)]
        one, logs_one, _ = run(made[0], weight, 1)
        two, logs_two, model = run(made[1], weight, 2)
        for a, b in zip(one, two, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5, err_msg=case)
        for key, value in logs_one.items():
            np.testing.assert_allclose(value, logs_two[key], rtol=1e-4, err_msg=f"{case} {key}")
    print(case, "is the same on two devices", flush=True)

# What is not finite is named, and reaches neither device.
before = toy.arrays(model.trainable_variables)
x, y = toy.batch(model.tasks, images=8)
weights = {"one": np.array([1] * 7 + [np.nan], "float32")}
data = tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(8)
try:
    model.fit(data, verbose=0)
except mtl.NonFiniteLossError as error:
    assert error.culprits == ("one",), error.culprits
else:
    raise AssertionError("NaN was not noticed")
assert toy.same(before, toy.arrays(model.trainable_variables))
print("two devices: all well")
