"""A check finds what a preparation leaves out, and what is odd; its numbers are right."""

import inspect
import json
import warnings

import numpy as np
import pytest
from PIL import Image

import mtl_keras as mtl
from mtl_keras.data.checking import checker as check_lib
from mtl_keras.data.checking import statistics
from mtl_keras.data.letterbox import letterbox_scale


def kinds(problems):
    return sorted(problem.kind for problem in problems)


def picture(path, size=(40, 60), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), "uint8")
    Image.fromarray(pixels).save(path)
    return path


# === The same as a preparation ===
def broken_coco(folder, coco_folder_class):
    coco = coco_folder_class(folder)
    for i, name in enumerate(
        ("good.png", "cut.jpg", "other.png", "gone.png", "empty.png", "rle.png")
    ):
        coco.rectangle(coco.image(name, seed=i), 5, 5, 20, 10)
    cut = coco.images / "cut.jpg"
    cut.write_bytes(cut.read_bytes()[:700])
    picture(coco.images / "other.png", (30, 30))
    (coco.images / "gone.png").unlink()
    (coco.images / "empty.png").write_bytes(b"")
    good = coco.content["images"][0]["id"]
    coco.object(good, [70, 5, 20, 10])
    coco.object(good, [5, 5, -3, 10])
    unsized = coco.image("unsized.png", seed=7)
    del coco.content["images"][-1]["width"]
    coco.object(unsized, [70, 5, 20, 10])
    coco.rectangle(unsized, 1, 1, 9, 9)
    small = {"size": [2, 3], "counts": [2, 2, 2]}
    coco.object(coco.image("small.png", seed=8), [0, 0, 3, 2], segmentation=small)
    coco.content["images"][-1].pop("height")
    coco.write()
    fine = coco_folder_class(folder / "other")
    return folder, fine


def broken_yolo(folder):
    lines = {
        "good": "0 0.5 0.5 0.2 0.2\n\n0 0.5 0.5 0 0.2\n",
        "cut": "0 0.5 0.5 0.2 0.2\n",
        "text": "0 0.5 0.5 zero 0.2\n",
    }
    for i, (name, text) in enumerate(lines.items()):
        picture(folder / "images/train" / f"{name}.png", seed=i)
        (folder / "labels/train").mkdir(parents=True, exist_ok=True)
        (folder / "labels/train" / f"{name}.txt").write_text(text)
    (folder / "classes.txt").write_text("cell\n")
    cut = folder / "images/train/cut.png"
    cut.write_bytes(cut.read_bytes()[:2000])


def broken_masks(folder):
    for i, name in enumerate(("good", "small", "cut")):
        picture(folder / "images" / f"{name}.png", seed=i)
        mask = np.zeros((40, 60), "uint8")
        mask[5:15, 5:25] = 1
        (folder / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask if name != "small" else mask[:20]).save(folder / f"masks/{name}.png")
    cut = folder / "images/cut.png"
    cut.write_bytes(cut.read_bytes()[:2000])


@pytest.mark.parametrize("layout", ["coco", "yolo", "mask_folders"])
def test_it_finds_what_a_preparation_leaves_out(layout, tmp_path, coco_folder_class):
    folder = tmp_path / "set"
    if layout == "coco":
        broken_coco(folder, coco_folder_class)
    else:
        {"yolo": broken_yolo, "mask_folders": broken_masks}[layout](folder)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    report = mtl.data.check(folder)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        builder = mtl.data.from_folder(folder, on_bad="quarantine", data_dir=tmp_path / "prepared")
    wanted = mtl.data.quarantined(builder)
    assert len(wanted) >= 2 and report.layout == layout
    assert [(p.file, p.kind, p.message, p.image) for p in report.problems] == [
        (p.file, p.kind, p.message, p.image) for p in wanted
    ]
    for split, info in builder.info.splits.items():
        assert report.splits[split].images == info.num_examples


