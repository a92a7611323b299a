import builtins
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtl_keras.data import yolo
from mtl_keras.data.records import BadLabels
from mtl_keras.data.yolo.labels import upright_size

BOX = "0 0.5 0.5 0.5 0.25\n"
POLYGON = "1 0.1 0.2 0.5 0.2 0.5 0.6 0.1 0.6\n"


class Folder:
    """Writes images and label files into a folder with classes.txt."""

    def __init__(self, root):
        self.root = Path(root)
        self.root.mkdir(parents=True, exist_ok=True)
        self.names("cell\ngap\n")

    def names(self, content, name="classes.txt"):
        return self.file(name, content)

    def file(self, name, content):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def image(self, name, labels=None, width=60, height=40, **save):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height)).save(path, **save)
        if labels is not None:
            parts = ["labels" if p == "images" else p for p in Path(name).parts]
            return self.file(Path(*parts).with_suffix(".txt"), labels)
        return path

    def yaml(self, content, name="data.yaml"):
        (self.root / "classes.txt").unlink(missing_ok=True)
        return self.file(name, content)

    def read(self, on_bad="strict"):
        return yolo.read(self.root, on_bad)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "my set")


def only(source, split="train"):
    (record,) = source.splits[split]
    return record


def filenames(source):
    return {split: [r.filename for r in records] for split, records in source.splits.items()}


def test_boxes(folder):
    labels = folder.image("images/a.png", BOX + "\n1.0 0 0 0.5 1\n")
    source = folder.read()
    assert source.names == ["cell", "gap"] and source.layout == "yolo" and source.name == "my set"
    record = only(source)
    assert [o.box for o in record.objects] == [(15, 15, 45, 25), (-15, -20, 15, 20)]
    assert [o.label for o in record.objects] == [0, 1] and record.size == (40, 60)
    assert record.objects[1].where == "labels/a.txt, line 3" and not record.has_masks
    assert source.files == [folder.root / "classes.txt", labels] and not source.problems


def test_polygons(folder):
    folder.image("images/a.png", POLYGON)
    folder.image("images/b.png", "")
    folder.image("images/c.png", POLYGON + BOX)
    a, b, c = folder.read().splits["train"]
    (found,) = a.objects
    np.testing.assert_allclose(found.box, (6, 8, 30, 24))
    top, left, mask = found.mask(40, 60)
    assert (top, left, mask.shape) == (8, 6, (16, 24)) and mask.all()
    assert a.has_masks and b.has_masks and b.objects == []
    assert not c.has_masks and [o.mask is None for o in c.objects] == [False, True]


def test_missing_is_not_labelled_and_empty_is_no_object(folder):
    folder.image("images/a.png")
    folder.image("images/b.png", "\r\n \n")
    folder.image("images/c.png", BOX)
    a, b, c = folder.read().splits["train"]
    assert a.objects is None and b.objects == [] and len(c.objects) == 1
    assert not any(r.has_masks for r in (a, b, c))


