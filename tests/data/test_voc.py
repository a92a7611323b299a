import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtl_keras.data import voc
from mtl_keras.data.records import BadLabels

BOX = ("6", "7", "25", "16")


def thing(name="cell", box=BOX, more=""):
    ends = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    ends = "\n".join(f"<{tag}>{value}</{tag}>" for tag, value in ends)
    return f"<object>\n<name>{name}</name>{more}\n<bndbox>\n{ends}\n</bndbox>\n</object>"


def xml(*things, size=(60, 40)):
    stated = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    return f"<annotation>\n{stated}\n" + "\n".join(things) + "\n</annotation>"


class Folder:
    """Writes a folder in VOC's layout, or XML beside images with `flat`."""

    def __init__(self, root, flat=False):
        self.root = Path(root)
        self.images = self.root if flat else self.root / "JPEGImages"
        self.xmls = self.root if flat else self.root / "Annotations"
        for folder in (self.images, self.xmls):
            folder.mkdir(parents=True, exist_ok=True)

    def image(self, name, content=None, width=60, height=40):
        path = self.images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height)).save(path)
        if content is not None:
            self.xml(Path(name).with_suffix(".xml"), content)
        return path

    def xml(self, name, content):
        path = self.xmls / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def list(self, name, content, group="Main"):
        path = self.root / "ImageSets" / group / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8"))
        return path

    def map(self, kind, name, indices, mode="P"):
        path = self.root / f"Segmentation{kind}" / name
        path.parent.mkdir(exist_ok=True)
        image = Image.fromarray(np.asarray(indices, np.uint8))
        if mode == "P":
            # Colours that mean nothing, so that reading them would show.
            image.putpalette(np.random.default_rng(0).integers(0, 255, 768, "uint8").tobytes())
        else:
            image = image.convert(mode)
        image.save(path)
        return path

    def read(self, on_bad="strict"):
        return voc.read(self.root, on_bad)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "my set")


def only(source, split="train"):
    (record,) = source.splits[split]
    return record


def test_boxes_are_counted_from_1_and_hold_their_last_pixel(folder):
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    more = f"<truncated>1</truncated><pose>Left</pose>{part}"
    floats = thing("gap", ("1.5", "2", "3.25", "40.0"))
    folder.image("a.png", xml(thing(more=more), floats))
    source = folder.read()
    assert source.names == ["cell", "gap"] and source.layout == "voc" and source.name == "my set"
    record = only(source)
    first, second = record.objects
    assert first.box == (5, 6, 25, 16) and first.label == 0 and not first.is_crowd
    assert second.box == (0.5, 1, 3.25, 40) and second.label == 1
    assert record.size == (40, 60) and record.filename == "a.png" and not record.has_masks
    assert record.mask is None and first.mask is None
    assert first.where == "Annotations/a.xml, line 3"
    assert source.files == [folder.xmls / "a.xml"] and not source.problems


def test_one_pixel_and_boxes_that_reach_outside_stay(folder):
    folder.image("a.png", xml(thing(box=(1, 1, 1, 1)), thing(box=(0, -3, 99, 99))))
    boxes = [o.box for o in only(folder.read()).objects]
    assert boxes == [(0, 0, 1, 1), (-1, -4, 99, 99)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", True), ("0", False), ("", False), ("true", True), ("Unspecified", False)],
)
def test_difficult_objects_are_crowds(folder, text, expected):
    folder.image("a.png", xml(thing(more=f"<difficult>{text}</difficult>")))
    assert only(folder.read()).objects[0].is_crowd is expected


def test_without_xml_is_not_labelled_without_objects_is_empty(folder):
    folder.image("a.png")
    folder.image("b.png", xml())
    folder.image("c.png", xml(thing()))
    objects = [r.objects for r in folder.read().splits["train"]]
    assert objects[0] is None and objects[1] == [] and len(objects[2]) == 1


@pytest.mark.parametrize("size", [None, (0, 0), ("", "")])
def test_sizes_that_say_nothing(folder, size):
    folder.image("a.png", xml(thing(), size=size))
    assert only(folder.read()).size is None


def test_names_in_order_of_voc_else_sorted(folder):
    folder.image("a.png", xml(thing("tvmonitor"), thing("cat"), thing("boat")))
    assert folder.read().names == ["boat", "cat", "tvmonitor"]
    folder.image("b.png", xml(thing("apple")))
    assert folder.read().names == ["apple", "boat", "cat", "tvmonitor"]
    (folder.root / "labelmap.txt").write_text(
        "# label:color\nbackground:0,0,0::\ntvmonitor:::\nboat:::\napple:::\ncat:::\ndog:::\n"
    )
    assert folder.read().names == ["tvmonitor", "boat", "apple", "cat", "dog"]


