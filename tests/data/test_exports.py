"""Folders as annotation tools export them, with the names and extra files that they write."""

import json

import numpy as np
import pytest
from labelled_sets import BOX, HEIGHT, WIDTH, pixels
from PIL import Image

import mtl_keras as mtl
from mtl_keras.data.from_folder import recognise

X0, Y0, X1, Y1 = BOX
POLYGON = [X0, Y0, X1, Y0, X1, Y1, X0, Y1]
YOLO_BOX = f"1 {15 / WIDTH} {11 / HEIGHT} {20 / WIDTH} {10 / HEIGHT}\n"
YOLO_POLYGON = "1 " + " ".join(
    str(v / s) for v, s in zip(POLYGON, (WIDTH, HEIGHT) * 4, strict=True)
)


def write(path, content=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels()).save(path)


def mask(value=1, rgb=None):
    one = np.zeros((HEIGHT, WIDTH), "uint8")
    one[Y0:Y1, X0:X1] = value
    if rgb is None:
        return one
    return (one[..., None] > 0) * np.array(rgb, "uint8")


def png(path, array, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette:
        image.putpalette(np.random.default_rng(0).integers(0, 255, 768, "uint8").tobytes())
    image.save(path)


def coco(names, categories, label=1, more=None):
    images = [
        {"id": i, "license": 0, "file_name": name, "width": WIDTH, "height": HEIGHT}
        for i, name in enumerate(names, 1)
    ]
    annotations = [
        {
            "id": image["id"],
            "image_id": image["id"],
            "category_id": label,
            "segmentation": [POLYGON],
            "area": 200.0,
            "bbox": [X0, Y0, X1 - X0, Y1 - Y0],
            "iscrowd": 0,
            **(more or {}),
        }
        for image in images
    ]
    about = {"info": {"year": "", "url": ""}, "licenses": [{"name": "", "id": 0, "url": ""}]}
    return {**about, "images": images, "categories": categories, "annotations": annotations}


def xml(name, off=1, order=("xmin", "ymin", "xmax", "ymax"), label="cat"):
    ends = dict(zip(("xmin", "ymin", "xmax", "ymax"), (X0 + off, Y0 + off, X1, Y1), strict=True))
    box = "".join(f"<{tag}>{ends[tag]}</{tag}>" for tag in order)
    return (
        f"<annotation><folder></folder><filename>{name}</filename><path>{name}</path>"
        f"<source><database>x</database></source><size><width>{WIDTH}</width>"
        f"<height>{HEIGHT}</height><depth>3</depth></size><segmented>0</segmented><object>"
        f"<name>{label}</name><pose>Unspecified</pose><truncated>0</truncated>"
        f"<difficult>0</difficult><occluded>0</occluded><bndbox>{box}</bndbox></object></annotation>"
    )


def roboflow_readmes(root):
    for name in ("README.dataset.txt", "README.roboflow.txt"):
        write(root / name, "# cats > v1\nhttps://example.org\n\nProvided by a user\n")


SPLITS = {"train": 2, "valid": 1, "test": 1}
ROBOFLOW = [
    {"id": 0, "name": "animals", "supercategory": "none"},
    {"id": 1, "name": "cat", "supercategory": "animals"},
    {"id": 2, "name": "dog", "supercategory": "animals"},
]


def each(count, split=""):
    return [f"{split}{i}_jpg.rf.0a{i}.jpg" for i in range(count)]


def roboflow_coco(root):
    roboflow_readmes(root)
    for split, count in SPLITS.items():
        for name in each(count, split):
            picture(root / split / name)
        write(root / split / "_annotations.coco.json", coco(each(count, split), ROBOFLOW))


def roboflow_yolo(root, shape=YOLO_BOX, up="../"):
    roboflow_readmes(root)
    for split, count in SPLITS.items():
        for name in each(count, split):
            picture(root / split / "images" / name)
            write(root / split / "labels" / name.replace(".jpg", ".txt"), shape)
    lines = [
        f"{k}: {up}{s}/images" for k, s in (("train", "train"), ("val", "valid"), ("test", "test"))
    ]
    more = "roboflow:\n  workspace: x\n  project: cats\n  version: 1\n  license: CC BY 4.0\n"
    write(root / "data.yaml", "\n".join(lines) + "\n\nnc: 2\nnames: ['dog', 'cat']\n\n" + more)


def roboflow_polygons(root):
    roboflow_yolo(root, YOLO_POLYGON, up="")


def roboflow_darknet(root):
    roboflow_readmes(root)
    for split, count in SPLITS.items():
        write(root / split / "_darknet.labels", "dog\ncat")
        for name in each(count, split):
            picture(root / split / name)
            write(root / split / name.replace(".jpg", ".txt"), YOLO_BOX)


def roboflow_voc(root):
    roboflow_readmes(root)
    order = ("xmin", "xmax", "ymin", "ymax")
    for split, count in SPLITS.items():
        for name in each(count, split):
            picture(root / split / name)
            write(root / split / name.replace(".jpg", ".xml"), xml(name, order=order))


def roboflow_masks(root):
    roboflow_readmes(root)
    for split, count in SPLITS.items():
        write(root / split / "_classes.csv", "Pixel Value, Class\n0, background\n1, dog\n2, cat\n")
        for name in each(count, split):
            picture(root / split / name)
            png(root / split / name.replace(".jpg", "_mask.png"), mask(2))


def cvat_coco(root):
    for name in ("a.jpg", "b.jpg"):
        picture(root / "images/default" / name)
    categories = [{"id": i, "name": n, "supercategory": ""} for i, n in ((1, "cat"), (2, "dog"))]
    more = {"attributes": {"occluded": False, "rotation": 0.0}}
    content = coco(["a.jpg", "b.jpg"], categories, more=more)
    write(root / "annotations/instances_default.json", content)


def cvat_coco_subsets(root):
    categories = [{"id": i, "name": n, "supercategory": ""} for i, n in ((1, "cat"), (2, "dog"))]
    for split, names in (("Train", ["a.jpg", "b.jpg"]), ("Validation", ["c.jpg"])):
        for name in names:
            picture(root / "images" / split / name)
        write(root / f"annotations/instances_{split}.json", coco(names, categories))


def cvat_yolo(root, prefix="data/"):
    write(root / "obj.names", "dog\ncat\n")
    write(root / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n")
    for name in ("a", "b"):
        picture(root / "obj_train_data" / f"{name}.jpg")
        write(root / "obj_train_data" / f"{name}.txt", YOLO_BOX)
    write(root / "train.txt", "".join(f"{prefix}obj_train_data/{n}.jpg\n" for n in "ab"))


def cvat_yolo_subsets(root):
    write(root / "obj.names", "dog\ncat\n")
    write(root / "obj.data", "classes = 2\nTrain = data/Train.txt\nnames = data/obj.names\n")
    for split, names in (("Train", "ab"), ("Validation", "c")):
        for name in names:
            picture(root / f"obj_{split}_data" / f"{name}.jpg")
            write(root / f"obj_{split}_data" / f"{name}.txt", YOLO_BOX)
        write(root / f"{split}.txt", "".join(f"data/obj_{split}_data/{n}.jpg\n" for n in names))


def cvat_ultralytics(root, shape=YOLO_BOX, prefix="data/"):
    lines = "names:\n  0: dog\n  1: cat\npath: .\ntrain: train.txt\nval: Validation.txt\n"
    write(root / "data.yaml", lines)
    for split, names in (("train", "ab"), ("Validation", "c")):
        for name in names:
            picture(root / "images" / split / f"{name}.jpg")
            write(root / "labels" / split / f"{name}.txt", shape)
        write(root / f"{split}.txt", "".join(f"{prefix}images/{split}/{n}.jpg\n" for n in names))


def cvat_ultralytics_segmentation(root):
    cvat_ultralytics(root, YOLO_POLYGON, prefix="")


LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:220,40,90::\ndog:10,200,10::\n"


def cvat_voc(root, masks=False, boxes=True):
    write(root / "labelmap.txt", LABELMAP)
    for name in ("a", "b"):
        picture(root / "JPEGImages" / f"{name}.jpg")
        if boxes:
            write(root / "Annotations" / f"{name}.xml", xml(f"{name}.jpg"))
        if masks:
            png(root / "SegmentationClass" / f"{name}.png", mask(rgb=(220, 40, 90)))
            png(root / "SegmentationObject" / f"{name}.png", mask(rgb=(128, 0, 0)))
    kind = "Segmentation" if masks else "Main"
    write(root / "ImageSets" / kind / "default.txt", "a\nb\n")
    if boxes:
        write(root / "ImageSets/Main/default.txt", "a\nb\n")
        write(root / "ImageSets/Main/cat_default.txt", "a  1\nb  1\n")


def cvat_voc_with_masks(root):
    cvat_voc(root, masks=True)


def cvat_segmentation_mask(root):
    cvat_voc(root, masks=True, boxes=False)


def label_studio_coco(root):
    for name in ("0a1b-a.jpg", "2c3d-b.jpg"):
        picture(root / "images" / name)
    categories = [{"id": i, "name": n} for i, n in ((0, "cat"), (1, "dog"))]
    names = ["images/0a1b-a.jpg", "images\\2c3d-b.jpg"]
    write(root / "result.json", coco(names, categories, label=0, more={"ignore": 0}))


def label_studio_yolo(root):
    for name in ("0a1b-a", "2c3d-b"):
        picture(root / "images" / f"{name}.jpg")
        write(root / "labels" / f"{name}.txt", YOLO_BOX)
    write(root / "classes.txt", "dog\ncat\n")
    categories = [{"id": 0, "name": "dog"}, {"id": 1, "name": "cat"}]
    write(root / "notes.json", {"categories": categories, "info": {"year": 2024}})


def label_studio_voc(root):
    for name in ("0a1b-a", "2c3d-b"):
        picture(root / "images" / f"{name}.jpg")
        write(root / "Annotations" / f"{name}.xml", xml(name))


def labelme_coco(root):
    for name in ("a.jpg", "b.jpg"):
        picture(root / "JPEGImages" / name)
        picture(root / "Visualization" / name)
    categories = [
        {"id": i, "name": n, "supercategory": None}
        for i, n in enumerate(("_background_", "cat", "dog"))
    ]
    write(root / "annotations.json", coco([f"JPEGImages/{n}.jpg" for n in "ab"], categories))


def labelme_voc(root):
    write(root / "class_names.txt", "_background_\ncat\ndog")
    for name in ("a", "b"):
        picture(root / "JPEGImages" / f"{name}.jpg")
        png(root / "SegmentationClassPNG" / f"{name}.png", mask(), palette=True)
        png(root / "SegmentationObjectPNG" / f"{name}.png", mask(), palette=True)
        picture(root / "SegmentationClassVisualization" / f"{name}.jpg")
        for kind in ("Class", "Object"):
            (root / f"Segmentation{kind}").mkdir(exist_ok=True)
            np.save(root / f"Segmentation{kind}" / f"{name}.npy", mask())


THREE, TWO, ONE = {"train": 2, "val": 1, "test": 1}, {"train": 2, "val": 1}, {"train": 2}
# The writer, the layout, images by split, classes, and whether there are boxes, and masks.
EXPORTS = [
    (roboflow_coco, "coco", THREE, ["cat", "dog"], True, True),
    (roboflow_yolo, "yolo", THREE, ["dog", "cat"], True, False),
    (roboflow_polygons, "yolo", THREE, ["dog", "cat"], True, True),
    (roboflow_darknet, "yolo", THREE, ["dog", "cat"], True, False),
    (roboflow_voc, "voc", THREE, ["cat"], True, False),
    (roboflow_masks, "mask_folders", THREE, ["dog", "cat"], False, True),
    (cvat_coco, "coco", ONE, ["cat", "dog"], True, True),
    (cvat_coco_subsets, "coco", TWO, ["cat", "dog"], True, True),
    (cvat_yolo, "yolo", ONE, ["dog", "cat"], True, False),
    (cvat_yolo_subsets, "yolo", TWO, ["dog", "cat"], True, False),
    (cvat_ultralytics, "yolo", TWO, ["dog", "cat"], True, False),
    (cvat_ultralytics_segmentation, "yolo", TWO, ["dog", "cat"], True, True),
    (cvat_voc, "voc", ONE, ["cat", "dog"], True, False),
    (cvat_voc_with_masks, "voc", ONE, ["cat", "dog"], True, True),
    (cvat_segmentation_mask, "voc", ONE, ["cat", "dog"], True, True),
    (label_studio_coco, "coco", ONE, ["cat", "dog"], True, True),
    (label_studio_yolo, "yolo", ONE, ["dog", "cat"], True, False),
    (label_studio_voc, "voc", ONE, ["cat"], True, False),
    (labelme_coco, "coco", ONE, ["cat", "dog"], True, True),
    (labelme_voc, "voc", ONE, ["cat", "dog"], True, True),
]


@pytest.mark.parametrize(
    ("make", "layout", "splits", "names", "boxes", "masks"),
    [pytest.param(*row, id=row[0].__name__) for row in EXPORTS],
)
def test_exports(make, layout, splits, names, boxes, masks, tmp_path):
    folder = tmp_path / "my export"
    folder.mkdir()
    make(folder)
    assert recognise(folder) == layout
    builder = mtl.data.from_folder(folder, data_dir=tmp_path / "prepared")
    assert mtl.data.quarantined(builder) == []
    assert {k: v.num_examples for k, v in builder.info.splits.items()} == splits
    of_objects = builder.info.features["objects"]["label"].names
    of_masks = (builder.info.metadata or {}).get("mask_names")
    assert (of_objects if boxes else list(of_masks)) == names
    cat = names.index("cat")
    for split in splits:
        for one in mtl.data.examples(builder, split).as_numpy_iterator():
            assert bool(one["labelled"]["boxes"]) == boxes
            assert bool(one["labelled"]["mask"]) == masks
            if boxes:
                np.testing.assert_allclose(one["boxes"], [BOX], atol=0.01)
                assert one["classes"].tolist() == [cat]
            if masks:
                np.testing.assert_array_equal(one["mask"], mask(cat + 1))
