"""Fixtures of the data tests: a small COCO set on disk, and a task that hands on its labels."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


class Labels:
    """A stand-in for a task: its targets are the labels themselves, padded to `most` objects."""

    def __init__(self, name="labels", most=400):
        self.name = name
        self.most = most

    def encode(self, labels, image_size):
        import tensorflow as tf

        assert labels["mask"].shape == image_size and labels["instances"].shape == image_size
        assert labels["boxes"].dtype == tf.float32 and labels["is_crowd"].dtype == tf.bool
        assert labels["classes"].dtype == labels["mask"].dtype == tf.int32
        n = tf.shape(labels["boxes"])[0]
        pad = [[0, self.most - n]]
        return {
            "n": n,
            "boxes": tf.ensure_shape(tf.pad(labels["boxes"], [*pad, [0, 0]]), (self.most, 4)),
            "classes": tf.ensure_shape(tf.pad(labels["classes"], pad), (self.most,)),
            "is_crowd": tf.ensure_shape(tf.pad(labels["is_crowd"], pad), (self.most,)),
            "mask": labels["mask"],
            "instances": labels["instances"],
        }


@pytest.fixture(scope="session")
def coco_folder_class():
    """`CocoFolder`, for fixtures that live longer than one test."""
    return CocoFolder


@pytest.fixture
def labels_task():
    return Labels


def unstack(batch):
    """The examples of a batch of `Labels` as NumPy dicts, without the padding of objects."""
    images, targets = batch
    (labels,) = targets.values()
    for i in range(len(images)):
        one = {k: v[i].numpy() for k, v in labels.items()}
        n = one.pop("n")
        for key in ("boxes", "classes", "is_crowd"):
            one[key] = one[key][:n]
        yield images[i].numpy(), one


@pytest.fixture(name="unstack")
def unstack_fixture():
    return unstack


class CocoFolder:
    """Writes images and a COCO JSON; tests change `content` before `write`."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.images = self.folder / "images"
        self.images.mkdir(parents=True, exist_ok=True)
        self.content = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 3, "name": "cell"}, {"id": 8, "name": "gap"}],
        }

    def image(self, name, width=60, height=40, seed=0, **save):
        pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), "uint8")
        Image.fromarray(pixels).save(self.images / name, **save)
        key = len(self.content["images"]) + 1
        self.content["images"].append(
            {"id": key, "file_name": name, "width": width, "height": height}
        )
        return key

    def object(self, image_id, bbox, category_id=3, **more):
        key = len(self.content["annotations"]) + 1
        annotation = {"id": key, "image_id": image_id, "category_id": category_id, "bbox": bbox}
        self.content["annotations"].append(annotation | more)
        return key

    def rectangle(self, image_id, x, y, w, h, **more):
        polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
        return self.object(image_id, [x, y, w, h], segmentation=[polygon], **more)

    def write(self, name="train.json"):
        (self.folder / name).write_text(json.dumps(self.content))
        return self.folder / name


@pytest.fixture
def coco_folder(tmp_path):
    return CocoFolder(tmp_path / "my set")


@pytest.fixture(scope="session")
def nuclei(tmp_path_factory):
    """A part of the real nuclei set: the images with fewest and most objects, and some more."""
    root = Path(os.environ.get("MTL_KERAS_DATA", ROOT.parent / "shared" / "data")) / "nuclei"
    if not (root / "val.json").exists():
        pytest.skip(f"the nuclei set is not at {root} (set MTL_KERAS_DATA)")
    from mtl_keras.data import from_coco

    full = json.loads((root / "train.json").read_text())
    counts = {image["id"]: 0 for image in full["images"]}
    for annotation in full["annotations"]:
        counts[annotation["image_id"]] += 1
    ranked = sorted(counts, key=counts.get)
    chosen = {*ranked[:2], *ranked[100:400:20], ranked[-1]}
    full["images"] = [i for i in full["images"] if i["id"] in chosen]
    full["annotations"] = [a for a in full["annotations"] if a["image_id"] in chosen]
    folder = tmp_path_factory.mktemp("nuclei")
    (folder / "train.json").write_text(json.dumps(full))
    return from_coco(folder / "train.json", root / "images", "nuclei", folder / "prepared")