def test_lists_make_the_splits(folder):
    for name in ("2007_1", "é b", "c", "d", "unlisted"):
        folder.image(f"{name}.jpg", xml(thing()))
    folder.list("train.txt", "\ufeff2007_1\r\né b.jpg\r\n\r\n")
    folder.list("val.txt", "c\n")
    folder.list("trainval.txt", "2007_1\né b\nc\n")
    folder.list("cat_train.txt", "2007_1 -1\n")
    folder.list("train.txt", "c\nd\n", group="Segmentation")
    source = folder.read()
    names = {split: [r.filename for r in records] for split, records in source.splits.items()}
    assert names == {"train": ["2007_1.jpg", "é b.jpg", "d.jpg"], "val": ["c.jpg"]}
    assert [r.image_id for r in source.splits["train"]] == [1, 2, 3]
    assert folder.root / "ImageSets/Main/val.txt" in source.files


def test_trainval_alone_is_a_split(folder):
    folder.image("a.png", xml(thing()))
    folder.image("b.png", xml(thing()))
    folder.list("trainval.txt", "a\n")
    folder.list("test.txt", "b\n")
    assert list(folder.read().splits) == ["trainval", "test"]


def test_composed_and_decomposed_unicode_is_one_name(folder):
    folder.image("e\u0301.png")
    folder.xml("\u00e9.xml", xml(thing()))
    folder.list("train.txt", "\u00e9\n")
    assert len(only(folder.read()).objects) == 1


@pytest.mark.parametrize("valid", ["val", "valid"])
def test_xml_beside_images(tmp_path, valid):
    folder = Folder(tmp_path / "set", flat=True)
    folder.image("train/a 1.jpg", xml(thing()))
    # The same name in two folders is two images.
    folder.image(f"{valid}/a 1.jpg", xml(thing("gap")))
    source = folder.read()
    assert only(source).filename == "train/a 1.jpg" and only(source).objects[0].label == 0
    assert only(source, "val").filename == f"{valid}/a 1.jpg"
    assert only(source, "val").objects[0].label == 1


def test_one_flat_folder(tmp_path):
    folder = Folder(tmp_path / "set", flat=True)
    folder.image("a.jpg", xml(thing()))
    folder.image("other/b.jpg", xml(thing()))
    folder.image("._a.jpg")
    assert only(folder.read()).filename == "a.jpg"


