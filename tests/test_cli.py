import csv
import hashlib
import json
import pathlib
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy
from PIL import Image
from typer.testing import CliRunner

import mtl_keras as mtl
from mtl_keras import zoo
from mtl_keras.cli import app


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result, *parts):
    """One line that holds these parts, no traceback, and an exit code that says so."""
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    lines = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1 and "Traceback" not in result.output
    for part in parts:
        assert part in lines[0]


def picture(path, height=40, width=56, mode="RGB", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), "uint8")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "toy.keras"
    toy.model([toy.detection(score_threshold=0.0), toy.segmentation()]).save(path)
    return path


@pytest.fixture(autouse=True)
def data_dir(tmp_path, monkeypatch):
    from tensorflow_datasets.core import constants

    monkeypatch.setattr(constants, "DATA_DIR", str(tmp_path / "prepared"))


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Two cards in place of those of the package."""
    for name in ("trunk_hard_cells", "trunk_soft_roofs"):
        (tmp_path / "published" / name).mkdir(parents=True)
        card = {"schema": 1, **dict.fromkeys(zoo.save.KEYS, {})}
        card.update(name=name, tasks=["detection", "pixels"])
        card.update(parameters=1234567, shared_fraction=0.5, config={"secret": "config"})
        card.update(metrics={"detection_AP50": 0.51234, "pixels_mean_iou": 0.7})
        if name == "trunk_soft_roofs":
            card.update(sharing="soft", data={"name": "roofs"}, licences={"data": "CC0"})
            card.update(intended_use="Counting roofs from above, not " + "very " * 30 + "small.")
        (tmp_path / "published" / name / "card.json").write_text(json.dumps(card))
    monkeypatch.setattr(zoo.registry, "PUBLISHED", tmp_path / "published")
    monkeypatch.setattr(zoo.registry, "CHECKOUT", tmp_path / "no data package")
    monkeypatch.delenv("MTL_KERAS_ZOO", raising=False)


@pytest.fixture
def coco(tmp_path):
    """A folder as `finetune --data` takes it: two kinds of rectangles on ten pictures."""
    folder = tmp_path / "my pictures"

    def write(split, count):
        images, annotations = [], []
        for i in range(count):
            file = picture(folder / "images" / f"{split}{i}.png", 64, 64, seed=i)
            images.append({"id": i, "file_name": file.name, "width": 64, "height": 64})
            for k in range(2):
                x, y, w, h = 4 + 20 * k, 6 + i, 16, 12 + 6 * k
                corners = [x, y, x + w, y, x + w, y + h, x, y + h]
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": i,
                        "category_id": 5 + k,
                        "bbox": [x, y, w, h],
                        "segmentation": [corners],
                    }
                )
        categories = [{"id": 5, "name": "low"}, {"id": 6, "name": "high"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"{split}.json").write_text(json.dumps(content))
        return folder

    return write


def test_list_and_info(published, monkeypatch):
    assert run("list", "--names").output.split() == ["trunk_hard_cells", "trunk_soft_roofs"]
    assert run("list", "*roofs", "--names").output.split() == ["trunk_soft_roofs"]
    for width in (80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        listed = run("list").output
        (row,) = [line for line in listed.splitlines() if line.startswith("trunk_soft_roofs")]
        assert {"0.512", "0.700", "1.23"} <= set(row.split())
        assert ("soft" in row.split()) == (width == 120)
        assert max(map(len, listed.splitlines())) <= width
        for name in ("trunk_hard_cells", "trunk_soft_roofs"):
            shown = run("info", name).output
            assert "0.512" in shown and "secret" not in shown
            assert max(map(len, shown.splitlines())) <= width
        assert "data: CC0" in shown and "Counting roofs" in shown
    card = json.loads(run("info", "trunk_hard_cells", "--json").output)
    assert card == zoo.info("trunk_hard_cells") and card["config"] == {"secret": "config"}
    refused(run("info", "trunk_hard_cell"), "trunk_hard_cells")
    refused(run("list", "*cats*"), "*cats*", "trunk_hard_cells")


def test_predict(saved, tmp_path):
    images = [
        picture(tmp_path / "a" / "one.png"),
        picture(tmp_path / "b" / "one.jpg", 30, 80, mode="L"),
        tmp_path / "broken.png",
        picture(tmp_path / "one_mask.bmp", 100, 20),
    ]
    images[2].write_bytes(images[0].read_bytes()[:300])
    out = tmp_path / "out"
    result = run("predict", *images, "--model", saved, "--out", out, "--score-threshold", 0.005)
    refused(result, "broken.png")
    assert "3 of 4 images" in result.output

    results = json.loads((out / "predictions.json").read_text())
    assert results["score_threshold"] == {"detection": 0.005}
    good = [images[0], images[1], images[3]]
    stems = ["one", "one_2", "one_mask"]
    model = keras.saving.load_model(saved, compile=False)
    expected = model.predict_images(good, score_threshold=0.005)
    rows = zip(results["images"], good, stems, expected, strict=True)
    for one, path, stem, found in rows:
        assert one["image"] == str(path)
        with Image.open(path) as image:
            assert (one["width"], one["height"]) == image.size
        boxes = np.reshape(one["detection"]["boxes"], (-1, 4))
        np.testing.assert_allclose(boxes, found["detection"]["boxes"], atol=1e-3)
        np.testing.assert_array_equal(one["detection"]["classes"], found["detection"]["classes"])
        assert len(one["detection"]["scores"]) == len(boxes) > 0
        assert one["detection"]["class_names"] == [str(c) for c in one["detection"]["classes"]]
        assert one["segmentation"]["mask"] == f"{stem}_mask.png"
        mask = np.asarray(Image.open(out / f"{stem}_mask.png"))
        np.testing.assert_array_equal(mask, found["segmentation"]["mask"])
        assert one["instances"] == {"mask": f"{stem}_instances.png"}
        with Image.open(out / f"{stem}_instances.png") as written:
            instances = np.asarray(written)
        assert instances.dtype == np.uint16
        np.testing.assert_array_equal(instances, found["instances"]["mask"])
        assert one["picture"] == f"{stem}_prediction.png"
        assert Image.open(out / one["picture"]).width > 2 * 100
    assert len(list(out.iterdir())) == 3 * 3 + 1


def test_predict_writes_distances(tmp_path):
    model = toy.model([toy.distance(name="near")])
    model.save(tmp_path / "near.keras")
    image, out = picture(tmp_path / "one.png"), tmp_path / "out"
    result = run("predict", image, "--model", tmp_path / "near.keras", "--out", out)
    assert result.exit_code == 0, result.output
    (one,) = json.loads((out / "predictions.json").read_text())["images"]
    assert one["near"] == {"distance": "one_near.png"}
    with Image.open(out / "one_near.png") as written:
        values = np.asarray(written)
    assert values.dtype == np.uint16 and values.shape == (40, 56)
    (found,) = model.predict_images([image])
    np.testing.assert_allclose(values / 65535, found["near"]["distance"], atol=1e-4)
    assert (out / one["picture"]).is_file()


def test_predict_keeps_what_is_none_of_its_results(saved, tmp_path):
    image = picture(tmp_path / "x[1].png")
    common = ("predict", image, "--model", saved, "--out", tmp_path)
    assert run(*common).exit_code == 0
    assert run(*common).exit_code == 0, "results may be written again"
    label = picture(tmp_path / "x[1]_mask.png", mode="L")
    before = label.read_bytes()
    refused(run(*common), "x[1]_mask.png", "overwrite")
    assert label.read_bytes() == before


def test_predict_draws_only_what_can_be_drawn(tmp_path):
    image, out = picture(tmp_path / "one.png"), tmp_path / "out"
    kind = mtl.tasks.Classification(2, class_names=["day", "night"], name="when")
    for tasks, pictured in (([kind], False), ([toy.detection(), kind], True)):
        toy.model(tasks).save(tmp_path / "model.keras")
        result = run("predict", image, "--model", tmp_path / "model.keras", "--out", out)
        assert result.exit_code == 0, result.output
        (one,) = json.loads((out / "predictions.json").read_text())["images"]
        assert set(one["when"]["class_names"]) <= {"day", "night"}
        assert ("picture" in one) == pictured == (out / "one_prediction.png").exists()


def test_predict_refuses(saved, tmp_path, monkeypatch):
    image = picture(tmp_path / "x.png")
    mask = picture(tmp_path / "x_mask.png")
    before = hashlib.sha256(mask.read_bytes()).hexdigest()
    common = ("--model", saved, "--out", tmp_path)
    refused(run("predict", image, mask, *common), "x_mask.png", "overwrite")
    assert hashlib.sha256(mask.read_bytes()).hexdigest() == before
    refused(run("predict", image, tmp_path / "no.png", *common), "no.png")
    refused(run("predict", image, "--model", tmp_path / "no.keras", "--out", tmp_path), "no.keras")
    refused(run("predict", image, "--model", "no_such", "--out", tmp_path), "no_such")
    (tmp_path / "text.keras").write_text("text")
    damaged = tmp_path / "text.keras"
    refused(run("predict", image, "--model", damaged, "--out", tmp_path), "text.keras", "damaged")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    other = tmp_path / "other.keras"
    refused(run("predict", image, "--model", other, "--out", tmp_path), "Sequential")
    monkeypatch.setitem(sys.modules, "cv2", None)
    refused(run("predict", image, *common), 'pip install "mtl_keras[draw]"')


def test_wrong_usage_is_explained(saved):
    result = run("predict", "a.png", "--model", saved, "--out", "x", "--score-threshold", 1.5)
    assert result.exit_code == 2 and "--score-threshold" in result.output
    assert run("predict", "a.png").exit_code == 2


def test_errors_of_others_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(zoo, "load", lambda name: np.zeros(3).reshape(2))
    result = run("export", "--model", "any", "--out", "x")
    assert result.exit_code == 1 and isinstance(result.exception, ValueError)
    assert "Error:" not in result.output


def history(out):
    with open(out / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_finetune(saved, coco, tmp_path):
    data, out = coco("train", 10), tmp_path / "tuned"
    # As a run leaves it that is killed while it writes the state of its first epoch.
    (out / "backup").mkdir(parents=True)
    (out / "backup" / "latest.weights.h5").write_bytes(b"half a file")
    common = ("--data", data, "--out", out, "--epochs", 2, "--batch-size", 4)
    result = run("finetune", "--model", saved, *common)
    assert result.exit_code == 0, result.output
    assert "8 images to train on, 2 held out" in result.output and "low, high" in result.output
    assert "Layout: coco" in result.output and "Images: train 10" in result.output
    assert "detection_AP" in result.output and "detection_F1" in result.output
    assert "or more are shown" in result.output
    rows = history(out)
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert all(np.isfinite(float(row["val_loss"])) for row in rows)
    assert sorted(p.name for p in out.iterdir()) == ["history.csv", "model.keras", "settings.json"]

    model = keras.saving.load_model(out / "model.keras")
    assert model.tasks[0].class_names == ["low", "high"]
    assert model.tasks[1].class_names == ["background", "low", "high"]
    # Four steps with a warm-up hardly move a trunk: it is still that of the model given.
    given = keras.saving.load_model(saved)
    for layer in ("trunk_stem", "trunk_stageP3"):
        new, old = (m.get_layer(layer).trainable_weights[0].numpy() for m in (model, given))
        assert 0 < np.abs(new - old).max() < 0.01
    image = picture(tmp_path / "new.png")
    assert run("predict", image, "--model", out / "model.keras", "--out", out).exit_code == 0

    refused(run("finetune", "--model", saved, *common), "finished")


@pytest.mark.slow
def test_finetune_with_val_continues_where_it_was_interrupted(saved, coco, tmp_path, monkeypatch):
    coco("train", 4)
    data, out = coco("val", 3), tmp_path / "tuned"
    arguments = ("finetune", "--model", saved, "--data", data, "--out", out, "--batch-size", 2)

    def interrupt(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(keras.callbacks.CSVLogger, "on_epoch_begin", interrupt)
        result = run(*arguments, "--epochs", 3)
    assert result.exit_code != 0 and not (out / "model.keras").exists()
    assert "4 images to train on, 3 held out" in result.output and "split val" in result.output

    refused(run(*arguments, "--epochs", 5), "epochs", "(3, 5)")
    result = run(*arguments, "--epochs", 3)
    assert result.exit_code == 0, result.output
    assert "Epoch 2/3" in result.output and "Epoch 1/3" not in result.output
    assert [row["epoch"] for row in history(out)] == ["0", "1", "2"]


def test_finetune_refuses_what_is_no_data(saved, coco, tmp_path):
    common = ("finetune", "--model", saved, "--out", tmp_path / "out", "--data")
    refused(run(*common, tmp_path), "none of the layouts", "holds")
    refused(run(*common, tmp_path / "nowhere"), "no folder", "nowhere")
    data = coco("train", 1)
    refused(run(*common, data), "val", "1 image")
    (data / "images" / "train0.png").unlink()
    refused(run(*common, data), "train0.png")


def yolo(folder, polygons=True):
    """A folder of YOLO, with a split `valid` as Roboflow calls it, and one image that is broken."""
    shape = "0.2 0.2 0.6 0.2 0.6 0.7 0.2 0.7" if polygons else "0.4 0.45 0.4 0.5"
    for split, count in (("train", 3), ("valid", 2)):
        (folder / split / "labels").mkdir(parents=True)
        for i in range(count):
            picture(folder / split / "images" / f"{i}.png", 64, 64, seed=i)
            (folder / split / "labels" / f"{i}.txt").write_text(f"1 {shape}\n")
    (folder / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['low', 'high']\n"
    )
    (folder / "train" / "images" / "2.png").write_bytes(b"")
    return folder


def test_finetune_takes_any_layout_and_quarantines(saved, tmp_path, monkeypatch):
    from mtl_keras.training import finetune

    given = {}

    def trained(model, builder, *arguments):
        given.update(model=model, builder=builder)
        return {"loss": 1.0}

    monkeypatch.setattr(finetune, "finetune", trained)
    data = yolo(tmp_path / "my set")
    common = ("finetune", "--model", saved, "--out", tmp_path / "out", "--data", data)
    refused(run(*common), "2.png", "0 bytes")
    assert not given
    result = run(*common, "--on-bad", "quarantine")
    assert result.exit_code == 0, result.output
    for part in ("Layout: yolo", "Images: train 2, val 2", "Classes: low, high", "split val"):
        assert part in result.output
    assert "Warning: 1 problem" in result.output and "2.png" in result.output
    assert [task.num_classes for task in given["model"].tasks] == [2, 3]
    assert given["builder"].info.splits["train"].num_examples == 2
    assert run(*common, "--on-bad", "skip").exit_code == 2


def test_finetune_says_which_labels_are_missing(saved, tmp_path):
    boxes = yolo(tmp_path / "boxes", polygons=False)
    (boxes / "train" / "images" / "2.png").unlink()
    (boxes / "train" / "labels" / "2.txt").unlink()
    common = ("finetune", "--model", saved, "--out", tmp_path / "out", "--data")
    refused(run(*common, boxes), "'segmentation' needs 'mask'")
    for name in ("a", "b", "c", "d", "e"):
        picture(tmp_path / "masks" / "images" / f"{name}.png")
        mask = np.zeros((40, 56), "uint8")
        mask[5:20, 5:20] = 255
        (tmp_path / "masks" / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "masks" / "masks" / f"{name}.png")
    result = run(*common, tmp_path / "masks")
    refused(result, "'detection'", "no boxes")
    assert "Classes of pixels: foreground" in result.output


def test_classes_that_are_the_same_keep_their_heads():
    from mtl_keras.training.finetune import with_classes

    three = [toy.detection(), toy.segmentation(), mtl.tasks.BoundaryDistance(channels=8)]
    adapted = with_classes(toy.model(three), ["a", "b"])
    assert [task.num_classes for task in adapted.tasks] == [2, 3, 1]
    model = with_classes(toy.model(), ["a", "b"])
    assert with_classes(model, ["a", "b"]) is model
    other = with_classes(model, ["a", "c", "d"])
    assert [task.num_classes for task in other.tasks] == [3, 4]
    assert not toy.same(
        toy.arrays(other.get_layer("detection_head").weights[:1]),
        toy.arrays(model.get_layer("detection_head").weights[:1]),
    )
    for layer in model.layers:
        if not layer.name.endswith("_head"):
            kept = other.get_layer(layer.name)
            assert toy.same(toy.arrays(layer.weights), toy.arrays(kept.weights))
    for frozen in ("trunk_stem", "detection_head"):
        model.get_layer(frozen).trainable = False
    other = with_classes(model, ["a", "c", "d"], image_size=(96, 64))
    still = {layer.name for layer in other.layers if layer.weights and not layer.trainable}
    assert still == {"trunk_stem"}  # A new head has to learn.
    assert model.get_layer("trunk_stem").trainable is False


def test_export(saved, tmp_path):
    out = tmp_path / "served"
    result = run("export", "--model", saved, "--out", out)
    assert result.exit_code == 0, result.output
    serve = tf.saved_model.load(str(out)).signatures["serving_default"]
    found = serve(images=np.zeros((1, 30, 50, 3), "uint8"))
    assert found["segmentation_mask"].shape == (1, 30, 50)
    refused(run("export", "--model", saved, "--out", out), "served")


def test_train_runs_a_recipe(tmp_path):
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        f"""
import keras, toy
import mtl_keras as mtl
from mtl_keras.training.recipe import Recipe

