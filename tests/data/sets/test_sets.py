"""Named sets: what is said of them, where they are looked for, layouts of public homes, leaks."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mtl_keras as mtl
from mtl_keras.data import sets
from mtl_keras.data.sets import facades, named_set

ROOT = Path(__file__).resolve().parents[3]
DATA = Path(os.environ.get("MTL_KERAS_DATA", ROOT.parent / "shared" / "data"))
READ = [name for name in mtl.data.names() if sets.get(name).make is None]
LISTS = json.loads((Path(sets.__file__).parent / "splits.json").read_text())


def picture(path, height=20, width=30, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), "uint8")
    Image.fromarray(pixels).save(path)


def rectangle(path, box, height=20, width=30, **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    x0, y0, x1, y1 = box
    mask = np.zeros((height, width), "uint8")
    mask[y0:y1, x0:x1] = 255
    Image.fromarray(mask).save(path, **save)


def examples(builder, split):
    found = mtl.data.examples(builder, split).as_numpy_iterator()
    return {example["filename"].decode(): example for example in found}


# === What is said of a set ===


@pytest.mark.parametrize("name", mtl.data.names())
def test_info_is_complete_and_agrees_with_itself(name):
    about = mtl.data.info(name)
    assert about["name"] == name and about["description"] and about["licence"]
    assert {"train", "val"} <= set(about["splits"])
    for split in about["splits"].values():
        assert sum(split["objects_by_class"].values()) == split["objects"]
        assert list(split["objects_by_class"]) and set(split["objects_by_class"]) == set(
            about["classes"]
        )
        sizes = list(map(float, sorted(split["box_size"], key=int)))
        ordered = [split["box_size"][str(int(q))] for q in sizes]
        assert ordered == sorted(ordered)


@pytest.mark.parametrize("wrong, near", [("nucleus", "nuclei"), ("Facade", "facades")])
def test_unknown_name_is_answered_with_the_nearest(wrong, near):
    for function in (mtl.data.load, mtl.data.info):
        with pytest.raises(ValueError, match=f"did you mean '{near}'"):
            function(wrong)
    with pytest.raises(ValueError, match="The sets are .'digits', 'facades'"):
        mtl.data.info("zzz")


def test_the_list_holds_each_file_of_a_set():
    folder = Path(sets.__file__).parent
    files = {p.stem for p in folder.glob("*.py")} - {"__init__", "named_set", "leaks"}
    assert files == set(mtl.data.names())
    for name in files:
        assert sets.get(name).name == name


# === Where it is looked for ===


@pytest.mark.parametrize("name", READ)
def test_a_set_that_is_nowhere_says_whence_and_how(name, tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_KERAS_DATA", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError) as raised:
        mtl.data.load(name)
    message = str(raised.value)
    for part in (str(tmp_path / "none"), "MTL_KERAS_DATA", "train.json", "Licence"):
        assert part in message
    if home := mtl.data.info(name)["home"]:
        assert home in message
    with pytest.raises(FileNotFoundError, match="manual_dir="):
        mtl.data.load(name, manual_dir=tmp_path)


def test_default_folder_without_the_variable(tmp_path, monkeypatch):
    monkeypatch.delenv("MTL_KERAS_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="not set") as raised:
        mtl.data.load("nuclei")
    assert os.path.join("..", "shared", "data", "nuclei") in str(raised.value)


def test_digits_are_made_not_read(tmp_path):
    with pytest.raises(ValueError, match="made, not read"):
        mtl.data.load("digits", manual_dir=tmp_path)


@pytest.fixture
def coco_set(coco_folder, tmp_path):
    """COCO JSONs of facades: two photographs, one in two tiles, a split each."""
    for split, names in (("train", ["A_scaled_0_11.png", "A_scaled_1_22.png"]), ("val", ["B.png"])):
        coco_folder.content["images"], coco_folder.content["annotations"] = [], []
        for name in names:
            key = coco_folder.image(name, seed=sum(name.encode()))
            coco_folder.rectangle(key, 5, 6, 20, 10)
        coco_folder.write(f"{split}.json")
    coco_folder.folder.rename(tmp_path / "facades")
    return tmp_path / "facades"


def test_coco_from_manual_dir_its_parent_or_the_variable(coco_set, tmp_path, monkeypatch):
    prepared = tmp_path / "prepared"
    first = mtl.data.load("facades", prepared, manual_dir=coco_set)
    assert {k: v.num_examples for k, v in first.info.splits.items()} == {"train": 2, "val": 1}
    stamp = (Path(first.data_dir) / "dataset_info.json").stat().st_mtime_ns
    second = mtl.data.load("facades", prepared, manual_dir=coco_set.parent)
    monkeypatch.setenv("MTL_KERAS_DATA", str(tmp_path))
    third = mtl.data.load("facades", prepared)
    assert first.data_dir == second.data_dir == third.data_dir
    assert (Path(third.data_dir) / "dataset_info.json").stat().st_mtime_ns == stamp
    assert first.info.name == "facades"
    (example, *_) = examples(first, "val").values()
    np.testing.assert_allclose(example["boxes"], [[5, 6, 25, 16]])
    assert (example["instances"] == 1).sum() == 200


# === Leaks ===


def test_photographs_and_their_tiles():
    names = ["IMG_0718_scaled_1_81608d.jpg", "IMG_0718_scaled_0_1a.jpg", "IMG_0719_scaled_0_1a.jpg"]
    assert [facades.photograph(name) for name in names] == ["IMG_0718", "IMG_0718", "IMG_0719"]
    assert facades.photograph("street.jpg") == "street"


def test_tiles_of_a_photograph_show_one_scene():
    class Tiles:
        info = type("Info", (), {"name": "facades"})

    scene = mtl.data.sets.scene_of(Tiles)
    tiles = [f"images/IMG_0718_scaled_{end}.jpg" for end in ("1_81608d", "2_0a1b2c")]
    assert {scene(tile) for tile in tiles} == {"IMG_0718"}
    Tiles.info.name = "a set of one's own"
    assert mtl.data.sets.scene_of(Tiles) is None


def test_leaks_finds_a_photograph_and_an_image_in_two_splits(coco_set, tmp_path):
    clean = mtl.data.load("facades", tmp_path / "prepared", manual_dir=coco_set)
    assert mtl.data.leaks(clean) == []
    text = (coco_set / "val.json").read_text()
    (coco_set / "val.json").write_text(text.replace("B.png", "A_scaled_2_33.png"))
    (coco_set / "images" / "B.png").rename(coco_set / "images" / "A_scaled_2_33.png")
    tile = mtl.data.load("facades", tmp_path / "prepared", manual_dir=coco_set)
    (found,) = mtl.data.leaks(tile)
    assert mtl.data.leaks(tile, scene=facades.photograph) == [found]
    assert "the same scene 'A'" in found and "'A_scaled_2_33.png' in 'val'" in found
    # The same pixels under another name, and in another format.
    same = Image.open(coco_set / "images" / "A_scaled_0_11.png")
    same.save(coco_set / "images" / "A_scaled_2_33.png", compress_level=0)
    copy = mtl.data.load("facades", tmp_path / "prepared", manual_dir=coco_set)
    assert sorted(sentence.split(" is in")[0] for sentence in mtl.data.leaks(copy)) == [
        "the same image",
        "the same scene 'A'",
    ]


# === Layouts of the public homes ===


def test_nuclei_as_at_home(tmp_path):
    in_val = LISTS["nuclei"]["splits"]["val"][0] + "0" * 48
    other = "f" * 64
    for seed, key in enumerate((in_val, other)):
        root = tmp_path / "nuclei" / "stage1_train" / key
        picture(root / "images" / f"{key}.png", seed=seed)
        rectangle(root / "masks" / "a.png", (2, 3, 8, 9))
        rectangle(root / "masks" / "b.png", (10, 3, 28, 19))
    builder = mtl.data.load("nuclei", tmp_path / "prepared", manual_dir=tmp_path)
    assert {k: v.num_examples for k, v in builder.info.splits.items()} == {"train": 1, "val": 1}
    assert builder.info.features["objects"]["label"].names == ["nucleus"]
    ((name, example),) = examples(builder, "val").items()
    assert name.endswith(f"{in_val}.png")
    assert sorted(example["boxes"].tolist()) == [[2, 3, 8, 9], [10, 3, 28, 19]]
    assert (example["instances"] > 0).sum() == 36 + 18 * 16


def kvasir(folder, keys, boxes):
    listed = {}
    for seed, key in enumerate(keys):
        picture(folder / "images" / f"{key}.jpg", seed=seed)
        rectangle(folder / "masks" / f"{key}.jpg", (4, 4, 20, 12), quality=95)
        listed[key] = {"height": 20, "width": 30, "bbox": boxes}
    (folder / "kavsir_bboxes.json").write_text(json.dumps(listed))


def test_kvasir_as_at_home(tmp_path):
    lists = LISTS["kvasir"]["splits"]
    keys = [lists["test"][0], lists["val"][0], "unlisted"]
    box = {"label": "polyp", "xmin": 4, "ymin": 4, "xmax": 19, "ymax": 11}
    kvasir(tmp_path / "Kvasir-SEG", keys, [box])
    builder = mtl.data.load("kvasir", tmp_path / "prepared", manual_dir=tmp_path)
    for split, key in zip(("test", "val", "train"), keys, strict=True):
        ((name, example),) = examples(builder, split).items()
        assert name == f"{key}.jpg"
        np.testing.assert_allclose(example["boxes"], [[4, 4, 19, 11]])
        assert (example["mask"] == 1).sum() == 16 * 8  # JPEG's edges do not blur it
        assert (example["instances"] == 1).sum() == 16 * 8
    (tmp_path / "Kvasir-SEG" / "masks" / "unlisted.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="lists 'unlisted'"):
        mtl.data.load("kvasir", tmp_path / "prepared", manual_dir=tmp_path)


def vhr10(root):
    stems = ["999", LISTS["vhr10"]["splits"]["val"][0]]
    for seed, stem in enumerate(stems):
        picture(root / "positive image set" / f"{stem}.jpg", seed=seed)
    return stems


def test_vhr10_as_at_home_with_masks(tmp_path):
    stems = vhr10(tmp_path / "NWPU VHR-10 dataset")
    content = {
        "images": [
            {"id": i, "file_name": f"{stem}.jpg", "width": 30, "height": 20}
            for i, stem in enumerate(stems)
        ],
        "categories": [{"id": 1, "name": "airplane"}, {"id": 2, "name": "ship"}],
        "annotations": [
            {
                "id": i,
                "image_id": i,
                "category_id": 2,
                "bbox": [3, 4, 10, 6],
                "segmentation": [[3, 4, 13, 4, 13, 10, 3, 10]],
            }
            for i in range(2)
        ],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    builder = mtl.data.load("vhr10", tmp_path / "prepared", manual_dir=tmp_path)
    ((name, example),) = examples(builder, "val").items()
    assert name == f"{stems[1]}.jpg" and example["classes"].tolist() == [1]
    assert (example["instances"] == 1).sum() == 60
    assert list(examples(builder, "train")) == ["999.jpg"]


def test_vhr10_as_at_home_with_boxes_alone(tmp_path):
    root = tmp_path / "NWPU VHR-10 dataset"
    stems = vhr10(root)
    (root / "ground truth").mkdir()
    for stem in stems:
        text = "(3,4),(13,10),1 \r\n( 1, 2),( 5, 9),10\n\n"
        (root / "ground truth" / f"{stem}.txt").write_text(text)
    builder = mtl.data.load("vhr10", tmp_path / "prepared", manual_dir=tmp_path)
    ((_, example),) = examples(builder, "val").items()
    assert example["boxes"].tolist() == [[3, 4, 13, 10], [1, 2, 5, 9]]
    assert example["classes"].tolist() == [0, 9]
    assert example["labelled"]["boxes"] and not example["labelled"]["mask"]
    (root / "ground truth" / "999.txt").write_text("(3,4),(13,10),11\n")
    with pytest.raises(ValueError, match="999.txt:1: bad line"):
        mtl.data.load("vhr10", tmp_path / "prepared", manual_dir=tmp_path)


# === The real sets ===


@pytest.fixture(scope="module")
def real():
    builders = {}

    def of(name):
        if not (DATA / name / "val.json").exists():
            pytest.skip(f"the set {name} is not at {DATA} (set MTL_KERAS_DATA)")
        if name not in builders:
            builders[name] = mtl.data.load(name, manual_dir=DATA / name)
        return builders[name]

    return of


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", READ)
def test_statistics_are_those_of_the_real_set_and_splits_do_not_leak(name, real):
    builder = real(name)
    found = json.loads(json.dumps(mtl.data.statistics(builder)))
    about = mtl.data.info(name)
    assert found == {key: about[key] for key in ("classes", "splits")}
    assert mtl.data.leaks(builder) == []


@pytest.mark.slow
def test_statistics_are_those_of_the_digits():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    found = mtl.data.statistics(mtl.data.load("digits"))
    assert found["splits"] == mtl.data.info("digits")["splits"]


@pytest.mark.data
def test_no_photograph_of_facades_crosses_splits():
    jsons = {split: DATA / "facades" / f"{split}.json" for split in ("train", "val")}
    if not jsons["val"].exists():
        pytest.skip(f"the set facades is not at {DATA} (set MTL_KERAS_DATA)")
    of = {
        split: {
            facades.photograph(image["file_name"])
            for image in json.loads(path.read_text())["images"]
        }
        for split, path in jsons.items()
    }
    assert len(of["train"]) > 100 and not of["train"] & of["val"]


@pytest.mark.data
@pytest.mark.parametrize("name", sorted(LISTS))
def test_lists_of_images_are_those_of_the_real_set(name):
    for split, listed in LISTS[name]["splits"].items():
        path = DATA / name / f"{split}.json"
        if not path.exists():
            pytest.skip(f"the set {name} is not at {DATA} (set MTL_KERAS_DATA)")
        stems = {Path(i["file_name"]).stem for i in json.loads(path.read_text())["images"]}
        assert stems == set(listed)


def test_default_is_that_of_the_environment():
    assert named_set.VARIABLE == "MTL_KERAS_DATA" and sys.modules[mtl.data.load.__module__] is sets