@pytest.mark.parametrize(("orientation", "size"), [(1, (40, 60)), (3, (40, 60)), (6, (60, 40))])
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_size_of_the_upright_image(folder, orientation, size, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    folder.image(f"images/a.{kind}", BOX, exif=exif)
    record = only(folder.read())
    assert record.size == size
    np.testing.assert_allclose(
        record.objects[0].box,
        np.array([0.25, 0.375, 0.75, 0.625]) * (size[1], size[0], size[1], size[0]),
    )


def test_turned_png_with_its_exif_behind_the_pixels(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = folder.image("images/a.png", exif=exif)
    folder.image("images/b.png")
    content, plain = path.read_bytes(), (folder.root / "images/b.png").read_bytes()
    start = content.index(b"eXIf") - 4
    length = 12 + int.from_bytes(content[start : start + 4], "big")
    path.write_bytes(plain[:-12] + content[start : start + length] + plain[-12:])
    assert upright_size(path) == (60, 40)
    assert upright_size(folder.root / "images/b.png") == (40, 60)


LAYOUTS = {
    "images/train": ("images/train/a.png", "images/val/a.png", "train/a.png", "val/a.png"),
    "roboflow": ("train/images/a.png", "valid/images/a.png"),
    "beside": ("train/a.png", "valid/a.png"),
    "darknet": ("obj_train_data/a.png", "obj_valid_data/a.png"),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_splits_by_folder(folder, case):
    train, val, *expected = LAYOUTS[case]
    folder.image(train, BOX)
    # The same name in two folders is two images.
    folder.image(val, BOX * 2)
    source = folder.read()
    train, val = expected or (train, val)
    assert filenames(source) == {"train": [train], "val": [val]}
    assert len(only(source, "val").objects) == 2
    assert yolo.recognise(folder.root).startswith("YOLO: a text file an image in ")


def test_flat_folder(folder):
    folder.image("a.png", BOX)
    folder.image("prepared/b.png", BOX)
    folder.file("README.txt", "Made with care\n")
    assert filenames(folder.read()) == {"train": ["a.png"]}
    assert yolo.recognise(folder.root) == "YOLO: a text file an image in ./"


def test_unicode_spaces_windows_line_ends_and_byte_order_marks(folder):
    folder.names("\ufeffrote Zelle\r\nLücke\r\n\r\n")
    folder.image("images/é b.v1.png", "\ufeff" + BOX.replace("\n", "\r\n") + "1\t.5 5e-1 .1 .1")
    source = folder.read()
    assert source.names == ["rote Zelle", "Lücke"]
    assert only(source).filename == "é b.v1.png" and len(only(source).objects) == 2


BROKEN = {
    "reversed": ("0 0.5 0.5 -0.1 0.2", "reversed box"),
    "nan": ("0 nan 0.5 0.1 0.2", "no number"),
    "infinite": ("0 0.5 0.5 inf 0.2", "no number"),
    "text": ("cell 0.5 0.5 0.1 0.2", "no number"),
    "commas": ("0, 0.5, 0.5, 0.1, 0.2", "no number"),
    "underscore": ("0 0.5 0.5 0_1 0.2", "no number"),
    "DOTA": ("1 1 9 1 9 5 1 5 plane 0", "no number"),
    "class": ("2 0.5 0.5 0.1 0.2", "unknown class"),
    "class below 0": ("-1 0.5 0.5 0.1 0.2", "unknown class"),
    "part of a class": ("0.5 0.5 0.5 0.1 0.2", "unknown class"),
    "confidence": ("0 0.5 0.5 0.1 0.2 0.9", "confidence in labels"),
    "few columns": ("0 0.5 0.5 0.1", "number of columns"),
    "two points with more": ("0 0.5 0.5 0.1 0.2 0.3 0.4 0.9", "number of columns"),
    "keypoints": ("0 0.5 0.5 0.2 0.2 0.5 0.5 2 0.4 0.4 2 0.4 0.5 2", "number of columns"),
    "one number": ("0", "number of columns"),
    "pixels": ("0 30 20 10 5", "not normalised"),
    "wide": ("0 0.5 0.5 1.2 0.2", "not normalised"),
    "negative": ("1 0.1 0.2 0.5 -0.2 0.5 0.6", "not normalised"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_lines(folder, case):
    line, kind = BROKEN[case]
    file = folder.image("images/a.png", BOX + line + "\n")
    folder.image("images/b.png", BOX)
    with pytest.raises(BadLabels) as raised:
        folder.read()
    problem = raised.value.problem
    assert (problem.file, problem.line, problem.kind) == (str(file), 2, kind), str(problem)
    source = folder.read("quarantine")
    assert source.problems == [problem] and problem.image == "a.png"
    assert only(source).filename == "b.png" and only(source).image_id == 2


def test_every_broken_line_is_listed(folder):
    folder.image("images/a.png", "x\n" + BOX + "9 0 0 1 1\n")
    source = folder.read("quarantine")
    assert [p.line for p in source.problems] == [1, 3] and source.splits == {"train": []}


@pytest.mark.parametrize(
    "line",
    [
        "1 0.5 0.5 0 0.2",
        "1 0.5 0.5 0.2 0",
        "1 1.005 0.5 0.005 0.2",
        "1 -0.01 0.5 0.02 0.2",
        "1 0.1 0.1 0.2 0.2 0.4 0.4",
        "1 0.1 0.1 0.1 0.1 0.1 0.1",
        "1 0.1 0.1 0.1 0.5 0.1 0.3",
    ],
)
def test_objects_of_no_area_are_left_out_alone(folder, line):
    file = folder.image("images/a.png", line + "\n" + BOX)
    with pytest.raises(BadLabels, match="box without area"):
        folder.read()
    source = folder.read("quarantine")
    (problem,) = source.problems
    assert (problem.file, problem.line, problem.image) == (str(file), 1, None)
    assert [o.label for o in only(source).objects] == [0]


def test_rounding_beyond_the_border_is_no_problem(folder):
    folder.image("images/a.png", "0 0.5 0.5 1.005 1.0\n0 -0.005 0.1 0.5 0.1 0.5 1.004\n")
    assert len(only(folder.read()).objects) == 2


def test_images_and_labels_without_partner_or_unreadable(folder):
    folder.image("images/train/a.png", BOX)
    orphan = folder.file("labels/train/gone.txt", BOX)
    folder.file("labels/train/classes.txt", "cell\ngap")
    folder.image("images/train/c.png", BOX)
    folder.image("images/train/c.jpg")
    damaged = folder.root / "images/train/d.png"
    folder.image("images/train/d.png", BOX)
    damaged.write_bytes(b"no image")
    text = folder.image("images/train/e.png", b"\xff\xfe0\x00")
    stray = folder.image("images/f.png")
    source = folder.read("quarantine")
    assert filenames(source) == {"train": ["train/a.png"]}
    assert {(p.file, p.kind, p.image) for p in source.problems} == {
        (str(orphan), "missing image", "train/gone"),
        (str(folder.root / "images/train/c.jpg"), "images of one name", "train/c.jpg"),
        (str(damaged), "unreadable image", "train/d.png"),
        (str(text), "not UTF-8", "train/e.png"),
        (str(stray), "image in no split", "f.png"),
    }


# === Names ===


def test_repeated_names_get_a_number(folder):
    folder.names("gap\ncell\ngap\ngap_2\n")
    folder.image("images/a.png", BOX)
    assert folder.read().names == ["gap", "cell", "gap_3", "gap_2"]


def test_names_that_can_not_be_read(folder):
    folder.image("images/a.png", BOX)
    folder.names("cell\n\ngap\n")
    with pytest.raises(BadLabels, match="classes.txt:2: names: an empty line"):
        folder.read("quarantine")
    folder.names(b"\xff")
    with pytest.raises(BadLabels, match="not UTF-8"):
        folder.read()
    folder.names("cell\ngap\n")
    folder.names("gap\ncell\n", "labels/classes.txt")
    with pytest.raises(BadLabels, match="it names other classes"):
        folder.read()
    for name in ("classes.txt", "labels/classes.txt"):
        (folder.root / name).unlink()
    with pytest.raises(ValueError, match="nothing names the classes"):
        folder.read()
    folder.names("nucleus\n", "obj.names")
    assert folder.read().names == ["nucleus"]


def test_no_such_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        yolo.read(tmp_path / "no")
    assert yolo.recognise(tmp_path / "no") is None and yolo.recognise(tmp_path) is None
    with pytest.raises(ValueError, match="no YOLO folder"):
        yolo.read(tmp_path)
    with pytest.raises(ValueError, match="on_bad"):
        yolo.read(tmp_path, on_bad="ignore")
    folder = Folder(tmp_path / "masks")
    folder.image("images/a.png")
    folder.image("labels/a.png")
    assert yolo.recognise(folder.root) is None
    folder.file("labels/notes.txt", "these are masks\n")
    assert yolo.recognise(folder.root) is None


# === YAML ===


@pytest.fixture
def yaml():
    return pytest.importorskip("yaml", reason="PyYAML is not installed")


NAMES = {
    "list": ("names: [cell, 'no', 3]", ["cell", "no", "3"]),
    "dict": ("names:\n  1: gap\n  0: cell", ["cell", "gap"]),
    "text keys": ("names: {'0': cell, '1': gap}", ["cell", "gap"]),
    "count": ("nc: 2", ["class_0", "class_1"]),
    "both": ("nc: 1\nnames: [cell]", ["cell"]),
}


@pytest.mark.parametrize("case", NAMES)
def test_names_in_yaml(folder, yaml, case):
    names, expected = NAMES[case]
    folder.image("images/train/a.png", BOX)
    folder.yaml(f"\ufefftrain: images/train\r\n{names}\r\n")
    assert yolo.recognise(folder.root) == "YOLO: data.yaml names classes and images"
    assert folder.read().names == expected


PLACES = {
    "plain": "train: images/train\nval: images/val",
    "path": "path: .\ntrain: images/train\nval: ['images/val']",
    "path that moved": "path: /home/somebody/set\ntrain: images/train\nvalidation: images/val",
    "roboflow": "train: ../images/train\nval: ../images/val\ntest:",
    "list file": "train: train list.txt\nval: images/val",
}


@pytest.mark.parametrize("case", PLACES)
def test_splits_in_yaml(folder, yaml, case):
    folder.image("images/train/a b.png", BOX)
    folder.image("images/val/a b.png", BOX)
    folder.image("images/other/c.png", BOX)
    folder.file("train list.txt", "\ufeff./images/train/a b.png\r\n\r\n")
    folder.yaml(PLACES[case] + "\nnames: [cell]")
    source = folder.read()
    prefix = "images/" if case == "list file" else ""
    expected = {"train": [f"{prefix}train/a b.png"], "val": [f"{prefix}val/a b.png"]}
    assert filenames(source) == expected
    assert all(len(only(source, split).objects) == 1 for split in expected)
    assert len(source.files) == 3 + (case == "list file")


def test_keypoints_by_yaml(folder, yaml):
    file = folder.image("images/a.png", "0 0.5 0.5 0.5 0.25 0.1 0.1 0.2 0.2\n" + BOX)
    folder.yaml("train: images\nnames: [person]\nkpt_shape: [2, 2]")
    with pytest.raises(BadLabels, match="kpt_shape there should be 9"):
        folder.read()
    file.write_text("0 0.5 0.5 0.5 0.25 0.1 0.1 0.2 0.2\n")
    (found,) = only(folder.read()).objects
    assert found.box == (15, 15, 45, 25) and found.mask is None


def test_yaml_by_its_own_path(folder, yaml):
    folder.image("images/a.png", BOX)
    first = folder.yaml("train: images\nnames: [one]", "one.yaml")
    folder.yaml("train: images\nnames: [two]", "two.yaml")
    folder.yaml("other: 1", "config.yaml")
    with pytest.raises(ValueError, match="give the path of one"):
        folder.read()
    source = yolo.read(first)
    assert source.names == ["one"] and source.name == "my set"
    with pytest.raises(ValueError, match="is a file"):
        yolo.read(folder.root / "images/a.png")


def test_images_in_two_splits_and_missing_ones(folder, yaml):
    folder.image("images/a.png", BOX)
    folder.file("train.txt", "images/a.png\nimages/none.png\nimages/a.png\n")
    file = folder.yaml("names: [cell]\ntrain: train.txt\nval: images\n\ntest: none\n")
    source = folder.read("quarantine")
    assert filenames(source) == {"train": ["images/a.png"], "val": []}
    root = folder.root
    assert {(p.file, p.line, p.kind) for p in source.problems} == {
        (str(file), 5, "missing folder"),
        (str(root / "train.txt"), 2, "missing image"),
        (str(root / "train.txt"), 3, "image listed twice"),
        (str(root / "images/a.png"), None, "image in two splits"),
    }


BROKEN_YAML = {
    "syntax": ("train: images\nnames: [cell\nval: x", "damaged YAML", 3),
    "object": ("train: images\nnames: !!python/name:os.system x", "damaged YAML", 2),
    "flag as name": ("train: images\nnames: [yes, no]", "names", 2),
    "nothing as name": ("names: [cell, ]\nnc: 2", "names", 2),
    "null as name": ("names: [cell, null]", "names", 1),
    "gap in ids": ("train: images\n\nnames: {0: cell, 2: gap}", "names", 3),
    "names as text": ("names: cell", "names", 1),
    "keypoints": ("names: [cell]\nkpt_shape: 17", "kpt_shape", 2),
    "path": ("names: [cell]\ntrain: 3", "path", 2),
}


@pytest.mark.parametrize("case", BROKEN_YAML)
def test_broken_yaml(folder, yaml, case):
    content, kind, line = BROKEN_YAML[case]
    folder.image("images/a.png", BOX)
    file = folder.yaml(content)
    with pytest.raises(BadLabels) as raised:
        folder.read("quarantine")
    problem = raised.value.problem
    assert (problem.file, problem.kind, problem.line) == (str(file), kind, line), str(problem)


def test_yaml_without_images(folder, yaml):
    folder.yaml("names: [cell]")
    with pytest.raises(ValueError, match="names no images"):
        folder.read()


def test_yaml_without_pyyaml(folder, monkeypatch):
    folder.image("images/a.png", BOX)
    folder.yaml("names: [cell]\ntrain: images")
    plain = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "yaml":
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match="pip install PyYAML"):
        folder.read()