def test_lines(tmp_path, coco_folder):
    """Of labels that are found to be wrong only once the image is open, too."""
    key = coco_folder.image("a.png")
    del coco_folder.content["images"][0]["width"]
    coco_folder.rectangle(key, 5, 5, 9, 9)
    wrong = coco_folder.object(key, [70, 5, 20, 10])
    coco_folder.rectangle(key, 5, 5, 9, 9)
    path = coco_folder.write()
    path.write_text(json.dumps(coco_folder.content, indent=1))
    report = mtl.data.check(coco_folder.folder)
    (problem,), (warning,) = report.problems, report.warnings
    assert problem.kind == "box without area" and warning.kind == "repeated box"
    lines = path.read_text().splitlines()
    for found, number in ((problem, wrong), (warning, 3)):
        assert found.file == str(path)
        assert lines[found.line - 1].strip() == "{" and f'"id": {number},' in lines[found.line]

    folder = tmp_path / "yolo (1), line 7"
    picture(folder / "images/train/a.png")
    (folder / "labels/train").mkdir(parents=True)
    labels = folder / "labels/train/a.txt"
    labels.write_text("0 0.5 0.5 0.2 0.2\n\n0 0.5 0.5 0.2 0.2\n")
    (folder / "classes.txt").write_text("cell\n")
    (warning,) = mtl.data.check(folder).warnings
    assert (warning.file, warning.line, warning.kind) == (str(labels), 3, "repeated box")


def test_labels_that_can_not_be_read_are_a_problem(coco_folder):
    coco_folder.rectangle(coco_folder.image("a.png"), 5, 5, 9, 9)
    path = coco_folder.write()
    path.write_text(path.read_text()[:-40])
    report = mtl.data.check(coco_folder.folder)
    assert kinds(report.problems) == ["unreadable JSON"] and report.problems[0].line == 1
    assert not report.splits and report.to_dict()["splits"] == {}


def test_a_failure_that_nobody_foresaw_is_a_problem(coco_folder, monkeypatch):
    for name in ("a.png", "b.png"):
        coco_folder.rectangle(coco_folder.image(name, seed=ord(name[0])), 5, 5, 9, 9)
    coco_folder.write()
    usable = check_lib.importing.usable

    def fails(record, problems):
        if record.filename == "a.png":
            raise IndexError("out of bounds")
        return usable(record, problems)

    monkeypatch.setattr(check_lib.importing, "usable", fails)
    report = mtl.data.check(coco_folder.folder)
    (problem,) = report.problems
    assert problem.image == "a.png" and "IndexError: out of bounds" in problem.message
    assert report.splits["train"].images == 1


# === What is odd ===
def square(x, y, side):
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


@pytest.mark.parametrize(
    ("objects", "kind", "said"),
    [
        ([([5, 5, 30, 20], square(5, 5, 8))], "box and mask disagree", "IoU 0.11"),
        ([([5, 5, 3, 3], square(6, 6, 3))], None, ""),  # off by a pixel
        ([([5, 5, 9, 9], square(100, 5, 9))], "mask without pixels", "no pixel"),
        ([([50, 5, 20, 9], None)], "box reaches outside", "50%"),
        ([([51, 5, 10, 9], None)], None, ""),  # a pixel outside
        ([([5, 5, 9, 9], None)] * 2, "repeated box", "annotation 1"),
        ([([5, 5, 9, 9], None), ([5, 5, 9, 10], None)], None, ""),
    ],
)
def test_objects_that_are_odd(coco_folder, objects, kind, said):
    key = coco_folder.image("a.png")
    for box, polygon in objects:
        coco_folder.object(key, box, **({} if polygon is None else {"segmentation": polygon}))
    coco_folder.write()
    report = mtl.data.check(coco_folder.folder)
    assert report.problems == [] and kinds(report.warnings) == ([kind] if kind else [])
    assert all(said in w.message and w.image == "a.png" for w in report.warnings)


def test_boxes_of_two_classes_crowds_and_many_objects(coco_folder):
    key = coco_folder.image("a.png")
    coco_folder.object(key, [5, 5, 9, 9])
    coco_folder.object(key, [5, 5, 9, 9], category_id=8)
    coco_folder.object(key, [5, 5, 9, 9], iscrowd=1)
    coco_folder.write()
    assert kinds(mtl.data.check(coco_folder.folder).warnings) == ["box of two classes"]
    report = mtl.data.check(coco_folder.folder, max_objects=2)
    assert kinds(report.warnings) == ["box of two classes", "many objects"]
    default = inspect.signature(mtl.tasks.Detection).parameters["max_objects"].default
    assert default == check_lib.MAX_OBJECTS


