"""Joint sets of TFDS: pixels of examples by hand, TFDS's own mock data, downloads."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import mtl_keras as mtl
from mtl_keras.data import tfds_sets

HEIGHT, WIDTH = 20, 40


class Source:
    """Examples by hand as a builder of TFDS: features are the real ones, files there are none."""

    data_dir = "/no/such/folder"

    def __init__(self, name, examples, names=None):
        real = tfds.builder(name, data_dir="/no/such/folder")
        if names is not None:
            real.info.features["panoptic_objects"]["label"].names = names
        self.examples = examples
        splits = {k: SimpleNamespace(num_examples=len(v)) for k, v in examples.items()}
        self.info = SimpleNamespace(
            name=real.info.name,
            full_name=real.info.full_name,
            features=real.info.features,
            splits=splits,
        )
        self.reads = []

    def download_and_prepare(self):
        pass

    def as_dataset(self, split, **options):
        self.reads.append(split)
        examples = self.examples[split]
        return SimpleNamespace(as_numpy_iterator=lambda: iter(examples))


def jpeg(seed=0, height=HEIGHT, width=WIDTH):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), "uint8")
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def yxyx(x0, y0, x1, y1):
    return np.array([y0 / HEIGHT, x0 / WIDTH, y1 / HEIGHT, x1 / WIDTH], np.float32)


def read(builder, split):
    return list(mtl.data.examples(builder, split).as_numpy_iterator())


# === Pets ===


def pet(seed=0, box=(7, 3, 19, 14), species=1, breed=4):
    trimap = np.full((HEIGHT, WIDTH, 1), 2, np.uint8)
    trimap[2:18, 5:30] = 3
    trimap[4:16, 8:25] = 1
    return {
        "image": jpeg(seed),
        "file_name": f"beagle_{seed}.jpg".encode(),
        "label": np.int64(breed),
        "species": np.int64(species),
        "segmentation_mask": trimap,
        "head_bbox": np.zeros(4, np.float32) if box is None else yxyx(*box),
    }


@pytest.fixture
def pets():
    examples = {"train": [pet(0), pet(1, (0, 0, 40, 20), 0, 0)], "test": [pet(2, None)]}
    return Source("oxford_iiit_pet", examples)


def test_pets_have_heads_trimaps_species_and_breeds(pets, tmp_path):
    builder = mtl.data.from_tfds(pets, tmp_path)
    assert builder.info.features["objects"]["label"].names == ["Cat", "Dog"]
    first, second = sorted(read(builder, "train"), key=lambda e: e["filename"])
    np.testing.assert_array_equal(first["boxes"], [[7, 3, 19, 14]])
    np.testing.assert_array_equal(second["boxes"], [[0, 0, 40, 20]])
    assert first["classes"].tolist() == [1] and second["classes"].tolist() == [0]
    assert (first["mask"] == 1).sum() == 12 * 17
    assert (first["mask"] == 255).sum() == 16 * 25 - 12 * 17
    assert (first["mask"] == 0).sum() == HEIGHT * WIDTH - 16 * 25
    assert first["values"] == {"species": 1.0, "breed": 4.0}
    assert first["labelled"] == {"boxes": True, "instances": False, "mask": True}
    assert builder.info.metadata["columns"]["breed"][4] == "beagle"
    assert builder.info.metadata["counts"]["test"]["boxes"] == 0


def test_pets_options(pets, tmp_path):
    builder = mtl.data.from_tfds(pets, tmp_path, label="breed", border="class")
    (first, _) = sorted(read(builder, "train"), key=lambda e: e["filename"])
    assert first["classes"].tolist() == [4]
    assert len(builder.info.features["objects"]["label"].names) == 37
    assert (first["mask"] == 2).sum() == 16 * 25 - 12 * 17 and not (first["mask"] == 255).any()
    assert builder.info.metadata["mask_names"] == ["pet", "border"]
    for wrong in ({"label": "size"}, {"border": 3}, {"masks": True}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}.*"):
            mtl.data.from_tfds(pets, tmp_path, **wrong)


def test_heads_of_the_test_split_are_missing_not_empty(pets, tmp_path):
    builder = mtl.data.from_tfds(pets, tmp_path)
    (example,) = read(builder, "test")
    assert not example["labelled"]["boxes"] and example["labelled"]["mask"]
    detection = mtl.tasks.Detection(2)
    with pytest.raises(ValueError, match=r"hold images out from 'train'.*train\[:90%\]"):
        mtl.data.batches(builder, "test", [detection], 64)
    masks = mtl.tasks.Segmentation(2)
    images, targets = next(iter(mtl.data.batches(builder, "test", [masks], 64)))
    assert images.shape == (1, 64, 64, 3) and masks.name in targets
    batch = next(iter(mtl.data.batches(builder, "train", [detection, masks], 64)))
    assert len(batch) == 2  # nothing is missing, so no weights


def test_a_head_missing_in_train_weighs_nothing(tmp_path):
    source = Source("oxford_iiit_pet", {"train": [pet(0), pet(1, None), pet(2)]})
    builder = mtl.data.from_tfds(source, tmp_path)
    detection = mtl.tasks.Detection(2)
    _, _, weights = next(iter(mtl.data.batches(builder, "train", [detection], 64)))
    assert sorted(weights[detection.name].numpy().tolist()) == [0, 1, 1]


def test_it_is_converted_once(pets, tmp_path):
    first = mtl.data.from_tfds(pets, tmp_path)
    counts = dict(first.info.metadata["counts"]["train"])
    pets.reads.clear()
    second = mtl.data.from_tfds(pets, tmp_path)
    assert not pets.reads and second.data_dir == first.data_dir
    assert dict(second.info.metadata["counts"]["train"]) == counts == {
        "boxes": 2, "instances": 0, "mask": 2, "species": 2, "breed": 2
    }  # fmt: skip
    assert mtl.data.from_tfds(pets, tmp_path, label="breed").data_dir != first.data_dir


# === COCO panoptic ===

# TFDS has place for 133 names; three are enough here.
NAMES = ["person", "sky-other-merged", "dog", *(f"stuff-{i}" for i in range(130))]


def panoptic(seed=0):
    ids = np.zeros((HEIGHT, WIDTH), np.int64)
    ids[:10], ids[10:15, 5:15], ids[12:20, 20:40], ids[15:20, :5] = 70_000, 7, 300, 9
    png = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
    boxes = [yxyx(0, 0, 40, 10), yxyx(5, 10, 15, 15), yxyx(20, 12, 40, 20), yxyx(0, 15, 5, 20)]
    return {
        "image": jpeg(seed),
        "image/filename": f"{seed:012d}.jpg".encode(),
        "image/id": np.int64(100 + seed),
        "panoptic_image": png,
        "panoptic_objects": {
            "id": np.array([70_000, 7, 300, 9]),
            "label": np.array([1, 0, 2, 0]),
            "is_crowd": np.array([False, False, False, True]),
            "bbox": np.array(boxes, np.float32),
        },
    }


def test_things_are_objects_and_stuff_is_pixels(tmp_path):
    source = Source("coco/2017_panoptic", {"train": [panoptic()]}, NAMES)
    builder = mtl.data.from_tfds(source, tmp_path)
    assert builder.info.features["objects"]["label"].names == ["person", "dog"]
    assert builder.info.metadata["mask_names"] == NAMES
    (example,) = read(builder, "train")
    np.testing.assert_array_equal(
        example["boxes"], [[5, 10, 15, 15], [20, 12, 40, 20], [0, 15, 5, 20]]
    )
    assert example["classes"].tolist() == [0, 1, 0]
    assert example["is_crowd"].tolist() == [False, False, True]
    instances, mask = example["instances"], example["mask"]
    assert [(instances == i).sum() for i in range(4)] == [800 - 50 - 160 - 25, 50, 160, 25]
    assert (mask[:10] == 2).all() and (mask[10:15, 5:15] == 1).all()
    assert (mask[12:20, 20:40] == 3).all() and (mask[15:20, :5] == 1).all()
    assert (mask == 255).sum() == 800 - 400 - 50 - 160 - 25
    assert example["id"] == 100 and all(example["labelled"].values())


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda e: e["panoptic_objects"]["id"].__setitem__(1, 8), "1 of its segments have no pix"),
        (lambda e: e["panoptic_image"].__setitem__((0, 0), (0, 5, 0)), r"no segment has: \[1280"),
        (lambda e: e.update(panoptic_image=e["panoptic_image"][:9]), "is 40 x 9 pixels, the image"),
    ],
)
def test_what_does_not_fit_is_ignored_and_listed(change, message, tmp_path):
    example = panoptic()
    change(example)
    source = Source("coco/2017_panoptic", {"train": [example, panoptic(1)]}, NAMES)
    with pytest.warns(UserWarning, match=message):
        builder = mtl.data.from_tfds(source, tmp_path)
    (problem,) = mtl.data.quarantined(builder)
    assert "000000000000.jpg" in problem.file
    found = {e["filename"]: e for e in read(builder, "train")}[b"000000000000.jpg"]
    assert (found["mask"] == 255).sum() > 800 - 400 - 50 - 160 - 25
    with pytest.warns(UserWarning, match=message):
        mtl.data.from_tfds(source, tmp_path)


def test_coco_has_eighty_things():
    assert len(set(tfds_sets.COCO_THINGS)) == 80


# === VOC ===


def voc(seed=0, objects=((0, (5, 3, 15, 14), False), (14, (1, 1, 40, 20), True))):
    labels = np.array([label for label, *_ in objects], np.int64)
    difficult = np.array([d for *_, d in objects], bool)
    return {
        "image": jpeg(seed),
        "image/filename": f"{seed:06d}.jpg".encode(),
        "objects": {
            "label": labels,
            "bbox": np.array([yxyx(*box) for _, box, _ in objects], np.float32).reshape(-1, 4),
            "is_difficult": difficult,
        },
        "labels": np.unique(labels),
        "labels_no_difficult": np.unique(labels[~difficult]),
    }


def test_voc_boxes_count_from_0_and_difficult_ones_are_ignored(tmp_path):
    source = Source("voc/2012", {"train": [voc()], "test": [voc(1, ())]})
    builder = mtl.data.from_tfds(source, tmp_path)
    (example,) = read(builder, "train")
    np.testing.assert_array_equal(example["boxes"], [[4, 2, 15, 14], [0, 0, 40, 20]])
    assert example["classes"].tolist() == [0, 14] and example["is_crowd"].tolist() == [False, True]
    assert example["values"]["aeroplane"] == 1 and example["values"]["bicycle"] == 0
    assert np.isnan(example["values"]["person"])  # seen in a difficult object alone
    (unlabelled,) = read(builder, "test")
    assert not any(unlabelled["labelled"].values())
    assert all(np.isnan(value) for value in unlabelled["values"].values())
    with pytest.raises(ValueError, match="no labels of the split 'test' of voc/2012"):
        mtl.data.batches(builder, "test", [mtl.tasks.Detection(20)], 64)


def test_coco_without_panoptic_has_boxes(tmp_path):
    objects = {
        "label": np.array([0]),
        "bbox": np.array([yxyx(1, 2, 8, 9)]),
        "is_crowd": np.array([True]),
    }
    example = {"image": jpeg(), "image/filename": b"a.jpg", "image/id": 5, "objects": objects}
    empty = {k: v[:0] for k, v in objects.items()}
    given = {"train": objects, "validation": empty, "test": empty}
    source = Source("coco/2017", {k: [{**example, "objects": v}] for k, v in given.items()})
    builder = mtl.data.from_tfds(source, tmp_path)
    (train,), (validation,), (test,) = (read(builder, s) for s in ("train", "validation", "test"))
    np.testing.assert_array_equal(train["boxes"], [[1, 2, 8, 9]])
    assert train["is_crowd"].tolist() == [True]
    assert validation["labelled"]["boxes"] and not test["labelled"]["boxes"]


# === TFDS's mock data ===


class Mocked(Source):
    """The examples that `tfds.testing.mock_data` makes, which fit together in nothing."""

    def __init__(self, name, splits):
        super().__init__(name, {split: range(4) for split in splits})
        with tfds.testing.mock_data(num_examples=4):
            self.builder = tfds.builder(name)

    def as_dataset(self, split, **options):
        # Mock data that is encoded first is refused by TFDS, since its boxes are reversed.
        with tfds.testing.mock_data(num_examples=4):
            return self.builder.as_dataset(split=split)


@pytest.mark.filterwarnings("ignore:.*labels that do not fit together")
@pytest.mark.parametrize(
    "name, splits",
    [
        ("oxford_iiit_pet", ("train", "test")),
        ("coco/2017_panoptic", ("train", "validation")),
        ("coco/2017", ("train",)),
        ("voc/2007", ("train", "validation", "test")),
    ],
)
def test_mock_data_trains(name, splits, tmp_path):
    builder = mtl.data.from_tfds(Mocked(name, splits), tmp_path)
    assert {k: v.num_examples for k, v in builder.info.splits.items()} == dict.fromkeys(splits, 4)
    classes = builder.info.features["objects"]["label"].num_classes
    for example in read(builder, "train"):
        height, width = example["image"].shape[:2]
        assert example["instances"].shape == example["mask"].shape == (height, width)
        boxes = example["boxes"]
        assert (boxes[:, :2] < boxes[:, 2:]).all() and (boxes >= 0).all()
        assert (boxes <= [width, height, width, height]).all()
        assert set(example["classes"].tolist()) <= set(range(classes))
    tasks = [mtl.tasks.Detection(classes)]
    if builder.info.metadata["mask_names"]:
        tasks.append(mtl.tasks.Segmentation(len(builder.info.metadata["mask_names"]) + 1))
    images, targets, *_ = next(iter(mtl.data.batches(builder, "train", tasks, 64, batch_size=4)))
    assert images.shape == (4, 64, 64, 3) and set(targets) == {task.name for task in tasks}


# === Names and downloads ===


def test_unknown_sets_are_refused():
    with pytest.raises(ValueError, match="knows how to read.*'coco', 'oxford_iiit_pet', 'voc'"):
        mtl.data.from_tfds("mnist")
    with pytest.raises(ValueError, match="'voc' has no options, got .'label'"):
        mtl.data.from_tfds("voc/2007", label="species")


def test_what_is_not_there_is_downloaded_or_refused(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="download=True"):
        mtl.data.from_tfds("voc/2007", tmp_path, download=False)

    def offline(self, **options):
        raise OSError("no network")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", offline)
    with pytest.raises(FileNotFoundError, match="OSError: no network. Prepare it where"):
        mtl.data.from_tfds("voc/2007", tmp_path)


def test_a_set_that_tfds_prepared_is_found_by_name(tmp_path):
    """Written by TFDS's own writer, as `tfds.load` would leave it, and read with real decoders."""
    real = tfds.builder("oxford_iiit_pet", data_dir=tmp_path)
    written = {"train": [pet(0), pet(1)], "test": [pet(2, None)]}

    class Examples:
        def __init__(self, examples):
            self.examples = examples

        def __iter__(self):
            for i, example in enumerate(self.examples):
                box = tfds.features.BBox(*example["head_bbox"].tolist())
                image = io.BytesIO(example["image"])
                name = example["file_name"].decode()
                yield i, {**example, "head_bbox": box, "image": image, "file_name": name}

    class Adhoc(tfds.dataset_builders.AdhocBuilder, skip_registration=True):
        code_path = None

    Adhoc(
        name="oxford_iiit_pet",
        version="4.0.0",
        features=real.info.features,
        split_datasets={split: Examples(some) for split, some in written.items()},
        data_dir=str(tmp_path),
    ).download_and_prepare()
    builder = mtl.data.from_tfds("oxford_iiit_pet", tmp_path, download=False)
    examples = {e["filename"]: e for e in read(builder, "train")}
    np.testing.assert_array_equal(examples[b"beagle_0.jpg"]["boxes"], [[7, 3, 19, 14]])
    assert (examples[b"beagle_0.jpg"]["mask"] == 1).sum() == 12 * 17
    (test,) = read(builder, "test")
    assert not test["labelled"]["boxes"]
    assert builder.info.features["objects"]["label"].names == ["Cat", "Dog"]
