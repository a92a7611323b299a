"""Import a folder of images with a COCO JSON as a TFDS set."""

from __future__ import annotations

import hashlib
import json as json_module
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mtl_keras.data import builder as builder_lib
from mtl_keras.data.images import exif_orientation, open_image, pil_to_rgb

CONVERTER_VERSION = "1"

PathLike = str | os.PathLike


def from_coco(
    json: PathLike | Mapping[str, PathLike],
    images: PathLike | Mapping[str, PathLike],
    name: str | None = None,
    data_dir: PathLike | None = None,
) -> Any:
    """Import images annotated in COCO's JSON format; prepared once, found again afterwards.

    The set is written as TFDS shards under `data_dir`, in a folder named by a fingerprint of the
    JSON files, of the images' names, sizes and modification times, and of this converter. A second
    call with the same data returns at once; a call with changed data prepares a new set.

    What becomes of the annotations:

    - Class ids are the category ids in increasing order, without gaps. A category that no
      annotation uses and that others name as their `supercategory` is left out. Repeated names get
      a number (`"facade"`, `"facade_2"`).
    - Segmentations may be polygons, compressed RLE or uncompressed RLE. They are painted into one
      map of instances, large ones first, so that small ones that lie on them stay visible. An
      object without a segmentation keeps its box but has no pixels in that map (and so none in
      segmentation masks); a warning counts these.
    - An annotation without `bbox` gets the box around its segmentation. Boxes are clipped to the
      image; those of no area afterwards are left out, and a warning counts and names them.
    - Images without annotations stay. `iscrowd` is kept.
    - Files that are plain 8-bit RGB JPEG or PNG are stored as they are, others as 8-bit RGB PNG
      (see `read_image`). Of an image turned by its EXIF orientation, the upright form is stored,
      unless only the form before turning has the width and height that the JSON gives.

    Args:
        json: path of the JSON (split `"train"`), or a dict from split names to paths.
        images: folder of the images that `file_name` is relative to, or a dict with one per split.
        name: name of the set; by default that of the folder that holds the JSON.
        data_dir: where prepared sets are kept, by default TFDS's own folder
            (`~/tensorflow_datasets`).

    Returns:
        A prepared TFDS builder with the features `image` (uint8 RGB), `image/filename`, `image/id`,
        `objects` (a sequence of `bbox`, float32 xyxy in pixels; `label`; `is_crowd`) and
        `instances` (uint16, 0 where there is no object, i + 1 where `objects[i]` lies). The names
        of the classes are `builder.info.features["objects"]["label"].names`.

    Raises:
        FileNotFoundError: if a JSON, an image folder or an image is missing.
        ValueError: if a JSON cannot be read, lacks a part, or contradicts itself or the images.

    Reference:
        Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014
        (https://cocodataset.org).

    Example:
        ```python
        import json, pathlib, tempfile
        import numpy as np
        from PIL import Image
        from mtl_keras.data import from_coco

        folder = pathlib.Path(tempfile.mkdtemp())
        Image.fromarray(np.zeros((40, 60, 3), "uint8")).save(folder / "a.png")
        (folder / "train.json").write_text(json.dumps({
            "images": [{"id": 1, "file_name": "a.png", "width": 60, "height": 40}],
            "categories": [{"id": 7, "name": "cell"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [5, 5, 20, 10],
                             "segmentation": [[5, 5, 25, 5, 25, 15, 5, 15]]}],
        }))
        builder = from_coco(folder / "train.json", folder, data_dir=folder / "prepared")
        assert builder.info.features["objects"]["label"].names == ["cell"]
        ```
    """
    jsons = dict(json) if isinstance(json, Mapping) else {"train": json}
    if not jsons:
        raise ValueError("`json` is an empty dict; give at least one split, as in {'train': path}")
    for split, path in jsons.items():
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(
                f"`json` should be a path or a dict of paths, got {type(path).__name__} for "
                f"{split!r}"
            )
    folders = dict(images) if isinstance(images, Mapping) else dict.fromkeys(jsons, images)
    if set(folders) != set(jsons):
        raise ValueError(
            f"`images` names the splits {sorted(folders)}, `json` the splits {sorted(jsons)}; "
            "give one folder for all splits or one for each"
        )
    parsed = {split: _Json.read(Path(path)) for split, path in jsons.items()}
    names, class_of = _classes(parsed)
    digest = hashlib.sha256(f"coco {CONVERTER_VERSION} {builder_lib.VERSION}".encode())
    records = {}
    for split in sorted(parsed):
        records[split] = _records(parsed[split], Path(folders[split]), class_of)
        digest.update(f"{split} {parsed[split].sha256}".encode())
        for record in records[split]:
            stat = record.path.stat()
            digest.update(f"{record.filename}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return builder_lib.prepare(
        name=name or Path(next(iter(jsons.values()))).resolve().parent.name or "coco",
        fingerprint=digest.hexdigest()[:20],
        names=names,
        splits={s: (len(r), _generator(r, parsed[s].path)) for s, r in records.items()},
        data_dir=None if data_dir is None else os.fspath(data_dir),
        description="Images with boxes and instances, imported from COCO JSON.",
    )


