"""How the joint sets of TensorFlow Datasets become records: one class a set."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from mtl_keras.data.builder import Labels
from mtl_keras.data.records import Cut, Object
from mtl_keras.data.segmentations import cut

IGNORE = 255
PRESENCE = ("absent", "present")
# The 80 things of COCO; what else is labelled in its panoptic set is stuff.
_COCO_THINGS = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,"
    "stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,"
    "backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,"
    "baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,"
    "banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,"
    "oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
COCO_THINGS = tuple(_COCO_THINGS.split(","))


class Adapted:
    """What an adapter says of one example: as `Record`, without a file.

    Attributes:
        objects: List of `Object`, or `None` if nobody has looked for objects.
        has_masks: Whether objects are labelled by their masks.
        mask: uint8 array `(height, width)`, or `None`.
        values: Dict, column to its value.
        problem: What does not fit together, or an empty text.
    """

    def __init__(self, objects=None, has_masks=False, mask=None, values=None, problem=""):
        self.objects = objects
        self.has_masks = has_masks
        self.mask = mask
        self.values = values or {}
        self.problem = problem


class Pets:
    """`oxford_iiit_pet`: a box around the head, a trimap, species and breed."""

    partial = True
    filename, image_id = "file_name", None

    def __init__(self, features: Any, label: str = "species", border: str = "ignore"):
        for key, value, known in (
            ("label", label, ("species", "breed")),
            ("border", border, ("ignore", "class")),
        ):
            if value not in known:
                raise ValueError(f"`{key}` must be one of {known}. Received: {key}={value!r}")
        self.label, self.border = label, border
        self.species = names_of(features["species"])
        self.breeds = names_of(features["label"])

    def labels(self) -> Labels:
        return Labels(
            names=self.species if self.label == "species" else self.breeds,
            mask_names=("pet",) if self.border == "ignore" else ("pet", "border"),
            columns={"species": self.species, "breed": self.breeds},
            advice="TFDS has no head boxes in the split 'test'; hold images out from 'train', as "
            "in split='train[:90%]' to train and split='train[90%:]' to test",
        )

    def adapt(self, example: Mapping, split: str, height: int, width: int) -> Adapted:
        values = {"species": int(example["species"]), "breed": int(example["label"])}
        box = pixels(example["head_bbox"], height, width)
        objects = None
        if box is not None:
            what = values["species" if self.label == "species" else "breed"]
            objects = [Object(what, box, where="head_bbox")]
        trimap = np.asarray(example["segmentation_mask"])[..., 0]
        mask = np.full((height, width), IGNORE, np.uint8)
        problem = misfit("segmentation_mask", trimap, height, width)
        if not problem:
            table = np.full(256, IGNORE, np.uint8)
            table[1:4] = (1, 0, IGNORE if self.border == "ignore" else 2)
            mask = table[trimap]
        return Adapted(objects, False, mask, values, problem)


class Voc:
    """`voc/2007`, `voc/2012`: boxes, and which classes an image shows."""

    partial = True
    filename, image_id = "image/filename", None

    def __init__(self, features: Any):
        self.names = names_of(features["objects"]["label"])

    def labels(self) -> Labels:
        return Labels(
            names=self.names,
            columns=dict.fromkeys(self.names, PRESENCE),
            advice="TFDS has no labels of the split 'test' of voc/2012, and no masks of VOC: "
            "import VOC's own folder with mtl_keras.data.from_folder for them",
        )

    def adapt(self, example: Mapping, split: str, height: int, width: int) -> Adapted:
        found = example["objects"]
        if not len(found["label"]):  # each image of VOC that is labelled shows something
            return Adapted()
        objects = []
        for box, label, difficult in rows(found, "bbox", "label", "is_difficult"):
            inside = pixels(box, height, width, counted_from=1)
            if inside is not None:
                objects.append(Object(int(label), inside, None, bool(difficult)))
        # Only difficult ones: VOC's own evaluation leaves these images out.
        shown, sure = set(example["labels"].tolist()), set(example["labels_no_difficult"].tolist())
        values = {
            name: int(i in sure) for i, name in enumerate(self.names) if i in sure or i not in shown
        }
        problem = without_area(len(found["label"]) - len(objects))
        return Adapted(objects, False, None, values, problem)


class Coco:
    """`coco/2014`, `coco/2017`: boxes. TFDS has no masks of them."""

    partial = True
    filename, image_id = "image/filename", "image/id"

    def __init__(self, features: Any):
        self.names = names_of(features["objects"]["label"])

    def labels(self) -> Labels:
        return Labels(
            names=self.names,
            advice="TFDS has no labels of COCO's test splits, and masks only in "
            "'coco/2017_panoptic'",
        )

    def adapt(self, example: Mapping, split: str, height: int, width: int) -> Adapted:
        if split.startswith("test"):
            return Adapted()
        found, objects = example["objects"], []
        for box, label, crowd in rows(found, "bbox", "label", "is_crowd"):
            inside = pixels(box, height, width)
            if inside is not None:
                objects.append(Object(int(label), inside, None, bool(crowd)))
        problem = without_area(len(found["label"]) - len(objects))
        return Adapted(objects, problem=problem)


class CocoPanoptic:
    """`coco/2017_panoptic`: things as objects with masks; things and stuff as classes of pixels."""

    partial = False
    filename, image_id = "image/filename", "image/id"

    def __init__(self, features: Any):
        self.all_names = names_of(features["panoptic_objects"]["label"])
        known = [name in COCO_THINGS for name in self.all_names]
        # Without names (a builder that was never prepared) things come first, as in COCO's JSON.
        things = known if any(known) else [i < len(COCO_THINGS) for i in range(len(known))]
        self.thing_id = np.where(things, np.cumsum(things) - 1, -1)
        self.names = tuple(n for n, thing in zip(self.all_names, things, strict=True) if thing)

    def labels(self) -> Labels:
        return Labels(names=self.names, mask_names=self.all_names)

    def adapt(self, example: Mapping, split: str, height: int, width: int) -> Adapted:
        png = np.asarray(example["panoptic_image"]).astype(np.int64)
        mask = np.full((height, width), IGNORE, np.uint8)
        fits = not (problem := misfit("panoptic_image", png, height, width))
        ids = png @ np.array([1, 256, 65536]) if fits else np.zeros((height, width), np.int64)
        objects, lost, seen = [], 0, np.zeros((height, width), bool)
        found = example["panoptic_objects"]
        for key, label, crowd, bbox in rows(found, "id", "label", "is_crowd", "bbox"):
            here = ids == key
            if not fits or key == 0 or not here.any():
                lost += fits
                if self.thing_id[label] < 0:
                    continue
                box, of_mask = pixels(bbox, height, width), None
                if box is None:
                    continue
            else:
                mask[here], seen = label + 1, seen | here
                if self.thing_id[label] < 0:
                    continue
                of_mask = cut(here)
                box = pixels(bbox, height, width)
            objects.append(
                Object(
                    int(self.thing_id[label]),
                    box,
                    None if of_mask is None else partial(_same, of_mask),
                    bool(crowd),
                )
            )
        unknown = np.unique(ids[(ids != 0) & ~seen])
        if fits and lost:
            problem = f"{lost} of its segments have no pixels in panoptic_image"
        elif len(unknown):
            problem = f"panoptic_image has ids that no segment has: {unknown[:5].tolist()}"
        return Adapted(objects, True, mask, None, problem)


def _same(of_mask: Cut, height: int, width: int) -> Cut:
    return of_mask


def adapter(name: str, features: Any, **options: Any) -> Any:
    """The adapter of a set of TFDS.

    Raises:
        ValueError: If there is none, or an option is unknown.
    """
    kinds = {"oxford_iiit_pet": Pets, "voc": Voc, "coco": Coco}
    kind = kinds.get(name)
    if kind is Coco and "panoptic_objects" in features:
        kind = CocoPanoptic
    if kind is None:
        raise ValueError(
            f"from_tfds knows how to read {sorted(kinds)}, got {name!r}; import the files of "
            "another set with mtl_keras.data.from_folder, or give `batches` a builder with the "
            "features that from_coco documents"
        )
    if options and kind is not Pets:
        raise ValueError(f"{name!r} has no options, got {sorted(options)}")
    unknown = sorted(set(options) - {"label", "border"})
    if unknown:
        raise ValueError(f"{name!r} has the options 'label' and 'border', got {unknown}")
    return kind(features, **options)


def names_of(feature: Any) -> tuple[str, ...]:
    """Class names of a `ClassLabel`; numbers where it has none."""
    names = getattr(feature, "names", None)
    return tuple(names) if names else tuple(str(i) for i in range(feature.num_classes))


def rows(found: Mapping, *keys: str) -> list[tuple]:
    """The parts of each object; of lists of unequal length (as in mock data), what all have."""
    return list(zip(*(found[key] for key in keys), strict=False))


def pixels(
    box: np.ndarray, height: int, width: int, counted_from: int = 0
) -> tuple[float, float, float, float] | None:
    """A box of TFDS, `(ymin, xmin, ymax, xmax)` in [0, 1], as xyxy in pixels.

    `counted_from` is 1 where TFDS divided coordinates that are counted from 1 and hold their last
    pixel, as VOC's are. `None` if it has no area inside of the image.
    """
    y0, x0, y1, x1 = np.asarray(box, np.float64) * [height, width, height, width]
    # float32 in [0, 1] leaves whole pixels off by less than a thousandth.
    x0, y0, x1, y1 = (float(np.round(v, 3)) for v in (x0 - counted_from, y0 - counted_from, x1, y1))
    x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def without_area(boxes: int) -> str:
    """Says how many boxes have none; an empty text if all have."""
    return f"{boxes} of its boxes have no area inside of the image" if boxes else ""


def misfit(what: str, array: np.ndarray, height: int, width: int) -> str:
    """Says that a map has another size than its image; an empty text if it fits."""
    if array.shape[:2] == (height, width):
        return ""
    return f"{what} is {array.shape[1]} x {array.shape[0]} pixels, the image {width} x {height}"
