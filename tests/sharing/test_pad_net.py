"""PAD-Net and MTI-Net against their equations, and the losses of initial heads."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy
from numpy_layers import array, convolve, normalise, relu, shake, sigmoid, softmax

import mtl_keras as mtl
from mtl_keras.sharing.distillation import (
    AttentionDistillation,
    ConcatenateDistillation,
    SumDistillation,
)
from mtl_keras.sharing.propagation import ChannelGate, FeatureHarmonization

PADNet = mtl.sharing.PADNet
KINDS = {
    "concatenate": ConcatenateDistillation,
    "sum": SumDistillation,
    "attention": AttentionDistillation,
}
# Maps, and steps of sequences.
SHAPES = [(2, 5, 4, 6), (2, 7, 6)]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def features(tasks, shape):
    return [normal(*shape, seed=i) for i in range(tasks)]


def built(layer, inputs):
    layer.build([x.shape for x in inputs])
    shake(layer)
    return layer


# === Equations ===
@pytest.mark.parametrize("tasks", [2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_module_a(tasks, shape):
    inputs = features(tasks, shape)
    layer = built(ConcatenateDistillation(), inputs)
    kernel = array(layer.join.kernel).reshape(tasks, 6, 6)
    expected = sum(array(x) @ kernel[i] for i, x in enumerate(inputs))
    np.testing.assert_allclose(layer(inputs), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tasks", [2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_module_b(tasks, shape):
    own, *others = inputs = features(tasks, shape)
    layer = built(SumDistillation(), inputs)
    expected = array(own)
    for other, send in zip(others, layer.messages, strict=True):
        expected = expected + convolve(other, send.kernel)
    np.testing.assert_allclose(layer(inputs), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tasks", [2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_module_c(tasks, shape):
    """Equations 4 and 5: the gate is made of what the receiving task knows."""
    own, *others = inputs = features(tasks, shape)
    layer = built(AttentionDistillation(), inputs)
    gate = sigmoid(convolve(own, layer.listen.kernel))
    assert gate.min() > 0 and gate.max() < 1 and gate.std() > 0.05
    np.testing.assert_allclose(layer.gate(own), gate, atol=1e-5)
    expected = array(own)
    for other, send in zip(others, layer.messages, strict=True):
        expected = expected + gate * convolve(other, send.kernel)
    np.testing.assert_allclose(layer(inputs), expected, rtol=1e-4, atol=1e-4)
    silent = [np.zeros_like(other) for other in others]
    np.testing.assert_array_equal(layer([own, *silent]), own)


@pytest.mark.parametrize("tasks", [2, 3])
@pytest.mark.parametrize("training", [False, True])
def test_harmonization(tasks, training):
    inputs = features(tasks, SHAPES[0])
    layer = built(FeatureHarmonization(reduction=2), inputs)
    joined = np.concatenate(inputs, -1)
    x = relu(normalise(convolve(joined, layer.mix.kernel), layer.mix_norm, training))
    scores = convolve(x, layer.score.kernel) + array(layer.score.bias)
    weights = softmax(scores.reshape(*scores.shape[:-1], tasks, 6), axis=-2)
    assert weights.std() > 0.05
    found = np.asarray(layer.weights_of_tasks(inputs, training=training))
    np.testing.assert_allclose(found.sum(axis=0), 1.0, atol=1e-6)
    np.testing.assert_allclose(np.moveaxis(found, 0, -2), weights, atol=1e-4)
    weighted = (weights * np.stack(inputs, -2)).reshape(joined.shape)
    expected = relu(normalise(convolve(weighted, layer.merge.kernel), layer.merge_norm, training))
    np.testing.assert_allclose(
        layer(inputs, training=training), expected, rtol=1e-3, atol=1e-3 * expected.max()
    )


def test_channel_gate():
    own, shared = inputs = features(2, SHAPES[0])
    layer = built(ChannelGate(reduction=2), inputs)
    x = array(shared).mean(axis=(1, 2))
    x = relu(x @ array(layer.squeeze.kernel) + array(layer.squeeze.bias))
    gate = sigmoid(x @ array(layer.excite.kernel) + array(layer.excite.bias))
    expected = own + shared * gate[:, None, None]
    np.testing.assert_allclose(layer(inputs), expected, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [*(kind() for kind in KINDS.values()), FeatureHarmonization(2), ChannelGate(2)],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_come_back_from_a_file(layer, tmp_path):
    inputs = [keras.Input((None, None, 6)) for _ in range(2)]
    model = keras.Model(inputs, layer(inputs))
    shake(model)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert loaded.layers[-1].get_config() == layer.get_config()
    x = features(2, SHAPES[0])
    np.testing.assert_allclose(model(x), loaded(x), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS.values())
@pytest.mark.parametrize("shape", SHAPES)
def test_isolated_features_come_out_as_they_went_in(kind, shape):
    inputs = features(3, shape)
    layer = built(kind(), inputs)
    assert not np.allclose(layer(inputs), inputs[0])
    layer.isolate()
    np.testing.assert_array_equal(layer(inputs), inputs[0])


def test_gates_are_computed_in_float32():
    layer = AttentionDistillation(dtype="mixed_float16")
    inputs = [x.astype("float16") for x in features(2, SHAPES[0])]
    assert layer(inputs).dtype == "float16" and layer.gate(inputs[0]).dtype == "float32"
    layer = FeatureHarmonization(dtype="mixed_float16")
    assert layer(inputs).dtype == "float16" and layer.weights_of_tasks(inputs).dtype == "float32"


# === Network ===
def names_of(model):
    return {layer.name for layer in model.layers}


def segmentations(*levels):
    return [toy.segmentation(name=f"task{i}", levels=of) for i, of in enumerate(levels)]


def test_tasks_exchange_where_several_read():
    model = toy.model(None, PADNet(neck_channels=8))
    names = names_of(model)
    for task in ("detection", "segmentation"):
        assert {f"{task}_distillation_P{i}" for i in (3, 4, 5)} <= names
    # Nobody but segmentation reads P2.
    assert "segmentation_initial_P2" in names and "segmentation_distillation_P2" not in names
    assert "detection_initial_P2" not in names
    rows = {row["part"]: row["tasks"] for row in mtl.sharing_report(model).rows}
    both = ("detection", "segmentation")
    assert rows["trunk"] == rows["neck"] == both
    for part in ("initial", "initial_head", "distillation", "head"):
        assert rows[f"detection_{part}"] == ("detection",)


@pytest.mark.parametrize("kind", KINDS)
def test_final_features_are_distilled_initial_ones(kind):
    tasks = segmentations(("P4",), ("P4",), ("P4",))
    model = toy.model(tasks, PADNet(kind, neck_channels=8))
    for i, layer in enumerate(model.layers):
        shake(layer, seed=i)
    x, _ = toy.batch(tasks, images=1)
    outputs = model(x)
    initial = {
        task.name: keras.Model(model.input, model.get_layer(f"{task.name}_distillation_P4").input)(
            x
        )[0]
        for task in tasks
    }
    for task in tasks:
        others = [initial[other.name] for other in tasks if other is not task]
        distillation = model.get_layer(f"{task.name}_distillation_P4")
        assert type(distillation) is KINDS[kind]
        received = distillation([initial[task.name], *others])
        final = model.get_layer(f"{task.name}_head")({"P4": received})
        first = model.get_layer(f"{task.name}_initial_head")({"P4": initial[task.name]})
        np.testing.assert_allclose(outputs[task.name], final, atol=1e-5)
        np.testing.assert_allclose(outputs[f"{task.name}_auxiliary"], first, atol=1e-5)


def test_multi_scale_propagates_from_coarse_to_fine():
    tasks = segmentations(("P3", "P4", "P5"), ("P3", "P5"), ("P4", "P5"))
    model = toy.model(tasks, PADNet(multi_scale=True, neck_channels=8))
    for i, layer in enumerate(model.layers):
        shake(layer, seed=i)
    x, _ = toy.batch(tasks, images=1)
    called = {
        layer.name: keras.Model(model.input, [*keras.tree.flatten(layer.input), layer.output])(x)
        for layer in model.layers
        if isinstance(layer, (ChannelGate, FeatureHarmonization))
    }
    # At the finest level of a task nothing goes on; task2 ends at P4.
    assert set(called) == {
        "harmonization_P5",
        "task0_gate_P5",
        "task1_gate_P5",
        "task2_gate_P5",
        "harmonization_P4",
        "task0_gate_P4",
    }
    *three, shared = called["harmonization_P5"]
    assert len(three) == 3 and len(called["harmonization_P4"]) == 2 + 1
    for i in range(3):
        own, given, gated = called[f"task{i}_gate_P5"]
        np.testing.assert_array_equal(own, three[i])
        np.testing.assert_array_equal(given, shared)
    # A task that leaves a level out gets what it had before, enlarged by as much.
    coarse = model.get_layer("task1_initial_P3").get_layer("enlarge")
    assert tuple(coarse.size) == (4, 4)
    assert tuple(model.get_layer("task0_initial_P3").get_layer("enlarge").size) == (2, 2)
    inputs = [normal(1, 8, 8, 8), np.asarray(called["task1_gate_P5"][-1])]
    block = model.get_layer("task1_initial_P3")
    larger = tf.image.resize(inputs[1], (8, 8), "bilinear")
    x = np.concatenate([inputs[0], larger], -1)
    x = relu(normalise(convolve(x, block.get_layer("conv1").kernel), block.get_layer("norm1")))
    x = normalise(convolve(x, block.get_layer("conv2").kernel), block.get_layer("norm2"))
    expected = inputs[0] + x
    np.testing.assert_allclose(block(inputs), expected, rtol=1e-3, atol=1e-4 * np.abs(x).max())


def test_all_of_multi_scale_is_saved_and_learns(tmp_path):
    from sharing_case import check_outputs, check_save, check_step

    trio = segmentations(("P3", "P4", "P5"), ("P3", "P5"), ("P4", "P5"))
    model = toy.model(trio, PADNet("sum", multi_scale=True, neck_channels=8))
    check_outputs(model)
    check_save(model, tmp_path)
    check_step(model)


# === Losses ===
def test_initial_heads_count_in_the_losses():
    weight = 0.25
    model = toy.model(None, PADNet(auxiliary_weight=weight, neck_channels=8))
    x, y = toy.batch(model.tasks, images=2)
    outputs = model(x, training=True)
    expected, main = {}, {}
    for task in model.tasks:
        main[task.name] = float(np.mean(task.loss(y[task.name], outputs[task.name])))
        first = float(np.mean(task.loss(y[task.name], outputs[f"{task.name}_auxiliary"])))
        assert first > 0.01
        expected[task.name] = main[task.name] + weight * first
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    logs = model.fit(x, y, batch_size=2, verbose=0).history
    for name, value in expected.items():
        np.testing.assert_allclose(logs[f"{name}_loss"], value, rtol=1e-4)
        assert logs[f"{name}_loss"][0] > main[name] + 0.002
    np.testing.assert_allclose(logs["loss"], sum(expected.values()), rtol=1e-4)


def test_a_loss_of_the_initial_head_teaches_nothing_after_it():
    model = toy.model(None, PADNet(neck_channels=8))
    x, y = toy.batch(model.tasks, images=2)
    head, first = (model.get_layer(f"segmentation_{n}").weights for n in ("head", "initial_head"))
    with tf.GradientTape() as tape:
        outputs = model(x, training=True)
        task = model.tasks[1]
        loss = task.loss(y["segmentation"], outputs["segmentation_auxiliary"])
    initial = model.get_layer("segmentation_initial_P3").trainable_variables
    sent = model.get_layer("segmentation_distillation_P3").trainable_variables
    groups = [initial, first, sent, head]
    trained = [[v.value for v in group if v.trainable] for group in groups]
    steps = tape.gradient(loss, trained)
    reached = [any(g is not None and np.any(g) for g in group) for group in steps]
    assert reached == [True, True, False, False]


def test_without_initial_heads():
    model = toy.model(None, PADNet(auxiliary_weight=0, neck_channels=8))
    assert set(model.output) == {"detection", "segmentation"}
    assert not any(name.endswith("initial_head") for name in names_of(model))
    assert model.sharing.preserve(model) == []


# === Use ===
def test_evaluates_and_predicts():
    model = toy.model(None, PADNet(neck_channels=8))
    x, y = toy.batch(model.tasks, images=2)
    model.compile("sgd")
    found = model.evaluate(x, y, batch_size=2, verbose=0, return_dict=True)
    assert "detection_AP" in found and 0 <= found["segmentation_mean_iou"] <= 1
    assert found["loss"] == pytest.approx(
        found["detection_loss"] + found["segmentation_loss"], rel=1e-4
    )
    (picture,) = model.predict_images([np.full((50, 90, 3), 80, "uint8")], score_threshold=0.0)
    assert set(picture) == {"detection", "segmentation", "instances"}
    assert picture["segmentation"]["mask"].shape == (50, 90)
    names = {"detection", "segmentation"}
    assert set(model.predict(x, verbose=0)) == names | {f"{name}_auxiliary" for name in names}


@pytest.mark.slow
def test_exports_and_leaves_initial_heads_out(tmp_path):
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    model = toy.model(None, PADNet(multi_scale=True, neck_channels=8))
    folder = mtl.export.saved_model(model, tmp_path / "model")
    loaded = tf.saved_model.load(str(folder))
    serve = loaded.signatures["serving_default"]
    picture = np.random.default_rng(0).integers(0, 255, (70, 40, 3), "uint8")
    found = serve(images=tf.constant(picture[None]))
    (expected,) = model.predict_images([picture], score_threshold=0.0)
    np.testing.assert_array_equal(found["segmentation_mask"][0], expected["segmentation"]["mask"])
    assert int(found["num_detections"][0]) == len(expected["detection"]["boxes"])
    run = convert_variables_to_constants_v2(serve)
    # Weights may be read, but nothing is computed of them.
    nodes = [n for n in run.graph.as_graph_def().node if n.op not in ("Const", "Identity")]
    assert any("segmentation_head" in node.name for node in nodes)
    assert not any("initial_head" in node.name for node in nodes)


@pytest.mark.parametrize(
    ("kind", "multi_scale"), [("attention", False), ("sum", True), ("concatenate", True)]
)
def test_preserve_keeps_outputs(kind, multi_scale):
    hard = toy.model(None, mtl.sharing.HardSharing(neck_channels=8))
    for i, layer in enumerate(hard.layers):
        shake(layer, seed=i)
    converted = mtl.convert(hard, PADNet(kind, multi_scale, neck_channels=8))
    assert converted.lost == []
    x, y = toy.batch(hard.tasks, images=1)
    for training in (False, True):
        before, after = hard(x, training=training), converted(x, training=training)
        for name in ("detection", "segmentation"):
            for other in (name, f"{name}_auxiliary"):
                pairs = zip(
                    keras.tree.flatten(before[name]), keras.tree.flatten(after[other]), strict=True
                )
                for p, q in pairs:
                    np.testing.assert_allclose(p, q, atol=1e-5 * np.abs(p).max())
    # What was set aside is not dead.
    variables = [
        v
        for layer in converted.layers
        if "distillation" in layer.name
        for v in layer.trainable_variables
        if "gate" not in v.path
    ]
    variables += [
        layer.get_layer("norm2").gamma for layer in converted.layers if "_initial_P" in layer.name
    ]
    with tf.GradientTape() as tape:
        loss = sum(converted.task_losses(y, converted(x, training=True)).values())
    assert all(np.any(g) for g in tape.gradient(loss, [v.value for v in variables]))


# === Errors ===
@pytest.mark.parametrize("bad", ["gates", None, 3, ["sum"]])
def test_a_bad_distillation_is_named(bad):
    with pytest.raises(ValueError, match="`distillation`.*concatenate.*Received"):
        PADNet(bad)


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf"), "1", None, True])
def test_a_bad_weight_is_named(bad):
    with pytest.raises(ValueError, match="`auxiliary_weight`"):
        PADNet(auxiliary_weight=bad)


def test_other_bad_arguments_are_named():
    with pytest.raises(ValueError, match="`multi_scale`"):
        PADNet(multi_scale="yes")
    for kind in (FeatureHarmonization, ChannelGate):
        with pytest.raises(ValueError, match="`reduction`"):
            kind(0)


def test_tasks_without_a_common_level_are_named():
    tasks = segmentations(("P3", "P4"), ("P3",), ("P5",))
    with pytest.raises(ValueError, match="'task2'.*P5.*P3.*P4"):
        toy.model(tasks, PADNet())


def test_sequences():
    trunk = mtl.trunks.sequence.recurrent(units=8, vocabulary=20)
    tags = [mtl.tasks.Tagging(3, "kind"), mtl.tasks.Tagging(4, "place")]
    model = mtl.build(trunk, tags, PADNet(multi_scale=True))
    tokens = np.random.default_rng(0).integers(1, 20, (2, 7)).astype("int32")
    for training in (False, True):
        found = model(tokens, training=training)
        assert found["kind"].shape == found["kind_auxiliary"].shape == (2, 7, 3)
        other = tokens.copy()
        other[:, -1] = other[:, -1] % 19 + 1
        # No step learns of later ones.
        np.testing.assert_allclose(
            found["place"][:, :-1], model(other, training=training)["place"][:, :-1], atol=1e-6
        )
    words = [mtl.tasks.LanguageModeling(20), tags[0]]
    with pytest.raises(ValueError, match="tied embeddings.*tie_embeddings=False"):
        mtl.build(trunk, words, PADNet())
    assert set(mtl.build(trunk, words, PADNet(auxiliary_weight=0)).output) == {
        "language_modeling",
        "kind",
    }
