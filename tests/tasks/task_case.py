"""What every task has to do."""

import keras
import numpy as np
import tensorflow as tf
import toy
from keras import ops

CHANNELS = dict.fromkeys(("P2", "P3", "P4", "P5"), 6)


def features(task, size, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    return {
        level: rng.normal(
            size=(batch, size[0] // 2 ** int(level[1:]), size[1] // 2 ** int(level[1:]), width)
        ).astype("float32")
        for level, width in CHANNELS.items()
        if level in task.levels
    }


def in_graph(task, labels, size):
    """Encodes as `mtl_keras.data.batches` does: in a graph that does not know how many."""
    signature = {
        "boxes": tf.TensorSpec((None, 4), tf.float32),
        "classes": tf.TensorSpec((None,), tf.int32),
        "is_crowd": tf.TensorSpec((None,), tf.bool),
        "mask": tf.TensorSpec(size, tf.int32),
        "instances": tf.TensorSpec(size, tf.int32),
    }
    encode = tf.function(lambda one: task.encode(one, size), input_signature=[signature])
    static = encode.get_concrete_function().structured_outputs
    for key, value in static.items():
        assert value.shape.is_fully_defined(), f"{key} has shape {value.shape}"
    return {key: value.numpy() for key, value in encode(labels).items()}


def run_task_test(task, ignore, output_shapes, prediction_shapes):
    """Checks a task that keeps at most 8 objects an image.

    Args:
        task: The task.
        ignore: Function from labels of one image to `(labels, harder labels)`: the second differs
            from the first only in what the task must ignore.
        output_shapes: Function from an image size to the shapes of the raw outputs.
        prediction_shapes: Function from an image size to `{key: (shape, dtype)}`.
    """
    config_round_trip(task)
    for size in ((64, 64), (64, 128)):
        check_shapes(task, size, output_shapes(size), prediction_shapes(size))
    check_targets(task)
    check_loss(task, ignore)
    check_metrics(task)


def config_round_trip(task):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(task))
    assert type(copy) is type(task) and copy.get_config() == task.get_config()
    head = [task.head({n: CHANNELS[n] for n in task.levels}) for _ in range(2)]
    shapes = [[tuple(v.shape) for v in h.variables] for h in head]
    assert shapes[0] == shapes[1]
    assert not {id(v) for v in head[0].variables} & {id(v) for v in head[1].variables}


def check_shapes(task, size, output_shapes, prediction_shapes):
    head = task.head({level: CHANNELS[level] for level in task.levels})
    outputs = head(features(task, size))
    assert keras.tree.map_structure(lambda x: (2, *x.shape[1:]), outputs) == output_shapes
    assert all(x.dtype == "float32" for x in keras.tree.flatten(outputs))
    predictions = task.decode(outputs)
    assert set(predictions) == set(prediction_shapes)
    for key, (shape, dtype) in prediction_shapes.items():
        assert tuple(predictions[key].shape) == shape, key
        assert keras.backend.standardize_dtype(predictions[key].dtype) == dtype, key
    named = task.serving_outputs(predictions)
    assert len(named) == len(predictions)
    one = {key: np.array(value)[0] for key, value in predictions.items()}
    assert set(task.present(one, 0.0)) <= set(predictions)


def check_targets(task):
    for count in (0, 1, 8):
        labels = toy.labels(count)
        found = in_graph(task, labels, toy.SIZE)
        by_hand = toy.targets(task, labels)
        assert set(found) == set(by_hand)
        for key in found:
            np.testing.assert_array_equal(found[key], by_hand[key][0])


def check_loss(task, ignore):
    head = task.head({level: CHANNELS[level] for level in task.levels})
    x = features(task, toy.SIZE)
    some = toy.targets(task, toy.labels(3), toy.labels(2, seed=1))
    none = toy.targets(task, toy.labels(0), toy.labels(0))
    for targets in (some, none):
        with tf.GradientTape() as tape:
            loss = task.loss(targets, head(x, training=True))
            total = tf.reduce_mean(loss)
        assert loss.shape == (2,) and loss.dtype == "float32"
        assert np.all(np.isfinite(loss)) and np.all(loss.numpy() >= 0)
        gradients = tape.gradient(total, head.trainable_variables)
        assert any(g is not None for g in gradients)
        assert all(np.all(np.isfinite(g)) for g in gradients if g is not None)

    outputs = head(x, training=False)
    extreme = keras.tree.map_structure(lambda o: ops.sign(o) * 1e4, outputs)
    assert np.all(np.isfinite(task.loss(some, extreme)))

    # What is not labelled has no say.
    plain, harder = ignore(toy.labels(3))
    losses = [np.array(task.loss(toy.targets(task, a, a), outputs)) for a in (plain, harder)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)

    # Thirty steps on one batch are enough to begin with.
    optimizer = keras.optimizers.Adam(0.02)
    targets = keras.tree.map_structure(tf.constant, some)
    x = keras.tree.map_structure(tf.constant, x)
    optimizer.build(head.trainable_variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(task.loss(targets, head(x, training=True)))
        optimizer.apply(tape.gradient(loss, head.trainable_variables), head.trainable_variables)
        return loss

    history = [float(step()) for _ in range(30)]
    assert np.all(np.isfinite(history)) and min(history[-3:]) < 0.7 * history[0], history[::5]


def check_metrics(task):
    head = task.head({level: CHANNELS[level] for level in task.levels})
    outputs = head(features(task, toy.SIZE))
    targets = toy.targets(task, toy.labels(3), toy.labels(0))
    measures = [*task.metrics(), task.evaluator()]
    logs = {}
    for metric in task.metrics():
        metric.update_state(targets, outputs, None)
        logs |= metric.result()
    if measures[-1] is not None:
        tensors = measures[-1].inputs(targets, outputs)
        measures[-1].update(**{key: np.array(value) for key, value in tensors.items()})
        logs |= measures[-1].result()
    assert logs and all(key.startswith(f"{task.name}_") for key in logs)
    assert all(np.isnan(v) or 0 <= v <= 1 for v in map(float, logs.values()))

    # In the images' own pixels, the same numbers where these are the model's pixels.
    predictions = task.decode(outputs)
    images = [
        ({key: np.array(v)[i] for key, v in predictions.items()}, labels)
        for i, labels in enumerate((toy.labels(3), toy.labels(0)))
    ]
    own = measured(task, images)
    found = own.result()
    assert set(logs) <= set(found)
    for key, value in logs.items():
        np.testing.assert_allclose(float(found[key]), float(value), rtol=1e-6)

    # An image that counts twice is two images, one that does not count is none.
    for repeats in ([2, 1], [0, 3], [1, 0]):
        several = [image for image, n in zip(images, repeats, strict=True) for _ in range(n)]
        again = measured(task, several).result()
        for key, value in own.result(repeats).items():
            np.testing.assert_allclose(value, again[key], rtol=1e-6, err_msg=f"{key} {repeats}")
    np.testing.assert_equal(own.result(), own.result([1, 1]))


def measured(task, images):
    evaluator = task.image_evaluator()
    for predictions, labels in images:
        evaluator.add_image(predictions, labels)
    return evaluator
