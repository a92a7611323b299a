import json

import numpy as np
import pytest
from PIL import Image

from mtl_keras.data import coco, coco_panoptic
from mtl_keras.data.records import BadLabels

# Ids of segments use all three channels.
SKY, CELL, OTHER, CROWD = 7, 256 * 3 + 1, 65536 * 2 + 256 + 5, 256**3 - 1
INSIDE = {
    SKY: np.s_[0:20, 0:60],
    CELL: np.s_[22:30, 5:15],
    OTHER: np.s_[24:26, 13:20],
    CROWD: np.s_[35:40, 50:60],
}


class Folder:
    def __init__(self, path):
        self.path = path
        for part in ("annotations/panoptic_train2017", "train2017"):
            (path / part).mkdir(parents=True)
        self.json = path / "annotations" / "panoptic_train2017.json"
        self.masks = path / "annotations" / "panoptic_train2017"
        self.content = {
            "images": [],
            "annotations": [],
            "categories": [
                {"id": 9, "name": "sky", "isthing": 0},
                {"id": 4, "name": "cell", "isthing": 1},
                {"id": 12, "name": "gap", "isthing": 1},
            ],
        }
        for key, name in enumerate(("a", "b"), start=1):
            Image.new("RGB", (60, 40)).save(path / "train2017" / f"{name}.jpg")
            self.save_ids(f"{name}.png", self.ids())
            self.content["images"].append(
                {"id": key, "file_name": f"{name}.jpg", "width": 60, "height": 40}
            )
            segments = [
                {"id": SKY, "category_id": 9, "bbox": [0, 0, 60, 20], "iscrowd": 0},
                {"id": CELL, "category_id": 4, "bbox": [5, 22, 10, 8], "iscrowd": 0},
                {"id": OTHER, "category_id": 12, "bbox": [13, 24, 7, 2]},
                {"id": CROWD, "category_id": 4, "iscrowd": 1},
            ]
            self.content["annotations"].append(
                {"image_id": key, "file_name": f"{name}.png", "segments_info": segments}
            )

    def ids(self):
        ids = np.zeros((40, 60), int)
        for key, where in INSIDE.items():
            ids[where] = key
        return ids

    def save_ids(self, name, ids):
        pixels = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1)
        Image.fromarray(pixels.astype("uint8")).save(self.masks / name)

    def write(self):
        parts = [
            f'"{key}": [\n' + ",\n".join(json.dumps(item) for item in items) + "\n]"
            for key, items in self.content.items()
        ]
        self.json.write_text("{" + ",\n".join(parts) + "}")
        return self.path


@pytest.fixture
def panoptic(tmp_path):
    return Folder(tmp_path / "my set")


