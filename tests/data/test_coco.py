import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mtl_keras.data import coco, examples, from_coco, importing, quarantined
from mtl_keras.data.records import BadLabels

ROOT = Path(__file__).resolve().parents[2]


def load(folder, path=None, **kwargs):
    path = folder.write() if path is None else path
    return from_coco(path, folder.images, data_dir=folder.folder / "prepared", **kwargs)


def read(builder, split="train"):
    found = {e["filename"].decode(): e for e in examples(builder, split).as_numpy_iterator()}
    assert len(found) == builder.info.splits[split].num_examples
    return found


def names(builder):
    return builder.info.features["objects"]["label"].names


def test_round_trip(coco_folder):
    a, b = coco_folder.image("a.png"), coco_folder.image("b.png", 33, 21, seed=1)
    coco_folder.rectangle(a, 5, 6, 20, 10)
    coco_folder.rectangle(a, 30, 20, 8, 9, category_id=8, iscrowd=1)
    builder = load(coco_folder)
    assert names(builder) == ["cell", "gap"] and builder.name == "my_set"
    found = read(builder)
    one = found["a.png"]
    np.testing.assert_array_equal(one["image"], Image.open(coco_folder.images / "a.png"))
    np.testing.assert_array_equal(one["boxes"], [[5, 6, 25, 16], [30, 20, 38, 29]])
    assert one["classes"].tolist() == [0, 1] and one["is_crowd"].tolist() == [False, True]
    expected = np.zeros((40, 60), int)
    expected[6:16, 5:25] = 1
    expected[20:29, 30:38] = 2
    np.testing.assert_array_equal(one["instances"], expected)
    np.testing.assert_array_equal(one["mask"], np.array([0, 1, 255])[expected])
    empty = found["b.png"]
    assert empty["boxes"].shape == (0, 4) and not empty["instances"].any() and empty["id"] == b


def test_splits_and_folders(coco_folder):
    coco_folder.image("a.png")
    train = coco_folder.write("train.json")
    coco_folder.image("b.png")
    val = coco_folder.write("val.json")
    builder = from_coco(
        {"train": train, "val": val},
        {"train": coco_folder.images, "val": str(coco_folder.images)},
        name="Other name!",
        data_dir=coco_folder.folder / "prepared",
    )
    assert builder.name == "other_name"
    assert {k: v.num_examples for k, v in builder.info.splits.items()} == {"train": 1, "val": 2}
    with pytest.raises(ValueError, match="`images` names the splits"):
        from_coco({"train": train}, {"val": coco_folder.images})


def test_prepared_once_until_the_data_change(coco_folder, monkeypatch):
    coco_folder.rectangle(coco_folder.image("a.png"), 5, 5, 10, 10)
    first = load(coco_folder)
    runs = []
    opened = importing.opened_image
    monkeypatch.setattr(importing, "opened_image", lambda *a: runs.append(a) or opened(*a))
    assert load(coco_folder).data_dir == first.data_dir and not runs
    os.utime(coco_folder.images / "a.png", ns=(1, 1))
    second = load(coco_folder)
    assert second.data_dir != first.data_dir and len(runs) == 1
    coco_folder.rectangle(1, 1, 1, 3, 3)
    third = load(coco_folder)
    assert third.data_dir != second.data_dir and len(read(third)["a.png"]["boxes"]) == 2


def test_what_an_interrupted_copy_left_is_prepared_again(coco_folder):
    for i in range(3):
        coco_folder.image(f"{i}.png", seed=i)
    builder = load(coco_folder)
    assert len(read(builder)) == 3
    shard = next(p for p in os.scandir(builder.data_dir) if "tfrecord" in p.name)
    os.remove(shard.path)
    assert len(read(load(coco_folder))) == 3
    os.remove(os.path.join(builder.data_dir, "dataset_info.json"))
    assert len(read(load(coco_folder))) == 3
    assert os.listdir(Path(builder.data_dir).parent) == [Path(builder.data_dir).name]


