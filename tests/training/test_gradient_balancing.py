"""Gradient methods in the training step: what is shared, what is a head's own, both modes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

import mtl_keras as mtl
from mtl_keras.balancing import GradientMethod
from mtl_keras.sharing.users import frontier, layer_users, variable_users
from mtl_keras.training.tensorflow_balancing import image_sizes


@keras.saving.register_keras_serializable(package="tests")
class Sum(GradientMethod):
    """Adds gradients up: training must be that of the plain sum of losses."""

    def weights_from_gramian(self, gramian):
        return tf.ones(gramian.shape[0])


@keras.saving.register_keras_serializable(package="tests")
class First(GradientMethod):
    """Takes the first task's gradient alone."""

    def weights_from_gramian(self, gramian):
        return tf.one_hot(0, gramian.shape[0])


def trained(balancing, sharing=None, tasks=None, **compile_arguments):
    model = toy.model(tasks, sharing)
    x, y = toy.batch(model.tasks, images=2)
    compile_arguments = {"run_eagerly": True, **compile_arguments}
    model.compile(keras.optimizers.SGD(1e-2), balancing=balancing, **compile_arguments)
    logs = model.fit(x, y, batch_size=2, verbose=0).history
    return model, logs


def assert_equal_weights(one, other, atol=1e-6):
    for a, b in zip(one.weights, other.weights, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=atol, err_msg=a.path)


@pytest.mark.parametrize("on", ["parameters", "features", "normalized_features"])
@pytest.mark.parametrize("sharing", ["hard", "branch", "cross_stitch"])
def test_the_sum_is_plain_training(on, sharing):
    kinds = {
        "hard": mtl.sharing.HardSharing(neck_channels=8),
        "branch": mtl.sharing.HardSharing("P4", neck_channels=8),
        "cross_stitch": mtl.sharing.CrossStitch(neck_channels=8),
    }
    plain, logs = trained(None, kinds[sharing])
    balanced, other = trained(Sum(on), kinds[sharing])
    assert_equal_weights(plain, balanced)
    for key in logs:
        assert logs[key] == pytest.approx(other[key], rel=1e-5)


@pytest.mark.parametrize("run_eagerly", [True, False])
def test_logs_have_the_weights_of_directions(run_eagerly):
    """IMTL-G's weights of two gradients are inverse to their norms, and add up to 1."""
    _, logs = trained(mtl.balancing.IMTLG("features"), run_eagerly=run_eagerly)
    weights = np.array([logs["detection_weight"][0], logs["segmentation_weight"][0]])
    assert weights.sum() == pytest.approx(1.0, abs=1e-5) and np.all(weights > 0)
    assert abs(weights[0] - weights[1]) > 0.01
    _, logs = trained(First("parameters"), run_eagerly=run_eagerly)
    assert (logs["detection_weight"], logs["segmentation_weight"]) == ([1.0], [0.0])
    _, logs = trained(mtl.balancing.GradNorm(), run_eagerly=run_eagerly)
    assert (logs["detection_weight"], logs["segmentation_weight"]) == ([1.0], [1.0])
    _, logs = trained(mtl.balancing.GradDrop(), run_eagerly=run_eagerly)
    assert "detection_weight" not in logs, "its directions are no weighted sums"


@pytest.mark.parametrize("on", ["parameters", "features"])
def test_heads_keep_the_gradient_of_their_own_loss(on):
    before = toy.model()
    plain, _ = trained(None)
    balanced, _ = trained(First(on))
    for name in ("detection_head", "segmentation_head"):
        for a, b in zip(
            plain.get_layer(name).weights, balanced.get_layer(name).weights, strict=True
        ):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-6)
    alone, _ = trained(None, tasks=None, loss_weights={"segmentation": 0.0})
    moved = False
    for name in ("trunk_stem", "trunk_stageP4", "neck"):
        for a, b, c in zip(
            *(m.get_layer(name).weights for m in (alone, balanced, before)), strict=True
        ):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-6)
            moved |= not np.array_equal(b.numpy(), c.numpy())
    assert moved


@pytest.mark.parametrize(
    ("name", "on"),
    [
        ("mgda", "features"),
        ("gradnorm", "parameters"),
        pytest.param("pcgrad", "parameters", marks=pytest.mark.slow),
        pytest.param("graddrop", "features", marks=pytest.mark.slow),
    ],
)
def test_methods_train_as_a_graph_and_are_saved(name, on, tmp_path):
    method = mtl.balancing.get(name, on=on)
    model, logs = trained(method, run_eagerly=False)
    assert all(np.all(np.isfinite(value)) for value in logs.values())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.balancing.get_config() == method.get_config()
    assert toy.same(toy.arrays(loaded.balancing.variables), toy.arrays(method.variables))