@dataclass
class _Json:
    path: Path
    sha256: str
    images: list[dict]
    annotations: list[dict]
    categories: list[dict]

    @classmethod
    def read(cls, path: Path) -> _Json:
        if not path.is_file():
            raise FileNotFoundError(f"there is no COCO JSON file {str(path)!r}")
        content = path.read_bytes()
        try:
            data = json_module.loads(content)
        except ValueError as error:
            raise ValueError(f"{str(path)!r} is not valid JSON: {error}") from error
        keys = ("images", "annotations", "categories")
        if not isinstance(data, dict) or any(not isinstance(data.get(k), list) for k in keys):
            got = sorted(data) if isinstance(data, dict) else type(data).__name__
            raise ValueError(
                f"{str(path)!r} is not in COCO format: it should be an object with the lists "
                f"{', '.join(map(repr, keys))}, got {got}"
            )
        for key, fields in zip(
            keys, (("id", "file_name"), ("image_id", "category_id"), ("id", "name")), strict=True
        ):
            for i, item in enumerate(data[key]):
                lacking = [f for f in fields if not isinstance(item, dict) or item.get(f) is None]
                if lacking:
                    raise ValueError(
                        f"{str(path)!r}: {key}[{i}] lacks {', '.join(lacking)}: {item!r:.200}"
                    )
        if not data["images"]:
            raise ValueError(f"{str(path)!r} lists no images")
        if not data["categories"]:
            raise ValueError(
                f"{str(path)!r} lists no categories; give at least one with id and name"
            )
        return cls(path, hashlib.sha256(content).hexdigest(), *(data[k] for k in keys))


@dataclass
class _Object:
    annotation_id: Any
    box: tuple[float, float, float, float] | None  # x, y, width, height
    label: int
    is_crowd: bool
    segmentation: Any


@dataclass
class _Record:
    path: Path
    filename: str
    image_id: int
    width: int | None
    height: int | None
    objects: list[_Object] = field(default_factory=list)


def _classes(parsed: dict[str, _Json]) -> tuple[list[str], dict[int, int]]:
    """Names in order of the class ids, and the class id of each category id."""
    categories: dict[int, dict] = {}
    used = set()
    for coco in parsed.values():
        seen = set()
        for category in coco.categories:
            key = _integer(category["id"], "category id", coco.path)
            if key in seen:
                raise ValueError(f"{str(coco.path)!r} lists category id {key} twice")
            seen.add(key)
            if str(categories.setdefault(key, category)["name"]) != str(category["name"]):
                raise ValueError(
                    f"category id {key} is {categories[key]['name']!r} in one split and "
                    f"{category['name']!r} in {str(coco.path)!r}; the splits should share "
                    f"categories"
                )
        for annotation in coco.annotations:
            if annotation["category_id"] not in seen:
                raise ValueError(
                    f"{str(coco.path)!r}: annotation {annotation.get('id')} has the unknown "
                    f"category id "
                    f"{annotation['category_id']!r}; the categories are {sorted(seen)}"
                )
            used.add(annotation["category_id"])
    kept = []
    for key, category in sorted(categories.items()):
        is_parent = any(
            other.get("supercategory") == category["name"]
            for other_key, other in categories.items()
            if other_key != key
        )
        if key in used or not is_parent:
            kept.append(key)
    names: list[str] = []
    for key in kept:
        base = " ".join(str(categories[key]["name"]).split()) or f"class_{key}"
        unique, number = base, 2
        while unique in names:
            unique, number = f"{base}_{number}", number + 1
        names.append(unique)
    return names, {key: i for i, key in enumerate(kept)}


