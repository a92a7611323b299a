"""Objects in aerial images: NWPU VHR-10, with masks of instances."""

from __future__ import annotations

import re
from pathlib import Path

from mtl_keras.data import coco
from mtl_keras.data.records import BadLabels, Object, Problem, Record, Source
from mtl_keras.data.sets.named_set import NamedSet, split_by_lists

# In the order of the class numbers 1 to 10 of the text files.
CLASSES = [
    "airplane",
    "ship",
    "storage_tank",
    "baseball_diamond",
    "tennis_court",
    "basketball_court",
    "ground_track_field",
    "harbor",
    "bridge",
    "vehicle",
]
_LINE = re.compile(r"\(\s*(\d+)\s*,\s*(\d+)\s*\)\s*,\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)\s*,\s*(\d+)\s*")


def read_home(folder: Path) -> Source | None:
    """Reads `positive image set/` with `annotations.json` (masks), else `ground truth/` (boxes)."""
    for root in (folder, folder / "NWPU VHR-10 dataset"):
        images = root / "positive image set"
        if not images.is_dir():
            continue
        for json in (root / "annotations.json", folder / "annotations.json"):
            if json.is_file():
                source = coco.read({"train": json}, images=images)
                source.splits = split_by_lists("vhr10", source.splits["train"])
                return source
        if (root / "ground truth").is_dir():
            return _read_texts(images, root / "ground truth")
    return None


def _read_texts(images: Path, texts: Path) -> Source:
    """Boxes from lines `(x1,y1),(x2,y2),class`, one file an image."""
    records, files = [], []
    for i, path in enumerate(sorted(images.glob("*.jpg"))):
        text = texts / f"{path.stem}.txt"
        if not text.is_file():
            raise FileNotFoundError(
                f"the image {str(path)!r} has no text file {str(text)!r}; the set 'vhr10' has one "
                "for each image of 'positive image set'"
            )
        files.append(text)
        objects = _objects(text)
        records.append(Record(path, path.name, i, objects, where=str(text)))
    splits = split_by_lists("vhr10", records)
    return Source("vhr10", "vhr10_texts", list(CLASSES), splits, files=files)


def _objects(text: Path) -> list[Object]:
    objects = []
    for number, line in enumerate(text.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None or not 1 <= int(found[5]) <= len(CLASSES):
            raise BadLabels(
                Problem(
                    str(text),
                    number,
                    "bad line",
                    f"it should be '(x1,y1),(x2,y2),class' with a class from 1 to {len(CLASSES)}, "
                    f"got {line!r:.100}",
                )
            )
        x0, y0, x1, y1, label = (int(value) for value in found.groups())
        objects.append(Object(label - 1, (x0, y0, x1, y1), where=f"{text.name}, line {number}"))
    return objects


SET = NamedSet(
    name="vhr10",
    title="NWPU VHR-10 with masks of instances, positive image set",
    description="Aerial images: airplanes, ships, storage tanks, courts, bridges, vehicles, each "
    "with a box and a mask.",
    licence="annotations MIT (c) 2019 chaozhong2010; images Google Earth and ISPRS Vaihingen, "
    "research use",
    citation="Cheng, Han, Zhou, Guo 2014, Multi-class geospatial object detection and geographic "
    "image classification based on collection of part detectors, ISPRS Journal of Photogrammetry "
    "and Remote Sensing 98, 119-132 (https://doi.org/10.1016/j.isprsjprs.2014.10.002)",
    home="https://github.com/chaozhong2010/VHR-10_dataset_coco",
    fetch="Fetch masks and links to the images from "
    "https://github.com/chaozhong2010/VHR-10_dataset_coco and lay it as "
    "'vhr10/NWPU VHR-10 dataset/positive image set/*.jpg' with 'vhr10/annotations.json' (boxes and "
    "masks), or with 'vhr10/NWPU VHR-10 dataset/ground truth/*.txt' (boxes alone).",
    read_home=read_home,
    tags=("aerial", "boxes", "instances"),
)