recipe = Recipe(
    name="tiny",
    data=lambda: mtl.data.digits(4, 2, 64, data_dir={str(tmp_path)!r}),
    model=lambda builder: toy.model(
        [toy.detection(num_classes=10), toy.segmentation(num_classes=11)]
    ),
    optimizer=lambda steps: keras.optimizers.SGD(1e-3),
    augment=mtl.data.Augment(),
    epochs=9,
    train_size=(64, 64),
    batch_size=2,
)
"""
    )
    result = run("train", recipe, "--out", tmp_path / "run", "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run" / "model.keras").is_file()
    (line,) = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    assert json.loads(line)["epoch"] == 1 and json.loads(line)["detection_loss"] > 0
    refused(run("train", recipe, "--out", tmp_path / "run", "--epochs", 1, "--seed", 3), "seed")
    refused(run("train", recipe, "--out", tmp_path / "other", "--arrays", tmp_path), "arrays")
    refused(run("train", tmp_path / "no.py", "--out", tmp_path), "no.py")


def test_entry_point_is_main():
    from importlib import metadata

    try:
        (script,) = metadata.entry_points(group="console_scripts", name="mtl-keras")
    except ValueError:
        pytest.skip("mtl_keras is not installed (pip install -e .)")
    from mtl_keras import cli

    assert script.load() is cli.main
    assert pathlib.Path(cli.__file__).name == "cli.py"