def test_duplicates_within_a_split_warn_and_across_are_a_problem(tmp_path, coco_folder_class):
    train, val = (coco_folder_class(tmp_path / "set") for _ in range(2))
    for coco, names in ((train, "abc"), (val, "de")):
        for name in names:
            seed = {"b": ord("a"), "e": ord("c")}.get(name, ord(name))
            coco.rectangle(coco.image(f"{name}.png", seed=seed), 5, 5, 9, 9)
    for images in (train.images / "c.png", val.images / "e.png"):
        smooth = Image.open(images).resize((6, 4)).resize((60, 40), Image.Resampling.BICUBIC)
        smooth.save(images)
    smooth.resize((180, 120), Image.Resampling.BICUBIC).save(val.images / "e.png")
    val.content["images"][1] |= {"width": 180, "height": 120}
    blank = train.image("blank.png")
    Image.new("RGB", (60, 40), "white").save(train.images / "blank.png")
    train.rectangle(blank, 5, 5, 9, 9)
    train.rectangle(blank, 25, 5, 9, 9)
    train.write("train.json"), val.write("val.json")
    report = mtl.data.check(tmp_path / "set")
    assert kinds(report.problems) == ["duplicate across splits"]
    assert "val: e.png is almost the same picture as train: c.png" in report.problems[0].message
    assert report.problems[0].file == str(val.images / "e.png")
    assert kinds(report.warnings) == ["blank image", "duplicate"]
    assert "train: b.png is the same file as train: a.png" in report.warnings[1].message
    assert [group.leaks for group in report.duplicates] == [False, True]
    assert any("in more than one split" in sentence for sentence in report.advice)


# === Numbers ===
def test_statistics_are_those_of_a_count_by_hand(tmp_path, coco_folder_class):
    coco = coco_folder_class(tmp_path / "set")
    a, b = coco.image("a.png", 64, 64, seed=1), coco.image("b.png", 128, 32, seed=2)
    coco.image("c.png", 64, 64, seed=3)
    coco.rectangle(a, 0, 0, 2, 2)
    coco.rectangle(a, 8, 8, 8, 8)
    coco.rectangle(b, 10, 0, 64, 16, category_id=8)
    coco.object(b, [0, 20, 20, 10], category_id=8, iscrowd=1, segmentation=square(0, 20, 10))
    Image.open(coco.images / "a.png").convert("L").save(coco.images / "a.png")
    coco.write()
    report = mtl.data.check(tmp_path / "set", image_size=(64, 64))
    assert report.problems == [] and report.names == ["cell", "gap"]
    train = report.splits["train"]
    assert (train.images, train.empty, train.objects, train.crowd) == (3, 1, 4, 1)
    assert train.labelled == {"boxes": 3, "instances": 3, "mask": 3}
    assert train.objects_of_class == [2, 2] and train.images_of_class == [1, 1]
    assert (train.per_image.least, train.per_image.median, train.per_image.most) == (0, 2, 2)
    assert (train.width.least, train.width.median, train.width.most) == (64, 64, 128)
    assert train.modes == {"RGB": 2, "L": 1} and train.formats == {"PNG": 3} and train.grey == 1
    # √area: 2, 8, 32 and 14.1; b is scaled by half.
    assert dict(zip(train.box_size.labels, train.box_size.counts, strict=True)) == {
        "< 4": 1, "4–8": 0, "8–16": 2, "16–32": 0, "32–64": 1, "64–128": 0, "128–256": 0,
        "256–512": 0, "≥ 512": 0,
    }  # fmt: skip
    assert train.box_size_trained.counts[:4] == (1, 1, 1, 1)
    assert (train.tiny, train.small) == (1, 2)
    assert sum(train.box_aspect.counts) == 4
    pixels = 2 * 64 * 64 + 128 * 32 - 100  # of which a crowd's are ignored
    things = np.array([4 + 64, 64 * 16])
    wanted = [1 - things.sum() / pixels, *(things / pixels)]
    np.testing.assert_allclose(train.pixels_of_class, wanted)
    assert json.loads(json.dumps(report.to_dict()))["splits"]["train"]["tiny"] == 1


