import pickle
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mtl_keras.data import splits
from mtl_keras.data.mask_folders import read, recognise
from mtl_keras.data.records import BadLabels

H, W = 4, 6


def save(path, array, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = array if isinstance(array, Image.Image) else Image.fromarray(np.asarray(array))
    image.save(path, **more)
    return path


def picture(path, height=H, width=W, **more):
    return save(path, np.zeros((height, width, 3), "uint8"), **more)


def grey(*values, height=H, width=W, dtype="uint8"):
    """A mask whose first pixels hold these values, row by row."""
    mask = np.zeros((height, width), dtype)
    mask.ravel()[: len(values)] = values
    return mask


def rgb(*colours):
    mask = np.zeros((H, W, 3), "uint8")
    mask.reshape(-1, 3)[: len(colours)] = colours
    return mask


def palette(*values, colours=((0, 0, 0), (200, 0, 0), (0, 99, 0))):
    image = Image.fromarray(grey(*values), "P")
    image.putpalette([v for c in colours for v in c])
    return image


def png(depth, colour_type, row, width):
    """A PNG of one row, for forms that Pillow does not write."""

    def chunk(name, data):
        crc = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, 1, depth, colour_type, 0, 0, 0)
    data = zlib.compress(b"\0" + row)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def pairs(root, masks, images="images", folder="masks", suffix=""):
    """Images a.jpg, b.jpg, ... with these masks; `None` for an image without one."""
    for name, mask in zip("abcdefgh", masks, strict=False):
        picture(root / images / f"{name}.jpg")
        if mask is not None:
            save(root / folder / f"{name}{suffix}.png", mask)
    return root


def masks_of(source, split="train"):
    return {
        r.filename: r.mask(H, W).ravel()[:8].tolist()
        for r in source.splits[split]
        if r.mask is not None
    }


def first_of(source):
    return [values[:4] for values in masks_of(source).values()]


# === Where files lie ===

