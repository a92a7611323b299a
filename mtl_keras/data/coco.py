"""Import images with a COCO JSON: as records, or at once as a TFDS set."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mtl_keras.data import importing, segmentations
from mtl_keras.data.coco_entries import categories, image_records
from mtl_keras.data.coco_files import find_jsons, folders_of, jsons_of
from mtl_keras.data.coco_json import CocoJson, box_problem, corners, flag, key_of
from mtl_keras.data.records import Bad, Cut, Object, Problems, Record, Source

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
      annotation uses is left out if others name it as their `supercategory`, or if it is called
      `background`. Repeated names get a number (`"facade"`, `"facade_2"`).
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
    return _read(path, images, Problems(on_bad))


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
    on_bad: str = "strict",
) -> Any:
    """Import images annotated in COCO's JSON format; prepared once, found again afterwards.

    The set is written as TFDS shards under `data_dir`, in a folder named by a fingerprint of the
    JSON files, of the images' names, sizes and modification times, and of this converter. A second
    call with the same data returns at once; a call with changed data prepares a new set.

    What becomes of the annotations is said at `mtl_keras.data.coco.read`; and:

    - Segmentations are painted into one map of instances, large ones first, so that small ones
      that lie on them stay visible. An object without a segmentation keeps its box; if other
      objects of its image have one, pixels of its box that none of them covers are ignored, neither
      object nor background. A warning counts such objects.
    - An annotation without `bbox` gets the box around its segmentation. Boxes are clipped to the
      image; those of no area afterwards are left out, also under `"strict"`, since there is nothing
      to learn from them: a warning counts them, and `quarantined` lists them.
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
        on_bad: what to do with what can't be used: `"strict"` stops at the first and names it;
            `"quarantine"` leaves such images out, and `quarantined` lists them.

    Returns:
        A prepared TFDS builder with the features of `mtl_keras.data.builder.features`: `image`
        (uint8 RGB), `image/filename`, `image/id`, `objects` (a sequence of `bbox`, float32 xyxy in
        pixels; `label`; `is_crowd`), `instances` (uint16: 0 where there is no object, i + 1 where
        `objects[i]` lies, 65535 where nobody knows) and `labelled`. The names of the classes are
        `builder.info.features["objects"]["label"].names`.

    Raises:
        FileNotFoundError: if a JSON, an image folder or an image is missing.
        BadLabels: under `"strict"`, for the first problem; for an unreadable JSON, always. It is a
            `ValueError`.
        ValueError: if `json` and `images` are of different splits, or no image is left.

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
    source = _read(jsons, images, Problems(on_bad, _EMPTY))
    source.name = name or source.name
    builder = importing.prepare(source, data_dir, on_bad, _EMPTY)
    objects = [o for records in source.splits.values() for r in records for o in r.objects]
    without = [o for o in objects if o.mask is None]
    if without and len(without) < len(objects):
        warnings.warn(
            f"{len(without)} of {len(objects)} annotations of the set {source.name!r} have no "
            f"segmentation of any area, the first is {without[0].where}; they keep their boxes, "
            "and masks are ignored where they lie",
            stacklevel=2,
        )
    return builder


# Kinds of problems of objects from which there is nothing to learn.
_EMPTY = ("box without area", "box outside")


def _read(path: Any, images: Any, problems: Problems) -> Source:
    jsons, root = jsons_of(path)
    parsed = {split: CocoJson.read(one) for split, one in jsons.items()}
    folders = folders_of(parsed, images, root)
    used = set()
    for coco in parsed.values():
        entries = (a for a in coco.annotations if isinstance(a, dict))
        used |= coco.category_ids() & {key_of(a.get("category_id")) for a in entries}
    kept, names = categories(parsed.values(), used)
    class_of = {int(category["id"]): i for i, category in enumerate(kept)}
    first = next(iter(parsed.values())).path
    return Source(
        name=(first.parent if root is None else root).resolve().name or "coco",
        layout="coco",
        names=names,
        splits={
            split: _records(coco, folders[split], class_of, problems)
            for split, coco in parsed.items()
        },
        problems=problems.found,
        files=[coco.path for coco in parsed.values()],
    )


def _records(
    coco: CocoJson, folder: Path, class_of: dict[int, int], problems: Problems
) -> list[Record]:
    records, gone = image_records(coco, folder, problems)
    class_of = {key: class_of[key] for key in coco.category_ids() if key in class_of}
    spoiled: set[int] = set()
    first_of: dict[Any, int] = {}
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
        if not lacking and annotation.get("id") is not None:
            where = f"annotation {annotation['id']}"
        whole = True
        try:
            if lacking:
                raise Bad("bad annotation", f"lacks {', '.join(lacking)}: {annotation!r:.200}")
            if record is None:
                message = f"has the unknown image id {annotation['image_id']!r:.100}"
                raise Bad("unknown image id", message)
            item = _object(annotation, record, class_of, coco)
            item.where = where
            wrong = None if item.box is None else box_problem(item.box, record.size)
            if wrong is not None:
                whole = wrong[0] == "reversed box"
                raise Bad(*wrong)
            if _is_repeated(annotation, i, first_of, coco):
                whole = False
                raise Bad("repeated annotation", "is written twice; one of them is left out")
            record.objects.append(item)
        except Bad as bad:
            filename = None if record is None else record.filename
            of_image = "" if record is None or lacking else f" (image {filename!r})"
            message, line = f"{where}{of_image} {bad}", coco.line("annotations", i)
            problems.add(coco.path, bad.kind, message, line, filename if whole else None)
            if whole:
                spoiled.add(image_id)
    with_masks = any(o.mask is not None for r in records.values() for o in r.objects)
    for record in records.values():
        masks = [item.mask is not None for item in record.objects]
        record.has_masks = any(masks) if masks else with_masks
    return [r for key, r in records.items() if key not in spoiled]


def _is_repeated(annotation: dict, index: int, first_of: dict[Any, int], coco: CocoJson) -> bool:
    """Whether an annotation is the same as an earlier one, id and all.

    Raises:
        Bad: If one of the same id is another.
    """
    if annotation.get("id") is None:
        return False
    first = first_of.setdefault(key_of(annotation["id"]), index)
    if first == index:
        return False
    if coco.annotations[first] == annotation:
        return True
    raise Bad(
        "repeated annotation id",
        f"has the id of annotations[{first}], which is another; ids should differ",
    )


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
