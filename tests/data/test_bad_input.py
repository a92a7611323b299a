"""Images as people have them, in every layout: those that can be used, and those that can't."""

import io
import multiprocessing
import os
import struct
import unicodedata
import warnings
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from labelled_sets import BACK, BOX, FRONT, HEIGHT, LAYOUTS, WIDTH, LabelledSet, pixels
from PIL import Image

import mtl_keras as mtl
from mtl_keras.data import importing
from mtl_keras.data.records import BadLabels

GREY = ((60, 60, 60), (200, 200, 200))
WHITE = (255, 255, 255)


# === Files that can be used ===


@dataclass
class Good:
    """A file that can be used. `save` writes it; `back` and `front` are its colours afterwards."""

    name: str
    save: Any
    back: tuple = BACK
    front: tuple = FRONT
    tolerance: int = 0
    size: tuple = (HEIGHT, WIDTH)
    box: tuple = BOX


def saved(mode=None, suffix=None, **more):
    """Writes RGB pixels in a mode and format; JPEG in a quality that keeps colours."""

    def save(path, size, box):
        image = Image.fromarray(pixels(size, box))
        if suffix in ("JPEG", "MPO"):
            more.update(quality=98, subsampling=0)
        image.convert(mode or "RGB").save(path, suffix, **more)

    return save


def array(dtype, back, front, mode=None, **more):
    def save(path, size, box):
        one = pixels(size, box, back, front, dtype)
        Image.fromarray(one[..., 0] if one.shape[-1] == 1 else one, mode).save(path, **more)

    return save


def animated(kind):
    def save(path, size, box):
        frames = [Image.fromarray(pixels(size, box)), Image.new("RGB", size[::-1], WHITE)]
        frames[0].save(path, kind, save_all=True, append_images=frames[1:])

    return save


def palette(transparent=None):
    def save(path, size, box):
        image = Image.fromarray(pixels(size, box, (0,), (1,))[..., 0], "P")
        image.putpalette([*BACK, *FRONT])
        image.save(path, **({} if transparent is None else {"transparency": transparent}))

    return save


def turned(orientation):
    """A JPEG whose pixels are turned so that its EXIF orientation makes it upright."""

    def save(path, size, box):
        upright = pixels(size, box)
        before = {
            1: upright,
            2: upright[:, ::-1],
            3: upright[::-1, ::-1],
            4: upright[::-1],
            5: upright.swapaxes(0, 1),
            6: np.rot90(upright, 1),
            7: np.rot90(upright.swapaxes(0, 1), 2),
            8: np.rot90(upright, -1),
        }[orientation]
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.ascontiguousarray(before)).save(
            path, "JPEG", exif=exif, quality=98, subsampling=0
        )

    return save


def png(header, rows):
    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def rgb_of_16_bits(path, size, box):
    one = pixels(size, box, [v * 257 for v in BACK], [v * 257 for v in FRONT], "uint16")
    header = struct.pack(">IIBBBBB", size[1], size[0], 16, 2, 0, 0, 0)
    path.write_bytes(png(header, [row.astype(">u2").tobytes() for row in one]))


def without_end(kind, count):
    """What programs leave that are stopped while they write the last bytes."""

    def save(path, size, box):
        file = io.BytesIO()
        Image.fromarray(pixels(size, box)).save(file, kind)
        path.write_bytes(file.getvalue()[:-count])

    return save