def test_all_kinds_of_segmentation_agree(coco_folder):
    key = coco_folder.image("a.png")
    mask = np.zeros((40, 60), "uint8", order="F")
    mask[10:20, 30:45] = 1
    rle = coco_mask.encode(mask)
    flat = mask.ravel(order="F")
    ends = [0, *(np.flatnonzero(np.diff(flat)) + 1), len(flat)]
    for segmentation in (
        [[30, 10, 45, 10, 45, 20, 30, 20]],
        {"size": [40, 60], "counts": rle["counts"].decode()},
        {"size": [40, 60], "counts": np.diff(ends).tolist()},
        [[30, 10, 37, 10, 37, 20, 30, 20], [37, 10, 45, 10, 45, 20, 37, 20]],
    ):
        coco_folder.content["annotations"] = []
        coco_folder.object(key, None, segmentation=segmentation)  # box from the segmentation
        one = read(load(coco_folder))["a.png"]
        np.testing.assert_array_equal(one["instances"], mask)
        assert one["boxes"].tolist() == [[30, 10, 45, 20]]


def test_small_objects_stay_visible_on_large_ones(coco_folder):
    key = coco_folder.image("a.png")
    coco_folder.rectangle(key, 20, 10, 4, 4)
    coco_folder.rectangle(key, 5, 5, 40, 30, category_id=8)
    coco_folder.rectangle(key, 21, 11, 30, 2, iscrowd=1)
    one = read(load(coco_folder))["a.png"]
    assert (one["instances"][10:14, 20:24] == 1).all()
    assert (one["instances"][5:35, 5:45] > 0).all() and one["mask"][30, 30] == 2
    assert one["mask"][11, 50] == 255 and one["mask"][11, 30] == 2


def test_objects_without_segmentation_are_ignored_in_masks(coco_folder):
    a, b = coco_folder.image("a.png"), coco_folder.image("b.png")
    coco_folder.object(a, [1, 2, 10, 10])
    coco_folder.object(a, [21, 2, 10, 10], segmentation=[])
    coco_folder.rectangle(a, 25, 2, 10, 10)
    coco_folder.object(b, [1, 2, 10, 10], segmentation=[[1, 2, 3, 4]])
    with pytest.warns(UserWarning, match="3 of 4 annotations .* no segmentation.*annotation 1"):
        found = read(load(coco_folder))
    one, other = found["a.png"], found["b.png"]
    assert len(one["boxes"]) == 3 and one["labelled"]["instances"]
    assert set(np.unique(one["instances"])) == {0, 3}
    expected = np.zeros((40, 60), int)
    expected[2:12, 1:11] = expected[2:12, 21:31] = 255
    expected[2:12, 25:35] = 1
    np.testing.assert_array_equal(one["mask"], expected)
    # Where no object of an image has a mask, nothing is known of its pixels.
    assert len(other["boxes"]) == 1 and other["labelled"]["boxes"]
    assert not other["labelled"]["instances"] and not other["labelled"]["mask"]


