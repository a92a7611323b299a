"""Import images with a COCO JSON: as records, or at once as a TFDS set."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtl_keras.data import builder as builder_lib
from mtl_keras.data import segmentations
from mtl_keras.data.coco_json import (
    Bad,
    CocoJson,
    box_problem,
    categories,
    corners,
    find_jsons,
    flag,
    folders_of,
    image_records,
    jsons_of,
    key_of,
)
from mtl_keras.data.images import exif_orientation, open_image, pil_to_rgb
from mtl_keras.data.records import Cut, Object, Problems, Record, Source

CONVERTER_VERSION = "1"

PathLike = str | os.PathLike


def read(
    path: PathLike | Mapping[str, PathLike],
    images: PathLike | Mapping[str, PathLike] | None = None,
    on_bad: str = "strict",
) -> Source:
    """Read images annotated in COCO's JSON format, as boxes, polygons or RLE.

    In a folder, the JSONs are looked for in the folder itself (`train.json`), in `annotations/`
    (`instances_train2017.json`) and in folders of splits (`train/_annotations.coco.json`); the
    images in folders named as the splits or the JSONs (`train2017/`, `images/val/`), in `images/`,
    in `data/`, or beside the JSON. `valid` and `validation` are the split `val`, `default` is
    `train`, and a JSON alone whose name tells nothing is `train`. JSONs of captions, keypoints and
    panoptic segments are passed over, and where some are called `instances_...`, all others.

    What becomes of the annotations:

    - Class ids are the category ids in increasing order, without gaps. A category that no
      annotation uses and that others name as their `supercategory` is left out. Repeated names get
      a number (`"facade"`, `"facade_2"`).
    - An image that the JSON lists without annotations is known to hold no objects. Images that it
      does not list are not of the set.
    - An object without a segmentation, or with one of fewer than three corners, has no mask.
    - `has_masks` is set for images in which an object has a mask, and for those without objects if
      any object of the JSON has one.

    What can't be used under `"quarantine"`:

    - The image is left out for an entry without id or name, an id that two images have, a missing
      file, an unknown category, a box that is not four finite numbers or whose width or height is
      negative, a polygon with an odd number of values or with one that is not finite, an RLE whose
      runs do not add up or whose size is not that of the image.
    - Only the annotation is left out if its box has no area or lies outside of the image, so that
      there is nothing to learn from it, or if the JSON does not list its image.
    - A JSON that can't be read, lacks a list, or contradicts itself or another split on the
      categories is always an error.

    Whether images have the size that the JSON states is not known before they are opened.

    Args:
        path: Folder, or path of one JSON, or a dict from split names to paths of JSONs.
        images: Folder of the images that `file_name` is relative to, or a dict with one for each
            split. By default it is looked for.
        on_bad: `"strict"` raises the first problem, `"quarantine"` lists all.

    Returns:
        A `Source` of layout "coco". Boxes are as the JSON states them.

    Raises:
        BadLabels: Under `"strict"`, for the first problem; for an unreadable JSON, always. It is a
            `FileNotFoundError` too if images are missing.
        FileNotFoundError: If a folder or JSON is missing, or no folder with the images is found.
        ValueError: If the folder holds no COCO JSON, or several of one split.

    Reference:
        Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014
        (https://cocodataset.org).

    Example:
        ```python
        import json, pathlib, tempfile
        import numpy as np
        from PIL import Image
        from mtl_keras.data import coco

        folder = pathlib.Path(tempfile.mkdtemp())
        (folder / "images").mkdir()
        Image.fromarray(np.zeros((40, 60, 3), "uint8")).save(folder / "images" / "a.png")
        (folder / "train.json").write_text(json.dumps({
            "images": [{"id": 1, "file_name": "a.png", "width": 60, "height": 40}],
            "categories": [{"id": 7, "name": "cell"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [5, 5, 20, 10]},
                            {"id": 2, "image_id": 1, "category_id": 7, "bbox": [70, 5, 20, 10]}],
        }))
        source = coco.read(folder, on_bad="quarantine")
        assert source.splits["train"][0].objects[0].box == (5.0, 5.0, 25.0, 15.0)
        assert [problem.kind for problem in source.problems] == ["box outside"]
        ```
    """
    problems = Problems(on_bad)
    jsons, root = jsons_of(path)
    parsed = {split: CocoJson.read(one) for split, one in jsons.items()}
    source, suspects = _source(parsed, folders_of(parsed, images, root), problems)
    if root is not None:
        source.name = root.resolve().name
    _leave_out(source, suspects, parsed, problems)
    return source


def recognise(path: PathLike) -> str | None:
    """Say whether a folder has this layout.

    Args:
        path: The folder.

    Returns:
        A sentence on what was seen, or `None`.

    Example:
        ```python
        import tempfile
        from mtl_keras.data import coco

        assert coco.recognise(tempfile.mkdtemp()) is None
        ```
    """
    folder = Path(path)
    if not folder.is_dir():
        return None
    try:
        jsons = find_jsons(folder)
    except ValueError as error:
        return f"COCO JSONs, but {error}"
    if not jsons:
        return None
    shown = ", ".join(f"{one.relative_to(folder).as_posix()} ({s})" for s, one in jsons.items())
    return f"COCO JSON: {shown}"


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
    parsed = {split: CocoJson.read(Path(path)) for split, path in jsons.items()}
    # Objects whose box has no area stay: the examples leave them out, and say so.
    source, _ = _source(parsed, folders_of(parsed, images), Problems("strict"))
    source.name = name or source.name
    return _prepare(source, parsed, data_dir)


# An object whose box may be wrong: its split, its record, itself, index of its annotation.
_Suspect = tuple[str, Record, Object, int]


def _source(
    parsed: dict[str, CocoJson], folders: dict[str, Path], problems: Problems
) -> tuple[Source, list[_Suspect]]:
    """All records, and objects whose box has no area, which are still among them."""
    used = set()
    for coco in parsed.values():
        entries = (a for a in coco.annotations if isinstance(a, dict))
        used |= coco.category_ids() & {key_of(a.get("category_id")) for a in entries}
    kept, names = categories(parsed.values(), used)
    class_of = {int(category["id"]): i for i, category in enumerate(kept)}
    splits, suspects = {}, []
    for split, coco in parsed.items():
        splits[split], found = _records(coco, folders[split], class_of, problems)
        suspects += [(split, *one) for one in found]
    first = next(iter(parsed.values())).path
    source = Source(
        name=first.resolve().parent.name or "coco",
        layout="coco",
        names=names,
        splits=splits,
        problems=problems.found,
        files=[coco.path for coco in parsed.values()],
    )
    return source, suspects


def _records(
    coco: CocoJson, folder: Path, class_of: dict[int, int], problems: Problems
) -> tuple[list[Record], list[tuple[Record, Object, int]]]:
    records, gone = image_records(coco, folder, problems)
    class_of = {key: class_of[key] for key in coco.category_ids() if key in class_of}
    spoiled: set[int] = set()
    suspects: list[tuple[Record, Object, int]] = []
    for record in records.values():
        record.objects = []
    for i, annotation in enumerate(coco.annotations):
        lacking = [
            key
            for key in ("image_id", "category_id")
            if not isinstance(annotation, dict) or annotation.get(key) is None
        ]
        image_id = None if "image_id" in lacking else key_of(annotation["image_id"])
        record = records.get(image_id)
        if record is None and image_id in gone:
            continue
        where = f"annotations[{i}]"
        if isinstance(annotation, dict) and annotation.get("id") is not None:
            where = f"annotation {annotation['id']}"
        try:
            if lacking:
                where = f"annotations[{i}]"
                raise Bad("bad annotation", f"lacks {', '.join(lacking)}: {annotation!r:.200}")
            if record is None:
                message = f"has the unknown image id {annotation['image_id']!r:.100}"
                raise Bad("unknown image id", message)
            item = _object(annotation, record, class_of, coco)
        except Bad as bad:
            filename = None if record is None else record.filename
            of_image = "" if record is None or lacking else f" (image {filename!r})"
            message, line = f"{where}{of_image} {bad}", coco.line("annotations", i)
            problems.add(coco.path, bad.kind, message, line, filename)
            spoiled.add(image_id)
            continue
        item.where = where
        record.objects.append(item)
        if item.box is not None and box_problem(item.box, record.size):
            suspects.append((record, item, i))
    with_masks = any(o.mask is not None for r in records.values() for o in r.objects)
    for record in records.values():
        masks = [item.mask is not None for item in record.objects]
        record.has_masks = any(masks) if masks else with_masks
    return [r for key, r in records.items() if key not in spoiled], suspects


def _leave_out(
    source: Source, suspects: list[_Suspect], parsed: dict[str, CocoJson], problems: Problems
) -> None:
    """Takes out objects whose box has no area; of a reversed box, the image."""
    for split, record, item, index in suspects:
        coco = parsed[split]
        kind, message = box_problem(item.box, record.size)
        reversed_box = kind == "reversed box"
        problems.add(
            coco.path,
            kind,
            f"{item.where} (image {record.filename!r}) {message}",
            coco.line("annotations", index),
            record.filename if reversed_box else None,
        )
        record.objects = [other for other in record.objects if other is not item]
        if reversed_box:
            source.splits[split] = [r for r in source.splits[split] if r is not record]


def _object(annotation: dict, record: Record, class_of: dict[int, int], coco: CocoJson) -> Object:
    """The object of an annotation.

    Raises:
        Bad: If it can't be used.
    """
    label = class_of.get(key_of(annotation["category_id"]))
    if label is None:
        raise Bad(
            "unknown category id",
            f"has the unknown category id {annotation['category_id']!r:.100}; the categories are "
            f"{sorted(coco.category_ids())!r:.200}",
        )
    box, segmentation = annotation.get("bbox"), annotation.get("segmentation") or None
    if box is None and segmentation is None:
        raise Bad("bad annotation", "has neither bbox nor segmentation")
    try:
        crowd = flag(annotation.get("iscrowd"), "iscrowd")
        box = None if box is None else corners(box)
    except ValueError as error:
        raise Bad("bad annotation", str(error)) from None
    try:
        mask = _mask(segmentation, record.size)
    except ValueError as error:
        raise Bad("bad segmentation", f"has a segmentation that can't be used: {error}") from None
    return Object(label, box, mask, crowd)


def _mask(
    segmentation: Any, size: tuple[int, int] | None
) -> Callable[[int, int], Cut | None] | None:
    if segmentation is None:
        return None
    if isinstance(segmentation, list):
        mask = segmentations.of_polygons(segmentation)
        return mask if any(len(polygon) >= 6 for polygon in segmentation) else None
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        raise ValueError(
            f"it is neither a list of polygons nor an RLE. Received: {segmentation!r:.80}"
        )
    mask = segmentations.of_rle(segmentation)
    if size is not None and list(segmentation["size"]) != list(size):
        raise ValueError(
            f"its size is {list(segmentation['size'])}; it should be that of the image, "
            f"{list(size)} (height, width)"
        )
    return mask


# === From records to examples ===


def _prepare(source: Source, parsed: dict[str, CocoJson], data_dir: PathLike | None) -> Any:
    digest = hashlib.sha256(f"coco {CONVERTER_VERSION} {builder_lib.VERSION}".encode())
    for split, records in sorted(source.splits.items()):
        digest.update(f"{split} {parsed[split].sha256}".encode())
        for record in records:
            stat = record.path.stat()
            digest.update(f"{record.filename}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
            if len(record.objects) > builder_lib.MAX_OBJECTS:
                raise ValueError(
                    f"image {record.filename!r} has {len(record.objects)} objects; at most "
                    f"{builder_lib.MAX_OBJECTS} can be stored"
                )
    return builder_lib.prepare(
        name=source.name,
        fingerprint=digest.hexdigest()[:20],
        names=source.names,
        splits={s: (len(r), _generator(r, parsed[s].path)) for s, r in source.splits.items()},
        data_dir=None if data_dir is None else os.fspath(data_dir),
        description="Images with boxes and instances, imported from COCO JSON.",
    )


def _generator(records: list[Record], json_path: Path) -> Any:
    def generate() -> Iterator[tuple[int, dict]]:
        without_area: list[str] = []
        without_mask = total = 0
        for record in records:
            encoded, width, height = _encoded_image(record, json_path)
            boxes, labels, crowd, masks = [], [], [], []
            for item in record.objects:
                try:
                    mask = None if item.mask is None else item.mask(height, width)
                except ValueError as error:
                    raise ValueError(
                        f"{str(json_path)!r}: {item.where} (image {record.filename!r}) has {error}"
                    ) from error
                box = _clipped_box(item.box, mask, height, width)
                if box is None:
                    number = item.where.removeprefix("annotation ")
                    without_area.append(f"{number} ({record.filename})")
                    continue
                total += 1
                without_mask += mask is None
                boxes.append(box)
                labels.append(item.label)
                crowd.append(item.is_crowd)
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


def _encoded_image(record: Record, json_path: Path) -> tuple[bytes, int, int]:
    """The file's own bytes where all decoders read them alike, else a PNG; width and height."""
    content = record.path.read_bytes()
    with open_image(record.path) as image:
        orientation = exif_orientation(image)
        plain = orientation == 1 and image.mode == "RGB" and "transparency" not in image.info
        plain = plain and (image.format == "JPEG" or (image.format == "PNG" and content[24] == 8))
        upright = image.size if orientation < 5 else image.size[::-1]
        stated = upright if record.size is None else record.size[::-1]
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


def _clipped_box(
    box: tuple[float, float, float, float] | None,
    mask: Cut | None,
    height: int,
    width: int,
) -> list[float] | None:
    """The box as xyxy inside the image; `None` if it has no area there."""
    if box is None:
        if mask is None:
            return None
        top, left, pixels = mask
        return [left, top, left + pixels.shape[1], top + pixels.shape[0]]
    x1, y1, x2, y2 = max(box[0], 0.0), max(box[1], 0.0), min(box[2], width), min(box[3], height)
    return [x1, y1, x2, y2] if x2 > x1 and y2 > y1 else None