LONG = {"size": (10, 20000), "box": (100, 2, 9000, 8)}
GOODS = [
    Good("plain.png", saved()),
    Good("jpeg.jpg", saved(suffix="JPEG"), tolerance=16),
    Good("is a png.jpg", saved(suffix="PNG")),
    Good("is a jpeg.png", saved(suffix="JPEG"), tolerance=16),
    Good("progressive.jpg", saved(suffix="JPEG", progressive=True), tolerance=16),
    Good("grey.jpg", array("uint8", GREY[0][:1], GREY[1][:1], quality=98), *GREY, 4),
    Good("cmyk.jpg", saved("CMYK", "JPEG"), tolerance=12),
    Good("no end.png", without_end("PNG", 12)),
    Good("gif.gif", palette()),
    Good("animation.gif", animated("GIF")),
    Good("animated.png", animated("PNG")),
    Good("webp.webp", saved(suffix="WEBP", lossless=True)),
    Good("bmp.bmp", saved()),
    Good("tiff.tif", saved()),
    Good("pages.tiff", animated("TIFF")),
    Good("one bit.png", array("bool", (0,), (1,)), (0, 0, 0), WHITE),
    Good("wide grey.png", array("uint16", (15420,), (51400,)), *GREY),
    Good("wide but small.png", array("uint16", (60,), (200,)), *GREY),
    Good("wide.tif", array("uint16", (15420,), (51400,)), *GREY),
    Good("wide colours.png", rgb_of_16_bits),
    Good("la.png", array("uint8", (10, 0), (200, 255), "LA"), WHITE, GREY[1]),
    Good("rgba.png", array("uint8", (1, 2, 3, 0), (*FRONT, 255)), WHITE, FRONT),
    Good("palette.png", palette()),
    Good("see-through palette.png", palette(transparent=0), WHITE, FRONT),
    *(Good(f"exif {i}.jpg", turned(i), tolerance=16) for i in range(1, 9)),
    Good("one pixel.png", saved(), FRONT, FRONT, size=(1, 1), box=(0, 0, 1, 1)),
    Good("20000 x 10.png", saved(), **LONG),
    Good("10 x 20000.png", saved(), size=(20000, 10), box=(2, 100, 8, 9000)),
    Good("größe 図 ñ.png", saved()),
    Good("two  spaces and.dots.png", saved()),
    Good("UPPER.PNG", saved()),
    Good(
        "OTHER.JPEG",
        saved(suffix="JPEG"),
        tolerance=16,
    ),
    Good("hash#per%cent&'q.png", saved()),
]
BY_NAME = {good.name: good for good in GOODS}


@pytest.fixture(scope="module")
def read_goods(tmp_path_factory):
    """All of `GOODS` in one set of a layout, as examples by name."""
    made = {}

    def read(layout):
        if layout not in made:
            folder = tmp_path_factory.mktemp(layout)
            labelled = LabelledSet(folder / "set", layout)
            for good in GOODS:
                good.save(labelled.images / good.name, good.size, good.box)
                labelled.add(good.name, good.size, good.box, file=False)
            labelled.write()
            made[layout] = None, {}
            builder = mtl.data.from_folder(labelled.folder, data_dir=folder / "prepared")
            assert mtl.data.quarantined(builder) == []
            examples = mtl.data.examples(builder, "train").as_numpy_iterator()
            made[layout] = (
                builder,
                {os.path.basename(one["filename"].decode()): one for one in examples},
            )
        return made[layout]

    return read


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", BY_NAME)
def test_files_that_can_be_used(name, layout, read_goods):
    good, one = BY_NAME[name], read_goods(layout)[1][name]
    (height, width), (x0, y0, x1, y1) = good.size, good.box
    expected = pixels(good.size, good.box, good.back, good.front).astype(int)
    assert one["image"].shape == (height, width, 3) and one["image"].dtype == np.uint8
    assert np.abs(one["image"].astype(int) - expected).max() <= good.tolerance
    inside = np.zeros((height, width), int)
    inside[y0:y1, x0:x1] = 1
    labelled = {kind for kind, here in one["labelled"].items() if here}
    if layout in ("coco", "coco_panoptic", "voc", "yolo"):
        np.testing.assert_allclose(one["boxes"], [good.box], rtol=1e-5, atol=1e-3)
        assert one["classes"].tolist() == [0] and "boxes" in labelled
    if layout in ("coco", "coco_panoptic"):
        np.testing.assert_array_equal(one["instances"], inside)
    if layout in ("coco", "mask_folders"):
        np.testing.assert_array_equal(one["mask"], inside)
    if layout == "coco_panoptic":
        np.testing.assert_array_equal(one["mask"], np.where(inside, 1, 255))
    if layout == "columns":
        assert one["values"]["kind"] == (0 if height < width else 1) and not labelled