def test_a_set_of_boxes_alone(coco_folder):
    coco_folder.object(coco_folder.image("a.png"), [1, 2, 10, 10])
    coco_folder.image("b.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = read(load(coco_folder))
    assert [one["labelled"]["boxes"] for one in found.values()] == [True, True]
    assert [one["labelled"]["instances"] for one in found.values()] == [False, False]


def test_boxes_are_clipped_and_empty_ones_left_out_aloud(coco_folder):
    key = coco_folder.image("a.png")
    coco_folder.rectangle(key, -5, -6, 20, 20)
    bad = [[60, 3, 5, 5], [10, 10, 0, 5], [-9, 0, 9, 9], [1, 1, 3, 0], [1, 1, 0, 0]]
    for box in bad:
        coco_folder.object(key, box, segmentation=[[1, 1, 5, 1, 5, 5]])
    for _ in range(2):  # the second time, the set is there already
        with pytest.warns(UserWarning, match=r"5 problems.*3 x .*2 x .*annotation 2 .*a.png"):
            builder = load(coco_folder)
    one = read(builder)["a.png"]
    assert one["boxes"].tolist() == [[0, 0, 15, 14]] and set(np.unique(one["instances"])) == {0, 1}
    kinds = [problem.kind for problem in quarantined(builder)]
    assert kinds.count("box without area") == 3 and kinds.count("box outside") == 2
    with pytest.raises(BadLabels, match="annotation 2"):
        coco.read(coco_folder.folder)


def test_on_bad(coco_folder):
    for name in ("a.png", "b.png"):
        coco_folder.rectangle(coco_folder.image(name), 5, 5, 10, 10)
    coco_folder.object(2, [20, 20, -5, 4])
    with pytest.raises(BadLabels, match="train.json.*reversed box.*annotation 3 .*b.png"):
        load(coco_folder)
    with pytest.warns(UserWarning, match="1 problem "):
        builder = load(coco_folder, on_bad="quarantine")
    assert list(read(builder)) == ["a.png"]
    with pytest.raises(ValueError, match="`on_bad` must be"):
        load(coco_folder, on_bad="skip")


def test_unused_supercategory_is_left_out_and_names_are_unique(coco_folder):
    coco_folder.content["categories"] = [
        {"id": 0, "name": "facade", "supercategory": "none"},
        {"id": 4, "name": "unused leaf", "supercategory": "facade"},
        {"id": 2, "name": "facade", "supercategory": "facade"},
        {"id": 9, "name": "facade", "supercategory": "facade"},
    ]
    key = coco_folder.image("a.png")
    for category in (2, 9):
        coco_folder.rectangle(key, 5, 5, 10, 10, category_id=category)
    builder = load(coco_folder)
    assert names(builder) == ["facade", "unused leaf", "facade_2"]
    assert read(builder)["a.png"]["classes"].tolist() == [0, 2]
    coco_folder.rectangle(key, 5, 5, 10, 10, category_id=0)
    assert len(names(load(coco_folder))) == 4


def test_files_are_kept_or_converted(coco_folder):
    import tensorflow_datasets as tfds

    coco_folder.image("a.jpg", quality=50)
    coco_folder.image("b.png")
    coco_folder.image("grey.png")
    coco_folder.image("c.png")
    grey = np.random.default_rng(0).integers(0, 65535, (40, 60)).astype("uint16")
    Image.fromarray(grey).save(coco_folder.images / "grey.png")
    Image.new("CMYK", (60, 40)).save(coco_folder.images / "c.png", "TIFF")
    builder = load(coco_folder)
    stored = {
        e["image/filename"].decode(): e["image"]
        for e in builder.as_dataset(
            split="train", decoders={"image": tfds.decode.SkipDecoding()}
        ).as_numpy_iterator()
    }
    for name in ("a.jpg", "b.png"):
        assert stored[name] == (coco_folder.images / name).read_bytes()
    found = read(builder)
    np.testing.assert_array_equal(found["grey.png"]["image"][..., 1], np.rint(grey / 257))
    assert (found["c.png"]["image"] == 255).all()


def test_exif_rotation(coco_folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("upright.jpg", "raw.jpg"):
        coco_folder.image(name, 60, 40, exif=exif, quality=95)
    coco_folder.content["images"][0].update(width=40, height=60)
    found = read(load(coco_folder))
    assert found["upright.jpg"]["image"].shape == (60, 40, 3)
    assert found["raw.jpg"]["image"].shape == (40, 60, 3)  # annotated without the rotation


def test_more_objects_than_a_byte_counts(coco_folder):
    key = coco_folder.image("a.png", 100, 100)
    for i in range(375):
        coco_folder.rectangle(key, 4 * (i % 25), 4 * (i // 25), 3, 3)
    one = read(load(coco_folder))["a.png"]
    assert len(np.unique(one["instances"])) == 376
    for i in (0, 300, 374):
        assert (one["instances"] == i + 1).sum() == 9


# === Bad input: every error names the file and what is wrong ===


def spoil(key, value):
    def change(folder):
        folder.content["annotations"][0][key] = value

    return change


def spoil_image(**changes):
    return lambda folder: folder.content["images"][0].update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil("bbox", [float("nan"), 1, 2, 3]), "annotation 1 .*a.png.*finite"),
        (spoil("bbox", [1, 2, 3]), "annotation 1 .*four finite numbers"),
        (spoil("bbox", "1,2,3,4"), "annotation 1 .*four finite numbers"),
        (spoil("bbox", None), None),
        (spoil("category_id", 77), r"annotation 1 .*unknown category id 77.*\[3, 8\]"),
        (spoil("image_id", 77), "annotation 1 .*unknown image id 77"),
        (spoil("category_id", None), r"annotations\[0\] lacks category_id"),
        (spoil("segmentation", [[1, 2, 3, 4, 5, float("inf")]]), "annotation 1 .*finite"),
        (spoil("segmentation", [[1, 2, 3, 4, 5, 6, 7]]), "annotation 1 .*x, y pairs"),
        (spoil("segmentation", "mask.png"), "annotation 1 .*neither a list of polygons"),
        (spoil("segmentation", {"size": [60, 40], "counts": [2400]}), r"\[60, 40\].*\[40, 60\]"),
        (spoil("segmentation", {"size": [40, 60], "counts": [7]}), "annotation 1 .*RLE.*add up"),
        (spoil_image(width=61), "a.png' is 60 x 40 pixels .*says 61 x 40"),
        (spoil_image(id="x"), "image id should be an integer, got 'x'"),
        (lambda f: f.content["images"].append(f.content["images"][0]), "image id 1 twice"),
        (lambda f: f.content["categories"].append({"id": 3, "name": "x"}), "category id 3 twice"),
        (lambda f: f.content.pop("categories"), "'categories', got .*'annotations', 'images'"),
        (lambda f: f.content.update(categories=[], annotations=[]), "lists no categories"),
        (lambda f: f.content.update(images=[], annotations=[]), "lists no images"),
    ],
)
def test_bad_annotations(coco_folder, change, message):
    coco_folder.rectangle(coco_folder.image("a.png"), 5, 5, 10, 10)
    change(coco_folder)
    if message is None:  # a box is optional where there is a segmentation
        assert len(read(load(coco_folder))["a.png"]["boxes"]) == 1
        return
    with pytest.raises(ValueError, match=message) as error:
        load(coco_folder)
    assert "train.json" in str(error.value)


def test_neither_box_nor_segmentation(coco_folder):
    coco_folder.object(coco_folder.image("a.png"), None)
    with pytest.raises(ValueError, match="annotation 1 .*neither bbox nor segmentation"):
        load(coco_folder)


def test_bad_json(coco_folder):
    with pytest.raises(FileNotFoundError, match="nothing.json"):
        load(coco_folder, coco_folder.folder / "nothing.json")
    path = coco_folder.folder / "train.json"
    for content, message in (("{", "train.json.*not valid JSON"), ("[]", "not in COCO format")):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            load(coco_folder, path)
    path.write_bytes(b"\xff\xfe\x00\x01\x02")
    with pytest.raises(ValueError, match="train.json.*not valid JSON"):
        load(coco_folder, path)
    with pytest.raises(TypeError, match="`json`"):
        load(coco_folder, 3)


def test_missing_images(coco_folder):
    for i in range(8):
        coco_folder.image(f"{i}.png")
    for i in range(1, 8):
        os.remove(coco_folder.images / f"{i}.png")
    with pytest.raises(FileNotFoundError, match="7 of 8 images.*'1.png'.*'5.png', …") as error:
        load(coco_folder)
    assert "6.png" not in str(error.value)
    with pytest.raises(FileNotFoundError, match="no image folder.*elsewhere"):
        from_coco(coco_folder.write(), coco_folder.folder / "elsewhere")


def test_damaged_image(coco_folder):
    coco_folder.image("a.png")
    content = (coco_folder.images / "a.png").read_bytes()
    (coco_folder.images / "a.png").write_bytes(content[:1000])
    with pytest.raises(ValueError, match="a.png.*damaged"):
        load(coco_folder)


def test_splits_that_disagree_on_categories(coco_folder):
    coco_folder.image("a.png")
    train = coco_folder.write("train.json")
    coco_folder.content["categories"][0]["name"] = "other"
    val = coco_folder.write("val.json")
    with pytest.raises(ValueError, match="category id 3 is 'cell'.*'other'"):
        from_coco({"train": train, "val": val}, coco_folder.images)


def test_real_data(nuclei):
    """Boxes and instances of real annotations belong together."""
    path = json.loads((nuclei.data_path.parents[3] / "train.json").read_text())
    assert nuclei.info.splits["train"].num_examples == len(path["images"])
    total = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for one in examples(nuclei, "train").as_numpy_iterator():
            total += len(one["boxes"])
            assert one["instances"].shape == one["image"].shape[:2]
            assert set(np.unique(one["mask"])) <= {0, 1}
            for i in range(0, len(one["boxes"]), 7):
                rows, columns = np.nonzero(one["instances"] == i + 1)
                x1, y1, x2, y2 = one["boxes"][i]
                assert len(rows) and rows.min() >= y1 and rows.max() < y2
                assert columns.min() >= x1 and columns.max() < x2
    assert total == len(path["annotations"])


# === Records, without a set made of them ===


def on_line(source_path, text):
    lines = source_path.read_text().split("\n")
    return 1 + next(i for i, line in enumerate(lines) if text in line)


def test_read_gives_what_the_json_says(coco_folder):
    a, b = coco_folder.image("a.png"), coco_folder.image("b.png", 33, 21)
    coco_folder.rectangle(a, 5, 6, 20, 10)
    coco_folder.object(a, [-3, 20, 8, 9], category_id=8, iscrowd=1)
    coco_folder.image("c.png", 33, 21)
    coco_folder.object(3, [1, 1, 5, 5])
    del coco_folder.content["images"][2]["width"]
    path = coco_folder.write()
    source = coco.read(coco_folder.folder)
    assert (source.name, source.layout, source.names) == ("my set", "coco", ["cell", "gap"])
    assert source.files == [path] and not source.problems and list(source.splits) == ["train"]
    one, empty, other = source.splits["train"]
    assert (one.filename, one.image_id, one.size) == ("a.png", a, (40, 60))
    assert one.path == coco_folder.images / "a.png" and one.mask is None
    first, second = one.objects
    assert first.box == (5, 6, 25, 16) and (first.label, first.is_crowd) == (0, False)
    assert second.box == (-3, 20, 5, 29) and (second.label, second.is_crowd) == (1, True)
    top, left, mask = first.mask(40, 60)
    assert (top, left, mask.shape) == (6, 5, (10, 20)) and second.mask is None
    assert first.where == "annotation 1" and one.where == str(path)
    assert empty.objects == [] and empty.image_id == b  # looked at, and nothing found
    assert [r.has_masks for r in source.splits["train"]] == [True, True, False]
    assert other.size is None


@pytest.mark.parametrize(
    ("json_path", "image_folder", "split"),
    [
        ("train.json", "images", "train"),
        ("val.json", "val", "val"),
        ("valid.json", "images/valid", "val"),
        ("annotations/instances_train2017.json", "train2017", "train"),
        ("annotations/instances_val2017.json", "images/val2017", "val"),
        ("annotations/instances_default.json", "images/default", "train"),
        ("annotations/instances_default.json", "images", "train"),
        ("valid/_annotations.coco.json", "valid", "val"),
        ("test/labels.json", "test/data", "test"),
        ("labels.json", "data", "train"),
        ("result.json", ".", "train"),
    ],
)
def test_usual_places(tmp_path, json_path, image_folder, split):
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 6, "height": 4}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]}],
        "categories": [{"id": 1, "name": "x"}],
    }
    path, folder = tmp_path / json_path, tmp_path / image_folder
    path.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    (tmp_path / "images").mkdir(exist_ok=True)
    assert coco.recognise(tmp_path) is None
    path.write_text(json.dumps(content))
    (folder / "a.png").write_bytes(b"x")
    for name, other in (
        ("captions_train2017.json", content),
        ("panoptic_train.json", content | {"segments_info": []}),
        ("shape.json", {"shapes": []}),
    ):
        (path.parent / name).write_text(json.dumps(other))
    assert json_path in coco.recognise(tmp_path)
    source = coco.read(tmp_path)
    assert list(source.splits) == [split] and source.files == [path]
    assert source.splits[split][0].path.samefile(folder / "a.png")
    assert source.name == tmp_path.name
    (alone,) = coco.read(path).splits.values()
    assert alone[0].path.samefile(folder / "a.png")