def test_round_trip(panoptic):
    path = panoptic.write()
    assert "panoptic_train2017" in coco_panoptic.recognise(path)
    assert coco.recognise(path) is None
    source = coco_panoptic.read(path)
    assert (source.name, source.layout, list(source.splits)) == (
        "my set",
        "coco_panoptic",
        ["train"],
    )
    assert source.names == ["cell", "gap"] and source.mask_names == ["cell", "sky", "gap"]
    assert source.files == [panoptic.json, panoptic.masks / "a.png", panoptic.masks / "b.png"]
    one = source.splits["train"][0]
    assert (one.filename, one.size, one.has_masks) == ("a.jpg", (40, 60), True)
    ids = panoptic.ids()
    classes = one.mask(40, 60)
    assert classes.dtype == np.uint8
    expected = np.select([ids == SKY, ids == OTHER, ids > 0], [2, 3, 1], 255)
    np.testing.assert_array_equal(classes, expected)
    assert [(o.label, o.is_crowd, o.box) for o in one.objects] == [
        (0, False, (5, 22, 15, 30)),
        (1, False, (13, 24, 20, 26)),
        (0, True, None),
    ]
    for item, key in zip(one.objects, (CELL, OTHER, CROWD), strict=True):
        top, left, mask = item.mask(40, 60)
        full = np.zeros((40, 60), bool)
        full[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
        np.testing.assert_array_equal(full, ids == key)


def test_what_has_no_labels_is_not_empty(panoptic):
    del panoptic.content["annotations"][1]
    one, other = coco_panoptic.read(panoptic.write()).splits["train"]
    assert one.mask is not None and other.mask is None
    assert other.objects is None and not other.has_masks
    del panoptic.content["categories"][1:]
    del panoptic.content["annotations"][0]["segments_info"][1:]
    source = coco_panoptic.read(panoptic.write())
    assert source.names == [] and source.mask_names == ["sky"]
    assert all(r.objects is None and not r.has_masks for r in source.splits["train"])


def test_given_folders(panoptic, tmp_path):
    path = panoptic.write()
    panoptic.masks.rename(tmp_path / "pngs")
    with pytest.raises(FileNotFoundError, match="none of the masks.*'a.png'"):
        coco_panoptic.read(path)
    assert coco_panoptic.recognise(path) is None
    source = coco_panoptic.read(
        {"val": panoptic.json}, path / "train2017", {"val": tmp_path / "pngs"}
    )
    assert len(source.splits["val"]) == 2
    with pytest.raises(ValueError, match="`masks` names the splits"):
        coco_panoptic.read(path, masks={"other": tmp_path / "pngs"})


def annotation(**changes):
    return lambda folder: folder.content["annotations"][1].update(changes)


def segment(**changes):
    return lambda folder: folder.content["annotations"][1]["segments_info"][1].update(changes)


def twice(folder):
    folder.content["annotations"].append(folder.content["annotations"][1])


def small(folder):
    folder.save_ids("b.png", folder.ids()[:30])


def grey(folder):
    Image.new("L", (60, 40)).save(folder.masks / "b.png")


def no_image(folder):
    (folder.masks / "b.png").write_text("x")


@pytest.mark.parametrize(
    ("change", "kind", "left"),
    [
        (annotation(image_id=77), "unknown image id", 2),
        (annotation(image_id=None), "unknown image id", 2),
        (annotation(file_name=None), "bad annotation", 1),
        (annotation(segments_info={}), "bad annotation", 1),
        (annotation(file_name="c.png"), "missing mask", 1),
        (annotation(segments_info=["x"]), "bad segment", 1),
        (segment(id=0), "bad segment", 1),
        (segment(id=256**3), "bad segment", 1),
        (segment(id=1.5), "bad segment", 1),
        (segment(id=SKY), "repeated segment id", 1),
        (segment(category_id=77), "unknown category id", 1),
        (segment(category_id=[]), "unknown category id", 1),
        (segment(iscrowd="no"), "bad segment", 1),
        (segment(bbox=[1, 2, 3, float("nan")]), "bad segment", 1),
        (segment(bbox=[9, 9, -3, 2]), "reversed box", 1),
        (segment(bbox=[9, 9, 0, 2]), "box without area", 2),
        (segment(bbox=[60, 9, 3, 2]), "box outside", 2),
        (twice, "repeated annotation", 1),
        (small, "mask of another size", 1),
        (grey, "bad mask", 1),
        (no_image, "damaged mask", 1),
    ],
)
def test_every_problem_has_file_line_and_image(panoptic, change, kind, left):
    change(panoptic)
    path = panoptic.write()
    with pytest.raises(BadLabels) as error:
        coco_panoptic.read(path)
    source = coco_panoptic.read(path, on_bad="quarantine")
    assert [error.value.problem] == source.problems
    problem = source.problems[0]
    lines = panoptic.json.read_text().split("\n")
    where = [i for i, line in enumerate(lines, 1) if '"segments_info"' in line][-1]
    assert (problem.kind, problem.file, problem.line) == (kind, str(panoptic.json), where)
    assert problem.image == ("b.jpg" if left == 1 else None)
    assert len(source.splits["train"]) == left
    if "box" in kind and left == 2:  # the box around the mask stands in for it
        assert [o.box for o in source.splits["train"][1].objects][0] is None


def extra(folder):
    folder.save_ids("b.png", folder.ids() + (folder.ids() == 0) * 99)


def without(folder):
    folder.save_ids("b.png", folder.ids() * (folder.ids() != CELL))


def cut_short(folder):
    noise = np.random.default_rng(0).integers(1, 9, (40, 60))
    folder.save_ids("b.png", noise)
    content = (folder.masks / "b.png").read_bytes()
    (folder.masks / "b.png").write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (extra, r"b.png.*ids that no segment has: \[99\]"),
        (without, rf"b.png.*no pixel of segments: \[{CELL}\]"),
        (cut_short, "b.png.*damaged"),
    ],
)
def test_what_only_pixels_tell(panoptic, change, message):
    change(panoptic)
    good, bad = coco_panoptic.read(panoptic.write()).splits["train"]
    good.mask(40, 60)
    with pytest.raises(ValueError, match=message):
        bad.mask(40, 60)
    if change is not extra:
        with pytest.raises(ValueError, match=message):
            bad.objects[0].mask(40, 60)
    with pytest.raises(ValueError, match=r"a.png.*60 x 40.*should be.*40 x 60"):
        good.mask(60, 40)


@pytest.mark.parametrize("on_bad", ["strict", "quarantine"])
def test_categories_that_say_nothing_are_always_an_error(panoptic, on_bad):
    del panoptic.content["categories"][1]["isthing"]
    with pytest.raises(BadLabels, match="'cell' has isthing None.*1 .*or 0"):
        coco_panoptic.read(panoptic.write(), on_bad=on_bad)
    panoptic.content["categories"][1]["isthing"] = 1
    path = panoptic.write()
    panoptic.content["categories"][1]["isthing"] = 0
    other = panoptic.json.with_name("panoptic_val2017.json")
    panoptic.json.rename(other)
    panoptic.write()
    with pytest.raises(BadLabels, match="'cell' is a thing in one split"):
        coco_panoptic.read(
            {"train": panoptic.json, "val": other}, path / "train2017", panoptic.masks, on_bad
        )
    panoptic.content["categories"] = [{"id": i, "name": f"c{i}", "isthing": 1} for i in range(255)]
    other.unlink()
    with pytest.raises(ValueError, match="255 categories; at most 254"):
        coco_panoptic.read(panoptic.write(), on_bad=on_bad)


@pytest.mark.parametrize("on_bad", ["strict", "quarantine"])
def test_a_json_cut_short_is_always_an_error(panoptic, on_bad):
    path = panoptic.write()
    panoptic.json.write_text(panoptic.json.read_text()[:-40])
    assert coco_panoptic.recognise(path)
    with pytest.raises(BadLabels, match="panoptic_train2017.json:.*unreadable JSON"):
        coco_panoptic.read(path, on_bad=on_bad)