@pytest.mark.parametrize("augment", [None, mtl.data.Augment(rotate90=True, flip="both", cover=0.5)])
def test_all_of_them_reach_batches(augment, read_goods, labels_task, unstack):
    builder, _ = read_goods("coco")
    batches = mtl.data.batches(builder, "train", [labels_task()], 64, 4, augment, shuffle=False)
    count = 0
    for batch in batches:
        for image, labels in unstack(batch):
            count += 1
            assert image.shape == (64, 64, 3) and np.isfinite(image).all()
            assert np.isfinite(labels["boxes"]).all() and (labels["boxes"] <= 64).all()
            if augment is None:
                assert len(labels["boxes"]) == 1
    assert count >= len(GOODS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_names_in_other_forms_of_unicode(layout, tmp_path):
    """macOS takes the accents of names apart, and labels mostly do not."""
    labelled = LabelledSet(tmp_path / "set", layout)
    labelled.picture(unicodedata.normalize("NFD", "größe.png"))
    labelled.add("größe.png", file=False)
    labelled.write()
    builder = mtl.data.from_folder(labelled.folder, data_dir=tmp_path / "prepared")
    (one,) = mtl.data.examples(builder, "train").as_numpy_iterator()
    if layout == "columns":
        assert one["values"]["kind"] == 0
    else:
        assert any(one["labelled"].values())


# === Files that can't ===


def cut(kind, share):
    def save(path):
        file = io.BytesIO()
        noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), "uint8")
        Image.fromarray(noise).save(file, kind)
        path.write_bytes(file.getvalue()[: int(share * len(file.getvalue()))])

    return save


def wrong_checksum(path):
    content = bytearray(
        png(struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 0, 0, 0, 0), [bytes(WIDTH)] * 40)
    )
    content[29] ^= 255
    path.write_bytes(bytes(content))


def enormous(path):
    path.write_bytes(png(struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0), [bytes(60000)]))


# The file, what the error has to say, and the kind of the problem.
BAD_FILES = {
    "cut short.jpg": (cut("JPEG", 0.5), "damaged or cut short", "unreadable image"),
    "cut short.png": (cut("PNG", 0.5), "damaged or cut short", "unreadable image"),
    "no end.jpg": (
        lambda path: without_end("JPEG", 2)(path, (HEIGHT, WIDTH), BOX),
        "damaged or cut short",
        "unreadable image",
    ),
    "header alone.png": (cut("PNG", 0.01), "damaged|not an image", "unreadable image"),
    "cut short.tif": (cut("TIFF", 0.5), "damaged or cut short", "unreadable image"),
    "cut short.gif": (cut("GIF", 0.3), "damaged or cut short", "unreadable image"),
    "cut short.webp": (cut("WEBP", 0.5), "damaged|not an image", "unreadable image"),
    "wrong checksum.png": (wrong_checksum, "damaged|not an image", "unreadable image"),
    "no bytes.png": (lambda path: path.write_bytes(b""), r"0 bytes", "unreadable image"),
    "text.png": (lambda path: path.write_text("no image"), "not an image", "unreadable image"),
    "html.jpg": (lambda path: path.write_text("<html>404"), "not an image", "unreadable image"),
    "float.tif": (
        lambda path: Image.fromarray(np.zeros((HEIGHT, WIDTH), "float32")).save(path),
        "floating-point.*8- or 16-bit",
        "unreadable image",
    ),
    "enormous.png": (enormous, "too large.*tiles", "unreadable image"),
    "another size.png": (
        lambda path: Image.new("RGB", (50, 50)).save(path),
        "50 x 50",
        "image of another size",
    ),
    "gone.png": (lambda path: None, "gone", "missing image"),
    "folder.png": (lambda path: path.mkdir(), "folder", "missing image"),
}
NO_SIZE = {("another size.png", "yolo"), ("another size.png", "columns")}
# Importers that open images (for their sizes) or list files say it in their own words.
KINDS = {
    ("another size.png", "mask_folders"): "mask of another size",
    ("gone.png", "mask_folders"): "mask without image",
    ("folder.png", "mask_folders"): "mask without image",
}


def spoiled(tmp_path, layout, name):
    labelled = LabelledSet(tmp_path / "set", layout)
    labelled.add("good.png")
    BAD_FILES[name][0](labelled.images / name)
    labelled.add(name, file=False)
    labelled.write()
    return labelled.folder