def test_folders_that_are_no_coco(coco_folder):
    folder = coco_folder.folder
    for path in (folder / "nothing", folder / "nothing.json"):
        assert coco.recognise(path) is None
        with pytest.raises(FileNotFoundError, match="nothing"):
            coco.read(path)
    with pytest.raises(ValueError, match="no COCO JSON"):
        coco.read(folder)
    for wrong in (3, {"train": 3}):
        with pytest.raises(TypeError, match="`path`"):
            coco.read(wrong)
    coco_folder.image("a.png")
    path = coco_folder.write()
    with pytest.raises(ValueError, match="`on_bad`"):
        coco.read(folder, on_bad="ignore")
    os.rename(coco_folder.images, folder / "elsewhere")
    for on_bad in ("strict", "quarantine"):
        with pytest.raises(FileNotFoundError, match="none of the images.*'a.png'"):
            coco.read(folder, on_bad=on_bad)
    assert len(coco.read(folder, folder / "elsewhere").splits["train"]) == 1
    assert len(coco.read({"x": path}, {"x": folder / "elsewhere"}).splits["x"]) == 1
    coco_folder.write("instances_train2014.json")
    coco_folder.write("instances_train2017.json")
    assert "train2014" in coco.recognise(folder)
    with pytest.raises(ValueError, match="train2014.*train2017.*the split 'train'"):
        coco.read(folder)