def _integer(value: Any, what: str, path: Path) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or int(value) != value:
        raise ValueError(f"{str(path)!r}: every {what} should be an integer, got {value!r}")
    return int(value)


def _records(coco: _Json, folder: Path, class_of: dict[int, int]) -> list[_Record]:
    """Images with their annotations, everything checked that can be without opening the images."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no image folder {str(folder)!r}")
    records: dict[int, _Record] = {}
    for image in coco.images:
        key = _integer(image["id"], "image id", coco.path)
        if key in records:
            raise ValueError(f"{str(coco.path)!r} lists image id {key} twice")
        width, height = (
            None if image.get(k) is None else _integer(image[k], f"image {k}", coco.path)
            for k in ("width", "height")
        )
        filename = str(image["file_name"])
        records[key] = _Record(folder / filename, filename, key, width, height)
    missing = [r.filename for r in records.values() if not r.path.is_file()]
    if missing:
        shown = ", ".join(map(repr, missing[:5])) + (", …" if len(missing) > 5 else "")
        raise FileNotFoundError(
            f"{len(missing)} of {len(records)} images that {str(coco.path)!r} lists are not in "
            f"{str(folder)!r}: {shown}"
        )
    for annotation in coco.annotations:
        where = f"{str(coco.path)!r}: annotation {annotation.get('id')}"
        record = records.get(annotation["image_id"])
        if record is None:
            raise ValueError(f"{where} has the unknown image id {annotation['image_id']!r}")
        box = annotation.get("bbox")
        if box is not None:
            try:
                box = tuple(float(v) for v in box)
            except (TypeError, ValueError):
                box = ()
            if len(box) != 4 or not all(map(math.isfinite, box)):
                raise ValueError(
                    f"{where} (image {record.filename!r}) has bbox {annotation['bbox']!r}; it "
                    f"should be "
                    "four finite numbers: x, y, width, height in pixels"
                )
        segmentation = annotation.get("segmentation") or None
        if box is None and segmentation is None:
            raise ValueError(
                f"{where} (image {record.filename!r}) has neither bbox nor segmentation"
            )
        record.objects.append(
            _Object(
                annotation.get("id"),
                box,
                class_of[annotation["category_id"]],
                bool(annotation.get("iscrowd", 0)),
                segmentation,
            )
        )
    for record in records.values():
        if len(record.objects) > builder_lib.MAX_OBJECTS:
            raise ValueError(
                f"image {record.filename!r} has {len(record.objects)} objects; at most "
                f"{builder_lib.MAX_OBJECTS} can be stored"
            )
    return list(records.values())


def _generator(records: list[_Record], json_path: Path) -> Any:
    def generate() -> Iterator[tuple[int, dict]]:
        without_area: list[str] = []
        without_mask = total = 0
        for record in records:
            encoded, width, height = _encoded_image(record, json_path)
            boxes, labels, crowd, masks = [], [], [], []
            for obj in record.objects:
                where = (
                    f"{str(json_path)!r}: annotation {obj.annotation_id} "
                    f"(image {record.filename!r})"
                )
                mask = _mask(obj.segmentation, height, width, where)
                box = _clipped_box(obj.box, mask, height, width)
                if box is None:
                    without_area.append(f"{obj.annotation_id} ({record.filename})")
                    continue
                total += 1
                without_mask += mask is None
                boxes.append(box)
                labels.append(obj.label)
                crowd.append(obj.is_crowd)
                masks.append(mask)
            yield (
                record.image_id,
                builder_lib.example(
                    encoded,
                    record.filename,
                    record.image_id,
                    np.array(boxes, np.float32),
                    labels,
                    crowd,
                    builder_lib.paint_instances((height, width), masks, crowd),
                ),
            )
        if without_area:
            shown = ", ".join(without_area[:5]) + (", …" if len(without_area) > 5 else "")
            warnings.warn(
                f"{str(json_path)!r}: {len(without_area)} annotations were left out, because "
                f"their boxes "
                f"have no area inside the image: {shown}",
                stacklevel=2,
            )
        if without_mask:
            warnings.warn(
                f"{str(json_path)!r}: {without_mask} of {total} annotations have no segmentation "
                f"of any "
                "area; they keep their boxes, but segmentation masks hold background there",
                stacklevel=2,
            )

    return generate


def _encoded_image(record: _Record, json_path: Path) -> tuple[bytes, int, int]:
    """The file's own bytes where all decoders read them alike, else a PNG; width and height."""
    content = record.path.read_bytes()
    with open_image(record.path) as image:
        orientation = exif_orientation(image)
        plain = orientation == 1 and image.mode == "RGB" and "transparency" not in image.info
        plain = plain and (image.format == "JPEG" or (image.format == "PNG" and content[24] == 8))
        upright = image.size if orientation < 5 else image.size[::-1]
        stated = (record.width or upright[0], record.height or upright[1])
        if stated not in (upright, image.size):
            raise ValueError(
                f"the image {str(record.path)!r} is {upright[0]} x {upright[1]} pixels (width x "
                f"height), "
                f"but {str(json_path)!r} says {stated[0]} x {stated[1]}; the boxes would not fit it"
            )
        pixels = pil_to_rgb(image, f"the image {str(record.path)!r}", upright=stated == upright)
    if not plain:
        content = builder_lib.png_bytes(pixels)
    return content, pixels.shape[1], pixels.shape[0]