# What only decoding shows is found in one place: all layouts of it take long, and tell no more.
IN_EVERY_LAYOUT = ("cut short.jpg", "no bytes.png", "another size.png", "gone.png", "folder.png")
CASES = [
    pytest.param(
        name,
        layout,
        marks=[] if layout == "yolo" or name in IN_EVERY_LAYOUT else pytest.mark.slow,
        id=f"{layout}: {name}",
    )
    for name in BAD_FILES
    for layout in LAYOUTS
]


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_files_that_cant_be_used(name, layout, tmp_path):
    folder = spoiled(tmp_path, layout, name)
    _, message, kind = BAD_FILES[name]
    kind = KINDS.get((name, layout), kind)
    if (name, layout) in NO_SIZE:  # these labels fit any size
        builder = mtl.data.from_folder(folder, data_dir=tmp_path / "prepared")
        assert builder.info.splits["train"].num_examples == 2
        return
    with pytest.raises(BadLabels, match=message) as error:
        mtl.data.from_folder(folder, data_dir=tmp_path / "prepared")
    stem = name.rpartition(".")[0]
    assert stem in str(error.value) and error.value.problem.kind == kind
    assert not list((tmp_path / "prepared").rglob("dataset_info.json"))
    with pytest.warns(UserWarning, match="1 problem "):
        builder = mtl.data.from_folder(folder, on_bad="quarantine", data_dir=tmp_path / "prepared")
    (problem,) = mtl.data.quarantined(builder)
    assert problem.kind == kind and problem.line == error.value.problem.line
    assert stem in f"{problem.image} {problem.message}"
    (left,) = mtl.data.examples(builder, "train").as_numpy_iterator()
    assert left["filename"].decode().endswith("good.png")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_set_of_nothing_but_broken_images(layout, tmp_path):
    labelled = LabelledSet(tmp_path / "set", layout)
    for name in ("a.png", "b.png"):
        (labelled.images / name).write_text("no image")
        labelled.add(name, file=False)
    labelled.write()
    with pytest.raises(ValueError, match=r"no image that can be used.*2 problems.*[ab]\.png"):
        mtl.data.from_folder(labelled.folder, on_bad="quarantine", data_dir=tmp_path / "prepared")


def test_a_split_of_nothing_but_broken_images_is_left_out(tmp_path):
    labelled = LabelledSet(tmp_path / "set", "yolo")
    labelled.add("good.png")
    (tmp_path / "set/images/val").mkdir()
    (tmp_path / "set/images/val/bad.png").write_bytes(b"")
    for _ in range(2):
        with pytest.warns(UserWarning, match="1 problem .*bad.png"):
            builder = mtl.data.from_folder(
                labelled.folder, on_bad="quarantine", data_dir=tmp_path / "prepared"
            )
        assert {k: v.num_examples for k, v in builder.info.splits.items()} == {"train": 1}
        (problem,) = mtl.data.quarantined(builder)
        assert problem.image.endswith("bad.png")
    with pytest.raises(ValueError, match="'train'.*got 'val'"):
        mtl.data.examples(builder, "val")


def test_an_image_left_out_does_not_hide_one_without_labels(tmp_path, labels_task):
    """Two of three are labelled, one of them is broken: one that is left has no labels."""
    labelled = LabelledSet(tmp_path / "set", "yolo")
    labelled.add("a.png")
    labelled.picture("b.png")
    (labelled.images / "c.png").write_bytes(b"")
    labelled.add("c.png", file=False)
    # The size of an image is asked for where it has labels, so that this one is left out late.
    (labelled.folder / "labels/train/c.txt").write_text("")
    with pytest.warns(UserWarning, match="1 problem"):
        builder = mtl.data.from_folder(
            labelled.folder, on_bad="quarantine", data_dir=tmp_path / "prepared"
        )
    task = labels_task()
    task.needs = ("boxes",)
    (batch,) = mtl.data.batches(builder, "train", [task], 64, batch_size=2)
    assert sorted(batch[2]["labels"].numpy()) == [0, 1]


# === Large, interrupted, at once ===