@pytest.mark.parametrize("on_bad", ["strict", "quarantine"])
def test_a_json_cut_short_is_always_an_error(coco_folder, on_bad):
    coco_folder.image("a.png")
    coco_folder.write("train.json")
    text = coco_folder.write("val.json").read_text()
    for end in (0, 10, len(text) // 2, len(text) - 1):
        (coco_folder.folder / "val.json").write_text(text[:end])
        with pytest.raises(BadLabels, match="val.json:1: unreadable JSON"):
            coco.read(coco_folder.folder, on_bad=on_bad)


def annotation(**changes):
    return lambda folder: folder.content["annotations"][1].update(changes)


def image(**changes):
    return lambda folder: folder.content["images"][1].update(changes)


def again(key, **changes):
    return lambda f: f.content[key].append(f.content[key][1] | changes)


def insert(item):
    return lambda folder: folder.content["annotations"].insert(1, item)


ALL, ONE = "the image is left out", "only the annotation is left out"


@pytest.mark.parametrize(
    ("change", "kind", "line", "left_out"),
    [
        (annotation(bbox=[float("nan"), 1, 2, 3]), "bad annotation", '"id": 2, "image_id"', ALL),
        (annotation(bbox=[1, 2, 3]), "bad annotation", '"id": 2, "image_id"', ALL),
        (annotation(bbox="1234"), "bad annotation", '"id": 2, "image_id"', ALL),
        (annotation(bbox=[1, 2, 3, "x"]), "bad annotation", '"id": 2, "image_id"', ALL),
        (annotation(iscrowd="0"), "bad annotation", '"id": 2, "image_id"', ALL),
        (annotation(bbox=None, segmentation=[]), "bad annotation", '"id": 2, "image_id"', ALL),
        (annotation(bbox=[9, 9, -4, 3]), "reversed box", '"id": 2, "image_id"', ALL),
        (annotation(bbox=[9, 9, 4, 0]), "box without area", '"id": 2, "image_id"', ONE),
        (annotation(bbox=[60, 9, 4, 2]), "box outside", '"id": 2, "image_id"', ONE),
        (annotation(bbox=[9, -9, 4, 9]), "box outside", '"id": 2, "image_id"', ONE),
        (annotation(category_id=77), "unknown category id", '"id": 2, "image_id"', ALL),
        (annotation(category_id=[3]), "unknown category id", '"id": 2, "image_id"', ALL),
        (annotation(category_id=None), "bad annotation", '"id": 2, "image_id"', ALL),
        (annotation(image_id=77), "unknown image id", '"id": 2, "image_id"', ONE),
        (annotation(image_id={}), "unknown image id", '"id": 2, "image_id"', ONE),
        (annotation(image_id=None), "bad annotation", '"id": 2, "image_id"', ONE),
        (insert("x"), "bad annotation", '"x"', ONE),
        (
            annotation(segmentation={"size": [40, 60], "counts": [2000, 401]}),
            "bad segmentation",
            '"id": 2, "image_id"',
            ALL,
        ),
        (
            annotation(segmentation={"size": [40, 60], "counts": "PPP"}),
            "bad segmentation",
            '"id": 2, "image_id"',
            ALL,
        ),
        (
            annotation(segmentation={"size": [60, 40], "counts": [2400]}),
            "bad segmentation",
            '"id": 2, "image_id"',
            ALL,
        ),
        (
            annotation(segmentation=[[1, 1, 5, 1, 5, 5, 1]]),
            "bad segmentation",
            '"id": 2, "image_id"',
            ALL,
        ),
        (
            annotation(segmentation=[1, 1, 5, 1, 5, 5]),
            "bad segmentation",
            '"id": 2, "image_id"',
            ALL,
        ),
        (image(id="x"), "bad image entry", '"b.png"', ALL),
        (image(width=float("nan")), "bad image entry", '"b.png"', ALL),
        (image(height=-1), "bad image entry", '"b.png"', ALL),
        (image(file_name="gone.png"), "missing image", '"gone.png"', ALL),
        (again("images", file_name="c.png"), "repeated image id", '"b.png"', ALL),
    ],
)
def test_every_problem_has_file_line_and_image(coco_folder, change, kind, line, left_out):
    for name in ("a.png", "b.png"):
        coco_folder.rectangle(coco_folder.image(name), 5, 5, 10, 10)
    coco_folder.rectangle(2, 20, 20, 10, 10)
    change(coco_folder)
    folder = coco_folder.folder
    path = coco_folder.write()
    # One item a line, with words of UTF-8 before: lines are counted in the text, not in bytes.
    parts = [
        f'"{key}": [\n' + ",\n".join(json.dumps(item) for item in items) + "\n]"
        for key, items in coco_folder.content.items()
    ]
    path.write_text('{"info": {"é": [1, "\\n]"]},\n' + ",\n".join(parts) + "\n}", "utf-8")
    with pytest.raises(BadLabels) as error:
        coco.read(folder)
    problem = error.value.problem
    assert (problem.kind, problem.file) == (kind, str(path))
    assert problem.line == on_line(path, line) and str(problem) == str(error.value)
    source = coco.read(folder, on_bad="quarantine")
    assert source.problems[0].kind == kind and source.problems[0].line == problem.line
    left = {r.filename: len(r.objects) for r in source.splits["train"]}
    if left_out == ALL:
        name = coco_folder.content["images"][1]["file_name"]
        assert left == {"a.png": 1} and source.problems[0].image == name
        # An image without its id leaves its annotations without an image.
        assert {p.image for p in source.problems} <= {name, "c.png", None}
    else:
        moved = kind != "bad annotation" or line != '"x"'
        assert left == {"a.png": 1, "b.png": 2 - moved}
        assert [p.image for p in source.problems] == [None]


def test_all_problems_are_listed(coco_folder):
    for name in ("a.png", "b.png", "c.png"):
        coco_folder.rectangle(coco_folder.image(name), 5, 5, 10, 10)
    for box in ([1, 1, 0, 0], [9, 9, -1, 5], [1, 2]):
        coco_folder.object(1, box)
    coco_folder.object(2, [70, 0, 5, 5])
    os.remove(coco_folder.images / "c.png")
    coco_folder.write()
    source = coco.read(coco_folder.folder, on_bad="quarantine")
    assert [(r.filename, len(r.objects)) for r in source.splits["train"]] == [("b.png", 1)]
    assert sorted((p.kind, p.image) for p in source.problems if p.image) == [
        ("bad annotation", "a.png"),
        ("missing image", "c.png"),
        ("reversed box", "a.png"),
    ]
    found = sorted(p.kind for p in source.problems if not p.image)
    assert found == ["box outside", "box without area"]


@pytest.mark.parametrize("name", ["nuclei", "vhr10"])
def test_read_real_data(name):
    root = Path(os.environ.get("MTL_KERAS_DATA", ROOT.parent / "shared" / "data")) / name
    if not (root / "val.json").exists():
        pytest.skip(f"the set is not at {root} (set MTL_KERAS_DATA)")
    source = coco.read(root)
    assert "train.json" in coco.recognise(root) and list(source.splits) == ["train", "val"]
    content = json.loads((root / "val.json").read_text())
    assert len(source.splits["val"]) == len(content["images"])
    assert sum(len(r.objects) for r in source.splits["val"]) == len(content["annotations"])
    for record in source.splits["val"][::20]:
        assert record.path.is_file() and record.has_masks
        for item in record.objects[:5]:
            top, left, mask = item.mask(*record.size)
            x0, y0, x1, y1 = item.box
            assert mask.any() and abs(left - x0) < 3 and abs(top - y0) < 3
            assert abs(left + mask.shape[1] - x1) < 3 and abs(top + mask.shape[0] - y1) < 3