LAYOUTS = {
    "plain": ("images/a.jpg", "masks/a.png", "train", "a.jpg"),
    "labels": ("imgs/a.JPG", "labels/a.png", "train", "a.JPG"),
    "mask suffix": ("images/a.jpg", "gt/a_mask.png", "train", "a.jpg"),
    "gt suffix": ("images/a.jpg", "mask/a_GT.png", "train", "a.jpg"),
    "dash": ("images/a.jpg", "annotations/a-mask.tif", "train", "a.jpg"),
    "seg": ("images/a.jpg", "masks/a_seg.bmp", "train", "a.jpg"),
    "voc without xml": ("JPEGImages/a.jpg", "SegmentationClass/a.png", "train", "a.jpg"),
    "split below": ("images/Valid/a.jpg", "masks/val/a.png", "val", "a.jpg"),
    "split above": ("test/images/a.jpg", "test/masks/a.png", "test", "a.jpg"),
    "split beside": ("train/a.jpg", "train_labels/a_L.png", "train", "a.jpg"),
    "deeper": ("images/x y/a.jpg", "masks/x y/a.png", "train", "x y/a.jpg"),
    "unicode, space and dots": ("images/é ü.1.jpg", "masks/é ü.1_mask.png", "train", "é ü.1.jpg"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_where_files_lie(tmp_path, name):
    image, mask, split, filename = LAYOUTS[name]
    picture(tmp_path / image)
    save(tmp_path / mask, grey(0, 255))
    assert image in recognise(tmp_path) and mask in recognise(tmp_path)
    source = read(tmp_path)
    assert source.name == tmp_path.name and source.layout == "mask_folders"
    assert source.problems == [] and source.files == [tmp_path / mask]
    assert list(source.splits) == [split]
    (record,) = source.splits[split]
    assert record.path == tmp_path / image and record.filename == filename
    assert record.size == (H, W) and record.where == str(tmp_path / mask)
    assert record.objects is None and not record.has_masks
    assert record.mask(H, W).sum() == 1


@pytest.mark.parametrize(
    "files",
    [
        (),
        ("images/a.jpg",),
        ("images/a.jpg", "labels/a.txt"),
        ("images/a.jpg", "masks/b.png"),
        ("cat/a.jpg", "dog/b.jpg"),
        ("JPEGImages/a.jpg", "SegmentationClass/a.png", "Annotations/a.xml"),
    ],
)
def test_other_layouts_are_not_recognised(tmp_path, files):
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    assert recognise(tmp_path) is None
    if "Annotations/a.xml" not in files:
        with pytest.raises(ValueError):
            read(tmp_path)


def test_no_folder(tmp_path):
    assert recognise(tmp_path / "none") is None
    with pytest.raises(FileNotFoundError, match="none"):
        read(tmp_path / "none")
    with pytest.raises(ValueError, match="masks='colors'"):
        read(tmp_path, masks="colors")
    with pytest.raises(ValueError, match="on_bad='ignore'"):
        read(tmp_path, on_bad="ignore")


def test_images_without_mask_are_not_labelled_and_ids_are_unique(tmp_path):
    source = read(pairs(tmp_path, [grey(1), None, grey(0)]))
    records = source.splits["train"]
    assert [r.image_id for r in records] == [0, 1, 2]
    assert [r.mask is None for r in records] == [False, True, False]
    assert records[1].objects is None and not masks_of(source)["c.jpg"][0]


def test_a_split_without_masks_and_other_files(tmp_path):
    pairs(tmp_path / "train", [grey(255)])
    picture(tmp_path / "test/images/z.png")
    (tmp_path / "train/masks/readme.md").touch()
    (tmp_path / "train/masks/.DS_Store").touch()
    source = read(tmp_path)
    assert {s: len(r) for s, r in source.splits.items()} == {"train": 1, "test": 1}
    assert source.splits["test"][0].mask is None
    (note,) = [n for n in source.notes if "no images" in n]
    assert "train/masks/readme.md" in note and "DS_Store" not in note


def test_splits_of_image_sets(tmp_path):
    pairs(tmp_path, [grey(1), grey(1), grey(1)], "JPEGImages", "SegmentationClass")
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\n")
    (lists / "val.txt").write_text("b\n")
    source = read(tmp_path)
    assert {s: [r.filename for r in rs] for s, rs in source.splits.items()} == {
        "train": ["a.jpg"],
        "val": ["b.jpg"],
    }
    assert any("1 of 3 images" in note for note in source.notes)
    (lists / "val.txt").write_text("b\n\na\nq\n")
    found = read(tmp_path, on_bad="quarantine").problems
    assert [(p.line, p.kind) for p in found] == [(3, "image in two splits"), (4, "missing image")]


# === What masks are ===


@pytest.mark.parametrize("high", [1, 255, True])
def test_binary(tmp_path, high):
    dtype = "bool" if high is True else "uint8"
    source = read(pairs(tmp_path, [grey(0, high, dtype=dtype), grey(dtype=dtype)]))
    assert source.kind == "binary" and source.mask_names == ["foreground"] and source.names == []
    assert first_of(source) == [[0, 1, 0, 0], [0, 0, 0, 0]]


def test_binary_of_both_forms(tmp_path):
    source = read(pairs(tmp_path, [grey(0, 1), grey(255)]))
    assert source.kind == "binary" and first_of(source) == [[0, 1, 0, 0], [1, 0, 0, 0]]
    assert any("In 1 files the foreground is 1, in 1 it is 255" in n for n in source.notes)


def test_grey_stored_as_rgb_or_with_alpha(tmp_path):
    mask = grey(0, 255)
    alpha = np.full_like(mask, 255)
    alpha[0, 0] = 0
    source = read(
        pairs(
            tmp_path,
            [
                np.stack([mask] * 3, -1),
                np.stack([mask, mask, mask, alpha], -1),
                np.stack([mask, alpha], -1),
            ],
        )
    )
    assert source.kind == "binary" and first_of(source) == [[0, 1, 0, 0]] * 3


def test_classes_keep_their_values(tmp_path):
    source = read(pairs(tmp_path, [grey(0, 3, 1, 255), grey(1)]))
    assert source.kind == "classes" and source.mask_names == ["class_1", "class_2", "class_3"]
    assert first_of(source) == [[0, 3, 1, 255], [1, 0, 0, 0]]
    assert "2 grey" in source.notes[0]


def test_palettes_are_indices_and_never_colours(tmp_path):
    white = ((255, 255, 255), (255, 255, 255), (0, 0, 0))
    source = read(pairs(tmp_path, [palette(0, 2, 1), palette(0, 2, 1, colours=white)]))
    assert source.kind == "classes" and source.mask_names == ["class_1", "class_2"]
    assert first_of(source) == [[0, 2, 1, 0]] * 2
    assert "2 palette" in source.notes[0]


@pytest.mark.parametrize(
    "depth, row, expected", [(2, b"\x1b", [0, 1, 2, 3]), (4, b"\x01\x2f", [0, 1, 2, 15])]
)
def test_grey_of_few_bits_is_not_stretched(tmp_path, depth, row, expected):
    picture(tmp_path / "images/a.png", 1, 4)
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/a.png").write_bytes(png(depth, 0, row, 4))
    (record,) = read(tmp_path).splits["train"]
    assert record.mask(1, 4).tolist() == [expected]


def test_many_values_need_names_or_a_word(tmp_path):
    pairs(tmp_path, [grey(1, 2, 90), grey(1, 2)])
    with pytest.raises(BadLabels, match="'classes.txt'.*masks='classes'"):
        read(tmp_path)
    source = read(tmp_path, masks="classes")
    assert source.mask_names[-1] == "class_90" and first_of(source)[0] == [1, 2, 90, 0]
    source = read(tmp_path, on_bad="quarantine")
    assert source.mask_names == ["class_1", "class_2"] and list(masks_of(source)) == ["b.jpg"]


# Lines of the list, values of the mask, names, labels of the pixels.
TABLES = {
    "background first": ("background\ncat\ndog", (0, 1, 2, 255), ["cat", "dog"], [0, 1, 2, 255]),
    "background last": ("cat\ndog\nbackground", (0, 1, 2, 255), ["cat", "dog"], [1, 2, 0, 255]),
    "void first": ("void\ncat\ndog", (0, 1, 2, 255), ["cat", "dog"], [255, 1, 2, 255]),
    "labelme": ("__ignore__\n_background_\ncat\ndog", (0, 1, 2), ["cat", "dog"], [0, 1, 2, 0]),
    "from 1": ("cat\ndog\n", (0, 1, 2, 255), ["cat", "dog"], [0, 1, 2, 255]),
    "a class that is not there": (
        "background\ncat\ndog\ncow",
        (0, 1),
        ["cat", "dog", "cow"],
        [0, 1, 0, 0],
    ),
    "values": ("0 road\n7: big car\n255 void", (0, 7, 255), ["road", "big car"], [1, 2, 255, 1]),
    "bom and crlf": ("\ufeffbackground\r\nü x\r\ndog\r\n", (0, 2, 1), ["ü x", "dog"], [0, 2, 1, 0]),
    "colours too": ("background 9 9 9\ncat 0 0 1\ndog 7 7 7", (0, 2), ["cat", "dog"], [0, 2, 0, 0]),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("file", ["classes.txt", "masks/labels.txt"])
def test_names(tmp_path, name, file):
    text, values, names, labels = TABLES[name]
    pairs(tmp_path, [grey(*values)])
    (tmp_path / file).write_text(text, "utf-8", newline="")
    source = read(tmp_path)
    assert source.kind == "classes" and source.mask_names == names
    assert first_of(source) == [labels]
    assert tmp_path / file in source.files


@pytest.mark.parametrize("text", ["crack", "background\ncrack"])
def test_name_of_the_foreground(tmp_path, text):
    pairs(tmp_path, [grey(255)])
    (tmp_path / "classes.txt").write_text(text)
    assert read(tmp_path).mask_names == ["crack"]


@pytest.mark.parametrize(
    "masks, text, message",
    [
        ([grey(0, 1, 2)], "cat\ndog\ncow", "'0 cat'"),
        ([grey(255)], "cat\ndog\ncow", "names 3 classes, but the masks hold one value"),
        ([grey(1, 2)], "background\nvoid", "names 0 classes"),
        ([grey(1, dtype="uint16")], "cat\ndog", "it should name one"),
        ([rgb((9, 0, 0))], "cat\ndog", "r, g, b behind each name"),
    ],
)
def test_names_that_do_not_say_what_they_are_of(tmp_path, masks, text, message):
    pairs(tmp_path, masks)
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(ValueError, match=message) as raised:
        read(tmp_path, on_bad="quarantine")
    assert "classes.txt" in str(raised.value)


# File, content, line, kind.
BAD_TABLES = {
    "empty": ("classes.txt", b" \n\n", None, "empty list of names"),
    "header alone": ("class_dict.csv", b"name,r,g,b\n", None, "empty list of names"),
    "repeated": ("classes.txt", b"cat\ndog\n\ncat\n", 4, "repeated class"),
    "repeated colour": ("classes.txt", b"cat 1 2 3\ndog 1 2 3\n", 2, "repeated class"),
    "a colour is missing": ("labelmap.txt", b"cat:1,2,3::\ndog:::\n", 2, "no colour"),
    "no colour": ("classes.txt", b"cat 1 2 3\ndog 256 0 0\n", 2, "no colour"),
    "no value": ("classes.txt", b"0 cat\n300 dog\n", 2, "no value"),
    "latin-1": ("classes.txt", b"cat\nb\xe9\n", 2, "not UTF-8"),
    "no header": ("class_dict.csv", b"cat,1,2,3\n", 1, "no header"),
    "no blue": ("class_dict.csv", b"name,r,g\ncat,1,2\n", 1, "no header"),
    "no number": ("class_dict.csv", b"name,r,g,b\ncat,1,2,x\n", 2, "unreadable class"),
    "below 0": ("class_dict.csv", b"name,r,g,b\ncat,1,2,-3\n", 2, "unreadable class"),
    "ragged": ("class_dict.csv", b"name,r,g,b\n\ncat,1,2\n", 3, "unreadable class"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
@pytest.mark.parametrize("on_bad", ["strict", "quarantine"])
def test_lists_of_names_that_can_not_be_read(tmp_path, name, on_bad):
    file, content, line, kind = BAD_TABLES[name]
    pairs(tmp_path, [grey(1, 2)])
    (tmp_path / file).write_bytes(content)
    with pytest.raises(BadLabels) as raised:
        read(tmp_path, on_bad=on_bad)
    problem = raised.value.problem
    assert (problem.file, problem.line, problem.kind) == (str(tmp_path / file), line, kind)


COLOURS = {
    "class_dict.csv": "name, r, g, b\nRoad,128,64,128\nVoid,0,0,0\nBig car,64,0,128\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nRoad:128,64,128::\nVoid:0,0,0::\n"
    "Big car:64,0,128:a,b:\n",
    "label_colors.txt": "128 64 128\tRoad\n0 0 0\tVoid\n64 0 128\tBig car\n",
    "classes.txt": "Road 128 64 128\nVoid 0 0 0\nBig car: 64, 0, 128\n",
}


@pytest.mark.parametrize("file", COLOURS)
def test_colours(tmp_path, file):
    pairs(tmp_path, [rgb((64, 0, 128), (0, 0, 0), (128, 64, 128))])
    (tmp_path / file).write_text(COLOURS[file])
    source = read(tmp_path)
    assert source.kind == "colours" and source.mask_names == ["Road", "Big car"]
    assert first_of(source) == [[2, 255, 1, 255]]
    pickle.loads(pickle.dumps(source))


def test_black_is_background_where_the_table_does_not_list_it(tmp_path):
    pairs(tmp_path, [rgb((9, 8, 7)), grey()])
    (tmp_path / "classes.txt").write_text("cat 9 8 7")
    source = read(tmp_path)
    assert first_of(source) == [[1, 0, 0, 0], [0, 0, 0, 0]]
    assert any("does not list black" in note for note in source.notes)


def test_a_table_of_greys_is_of_grey_masks_too(tmp_path):
    pairs(tmp_path, [grey(0, 255), grey(255)])
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nroad,255,255,255\nbuilding,0,0,0\n")
    source = read(tmp_path)
    assert source.mask_names == ["road", "building"]
    assert first_of(source) == [[2, 1, 2, 2], [1, 2, 2, 2]]


def test_colours_without_a_table(tmp_path):
    source = read(pairs(tmp_path, [rgb((200, 0, 0), (0, 0, 9)), rgb((0, 50, 0))]))
    assert source.mask_names == ["rgb_0_0_9", "rgb_0_50_0", "rgb_200_0_0"]
    assert first_of(source) == [[3, 1, 0, 0], [2, 0, 0, 0]]
    assert "without a table" in source.notes[0] and "class_dict.csv" in source.notes[0]
    many = [np.arange(i, i + 24 * 2, 2, dtype="uint8").reshape(H, W) for i in (1, 51, 101)]
    for name, mask in zip("abc", many, strict=True):
        picture(tmp_path / f"images/{name}.jpg")
        save(tmp_path / f"masks/{name}.png", np.stack([mask, mask * 0, mask * 0], -1))
    with pytest.raises(ValueError, match="72 colours.*class_dict.csv.*at most 64"):
        read(tmp_path, on_bad="quarantine")


@pytest.mark.parametrize("form", ["uint16 png", "uint16 tif", "int32 tif", "8 bits", "palette"])
def test_instances(tmp_path, form):
    high = {"8 bits": 200, "palette": 2, "int32 tif": 70000}.get(form, 60000)
    ids = np.zeros((H, W), "int32")
    ids[1:3, 2:5] = high
    ids[0, 0] = ids[3, 5] = 1  # one object of two parts
    suffix = form.split()[-1] if form.endswith(("png", "tif")) else "png"
    dtype = {"int32 tif": "int32", "8 bits": "uint8"}.get(form, "uint16")
    if form == "palette":
        image = palette()
        image.putdata(ids.ravel().tolist())
    else:
        image = ids.astype(dtype)
    picture(tmp_path / "images/a.jpg")
    picture(tmp_path / "images/b.jpg")
    save(tmp_path / f"masks/a.{suffix}", image)
    save(tmp_path / f"masks/b.{suffix}", ids.astype(dtype) * 0)
    masks = "instances" if form in ("8 bits", "palette") else "auto"
    source = read(tmp_path, masks=masks)
    assert source.kind == "instances" and source.names == ["object"]
    assert source.mask_names is None and source.problems == []
    one, empty = source.splits["train"]
    assert empty.objects == [] and one.has_masks and one.mask is None
    first, second = [o.mask(H, W) for o in one.objects]
    assert [(o.label, o.box) for o in one.objects] == [(0, None)] * 2
    assert first[:2] == (0, 0) and first[2].shape == (H, W) and first[2].sum() == 2
    assert second[:2] == (1, 2) and second[2].shape == (2, 3) and second[2].all()
    with pytest.raises(ValueError, match="6 x 4"):
        one.objects[0].mask(W, H)
    pickle.loads(pickle.dumps(source))


def test_instances_equal_those_of_a_comparison(tmp_path):
    ids = np.random.default_rng(0).integers(0, 9, (30, 20)).astype("uint16") * 300
    picture(tmp_path / "images/a.png", 30, 20)
    save(tmp_path / "masks/a.png", ids)
    (record,) = read(tmp_path).splits["train"]
    painted = np.zeros((30, 20), int)
    for item, value in zip(record.objects, range(300, 2700, 300), strict=True):
        top, left, mask = item.mask(30, 20)
        assert mask.any(0)[[0, -1]].all() and mask.any(1)[[0, -1]].all()
        painted[top : top + mask.shape[0], left : left + mask.shape[1]][mask] = value
    np.testing.assert_array_equal(painted, ids)


def test_a_mask_of_colours_may_be_of_instances(tmp_path):
    pairs(tmp_path, [rgb((200, 0, 0), (0, 0, 9))])
    (record,) = read(tmp_path, masks="instances").splits["train"]
    assert [o.mask(H, W)[1] for o in record.objects] == [1, 0]


def test_white_of_16_bits_is_binary(tmp_path):
    source = read(pairs(tmp_path, [grey(0, 65535, dtype="uint16")]))
    assert source.kind == "binary" and first_of(source) == [[0, 1, 0, 0]]


@pytest.mark.parametrize("bowl", [True, False])
def test_an_instance_a_file(tmp_path, bowl):
    image = "stage1_train/{0}/images/{0}.png" if bowl else "train/images/{0}.png"
    folder = "stage1_train/{0}/masks" if bowl else "train/masks/{0}"
    for name in ("a1", "b 2", "c"):
        picture(tmp_path / image.format(name))
    for name, masks in (("a1", [grey(255, 255), grey(0, 255)]), ("b 2", [grey(1)])):
        for i, mask in enumerate(masks):
            save(tmp_path / folder.format(name) / f"{i}.png", mask)
    if bowl:
        picture(tmp_path / "stage1_test/z/images/z.png")
    assert "2 of" in recognise(tmp_path)
    source = read(tmp_path)
    assert source.kind == "instance files" and source.names == ["object"]
    assert source.problems == [] and len(source.files) == 3
    a, b, c = source.splits["train"]
    assert a.has_masks and a.size == (H, W) and c.objects is None
    cuts = [o.mask(H, W) for o in a.objects]
    assert [(c[0], c[1], c[2].tolist()) for c in cuts] == [(0, 0, [[True] * 2]), (0, 1, [[True]])]
    assert a.objects[1].where.endswith("1.png") and len(b.objects) == 1
    if bowl:
        assert a.filename == "a1/images/a1.png" and source.splits["test"][0].objects is None
    with pytest.raises(ValueError, match="masks='classes'"):
        read(tmp_path, masks="classes")


# === What can't be used ===


def smooth():
    return grey(0, 17, 180, 255)


def jpeg_of(array):
    def write(path):
        save(path.with_suffix(".jpg"), array, quality=60)

    return write


def lossy():
    mask = np.zeros((H, W), "uint8")
    mask[:, 1::2] = 255
    return mask


def content_of(content):
    return lambda path: path.write_bytes(content)


GOOD = grey(0, 255)
# Other masks of the set, the bad one (or what writes it), kind, part of the message, arguments.
BAD = {
    "smoothed": ([GOOD], smooth(), "grey values between", "x 1, y 0.*threshold", {}),
    "smoothed, the majority": ([smooth()], smooth(), "grey values between", "17, 180", {}),
    "a low value": ([GOOD], grey(0, 5, 255), "grey values between", "hold 5,", {}),
    "another value": ([GOOD, GOOD], grey(128), "grey values between", "128", {}),
    "binary said": ([GOOD], grey(1, 2), "grey values between", "1, 2", {"masks": "binary"}),
    "JPEG": ([GOOD], jpeg_of(lossy()), "lossy mask", "PNG", {}),
    "JPEG of classes": ([grey(1, 2)], jpeg_of(lossy() // 25), "lossy mask", "PNG", {}),
    "JPEG of instances": (
        [grey(1, 2)],
        jpeg_of(lossy() // 25),
        "lossy mask",
        "PNG",
        {"masks": "instances"},
    ),
    "JPEG of colours": (
        [rgb((9, 0, 0))],
        jpeg_of(rgb((200, 0, 0), (0, 99, 0))),
        "lossy mask",
        "PNG",
        {},
    ),
    "another size": ([GOOD], grey(255, height=W, width=H), "mask of another size", "4 x 6", {}),
    "colours in a grey set": ([GOOD, GOOD], rgb((9, 0, 0)), "another kind of mask", "colours", {}),
    "16 bits in a grey set": (
        [grey(1, 2), grey(1)],
        grey(700, dtype="uint16"),
        "grey values between",
        "700",
        {},
    ),
    "a palette among colours": (
        [rgb((9, 0, 0)), rgb((9, 0, 0))],
        palette(1),
        "another kind of mask",
        "palette",
        {},
    ),
    "empty": ([GOOD], content_of(b""), "unreadable mask", "0 bytes", {}),
    "text": ([GOOD], content_of(b"hello"), "unreadable mask", "not an image", {}),
    "RGB of 16 bits": (
        [GOOD],
        content_of(png(16, 2, bytes(6 * W), W)),
        "unreadable mask",
        "16 bits",
        {},
    ),
    "float": (
        [GOOD],
        lambda path: save(path.with_suffix(".tif"), grey(dtype="float32")),
        "unreadable mask",
        "mode 'F'",
        {},
    ),
    "half-transparent": (
        [GOOD],
        np.full((H, W, 4), 99, "uint8"),
        "unreadable mask",
        "half-transparent",
        {},
    ),
    "frames": (
        [GOOD],
        lambda path: save(
            path.with_suffix(".tif"),
            Image.fromarray(GOOD),
            save_all=True,
            append_images=[Image.fromarray(GOOD)],
        ),
        "unreadable mask",
        "2 frames",
        {},
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_masks(tmp_path, name):
    others, bad, kind, message, kwargs = BAD[name]
    pairs(tmp_path, others)
    picture(tmp_path / "images/x y.png")
    path = tmp_path / "masks" / "x y.png"
    if callable(bad):
        bad(path)
    else:
        save(path, bad)
    (path,) = (tmp_path / "masks").glob("x y.*")
    source = read(tmp_path, on_bad="quarantine", **kwargs)
    found = [p for p in source.problems if p.image == "x y.png"]
    assert [(p.file, p.line, p.kind) for p in found] == [(str(path), None, kind)]
    names = [r.filename for r in source.splits["train"]]
    if name != "smoothed, the majority":
        assert len(source.problems) == 1 and names == [f"{n}.jpg" for n in "ab"[: len(others)]]
    with pytest.raises(BadLabels, match=f"(?s){message}") as raised:
        read(tmp_path, **kwargs)
    assert raised.value.problem.kind == kind


def test_cut_short_mask(tmp_path):
    pairs(tmp_path, [GOOD, GOOD])
    noise = np.random.default_rng(0).integers(0, 2, (99, 99)).astype("uint8")
    path = save(tmp_path / "masks/b.png", noise)
    path.write_bytes(path.read_bytes()[:200])
    (problem,) = read(tmp_path, on_bad="quarantine").problems
    assert problem.kind == "unreadable mask" and problem.image == "b.jpg"


def test_unknown_class_and_colour(tmp_path):
    pairs(tmp_path, [grey(0, 1, 2), grey(0, 0, 7)])
    (tmp_path / "classes.txt").write_text("background\ncat\ndog")
    (problem,) = read(tmp_path, on_bad="quarantine").problems
    assert problem.kind == "unknown class" and "1 pixels hold 7, the first at x 2" in str(problem)
    (tmp_path / "classes.txt").write_text("cat 9 9 1\ndog 8 8 2")
    pairs(tmp_path, [rgb((9, 9, 1)), rgb((8, 8, 2), (8, 8, 3))])
    (problem,) = read(tmp_path, on_bad="quarantine").problems
    assert problem.kind == "unknown colour" and problem.image == "b.jpg"
    assert "(8, 8, 3)" in problem.message and "x 1, y 0" in problem.message


def test_names_that_do_not_match(tmp_path):
    pairs(tmp_path, [GOOD, GOOD, GOOD])
    save(tmp_path / "masks/a_mask.png", GOOD)
    picture(tmp_path / "images/b.png")
    save(tmp_path / "masks/nobody.png", GOOD)
    source = read(tmp_path, on_bad="quarantine")
    assert [(p.kind, p.image) for p in source.problems] == [
        ("several masks", "a.jpg"),
        ("images of one name", "b.jpg"),
        ("images of one name", "b.png"),
        ("mask without image", None),
    ]
    assert source.problems[-1].file == str(tmp_path / "masks/nobody.png")
    assert [r.filename for r in source.splits["train"]] == ["c.jpg"]


def test_images_and_masks_outside_of_the_splits(tmp_path):
    pairs(tmp_path, [GOOD], "images/train", "masks/train")
    picture(tmp_path / "images/loose.png")
    save(tmp_path / "masks/val/x.png", GOOD)
    source = read(tmp_path, on_bad="quarantine")
    files = [(p.file, p.kind) for p in source.problems]
    kind = "outside of the splits"
    assert files == [
        (str(tmp_path / "images/loose.png"), kind),
        (str(tmp_path / "masks/val"), kind),
    ]


def test_unreadable_image(tmp_path):
    pairs(tmp_path, [GOOD, GOOD])
    (tmp_path / "images/b.jpg").write_bytes(b"")
    (problem,) = read(tmp_path, on_bad="quarantine").problems
    assert problem.kind == "unreadable image" and problem.file == str(tmp_path / "images/b.jpg")


def test_turned_images_fit_masks_of_either_form(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, shape in (("a", (W, H)), ("b", (H, W)), ("c", (H, H))):
        picture(tmp_path / f"images/{name}.jpg", exif=exif)
        save(tmp_path / f"masks/{name}.png", grey(255, height=shape[0], width=shape[1]))
    source = read(tmp_path, on_bad="quarantine")
    assert {r.filename: r.size for r in source.splits["train"]} == {
        "a.jpg": (W, H),
        "b.jpg": (H, W),
    }
    assert [p.image for p in source.problems] == ["c.jpg"]


def test_bad_files_of_instances(tmp_path):
    for name in "abcd":
        picture(tmp_path / f"{name}/images/{name}.png")
        save(tmp_path / f"{name}/masks/0.png", GOOD)
    save(tmp_path / "a/masks/1.png", grey())
    save(tmp_path / "b/masks/1.png", smooth())
    save(tmp_path / "c/masks/1.png", grey(255, height=W))
    (tmp_path / "e/images").mkdir(parents=True)
    source = read(tmp_path, on_bad="quarantine")
    assert [(p.kind, p.image) for p in source.problems] == [
        ("not one image", "e"),
        ("empty mask", None),
        ("grey values between", "b/images/b.png"),
        ("mask of another size", "c/images/c.png"),
    ]
    assert [len(r.objects) for r in source.splits["train"]] == [1, 1]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda root: save(root / "labels/a.png", GOOD), "several folders of masks"),
        (lambda root: save(root / "masks/b/1.png", GOOD), "an instance a file, beside"),
        (
            lambda root: [(root / f).write_text(f) for f in ("classes.txt", "labels.txt")],
            "several lists of class names",
        ),
        (lambda root: save(root / "masks/a.png", grey(0, 255)), None),
    ],
)
def test_folders_that_say_two_things(tmp_path, make, message):
    pairs(tmp_path, [GOOD, None])
    make(tmp_path)
    if message is None:
        read(tmp_path)
        return
    with pytest.raises(ValueError, match=message):
        read(tmp_path, on_bad="quarantine")


def test_white_alone_is_no_class(tmp_path):
    with pytest.raises(ValueError, match="masks='binary'"):
        read(pairs(tmp_path, [GOOD]), masks="classes")


def test_changed_after_reading(tmp_path):
    pairs(tmp_path, [GOOD])
    (record,) = read(tmp_path).splits["train"]
    with pytest.raises(ValueError, match="6 x 4.*4 x 6"):
        record.mask(W, H)
    save(tmp_path / "masks/a.png", grey(9))
    with pytest.raises(ValueError, match="was changed"):
        record.mask(H, W)


@pytest.mark.parametrize(
    "name, split",
    [
        ("train", "train"),
        ("Training", "train"),
        ("VALID", "val"),
        ("validation", "val"),
        ("stage1_test", "test"),
        ("trainset", None),
        ("value", None),
        ("contest", None),
    ],
)
def test_split_name(name, split):
    assert splits.split_name(name) == split


def test_links_to_folders_and_loops(tmp_path):
    pairs(tmp_path / "real", [GOOD])
    (tmp_path / "set").mkdir()
    for part in ("images", "masks"):
        (tmp_path / "set" / part).symlink_to(tmp_path / "real" / part)
    (tmp_path / "real/images/loop").symlink_to(tmp_path / "real/images")
    assert len(read(tmp_path / "set").splits["train"]) == 1
