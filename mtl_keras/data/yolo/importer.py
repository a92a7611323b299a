"""Read YOLO folders: a text file an image, a line an object, in parts of the image's size."""

from __future__ import annotations

import os
from pathlib import Path

from mtl_keras.data.files import relative
from mtl_keras.data.records import Problems, Record, Source
from mtl_keras.data.yolo.data_yaml import yamls_in
from mtl_keras.data.yolo.folders import base_of, images_in, layout_of, names_files, places_of
from mtl_keras.data.yolo.labels import record_of
from mtl_keras.data.yolo.texts import holds_labels, label_folders, some_texts


def read(path: str | os.PathLike, on_bad: str = "strict") -> Source:
    """Read a folder in the layout of YOLO, of Ultralytics or of Darknet.

    What may lie in the folder:

    - `data.yaml` (or one other YAML that holds `names`): `names` as a list or a dict, `train`,
      `val` and `test` as a folder, a text file that lists images, or a list of these. They are
      relative to `path`, or to the YAML where that does not exist; a leading `../` that leads
      nowhere is passed over. Of keypoints (`kpt_shape`) only the boxes are read. PyYAML is needed.
    - Without it, the names stand in `classes.txt` or `obj.names`, a name a line, and the splits are
      the folders `train`, `val` (or `valid`) and `test` in `images/` or beside each other, or
      `obj_train_data` and its like; else all is `train`.
    - The labels of `images/train/x.jpg` are `labels/train/x.txt`, or else `x.txt` beside the image.

    What becomes of the labels:

    - `class cx cy w h` is a box, `class x1 y1 x2 y2 x3 y3 ...` a polygon of three points or more,
      both in [0, 1] of the upright image, that is, with its EXIF orientation applied. The box of a
      polygon is that around its points. A turned box (OBB) is written as a polygon of four points,
      and is read as one.
    - Lines of six columns (with a confidence, as predictions are saved) and polygons with half a
      point (keypoints, or a confidence) are refused. Keypoints without visibility can't be told
      from polygons, unless the YAML says `kpt_shape`.
    - An empty label file: the image holds no object. No label file: the image is not labelled
      (`objects=None`). YOLO itself takes such an image for background.
    - `has_masks` if all objects of an image are polygons. An image without objects has it if there
      are polygons anywhere in the set. An image of boxes and polygons has boxes only, as in YOLO.

    An image is left out whole if one of its lines can't be read, since what is lacking would be
    taught as background. A box of no area, or one outside of the image, covers none of it; such an
    object is left out alone.

    Args:
        path: The folder, or its YAML.
        on_bad: `"strict"`: raise the first problem. `"quarantine"`: list problems.

    Returns:
        A `Source`.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it does not have this layout, or nothing names the classes.
        BadLabels: Under `"strict"`, for the first problem; always for names that can't be read.

    Reference:
        https://docs.ultralytics.com/datasets/detect and .../segment, and
        https://github.com/AlexeyAB/darknet.

    Example:
        ```python
        import pathlib, tempfile
        import numpy as np
        from PIL import Image
        from mtl_keras.data import yolo

        folder = pathlib.Path(tempfile.mkdtemp())
        for part in ("images", "labels"):
            (folder / part).mkdir()
        Image.fromarray(np.zeros((40, 60, 3), "uint8")).save(folder / "images/a.png")
        (folder / "labels/a.txt").write_text("0 0.5 0.5 0.5 0.25")
        (folder / "classes.txt").write_text("cell")
        source = yolo.read(folder)
        assert source.splits["train"][0].objects[0].box == (15.0, 15.0, 45.0, 25.0)
        ```
    """
    path = Path(os.path.normpath(Path(path).expanduser()))
    if not path.exists():
        raise FileNotFoundError(f"there is no folder {str(path)!r}")
    problems = Problems(on_bad)
    found = layout_of(path, problems)
    base = base_of(found)
    splits: dict[str, list[Record]] = {}
    owner: dict[Path, str] = {}
    for split, places in found.splits.items():
        splits[split] = []
        images = [image for place in places for image in images_in(place, found, base, problems)]
        for image_id, (image, file, line) in enumerate(images, 1):
            name = relative(image, base)
            if image in owner:
                kind = "image listed twice" if owner[image] == split else "image in two splits"
                message = f"{name!r} stays in split {owner[image]!r}"
                problems.add(file, kind, message, line)
                continue
            owner[image] = split
            if record := record_of(image, name, image_id, found, problems):
                splits[split].append(record)
    has_polygons = any(
        o.mask is not None for records in splits.values() for r in records for o in r.objects or ()
    )
    for record in (record for records in splits.values() for record in records):
        if record.objects is not None:
            all_polygons = all(o.mask is not None for o in record.objects)
            record.has_masks = has_polygons and all_polygons
    return Source(
        name=found.root.resolve().name or "yolo",
        layout="yolo",
        names=found.names,
        splits=splits,
        problems=problems.found,
        files=found.files,
    )


def recognise(path: str | os.PathLike) -> str | None:
    """Says what was seen if a folder has the layout of YOLO.

    Args:
        path: The folder.

    Returns:
        One sentence, or `None`.

    Example:
        ```python
        import pathlib, tempfile
        from mtl_keras.data import yolo

        folder = pathlib.Path(tempfile.mkdtemp())
        assert yolo.recognise(folder) is None
        (folder / "data.yaml").write_text("names: [cell]\\ntrain: images")
        assert yolo.recognise(folder) == "YOLO: data.yaml names classes and images"
        ```
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        return None
    if yamls := yamls_in(root):
        return f"YOLO: {yamls[0].name} names classes and images"
    for folder in (folder for places in places_of(root).values() for folder in places):
        for labels in label_folders(folder):
            if labels.is_dir() and (labels != folder or names_files(root, [folder])):
                for text in some_texts(labels):
                    if holds_labels(text):
                        shown = Path(os.path.relpath(labels, root)).as_posix()
                        return f"YOLO: a text file an image in {shown}/"
    return None
