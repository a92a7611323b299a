import json
import os
import warnings

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mtl_keras.data import examples, from_coco


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
    from mtl_keras.data import coco

    coco_folder.rectangle(coco_folder.image("a.png"), 5, 5, 10, 10)
    first = load(coco_folder)
    runs = []
    encoded = coco._encoded_image
    monkeypatch.setattr(coco, "_encoded_image", lambda *a: runs.append(a) or encoded(*a))
    assert load(coco_folder).data_dir == first.data_dir and not runs
    os.utime(coco_folder.images / "a.png", ns=(1, 1))
    second = load(coco_folder)
    assert second.data_dir != first.data_dir and len(runs) == 1
    coco_folder.rectangle(1, 1, 1, 3, 3)
    third = load(coco_folder)
    assert third.data_dir != second.data_dir and len(read(third)["a.png"]["boxes"]) == 2


def test_interrupted_preparation_is_not_taken_as_done(coco_folder, monkeypatch):
    from mtl_keras.data import coco

    for i in range(3):
        coco_folder.image(f"{i}.png", seed=i)
    encoded = coco._encoded_image

    def interrupted(record, path):
        if record.filename == "1.png":
            raise KeyboardInterrupt
        return encoded(record, path)

    monkeypatch.setattr(coco, "_encoded_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(coco_folder)
    monkeypatch.setattr(coco, "_encoded_image", encoded)
    builder = load(coco_folder)
    assert len(read(builder)) == 3
    shard = next(p for p in os.scandir(builder.data_dir) if "tfrecord" in p.name)
    os.remove(shard.path)  # as an interrupted copy of the folder leaves it
    assert len(read(load(coco_folder))) == 3
    os.remove(os.path.join(builder.data_dir, "dataset_info.json"))
    assert len(read(load(coco_folder))) == 3


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


def test_object_without_segmentation(coco_folder):
    key = coco_folder.image("a.png")
    coco_folder.object(key, [1, 2, 10, 10])
    coco_folder.object(key, [1, 2, 10, 10], segmentation=[])
    coco_folder.object(key, [1, 2, 10, 10], segmentation=[[1, 2, 3, 4]])
    with pytest.warns(UserWarning, match="3 of 3 annotations have no segmentation"):
        one = read(load(coco_folder))["a.png"]
    assert len(one["boxes"]) == 3 and not one["instances"].any()


def test_boxes_are_clipped_and_empty_ones_left_out_aloud(coco_folder):
    key = coco_folder.image("a.png")
    coco_folder.rectangle(key, -5, -6, 20, 20)
    bad = [
        [60, 3, 5, 5],
        [10, 10, 0, 5],
        [20, 20, -5, 4],
        [-9, 0, 9, 9],
        [1, 1, 3, 0],
        [1, 1, 0, 0],
    ]
    for box in bad:
        coco_folder.object(key, box, segmentation=[[1, 1, 5, 1, 5, 5]])
    with pytest.warns(UserWarning, match=r"6 annotations were left out.*2 \(a.png\), 3 .*…"):
        one = read(load(coco_folder))["a.png"]
    assert one["boxes"].tolist() == [[0, 0, 15, 14]] and set(np.unique(one["instances"])) == {0, 1}


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
