"""Folders of every layout, from the files to training batches; what they lack stays lacking."""

import json

import numpy as np
import pytest
import toy
from PIL import Image

import mtl_keras as mtl
from mtl_keras.data.records import BadLabels


def picture(path, size=(40, 60)):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name))
    Image.fromarray(rng.integers(0, 255, (*size, 3), "uint8")).save(path)


def coco(folder):
    for name in ("a.png", "b.png"):
        picture(folder / "images" / name)
    labels = {
        "images": [
            {"id": i, "file_name": name, "width": 60, "height": 40}
            for i, name in enumerate(("a.png", "b.png"))
        ],
        "categories": [{"id": 7, "name": "cell"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 0,
                "category_id": 7,
                "bbox": [5, 5, 20, 10],
                "segmentation": [[5, 5, 25, 5, 25, 15, 5, 15]],
            }
        ],
    }
    (folder / "train.json").write_text(json.dumps(labels))


def yolo(folder):
    for name in ("a", "b"):
        picture(folder / "images" / "train" / f"{name}.png")
    (folder / "labels" / "train").mkdir(parents=True)
    (folder / "labels" / "train" / "a.txt").write_text("0 0.25 0.25 0.333333 0.25\n")
    (folder / "classes.txt").write_text("cell\n")


def voc(folder):
    for name in ("a", "b"):
        picture(folder / "JPEGImages" / f"{name}.jpg")
    (folder / "Annotations").mkdir()
    (folder / "Annotations" / "a.xml").write_text(
        "<annotation><filename>a.jpg</filename><size><width>60</width><height>40</height></size>"
        "<object><name>cell</name><bndbox><xmin>6</xmin><ymin>6</ymin><xmax>25</xmax>"
        "<ymax>15</ymax></bndbox></object></annotation>"
    )


def masks(folder):
    for name in ("a", "b"):
        picture(folder / "images" / f"{name}.png")
    mask = np.zeros((40, 60), "uint8")
    mask[5:15, 5:25] = 1
    (folder / "masks").mkdir()
    Image.fromarray(mask).save(folder / "masks" / "a.png")


def columns(folder):
    for name in ("a.png", "b.png"):
        picture(folder / "images" / name)
    (folder / "labels.csv").write_text("filename,kind\na.png,round\nb.png,\n")


LAYOUTS = {"coco": coco, "yolo": yolo, "voc": voc, "mask_folders": masks, "columns": columns}
# What image a is labelled with, and b.
LABELLED = {
    "coco": ({"boxes", "instances", "mask"}, {"boxes", "instances", "mask"}),
    "yolo": ({"boxes"}, set()),
    "voc": ({"boxes"}, set()),
    "mask_folders": ({"mask"}, set()),
    "columns": (set(), set()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_recognised_and_read(layout, tmp_path):
    folder = tmp_path / "set"
    LAYOUTS[layout](folder)
    builder = mtl.data.from_folder(folder, data_dir=tmp_path / "prepared")
    found = {
        e["filename"].decode(): e for e in mtl.data.examples(builder, "train").as_numpy_iterator()
    }
    a, b = (next(e for name, e in found.items() if name.split("/")[-1][0] == c) for c in "ab")
    for one, expected in zip((a, b), LABELLED[layout], strict=True):
        assert {kind for kind, here in one["labelled"].items() if here} == expected
    if "boxes" in LABELLED[layout][0]:
        np.testing.assert_allclose(a["boxes"], [[5, 5, 25, 15]], atol=0.1)
        assert builder.info.features["objects"]["label"].names == ["cell"]
    if "mask" in LABELLED[layout][0]:
        assert set(np.unique(a["mask"])) == {0, 1} and a["mask"].sum() == 200
    if layout == "mask_folders":
        assert np.all(b["mask"] == 255)
    if layout == "columns":
        assert a["values"]["kind"] == 0 and np.isnan(b["values"]["kind"])
    again = mtl.data.from_folder(folder, data_dir=tmp_path / "prepared")
    assert again.data_dir == builder.data_dir
    assert mtl.data.quarantined(builder) == []


def test_batches_say_which_images_lack_labels(tmp_path):
    yolo(tmp_path / "set")
    builder = mtl.data.from_folder(tmp_path / "set", data_dir=tmp_path / "prepared")
    task = toy.detection(num_classes=1)
    (batch,) = mtl.data.batches(builder, "train", [task], 64, batch_size=2)
    _, targets, weights = batch
    boxes = np.sum(targets["detection"]["classes"].numpy() >= 0, axis=1)
    assert sorted(weights["detection"].numpy()) == [0, 1]
    np.testing.assert_array_equal(boxes, weights["detection"])
    with pytest.raises(ValueError, match="'segmentation' needs 'mask'.*no image"):
        mtl.data.batches(builder, "train", [toy.segmentation()], 64)


def test_a_column_becomes_the_label_of_a_task(tmp_path):
    columns(tmp_path / "set")
    builder = mtl.data.from_folder(tmp_path / "set", data_dir=tmp_path / "prepared")
    task = mtl.tasks.Classification(num_classes=2, name="shape")
    with pytest.raises(ValueError, match="'shape' needs a label.*'kind'"):
        mtl.data.batches(builder, "train", [task], 64)
    (batch,) = mtl.data.batches(
        builder, "train", [task], 64, batch_size=2, columns={"shape": "kind"}
    )
    labels, weights = batch[1]["shape"]["label"].numpy(), batch[2]["shape"].numpy()
    assert sorted(labels) == [-1, 0] and np.array_equal(weights, labels + 1)


def test_what_is_broken_stops_or_is_listed(tmp_path):
    folder = tmp_path / "set"
    yolo(folder)
    (folder / "images" / "train" / "b.png").write_bytes(b"no image")
    (folder / "labels" / "train" / "b.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(BadLabels, match=r"b\.png"):
        mtl.data.from_folder(folder, data_dir=tmp_path / "prepared")
    with pytest.warns(UserWarning, match="1 problem"):
        builder = mtl.data.from_folder(folder, on_bad="quarantine", data_dir=tmp_path / "prepared")
    (problem,) = mtl.data.quarantined(builder)
    assert "b.png" in problem.file and "b.png" in problem.image
    assert builder.info.splits["train"].num_examples == 1
    with pytest.warns(UserWarning, match="1 problem"):
        again = mtl.data.from_folder(folder, on_bad="quarantine", data_dir=tmp_path / "prepared")
    assert again.data_dir == builder.data_dir and len(mtl.data.quarantined(again)) == 1


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ValueError, match=r"none of the layouts.*notes\.txt"):
        mtl.data.from_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        mtl.data.from_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="`layout` must be one of"):
        mtl.data.from_folder(tmp_path, layout="imagenet")
