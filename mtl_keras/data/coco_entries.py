"""Images and categories that COCO's JSONs list."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mtl_keras.data.coco_json import CocoJson, integer, key_of
from mtl_keras.data.files import is_background, located, unique_names
from mtl_keras.data.records import BadLabels, Problem, Problems, Record


class MissingImages(BadLabels, FileNotFoundError):
    """Images that the labels list and that are not there."""


def categories(
    parsed: Iterable[CocoJson], used: set[int] | None = None
) -> tuple[list[dict], list[str]]:
    """The categories in order of the class ids, and their names without repeats.

    A category that is not in `used` is left out if others name it as their `supercategory`, or if
    it is called `background`.

    Raises:
        BadLabels: If a file lists an id twice, or names one as another file does not.
    """
    found: dict[int, dict] = {}
    for coco in parsed:
        seen = set()
        for i, category in enumerate(coco.categories):
            key = int(category["id"])
            if key in seen:
                message = f"it lists category id {key} twice"
                coco.fail("repeated category id", message, "categories", i)
            seen.add(key)
            if str(found.setdefault(key, category)["name"]) != str(category["name"]):
                message = (
                    f"category id {key} is {found[key]['name']!r} in one split and "
                    f"{category['name']!r} in this one; the splits should share categories"
                )
                coco.fail("contradicting categories", message, "categories", i)
    kept = []
    for key, category in sorted(found.items()):
        is_parent = any(
            other.get("supercategory") == category["name"]
            for other_key, other in found.items()
            if other_key != key
        )
        is_nothing = is_parent or is_background(str(category["name"]))
        if used is None or key in used or not is_nothing:
            kept.append(category)
    names = [str(category["name"]).strip() or f"class_{int(category['id'])}" for category in kept]
    return kept, unique_names(names)


def image_records(
    coco: CocoJson, folder: Path, problems: Problems
) -> tuple[dict[int, Record], set[Any]]:
    """Records of the images of a file, without objects, by id; and ids of images left out.

    Raises:
        FileNotFoundError: If there is no such folder, or, under `strict`, an image is missing.
        BadLabels: Under `strict`, for an entry that can't be used.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no image folder {str(folder)!r}")
    if not coco.images:
        problems.add(coco.path, "no images", "it lists no images; its split is left out")
    records: dict[int, Record] = {}
    index_of: dict[int, int] = {}
    gone: set[Any] = set()
    for i, image in enumerate(coco.images):
        try:
            record = _image_record(image, i, coco.path, folder)
        except ValueError as error:
            image = image if isinstance(image, dict) else {}
            gone.add(key_of(image.get("id")))
            name = image.get("file_name")
            problems.add(
                coco.path,
                "bad image entry",
                str(error),
                coco.line("images", i),
                None if name is None else str(name),
            )
            continue
        key = record.image_id
        if key in records or key in gone:
            first = records.pop(key, None)
            message = (
                f"it lists image id {key} twice; ids should differ, or nobody knows whose the "
                "annotations are"
            )
            for j, one in ((index_of.get(key), first), (i, record)):
                if one is not None:
                    line = coco.line("images", j)
                    problems.add(coco.path, "repeated image id", message, line, one.filename)
            gone.add(key)
            continue
        records[key], index_of[key] = record, i
    _take_out_repeated_files(coco, records, index_of, gone, problems)
    missing = [r for r in records.values() if not r.path.is_file()]
    if missing and problems.on_bad == "strict":
        shown = ", ".join(repr(r.filename) for r in missing[:5]) + (", …" if missing[5:] else "")
        message = f"{len(missing)} of {len(records)} images are not in {str(folder)!r}: {shown}"
        line = coco.line("images", index_of[missing[0].image_id])
        raise MissingImages(Problem(str(coco.path), line, "missing image", message))
    for record in missing:
        message = f"the image {record.filename!r} is not in {str(folder)!r}"
        line = coco.line("images", index_of[record.image_id])
        problems.add(coco.path, "missing image", message, line, record.filename)
        gone.add(record.image_id)
        del records[record.image_id]
    return records, gone


def _take_out_repeated_files(
    coco: CocoJson,
    records: dict[int, Record],
    index_of: dict[int, int],
    gone: set[Any],
    problems: Problems,
) -> None:
    by_name: dict[str, list[int]] = {}
    for key, record in records.items():
        by_name.setdefault(os.path.normpath(record.path), []).append(key)
    for keys in by_name.values():
        for key in keys[1:] and keys:
            record = records.pop(key)
            others = [other for other in keys if other != key]
            message = (
                f"image id {key} is the file {record.filename!r}, and so are {others}; an image "
                "should be listed once, or each entry has but a part of its annotations"
            )
            line = coco.line("images", index_of[key])
            problems.add(coco.path, "repeated file name", message, line, record.filename)
            gone.add(key)


def _image_record(image: Any, index: int, path: Path, folder: Path) -> Record:
    if not isinstance(image, dict):
        raise ValueError(f"images[{index}] should be an object: {image!r:.200}")
    lacking = [key for key in ("id", "file_name") if image.get(key) in (None, "")]
    if lacking:
        raise ValueError(f"images[{index}] lacks {', '.join(lacking)}: {image!r:.200}")
    key = integer(image["id"], "image id")
    size = [
        integer(image[k], f"image {k}") if image.get(k) is not None else 0
        for k in ("height", "width")
    ]
    if min(size) < 0:
        raise ValueError(
            f"image {key} has height {size[0]} and width {size[1]}; neither is below 0"
        )
    name = str(image["file_name"])
    file = located(folder, name)
    if file != folder / name and "\\" in name:
        name = name.replace("\\", "/")
    return Record(
        path=file,
        filename=name,
        image_id=key,
        size=(size[0], size[1]) if min(size) else None,
        where=str(path),
    )