def _mask(
    segmentation: Any, height: int, width: int, where: str
) -> tuple[int, int, np.ndarray] | None:
    """`(top, left, bool array)` of a segmentation, cut to its box; `None` if it has no pixels."""
    from pycocotools import mask as coco_mask

    if segmentation is None:
        return None
    if isinstance(segmentation, list):
        polygons = [p for p in segmentation if isinstance(p, list) and len(p) >= 6]
        if not polygons:
            return None
        try:
            values = [[float(v) for v in p] for p in polygons]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where} has a polygon with something that is no number") from error
        if not all(math.isfinite(v) for p in values for v in p) or any(len(p) % 2 for p in values):
            raise ValueError(
                f"{where} has a polygon that is not a list of finite x, y pairs in pixels"
            )
        rle = coco_mask.merge(coco_mask.frPyObjects(values, height, width))
    elif isinstance(segmentation, dict) and "counts" in segmentation:
        size = list(segmentation.get("size") or [])
        if size != [height, width]:
            raise ValueError(
                f"{where} has a segmentation of size {size}; it should be that of the image, "
                f"[{height}, {width}] (height, width)"
            )
        rle = segmentation
        try:
            if isinstance(rle["counts"], list):
                if sum(rle["counts"]) != height * width or min(rle["counts"]) < 0:
                    raise ValueError("its counts do not add up to height * width")
                rle = coco_mask.frPyObjects(rle, height, width)
            coco_mask.area(rle)
        except Exception as error:
            raise ValueError(f"{where} has an RLE that cannot be read: {error}") from error
    else:
        raise ValueError(
            f"{where} has a segmentation that is neither a list of polygons nor an RLE: "
            f"{segmentation!r:.80}"
        )
    try:
        with warnings.catch_warnings():
            # pycocotools' arrays do not know NumPy 2's copy keyword yet.
            warnings.simplefilter("ignore", DeprecationWarning)
            full = coco_mask.decode(rle).astype(bool)
    except Exception as error:
        raise ValueError(f"{where} has an RLE that cannot be read: {error}") from error
    rows, columns = np.flatnonzero(full.any(1)), np.flatnonzero(full.any(0))
    if not len(rows):
        return None
    top, left = int(rows[0]), int(columns[0])
    return top, left, full[top : rows[-1] + 1, left : columns[-1] + 1]


def _clipped_box(
    box: tuple[float, float, float, float] | None,
    mask: tuple[int, int, np.ndarray] | None,
    height: int,
    width: int,
) -> list[float] | None:
    """The box as xyxy inside the image; `None` if it has no area there."""
    if box is None:
        if mask is None:
            return None
        top, left, pixels = mask
        return [left, top, left + pixels.shape[1], top + pixels.shape[0]]
    x, y, w, h = box
    x1, y1, x2, y2 = max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height)
    return [x1, y1, x2, y2] if x2 > x1 and y2 > y1 else None