def test_normalized_features_give_each_image_the_same_say():
    """Whatever multiplies one image's gradients, the weights of the tasks are the same."""
    rng = np.random.default_rng(0)
    features = [tf.zeros((3, 2, 2, 4)), tf.zeros((3, 5))]
    sizes = [16, 5]
    parts = [rng.standard_normal((2, 3, size)).astype("float32") for size in sizes]

    def matrix(factors):
        return np.concatenate(
            [(p * np.reshape(factors, (1, 3, 1))).reshape(2, -1) for p in parts], axis=1
        )

    plain = matrix([1, 1, 1])
    size = image_sizes(tf.constant(plain), features).numpy()
    by_hand = [np.sqrt(sum(np.sum(p[:, i] ** 2) for p in parts)) for i in range(3)]
    np.testing.assert_allclose(size, np.concatenate([np.repeat(by_hand, n) for n in sizes]), 1e-5)
    scaled = matrix([1, 100, 0.01])
    other = image_sizes(tf.constant(scaled), features).numpy()
    np.testing.assert_allclose(plain / size, scaled / other, rtol=1e-4)


def test_mgda_falls_for_both_tasks():
    """The direction lowers each loss, which the plain sum need not do."""
    model = toy.model()
    x, y = toy.batch(model.tasks, images=2)
    model.compile(keras.optimizers.SGD(1e-2), balancing="mgda")
    losses = model.fit(x, y, batch_size=2, epochs=20, verbose=0).history
    for task in model.tasks:
        assert losses[f"{task.name}_loss"][-1] < losses[f"{task.name}_loss"][0]


def test_a_penalty_stays_outside_of_the_method():
    """With a method that drops all gradients, weights decay by the penalty alone."""

    class Nothing(Sum):
        def weights_from_gramian(self, gramian):
            return tf.zeros(len(gramian))

    model = toy.model()
    kernel = model.get_layer("trunk_stem").get_layer("stem_conv").kernel
    kernel.regularizer = keras.regularizers.L2(0.5)
    before = kernel.numpy()
    x, y = toy.batch(model.tasks, images=2)
    model.compile(keras.optimizers.SGD(0.1), balancing=Nothing(), run_eagerly=True)
    model.fit(x, y, batch_size=2, verbose=0)
    np.testing.assert_allclose(kernel.numpy(), before * (1 - 0.1), rtol=1e-5)


def test_a_task_without_labels_in_the_batch():
    model = toy.model()
    x, y = toy.batch(model.tasks, images=2)
    head = toy.arrays(model.get_layer("segmentation_head").trainable_variables)
    model.compile(keras.optimizers.SGD(0.1), balancing="mgda", run_eagerly=True)
    model.fit(x, {"detection": y["detection"]}, batch_size=2, verbose=0)
    assert toy.same(head, toy.arrays(model.get_layer("segmentation_head").trainable_variables))


def test_half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    model = toy.model()
    keras.config.set_dtype_policy("float32")
    x, y = toy.batch(model.tasks, images=2)
    model.compile(keras.optimizers.Adam(1e-3), balancing="pcgrad", run_eagerly=True)
    logs = model.fit(x, y, batch_size=2, epochs=2, verbose=0).history
    assert all(np.all(np.isfinite(value)) for value in logs.values())
    assert all(np.all(np.isfinite(v.numpy())) for v in model.weights)


def test_what_is_not_finite_is_named():
    model = toy.model()
    x, y = toy.batch(model.tasks, images=2)
    model.compile("sgd", balancing="pcgrad")
    weight = {"detection": np.array([1, np.nan], "float32"), "segmentation": np.ones(2, "float32")}
    before = toy.arrays(model.weights)
    data = tf.data.Dataset.from_tensors((x, y, weight))
    with pytest.raises(mtl.NonFiniteLossError, match="detection") as error:
        model.fit(data, verbose=0)
    assert error.value.culprits == ("detection",)
    assert toy.same(before, toy.arrays(model.weights))


def test_nothing_shared_is_said():
    x, y = toy.batch(toy.model().tasks, images=2)
    for sharing, on, message in (
        (mtl.sharing.SeparateNetworks(8), "parameters", "parameters that several tasks use"),
        (mtl.sharing.SeparateNetworks(8), "features", "parameters that several tasks use"),
    ):
        model = toy.model(sharing=sharing)
        model.compile("sgd", balancing=mtl.balancing.MGDA(on=on), run_eagerly=True)
        with pytest.raises(ValueError, match=message):
            model.fit(x, y, batch_size=2, verbose=0)


def test_who_uses_what():
    model = toy.model()
    users = layer_users(model)
    assert users["trunk_stem"] == users["neck"] == ("detection", "segmentation")
    assert users["detection_head"] == ("detection",)
    tasks = set(variable_users(model).values())
    assert tasks == {("detection", "segmentation"), ("detection",), ("segmentation",)}
    assert {tensor._keras_history.operation.name for tensor in frontier(model)} == {"neck"}
    branched = toy.model(sharing=mtl.sharing.HardSharing("P4", 8))
    made_by = {tensor._keras_history.operation.name for tensor in frontier(branched)}
    assert made_by == {"trunk_stageP2", "trunk_stageP3", "trunk_stageP4"}
