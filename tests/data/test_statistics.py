"""Statistics of a prepared set, against counts by hand."""

import pytest

import mtl_keras as mtl


def test_counts_by_hand(coco_folder):
    first = coco_folder.image("a.png", width=60, height=40)
    second = coco_folder.image("b.jpg", width=80, height=30, seed=1)
    coco_folder.image("empty.png", width=20, height=90, seed=2)
    coco_folder.rectangle(first, 0, 0, 10, 10)
    coco_folder.rectangle(first, 5, 5, 20, 20)
    coco_folder.rectangle(first, 0, 20, 50, 10, iscrowd=1)
    coco_folder.rectangle(second, 10, 5, 4, 9, category_id=8)
    builder = mtl.data.from_coco(coco_folder.write(), coco_folder.images)
    found = mtl.data.statistics(builder)
    assert found["classes"] == ["cell", "gap"]
    train = found["splits"]["train"]
    assert (train["images"], train["objects"], train["crowds"]) == (3, 3, 1)
    assert train["objects_by_class"] == {"cell": 2, "gap": 1}
    assert train["objects_per_image"] == {"min": 0, "median": 1, "max": 2}
    assert train["image_width"] == {"min": 20, "median": 60, "max": 80}
    assert train["image_height"] == {"min": 30, "median": 40, "max": 90}
    assert train["box_size"]["50"] == 10.0  # of 6, 10 and 20
    assert train["box_size"]["5"] == 6.4 and train["box_size"]["95"] == 19.0


def test_images_without_labels_do_not_count_as_empty(tmp_path):
    import numpy as np
    from PIL import Image

    for part in ("images/train", "labels/train"):
        (tmp_path / part).mkdir(parents=True)
    for name in "ab":
        Image.fromarray(np.zeros((40, 60, 3), "uint8")).save(tmp_path / f"images/train/{name}.png")
    (tmp_path / "labels.csv").write_text("image,grade\nimages/train/a.png,1\n")
    builder = mtl.data.from_folder(tmp_path, layout="columns", data_dir=tmp_path / "prepared")
    (split,) = mtl.data.statistics(builder)["splits"].values()
    assert split["objects_per_image"] == {"min": None, "median": None, "max": None}
    assert split["labelled"]["boxes"] == 0 and split["labelled"]["grade"] == 1
    assert split["box_size"]["50"] is None


def test_another_layout_is_refused():
    import tensorflow_datasets as tfds

    class Other:
        class info:
            features = tfds.features.FeaturesDict({"image": tfds.features.Image()})
            full_name = "other/1.0.0"

    with pytest.raises(ValueError, match="no feature 'objects'"):
        mtl.data.statistics(Other())
