"""Read COCO panoptic segmentation: a JSON, and for each image a PNG of its segments."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from mtl_keras.data import segmentations
from mtl_keras.data.coco_entries import categories, image_records
from mtl_keras.data.coco_files import find_jsons, folders_of, jsons_of, mask_places
from mtl_keras.data.coco_json import CocoJson, box_problem, corners, flag, integer, key_of
from mtl_keras.data.files import located
from mtl_keras.data.images import open_image
from mtl_keras.data.records import Bad, Cut, Object, Problems, Record, Source

VOID = 255
MOST_CLASSES = 254
PathLike = str | os.PathLike
Places = PathLike | Mapping[str, PathLike]


def read(
    path: Places,
    images: Places | None = None,
    masks: Places | None = None,
    on_bad: str = "strict",
) -> Source:
    """Read images annotated in COCO's panoptic format.

    In a folder, the JSONs are looked for as those of `mtl_keras.data.coco.read`; the PNGs in a
    folder named as the JSON (`annotations/panoptic_train2017/`), in `panoptic/`, `masks/` or
    beside the JSON.

    What becomes of the annotations:

    - Things (categories with `isthing` 1) become objects with a mask and the `bbox` of their
      segment; `names` are theirs. Class ids are the category ids in increasing order.
    - Things and stuff together become the classes of pixels; `mask_names` are those of all
      categories. A crowd keeps its class there. Pixels of id 0 belong to nothing and are 255, to
      be ignored. No pixel is background.
    - An image without annotation has no labels, neither objects nor classes of pixels.

    What can't be used under `"quarantine"`:

    - The image is left out for an entry without id or name, an id that two images have, a missing
      file or PNG, a PNG that is not RGB or of the image's size, two annotations, a segment without
      id, an id that two segments have, an unknown category, a box that is not four finite numbers
      or whose width or height is negative.
    - A box of no area or outside of the image is passed over and listed; the box around the mask
      stands in for it.
    - Only the annotation is left out if the JSON does not list its image.
    - A JSON that can't be read, lacks a list, or contradicts itself or another split on the
      categories is always an error.

    What only the pixels tell is checked when a mask is asked for, and raises a `ValueError` there:
    a damaged PNG, ids in it that no segment has, and segments without pixels.

    Args:
        path: Folder, or path of one JSON, or a dict from split names to paths of JSONs.
        images: Folder of the images that the `file_name` of images is relative to, or a dict with
            one for each split. By default it is looked for.
        masks: Folder of the PNGs that the `file_name` of annotations is relative to, likewise.
        on_bad: `"strict"` raises the first problem, `"quarantine"` lists all.

    Returns:
        A `Source` of layout "coco_panoptic".

    Raises:
        BadLabels: Under `"strict"`, for the first problem; for an unreadable JSON, always. It is a
            `FileNotFoundError` too if images are missing.
        FileNotFoundError: If a folder or JSON is missing, or no folder with the images or PNGs is
            found.
        ValueError: If the folder holds no panoptic JSON, or several of one split.

    Reference:
        Kirillov et al., "Panoptic Segmentation", CVPR 2019; https://cocodataset.org/#format-data.

    Example:
        ```python
        import json, pathlib, tempfile
        import numpy as np
        from PIL import Image
        from mtl_keras.data import coco_panoptic

        folder = pathlib.Path(tempfile.mkdtemp())
        for part in ("images", "panoptic_train"):
            (folder / part).mkdir()
        Image.fromarray(np.zeros((40, 60, 3), "uint8")).save(folder / "images" / "a.jpg")
        ids = np.zeros((40, 60, 3), "uint8")
        ids[:20, :, 0], ids[25:30, 5:9, 1] = 7, 1
        Image.fromarray(ids).save(folder / "panoptic_train" / "a.png")
        (folder / "panoptic_train.json").write_text(json.dumps({
            "images": [{"id": 1, "file_name": "a.jpg", "width": 60, "height": 40}],
            "categories": [{"id": 1, "name": "cell", "isthing": 1},
                           {"id": 2, "name": "sky", "isthing": 0}],
            "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": [
                {"id": 7, "category_id": 2},
                {"id": 256, "category_id": 1, "bbox": [5, 25, 4, 5], "iscrowd": 0}]}],
        }))
        source = coco_panoptic.read(folder)
        assert source.names == ["cell"] and source.mask_names == ["cell", "sky"]
        classes = source.splits["train"][0].mask(40, 60)
        assert (classes[0, 0], classes[25, 5], classes[39, 59]) == (2, 1, 255)
        ```
    """
    problems = Problems(on_bad)
    jsons, root = jsons_of(path, panoptic=True)
    parsed = {split: CocoJson.read(one) for split, one in jsons.items()}
    image_folders = folders_of(parsed, images, root, "images")
    mask_folders = folders_of(parsed, masks, root, "masks")
    kept, names = categories(parsed.values())
    is_thing = _is_thing(parsed)
    if len(kept) > MOST_CLASSES:
        raise ValueError(
            f"{str(next(iter(jsons.values())))!r} lists {len(kept)} categories; at most "
            f"{MOST_CLASSES} classes of pixels can be told apart"
        )
    class_of = {int(category["id"]): i for i, category in enumerate(kept)}
    things = [key for key in class_of if is_thing[key]]
    thing_of = {key: i for i, key in enumerate(things)}
    splits = {
        split: _records(
            coco, image_folders[split], mask_folders[split], class_of, thing_of, problems
        )
        for split, coco in parsed.items()
    }
    first = next(iter(jsons.values()))
    left = [record for records in splits.values() for record in records]
    return Source(
        name=(first.parent if root is None else root).resolve().name or "coco_panoptic",
        layout="coco_panoptic",
        names=[names[class_of[key]] for key in things],
        splits=splits,
        mask_names=names,
        problems=problems.found,
        files=[*jsons.values(), *(r.mask.args[0] for r in left if r.mask is not None)],
    )


def recognise(path: PathLike) -> str | None:
    """Say whether a folder has this layout.

    Args:
        path: The folder.

    Returns:
        A sentence on what was seen, or `None`.

    Example:
        ```python
        import tempfile
        from mtl_keras.data import coco_panoptic

        assert coco_panoptic.recognise(tempfile.mkdtemp()) is None
        ```
    """
    folder = Path(path)
    if not folder.is_dir():
        return None
    try:
        jsons = find_jsons(folder, panoptic=True)
    except ValueError as error:
        return f"COCO panoptic JSONs, but {error}"
    for one in jsons.values():
        for place in mask_places(one):
            for base in (one.parent, folder):
                if any((base / place).glob("*.png")):
                    shown = ", ".join(j.relative_to(folder).as_posix() for j in jsons.values())
                    inside = (base / place).relative_to(folder).as_posix()
                    return f"COCO panoptic JSON: {shown}; PNGs of segments in {inside}/"
    return None


def _is_thing(parsed: dict[str, CocoJson]) -> dict[int, bool]:
    found: dict[int, bool] = {}
    for coco in parsed.values():
        for i, category in enumerate(coco.categories):
            key, value = int(category["id"]), category.get("isthing")
            if value not in (0, 1):
                message = (
                    f"category {category['name']!r} has isthing {value!r:.100}; it should be 1 "
                    "(objects that are told apart) or 0 (stuff)"
                )
                coco.fail("bad category", message, "categories", i)
            if found.setdefault(key, bool(value)) != bool(value):
                message = f"category {category['name']!r} is a thing in one split and stuff in this"
                coco.fail("contradicting categories", message, "categories", i)
    return found


def _records(
    coco: CocoJson,
    image_folder: Path,
    mask_folder: Path,
    class_of: dict[int, int],
    thing_of: dict[int, int],
    problems: Problems,
) -> list[Record]:
    records, gone = image_records(coco, image_folder, problems)
    own = coco.category_ids()
    class_of = {key: i for key, i in class_of.items() if key in own}
    labelled: set[Any] = set()
    spoiled: set[Any] = set()
    for i, annotation in enumerate(coco.annotations):
        image_id = key_of(annotation.get("image_id")) if isinstance(annotation, dict) else None
        record = records.get(image_id)
        if record is None and image_id in gone:
            continue
        filename = None if record is None else record.filename
        of_image = "" if record is None else f" (image {filename!r})"
        where = f"annotations[{i}]{of_image}"

        def note(kind: str, message: str, image: str | None, where=where, i=i) -> None:
            line = coco.line("annotations", i)
            problems.add(coco.path, kind, f"{where} {message}", line, image)

        if record is None:
            got = annotation.get("image_id") if isinstance(annotation, dict) else annotation
            note("unknown image id", f"has the unknown image id {got!r:.100}", None)
            continue
        try:
            if image_id in labelled:
                raise Bad("repeated annotation", "is the second of its image; one is right")
            labelled.add(image_id)
            png, segments = _segments(annotation, mask_folder, record, class_of)
        except Bad as bad:
            note(bad.kind, str(bad), filename)
            spoiled.add(image_id)
            continue
        classes = {key: class_of[segment["category_id"]] + 1 for key, segment in segments.items()}
        record.mask = partial(_classes, png, classes)
        record.has_masks = bool(thing_of)
        record.objects = [] if thing_of else None
        for key, segment in segments.items():
            if segment["category_id"] not in thing_of:
                continue
            box = segment["box"]
            wrong = None if box is None else box_problem(box, record.size)
            if wrong is not None:
                whole = wrong[0] == "reversed box"
                note(wrong[0], f"has segment {key}, which {wrong[1]}", filename if whole else None)
                if whole:
                    spoiled.add(image_id)
                box = None
            record.objects.append(
                Object(
                    label=thing_of[segment["category_id"]],
                    box=box,
                    mask=partial(_pixels, png, key),
                    is_crowd=segment["is_crowd"],
                    where=f"segment {key} of {png.name}",
                )
            )
    return [record for key, record in records.items() if key not in spoiled]


def _segments(
    annotation: dict, folder: Path, record: Record, class_of: dict[int, int]
) -> tuple[Path, dict[int, dict]]:
    """The PNG of an annotation, and its segments by their ids, all checked but the pixels.

    Raises:
        Bad: If it can't be used.
    """
    name, infos = annotation.get("file_name"), annotation.get("segments_info")
    if not isinstance(name, str) or not name or not isinstance(infos, list):
        raise Bad("bad annotation", "should have a file_name and a list segments_info")
    png = located(folder, name)
    if not png.is_file():
        raise Bad("missing mask", f"has the PNG {name!r}, which is not in {str(folder)!r}")
    _check_header(png, record.size)
    segments: dict[int, dict] = {}
    for info in infos:
        info = info if isinstance(info, dict) else {}
        try:
            key = integer(info.get("id"), "segment id")
            if not 0 < key < 256**3:
                raise ValueError(f"every segment id should be from 1 to {256**3 - 1}, got {key}")
        except ValueError as error:
            raise Bad("bad segment", f"has a segment that can't be used: {error}") from None
        if key in segments:
            raise Bad("repeated segment id", f"has segment id {key} twice")
        category = key_of(info.get("category_id"))
        if category not in class_of:
            raise Bad(
                "unknown category id",
                f"has segment {key} of the unknown category id {info.get('category_id')!r:.100}; "
                f"the categories are {sorted(class_of)!r:.200}",
            )
        box = info.get("bbox")
        try:
            segments[key] = {
                "category_id": category,
                "is_crowd": flag(info.get("iscrowd"), "iscrowd"),
                "box": None if box is None else corners(box),
            }
        except ValueError as error:
            raise Bad("bad segment", f"has segment {key}, which {error}") from None
    return png, segments


def _check_header(png: Path, size: tuple[int, int] | None) -> None:
    try:
        with open_image(png) as image:
            mode, found = image.mode, image.size[::-1]
    except ValueError as error:
        raise Bad("damaged mask", f"has a PNG that can't be read: {error}") from None
    if mode not in ("RGB", "RGBA"):
        raise Bad("bad mask", f"has the PNG {str(png)!r} of mode {mode}; it should be RGB")
    if size is not None and found != size:
        raise Bad(
            "mask of another size",
            f"has the PNG {str(png)!r} of {found[1]} x {found[0]} pixels (width x height); it "
            f"should be that of the image, {size[1]} x {size[0]}",
        )


def _classes(png: Path, classes: dict[int, int], height: int, width: int) -> np.ndarray:
    """Classes of pixels, from the value of each segment id."""
    ids = _ids_of(png, height, width)
    found, inverse = np.unique(ids, return_inverse=True)
    there = {int(key) for key in found} - {0}
    for keys, message in (
        (there - set(classes), "holds ids that no segment has"),
        (set(classes) - there, "holds no pixel of segments"),
    ):
        if keys:
            raise ValueError(f"{str(png)!r} {message}: {sorted(keys)!r:.100}")
    values = np.array([classes[int(key)] if key else VOID for key in found], np.uint8)
    return values[inverse.reshape(ids.shape)]


def _pixels(png: Path, key: int, height: int, width: int) -> Cut | None:
    """Pixels of one segment."""
    found = segmentations.cut(_ids_of(png, height, width) == key)
    if found is None:
        raise ValueError(f"{str(png)!r} holds no pixel of segments: [{key}]")
    return found


def _ids_of(png: Path, height: int, width: int) -> np.ndarray:
    stat = png.stat()
    ids = _read_ids(png, stat.st_mtime_ns, stat.st_size)
    if ids.shape != (height, width):
        raise ValueError(
            f"{str(png)!r} is of {ids.shape[1]} x {ids.shape[0]} pixels (width x height); it "
            f"should be that of the image, {width} x {height}"
        )
    return ids


@lru_cache(maxsize=16)  # all objects of an image ask for the same PNG; threads have one each
def _read_ids(png: Path, modified: int, size: int) -> np.ndarray:
    with open_image(png) as image:
        if image.mode not in ("RGB", "RGBA"):
            raise ValueError(f"{str(png)!r} is of mode {image.mode}; it should be RGB")
        try:
            pixels = np.asarray(image).astype(np.int32)
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{str(png)!r} is damaged or cut short: {error}") from error
    return pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2]
