"""Polyps in endoscopy: Kvasir-SEG."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np

from mtl_keras.data.images import open_image
from mtl_keras.data.records import BadLabels, Cut, Object, Problem, Record, Source
from mtl_keras.data.segmentations import cut
from mtl_keras.data.sets.named_set import NamedSet, split_by_lists

BOXES = "kavsir_bboxes.json"  # so it is spelt


def read_home(folder: Path) -> Source | None:
    """Reads `images/<id>.jpg`, `masks/<id>.jpg` and `kavsir_bboxes.json`.

    An object is what the mask holds in its box. Masks are JPEGs: what is brighter than half is
    polyp.
    """
    for root in (folder, folder / "Kvasir-SEG"):
        if (root / BOXES).is_file() and (root / "masks").is_dir():
            break
    else:
        return None
    try:
        listed = json.loads((root / BOXES).read_text("utf-8"))
    except ValueError as error:
        problem = Problem(str(root / BOXES), None, "bad JSON", f"it can't be read: {error}")
        raise BadLabels(problem) from error
    records = []
    for i, (key, entry) in enumerate(sorted(listed.items())):
        mask = root / "masks" / f"{key}.jpg"
        objects = []
        for box in entry["bbox"]:
            xyxy = tuple(float(box[side]) for side in ("xmin", "ymin", "xmax", "ymax"))
            objects.append(Object(0, xyxy, partial(_within, mask, xyxy), where=f"{BOXES}, {key!r}"))
        path = root / "images" / f"{key}.jpg"
        size = (int(entry["height"]), int(entry["width"]))
        classes = partial(_classes, mask)
        records.append(
            Record(path, path.name, i, objects, True, classes, size=size, where=str(root / BOXES))
        )
    masks = [root / "masks" / f"{key}.jpg" for key in sorted(listed)]
    for path in [record.path for record in records] + masks:
        if not path.is_file():
            raise FileNotFoundError(
                f"{str(root / BOXES)!r} lists {path.stem!r}, but there is no {path}"
            )
    splits = split_by_lists("kvasir", records)
    return Source("kvasir", "kvasir_seg", ["polyp"], splits, files=[root / BOXES, *masks])


def _polyp(path: Path, height: int, width: int) -> np.ndarray:
    with open_image(path) as image:
        mask = np.asarray(image.convert("L")) > 127
    if mask.shape != (height, width):
        raise ValueError(
            f"the mask {str(path)!r} is {mask.shape[1]} x {mask.shape[0]} pixels, its image "
            f"{width} x {height}"
        )
    return mask


def _classes(path: Path, height: int, width: int) -> np.ndarray:
    return _polyp(path, height, width).astype(np.uint8)


def _within(path: Path, box: tuple[float, ...], height: int, width: int) -> Cut | None:
    mask = _polyp(path, height, width)
    x0, y0 = (int(np.floor(max(v, 0))) for v in box[:2])
    x1, y1 = (int(np.ceil(v)) + 1 for v in box[2:])  # the box holds its last pixel
    inside = np.zeros_like(mask)
    inside[y0:y1, x0:x1] = mask[y0:y1, x0:x1]
    return cut(inside)


SET = NamedSet(
    name="kvasir",
    title="Kvasir-SEG",
    description="Endoscopy, mostly one polyp an image, with boxes and masks. `test` is the "
    "official list of 120; train and val share the official 880.",
    licence="research and educational use only",
    citation="Jha et al. 2020, Kvasir-SEG: A Segmented Polyp Dataset, International Conference on "
    "Multimedia Modeling (https://arxiv.org/abs/1911.07069)",
    home="https://datasets.simula.no/kvasir-seg/",
    fetch="Fetch it from https://datasets.simula.no/kvasir-seg/ and lay it as "
    "'kvasir/images/<id>.jpg', 'kvasir/masks/<id>.jpg' and 'kvasir/kavsir_bboxes.json'.",
    read_home=read_home,
    tags=("endoscopy", "boxes", "instances"),
)