def test_columns_are_counted(tmp_path):
    for i, name in enumerate("abcd"):
        picture(tmp_path / "set/images" / f"{name}.png", seed=i)
    (tmp_path / "set/labels.csv").write_text(
        "filename,kind,age\na.png,round,1.5\nb.png,flat,\nc.png,round,4.5\nd.png,,2.5\n"
    )
    report = mtl.data.check(tmp_path / "set")
    (split,) = report.splits.values()
    assert split.columns["kind"] == {"flat": 1, "round": 2}
    age = split.columns["age"]
    assert (age.least, age.median, age.most) == (1.5, 2.5, 4.5)
    assert split.labelled == {"boxes": 0, "instances": 0, "mask": 0, "kind": 3, "age": 3}


@pytest.mark.parametrize("size", [(40, 60), (700, 300), (3000, 4000), (1, 1)])
def test_sizes_are_judged_as_they_are_trained(size):
    for canvas in ((64, 64), (320, 640)):
        wanted = float(letterbox_scale(*size, canvas)[0])
        assert statistics.scale(size, canvas) == pytest.approx(wanted)


# === Advice ===
def said(report, *parts):
    return any(all(part in sentence for part in parts) for sentence in report.advice)


def test_advice_is_given_where_numbers_support_it(tmp_path, coco_folder_class):
    train, val = (coco_folder_class(tmp_path / "set") for _ in range(2))
    for i in range(30):
        key = train.image(f"t{i}.png", 256, 256, seed=i)
        for k in range(2):
            train.rectangle(key, 20 + 60 * k, 20, 40, 40)
        for k in range(1 + (i == 0)):
            train.rectangle(key, 20 + 60 * k, 100, 10, 10)
    train.rectangle(key, 200, 200, 40, 40, category_id=8)
    for i in range(2):
        val.rectangle(val.image(f"v{i}.png", 256, 256, seed=90 + i), 20, 20, 40, 40)
    train.write("train.json"), val.write("val.json")
    report = mtl.data.check(tmp_path / "set", image_size=160)
    small = (31, 93 + 1)
    assert said(report, f"{small[0] / small[1]:.0%} of the 94 objects", "8 px at 160 × 160", "P2")
    assert said(report, "larger image_size: at 224 × 224 it would be 0%")
    assert said(report, "In train and not in val", "gap")
    assert said(report, "Fewer than 20 objects", "gap (1)") and said(report, "cell has 91", "gap")
    assert said(report, "val holds 2 images")
    large = mtl.data.check(tmp_path / "set", image_size=256)
    assert not said(large, "P2") and not said(large, "split val to measure")
    (tmp_path / "set" / "val.json").unlink()
    assert said(mtl.data.check(tmp_path / "set"), "no split val")


def test_no_advice_without_a_reason(tmp_path, coco_folder_class):
    for split in ("train", "val"):
        coco = coco_folder_class(tmp_path / "set")
        for i in range(20):
            key = coco.image(f"{split}{i}.png", 96, 96, seed=i + 100 * (split == "val"))
            coco.rectangle(key, 10, 10, 30, 30)
            coco.rectangle(key, 50, 50, 40, 40, category_id=8)
        coco.write(f"{split}.json")
    report = mtl.data.check(tmp_path / "set")
    assert (report.problems, report.warnings, report.advice) == ([], [], [])


# === Use ===
def test_progress_and_arguments(coco_folder, tmp_path):
    for i in range(3):
        coco_folder.rectangle(coco_folder.image(f"{i}.png", seed=i), 5, 5, 9, 9)
    coco_folder.write()
    calls = []
    report = mtl.data.check(coco_folder.folder, "coco", progress=lambda *n: calls.append(n))
    assert calls == [(1, 3), (2, 3), (3, 3)] and report.image_size == (64, 64)
    with pytest.raises(FileNotFoundError, match="no folder"):
        mtl.data.check(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="`layout` must be one of"):
        mtl.data.check(coco_folder.folder, "imagenet")
    with pytest.raises(ValueError, match="`image_size`"):
        mtl.data.check(coco_folder.folder, image_size=0)
    with pytest.raises(ValueError, match="`max_objects`"):
        mtl.data.check(coco_folder.folder, max_objects=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="none of the layouts"):
        mtl.data.check(tmp_path / "empty")