def test_recognise(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    assert voc.recognise(tmp_path / "empty") is None and voc.recognise(tmp_path / "no") is None
    folder.image("a.png", xml(thing()))
    assert voc.recognise(folder.root) == "Pascal VOC: JPEGImages/ and Annotations/"
    flat = Folder(tmp_path / "flat", flat=True)
    flat.image("train/a.png", xml(thing()))
    assert voc.recognise(flat.root) == "Pascal VOC: XML beside the images"
    other = Folder(tmp_path / "other", flat=True)
    other.image("a.png", "<annotations><image/></annotations>")
    assert voc.recognise(other.root) is None
    kaggle = tmp_path / "kaggle"
    for part in ("images", "annotations"):
        (kaggle / part).mkdir(parents=True)
    assert voc.recognise(kaggle) is None  # it may well be COCO
    (kaggle / "annotations/a.xml").write_text(xml(thing()))
    assert voc.recognise(kaggle) == "Pascal VOC: images/ and annotations/"


def test_inside_of_a_devkit(tmp_path):
    inner = Folder(tmp_path / "VOCdevkit/VOC2007")
    inner.image("a.png", xml(thing()))
    assert voc.recognise(tmp_path)
    assert len(voc.read(tmp_path).splits["train"]) == 1
    Folder(tmp_path / "VOCdevkit/VOC2012").image("a.png", xml(thing()))
    with pytest.raises(ValueError, match="several Pascal VOC folders"):
        voc.read(tmp_path)


def test_no_such_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        voc.read(tmp_path / "no")
    with pytest.raises(ValueError, match="no Pascal VOC folder"):
        voc.read(tmp_path)
    with pytest.raises(ValueError, match="on_bad"):
        voc.read(tmp_path, on_bad="ignore")


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>\n'
BROKEN = {
    "reversed": (xml(thing(box=(9, 2, 5, 8))), "reversed box", 5),
    "reversed rows": (xml(thing(box=(2, 9, 5, 8))), "reversed box", 5),
    "nan": (xml(thing(box=("nan", 2, 5, 8))), "box of no numbers", 6),
    "infinite": (xml(thing(box=(1, 2, "inf", 8))), "box of no numbers", 8),
    "text": (xml(thing(box=(1, 2, "five", 8))), "box of no numbers", 8),
    "underscore": (xml(thing(box=(1, 2, "1_0", 8))), "box of no numbers", 8),
    "nothing": (xml(thing(box=(1, 2, "", 8))), "box of no numbers", 8),
    "no name": (xml(thing(name=" ")), "object without a class", 3),
    "no box": (xml("<object><name>a</name></object>"), "object without a box", 3),
    "flag": (xml(thing(more="\n<difficult>2</difficult>")), "unknown flag", 5),
    "size": (xml(thing(), size=("wide", 4)), "image size", 2),
    "part of a pixel": (xml(thing(), size=(4.5, 4)), "image size", 2),
    "cut short": (xml(thing())[:90], "damaged XML", 5),
    "empty": ("", "damaged XML", 1),
    "no XML": ("0 0.5 0.5 1 1", "damaged XML", 1),
    "encoding": ('<?xml version="1.0" encoding="gb2312"?>\n<annotation/>', "damaged XML", 1),
    "bytes": (b"<annotation>\n\xff\xfe</annotation>", "damaged XML", 2),
    "entities": (BOMB + xml(thing("&b;")), "document type in XML", 1),
    "external": ('\n<!DOCTYPE x SYSTEM "file:///etc/passwd">' + xml(), "document type in XML", 2),
    "other": ("\n<svg/>", "other XML", 2),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_xml(folder, case):
    content, kind, line = BROKEN[case]
    folder.image("a.png", content)
    folder.image("b.png", xml(thing()))
    file = str(folder.xmls / "a.xml")
    with pytest.raises(BadLabels) as raised:
        folder.read()
    problem = raised.value.problem
    assert (problem.file, problem.kind, problem.line) == (file, kind, line), str(problem)
    source = folder.read("quarantine")
    assert source.problems == [problem] and problem.image == "a.png"
    assert only(source).filename == "b.png" and only(source).image_id == 2


def test_every_broken_object_is_listed(folder):
    bad = thing(box=(9, 2, 5, 8))
    folder.image("a.png", xml(bad, thing(), bad))
    found = folder.read("quarantine")
    assert [p.line for p in found.problems] == [5, 23] and found.splits == {"train": []}


@pytest.mark.parametrize(
    "box", [(0, 0, 0, 9), (61, 1, 70, 9), (1, 41, 9, 50), (-9, 1, -1, 9), (5, -9, 9, 0)]
)
def test_a_box_outside_of_the_image_is_left_out_alone(folder, box):
    folder.image("a.png", xml(thing("gap", box), thing()))
    with pytest.raises(BadLabels, match="box without area"):
        folder.read()
    source = folder.read("quarantine")
    (problem,) = source.problems
    assert problem.line == 3 and problem.image is None
    assert [o.box for o in only(source).objects] == [(5, 6, 25, 16)]
    assert source.names == ["cell"]


def test_windows_line_ends_and_byte_order_mark_in_xml(folder):
    content = xml(thing("two\r\nwords")).replace("\n", "\r\n").replace("\r\r", "\r")
    folder.image("a.png", b"\xef\xbb\xbf" + content.encode())
    folder.image("b.png", ('<?xml version="1.0"?>' + xml(thing("ä"))).encode("utf-16"))
    assert folder.read().names == ["two words", "ä"]


LISTS = {
    "missing": ({"train.txt": "a\nnone\n"}, "missing image", 2, "none"),
    "two splits": ({"train.txt": "a\n", "val.txt": "b\na\n"}, "image in two splits", 2, None),
    "twice": ({"train.txt": "a\n\na\n"}, "image listed twice", 3, None),
    "trainval": ({"train.txt": "a\n", "trainval.txt": "a\nb\n"}, "image in no split", 2, "b.png"),
}


@pytest.mark.parametrize("case", LISTS)
def test_broken_lists(folder, case):
    lists, kind, line, image = LISTS[case]
    folder.image("a.png", xml(thing()))
    folder.image("b.png", xml(thing()))
    for name, content in lists.items():
        path = folder.list(name, content)
    with pytest.raises(BadLabels, match=kind):
        folder.read()
    source = folder.read("quarantine")
    (problem,) = source.problems
    assert (problem.file, problem.kind, problem.line, problem.image) == (
        str(path),
        kind,
        line,
        image,
    )
    assert [r.filename for r in source.splits["train"]] == ["a.png"]


def test_lists_that_can_not_be_read(folder):
    folder.image("a.png", xml(thing()))
    (folder.list("train.txt", "")).write_bytes(b"\xff\xfea\x00")
    with pytest.raises(BadLabels, match="not UTF-8"):
        folder.read("quarantine")
    os.rename(folder.root / "ImageSets/Main/train.txt", folder.root / "ImageSets/Main/x.txt")
    with pytest.raises(ValueError, match="none of the lists"):
        folder.read()


def test_xml_and_images_that_have_no_partner_or_two(folder):
    folder.image("a.png", xml(thing()))
    folder.xml("b.xml", xml(thing()))
    folder.image("c.png", xml(thing()))
    folder.image("c.jpg")
    source = folder.read("quarantine")
    assert only(source).filename == "a.png"
    found = [(p.kind, p.image) for p in source.problems]
    assert found == [("missing image", "b"), ("images of one name", "c")]


def test_images_outside_of_the_folders_of_splits(folder):
    folder.image("train/a.png", xml(thing()))
    folder.image("b.png", xml(thing()))
    source = folder.read("quarantine")
    assert [(p.kind, p.image) for p in source.problems] == [("image in no split", "b")]
    assert only(source).filename == "train/a.png"


# === Masks ===


def maps():
    """A cat (8) and a dog (12), with borders; the dog is object 1."""
    classes, objects = np.zeros((2, 40, 60), np.uint8)
    for y, x, index, number in ((4, 4, 12, 1), (20, 30, 8, 2)):
        classes[y : y + 12, x : x + 14] = objects[y : y + 12, x : x + 14] = 255
        classes[y + 1 : y + 11, x + 1 : x + 13] = index
        objects[y + 1 : y + 11, x + 1 : x + 13] = number
    return classes, objects


DOG, CAT = thing("dog", (5, 5, 18, 16)), thing("cat", (31, 21, 44, 32))


def pixels(record, item):
    top, left, cut = item.mask(40, 60)
    full = np.zeros((40, 60), bool)
    full[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    return full


def with_maps(folder, content, classes=None, objects=None):
    folder.image("a.png", content)
    if classes is not None:
        folder.map("Class", "a.png", classes)
    if objects is not None:
        folder.map("Object", "a.png", objects)
    return folder.read()


def test_masks_by_palette_index(folder):
    classes, objects = maps()
    source = with_maps(folder, xml(DOG, CAT), classes, objects)
    assert source.names == ["cat", "dog"] and source.mask_names is None
    record = only(source)
    assert record.has_masks
    dog, cat = record.objects
    np.testing.assert_array_equal(pixels(record, dog), objects == 1)
    np.testing.assert_array_equal(pixels(record, cat), objects == 2)
    expected = np.select([classes == 8, classes == 12, classes == 255], [1, 2, 255])
    mask = record.mask(40, 60)
    np.testing.assert_array_equal(mask, expected)
    assert mask.dtype == np.uint8
    assert {p.parent.name for p in source.files} == {
        "Annotations",
        "SegmentationClass",
        "SegmentationObject",
    }
    with pytest.raises(BadLabels, match="mask of another size"):
        record.mask(60, 40)


def test_objects_of_another_order_are_matched_by_overlap(folder):
    classes, objects = maps()
    record = only(with_maps(folder, xml(CAT, DOG), classes, objects))
    cat, dog = record.objects
    np.testing.assert_array_equal(pixels(record, cat), objects == 2)
    np.testing.assert_array_equal(pixels(record, dog), objects == 1)


def test_order_decides_between_objects_that_overlap(folder):
    # By overlap alone, region 2 would be the object 1, of which the other hides all but a corner.
    objects = np.zeros((40, 60), np.uint8)
    objects[0:30, 0:30] = 2
    objects[26:30, 26:30] = 1
    both = xml(thing("cat", (1, 1, 30, 30)), thing("cat", (1, 1, 32, 32)))
    first, second = only(with_maps(folder, both, None, objects)).objects
    assert first.mask(40, 60)[2].sum() == 16 and second.mask(40, 60)[2].sum() == 900 - 16


def test_objects_without_region_and_regions_without_object(folder):
    classes, objects = maps()
    objects[0:3, 50:60] = 3
    classes[0:3, 50:60] = 8
    hidden = thing("dog", (50, 30, 60, 40), "<difficult>1</difficult>")
    record = only(with_maps(folder, xml(DOG, CAT, hidden), classes, objects))
    dog, cat, crowd, extra = record.objects
    assert crowd.mask is None and crowd.is_crowd and dog.mask is not None and cat.mask is not None
    assert extra.box is None and extra.label == cat.label and extra.mask(40, 60)[2].sum() == 30
    assert extra.where == "SegmentationObject/a.png, region 3"


def test_masks_without_xml(folder):
    classes, objects = maps()
    folder.image("b.png", xml(DOG, CAT))
    source = with_maps(folder, None, classes, objects)
    record = source.splits["train"][0]
    assert [o.label for o in record.objects] == [1, 0] and record.has_masks
    assert source.splits["train"][1].mask is None
    (folder.root / "SegmentationObject/a.png").unlink()
    record = folder.read().splits["train"][0]
    assert record.objects is None and not record.has_masks and record.mask(40, 60).max() == 255


def test_object_masks_alone_give_classes_of_pixels(folder):
    _, objects = maps()
    crowd = thing("cat", (31, 21, 44, 32), "<difficult>1</difficult>")
    record = only(with_maps(folder, xml(DOG, crowd), None, objects))
    expected = np.select([objects == 1, objects == 0], [2, 0], 255)
    np.testing.assert_array_equal(record.mask(40, 60), expected)


def test_names_of_indices_by_a_file(folder):
    classes, objects = maps()
    classes[classes == 8], classes[classes == 12] = 2, 1
    things = DOG.replace("dog", "rust"), CAT.replace("cat", "crack")
    with pytest.raises(ValueError, match="labelmap.txt"):
        with_maps(folder, xml(*things), classes, objects)
    (folder.root / "class_names.txt").write_text("_background_\nrust\ncrack\ndent\n")
    source = folder.read()
    assert source.names == ["rust", "crack", "dent"] and source.mask_names is None
    np.testing.assert_array_equal(only(source).mask(40, 60), classes)
    (folder.root / "class_names.txt").write_text("metal\nwood\n")
    folder.map("Object", "a.png", objects)
    (folder.root / "SegmentationObject/a.png").unlink()
    source = folder.read()
    assert source.names == ["crack", "rust"] and source.mask_names == ["metal", "wood"]


def test_indices_that_are_not_of_vocs_list_are_noticed(folder):
    classes, _ = maps()
    classes[classes == 8], classes[classes == 12] = 2, 1
    with pytest.raises(ValueError, match="in 2 of 2 cases"):
        with_maps(folder, xml(DOG, CAT), classes)


def spoil(folder, case):
    classes, objects = maps()
    file = folder.root / "SegmentationObject/a.png"
    if case == "unknown colour":
        folder.map("Object", "a.png", objects, mode="RGB")
    elif case == "damaged mask":
        # Noise, so that there is something to cut off.
        noise = np.random.default_rng(0).integers(0, 2, (40, 60))
        file = folder.map("Object", "a.png", noise)
        file.write_bytes(file.read_bytes()[:1100])
    elif case == "mask of another size":
        folder.map("Object", "a.png", objects[:39])
    elif case == "unknown class in mask":
        classes[0, 0] = 21
        file = folder.map("Class", "a.png", classes)
    elif case == "mask against boxes":
        folder.map("Object", "a.png", np.roll(objects, 20, 0))
        folder.map("Class", "a.png", np.roll(classes, 20, 0))
    elif case == "region without a class":
        objects[0, 0] = 7
        folder.map("Object", "a.png", objects)
    return file


@pytest.mark.parametrize(
    "case",
    [
        "unknown colour",
        "damaged mask",
        "mask of another size",
        "unknown class in mask",
        "mask against boxes",
        "region without a class",
    ],
)
def test_masks_that_can_not_be_used(folder, case):
    folder.image("b.png", xml(DOG))
    with_maps(folder, xml(DOG, CAT), *maps())
    file = spoil(folder, case)
    with pytest.raises(BadLabels, match=case):
        folder.read()
    source = folder.read("quarantine")
    (problem,) = source.problems
    assert (problem.file, problem.kind, problem.image) == (str(file), case, "a.png")
    assert only(source).filename == "b.png"


def test_grey_of_few_bits_is_refused(folder):
    # Pillow would stretch its values to 0 ... 255.
    folder.image("a.png", xml(DOG))
    path = folder.root / "SegmentationClass/a.png"
    path.parent.mkdir()
    Image.new("1", (60, 40), 1).save(path)
    with pytest.raises(BadLabels, match="mask without palette"):
        folder.read()