@pytest.mark.parametrize("layout", ["coco", "yolo", "voc"])
def test_thousands_of_objects(layout, tmp_path, labels_task, unstack):
    count = 3000
    labelled = LabelledSet(tmp_path / "set", layout)
    labelled.add("a.png", (240, 240), (0, 0, 3, 3))
    boxes = [
        (4 * (i % 60), 4 * (i // 60), 4 * (i % 60) + 3, 4 * (i // 60) + 3) for i in range(count)
    ]
    if layout == "coco":
        first = labelled.content["annotations"].pop()
        for i, (x0, y0, x1, y1) in enumerate(boxes):
            shape = [[x0, y0, x1, y0, x1, y1, x0, y1]]
            more = {"id": i, "bbox": [x0, y0, 3, 3], "segmentation": shape}
            labelled.content["annotations"].append({**first, **more})
    elif layout == "yolo":
        lines = [f"0 {(x0 + 1.5) / 240} {(y0 + 1.5) / 240} 0.0125 0.0125" for x0, y0, _, _ in boxes]
        (labelled.folder / "labels/train/a.txt").write_text("\n".join(lines))
    else:
        xml = labelled.folder / "Annotations/a.xml"
        head, _, rest = xml.read_text().partition("<object>")
        thing = "<object>" + rest.partition("</object>")[0] + "</object>"
        things = [
            thing.replace("<xmin>1<", f"<xmin>{x0 + 1}<")
            .replace("<ymin>1<", f"<ymin>{y0 + 1}<")
            .replace("<xmax>3<", f"<xmax>{x1}<")
            .replace("<ymax>3<", f"<ymax>{y1}<")
            for x0, y0, x1, y1 in boxes
        ]
        xml.write_text(head + "".join(things) + "</annotation>")
    labelled.write()
    builder = mtl.data.from_folder(labelled.folder, data_dir=tmp_path / "prepared")
    (one,) = mtl.data.examples(builder, "train").as_numpy_iterator()
    np.testing.assert_allclose(one["boxes"], boxes, atol=0.01)
    if layout == "coco":
        assert len(np.unique(one["instances"])) == count + 1
    (batch,) = mtl.data.batches(builder, "train", [labels_task(most=4000)], 256)
    ((_, labels),) = unstack(batch)
    assert len(labels["boxes"]) == count


def test_more_objects_than_can_be_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(importing.builder_lib, "MAX_OBJECTS", 1)
    labelled = LabelledSet(tmp_path / "set", "yolo")
    labelled.add("a.png")
    text = labelled.folder / "labels/train/a.txt"
    text.write_text(2 * text.read_text())
    with pytest.raises(BadLabels, match="a.txt.*2 objects.*at most 1"):
        mtl.data.from_folder(labelled.folder, data_dir=tmp_path / "prepared")


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_preparation_is_done_again(error, tmp_path, monkeypatch):
    labelled = LabelledSet(tmp_path / "set", "coco")
    for name in ("a.png", "b.png", "c.png"):
        labelled.add(name)
    labelled.write()
    opened = importing.opened_image

    def interrupted(record):
        if record.filename == "b.png":
            raise error
        return opened(record)

    prepared = tmp_path / "prepared"
    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(importing, "opened_image", interrupted)
        mtl.data.from_folder(labelled.folder, data_dir=prepared)
    assert not [path for path in prepared.rglob("*") if path.is_file()]
    builder = mtl.data.from_folder(labelled.folder, data_dir=prepared)
    assert builder.info.splits["train"].num_examples == 3


def of_forty(folder):
    labelled = LabelledSet(folder, "coco")
    for i in range(40):
        labelled.add(f"{i}.png")
    (labelled.images / "3.png").write_bytes(b"")
    labelled.write()
    return labelled.folder


def quarantined_in(folder, prepared):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        builder = mtl.data.from_folder(folder, on_bad="quarantine", data_dir=prepared)
    return builder.info.splits["train"].num_examples, len(mtl.data.quarantined(builder))


def test_a_set_that_another_process_made_meanwhile(tmp_path, monkeypatch):
    """Each makes it aside; the first one is kept, with its list of what was left out."""
    folder, opened, other = of_forty(tmp_path / "set"), importing.opened_image, []

    def slow(record):
        if record.filename == "20.png" and not other:
            other.append(None)
            other[0] = quarantined_in(folder, tmp_path / "prepared")
            times.append(kept_at())
        return opened(record)

    def kept_at():
        (kept,) = (tmp_path / "prepared").rglob("quarantine.json")
        return kept.stat().st_mtime_ns

    times = []
    monkeypatch.setattr(importing, "opened_image", slow)
    assert quarantined_in(folder, tmp_path / "prepared") == (39, 1) == other[0]
    assert times == [kept_at()]
    assert not [path for path in tmp_path.rglob(".incomplete*")]


def prepare_at_once(folder, prepared, barrier, queue):
    barrier.wait()
    queue.put(quarantined_in(folder, prepared))


@pytest.mark.slow
def test_two_processes_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(2), context.Queue()
    arguments = (of_forty(tmp_path / "set"), tmp_path / "prepared", barrier, queue)
    both = [context.Process(target=prepare_at_once, args=arguments) for _ in range(2)]
    for one in both:
        one.start()
    assert [queue.get(timeout=120) for _ in both] == [(39, 1), (39, 1)]
    for one in both:
        one.join(60)
    assert not [path for path in tmp_path.rglob(".incomplete*")]
