"""From what an importer read to a prepared set; what can't be used is named, and kept in a list."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mtl_keras.data import builder as builder_lib
from mtl_keras.data.images import exif_orientation, open_image, pil_to_rgb
from mtl_keras.data.records import BadLabels, Cut, Object, Problem, Problems, Record, Source

CONVERTER_VERSION = "1"
QUARANTINE = "quarantine.json"


def prepare(
    source: Source, data_dir: str | os.PathLike | None = None, on_bad: str = "strict"
) -> Any:
    """Prepares a set once, and finds it again by the content of its labels and images.

    Args:
        source: What an importer read.
        data_dir: Folder of prepared sets, by default TFDS's own.
        on_bad: `"strict"`: the first image or annotation that can't be used is raised.
            `"quarantine"`: such images are left out and listed, see `quarantined`.

    Returns:
        A prepared TFDS builder, see `mtl_keras.data.builder.features`.

    Raises:
        BadLabels: Under `"strict"`.
        ValueError: If no image is left, or `on_bad` is something else.
    """
    problems = Problems(on_bad)
    problems.found = list(source.problems)
    left_out: dict[str, list[str]] = {split: [] for split in source.splits}
    splits = {
        split: (len(records), _generator(source, split, problems, left_out[split]))
        for split, records in source.splits.items()
        if records
    }
    if not splits:
        raise ValueError(f"the set {source.name!r} ({source.layout}) has no image that can be used")
    builder = builder_lib.prepare(
        name=source.name,
        fingerprint=fingerprint(source, on_bad),
        names=labels_of(source),
        splits=splits,
        data_dir=None if data_dir is None else os.fspath(data_dir),
        description=f"Images with labels, imported from {source.layout}.",
    )
    folder = Path(builder.data_dir)
    if problems.found and not (folder / QUARANTINE).exists():
        listed = [dataclasses.asdict(problem) for problem in problems.found]
        (folder / QUARANTINE).write_text(json.dumps(listed, indent=1), "utf-8")
        (folder / builder_lib.LEFT_OUT).write_text(json.dumps(left_out), "utf-8")
    if found := quarantined(builder):
        warnings.warn(
            f"{len(found)} problem{'s' * (len(found) > 1)} in the set {source.name!r}; what it "
            "concerns is left out. "
            f"mtl_keras.data.quarantined(builder) lists them. The first: {found[0]}",
            stacklevel=3,
        )
    return builder


def quarantined(builder: Any) -> list[Problem]:
    """Lists what was left out of a set that was imported with `on_bad="quarantine"`.

    Args:
        builder: A prepared builder.

    Returns:
        List of `Problem`, empty if all was used.

    Example:

    ```python
    import tempfile
    import mtl_keras as mtl

    builder = mtl.data.digits(train=2, val=1, image_size=(64, 64), data_dir=tempfile.mkdtemp())
    assert mtl.data.quarantined(builder) == []
    ```
    """
    path = Path(builder.data_dir) / QUARANTINE
    return [Problem(**p) for p in json.loads(path.read_text("utf-8"))] if path.exists() else []


def labels_of(source: Source) -> builder_lib.Labels:
    """Says what the images of a source are labelled with."""
    counts = {}
    for split, records in source.splits.items():
        kinds = [kind for record in records for kind, here in labelled(record).items() if here]
        kinds += [column for record in records for column in record.values]
        counts[split] = {kind: kinds.count(kind) for kind in (*builder_lib.KINDS, *source.columns)}
    has_mask = any(r.mask is not None for records in source.splits.values() for r in records)
    mask_names = (source.mask_names or source.names) if has_mask else None
    return builder_lib.Labels(
        names=tuple(source.names),
        mask_names=None if mask_names is None else tuple(mask_names),
        columns={k: None if v is None else tuple(v) for k, v in source.columns.items()},
        counts=counts,
    )


def labelled(record: Record) -> dict[str, bool]:
    """Says which kinds of labels an image has."""
    has_objects = record.objects is not None
    instances = has_objects and record.has_masks
    return {
        "boxes": has_objects,
        "instances": instances,
        "mask": record.mask is not None or instances,
    }


def fingerprint(source: Source, on_bad: str) -> str:
    """A text that changes whenever the labels, the images or their conversion do."""
    about = [CONVERTER_VERSION, builder_lib.VERSION, source.layout, on_bad, source.names]
    about += [source.mask_names, source.columns]
    digest = hashlib.sha256(json.dumps(about).encode())
    root = os.path.commonpath(source.files) if source.files else ""
    for path in sorted(source.files):
        digest.update(f"\0{os.path.relpath(path, root)}\0".encode())
        digest.update(path.read_bytes())
    for split, records in sorted(source.splits.items()):
        for record in records:
            digest.update(f"\0{split}\0{record.filename}".encode())
            if record.path.is_file():
                stat = record.path.stat()
                digest.update(f"\0{stat.st_size}\0{stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:20]


def _generator(source: Source, split: str, problems: Problems, left_out: list[str]) -> Any:
    records, columns = source.splits[split], source.columns
    has_mask = labels_of(source).mask_names is not None

    def generate() -> Iterator[tuple[int, dict]]:
        left_out.clear()
        for record in records:
            found = usable(record, problems)
            if found is None:
                left_out.append(record.filename)
                continue
            yield record.image_id, _example(record, found, columns, has_mask)

    return generate


@dataclasses.dataclass
class Opened:
    """What is used of one image: its pixels, and its labels inside of them.

    Attributes:
        content: The file, as it is.
        plain: Whether all decoders read the file alike, so that it can be stored as it is.
        pixels: uint8 array `(height, width, 3)`, upright.
        format: Format of the file, as Pillow names it: "JPEG".
        mode: Mode of the file's pixels, as Pillow names it: "RGB", "L", "I;16".
        orientation: EXIF orientation, 1 to 8.
        objects: The objects that have an area inside of the image.
        boxes: Their boxes, xyxy in pixels, clipped to the image.
        cuts: Their masks, `None` where they have none.
        mask: The record's own mask, uint8 `(height, width)`, or `None`.
    """

    content: bytes
    plain: bool
    pixels: np.ndarray
    format: str
    mode: str
    orientation: int
    objects: list[Object] = dataclasses.field(default_factory=list)
    boxes: list[list[float]] = dataclasses.field(default_factory=list)
    cuts: list[Cut | None] = dataclasses.field(default_factory=list)
    mask: np.ndarray | None = None

    def instances(self) -> np.ndarray:
        """The map of instances, see `builder.paint_instances`."""
        crowd = [item.is_crowd for item in self.objects]
        return builder_lib.paint_instances(self.pixels.shape[:2], self.cuts, crowd, self.boxes)

    def class_map(self, instances: np.ndarray) -> np.ndarray:
        """The class of each pixel: of the mask, where there is one, else of the instances."""
        if self.mask is not None:
            return self.mask
        classes = [255 if item.is_crowd else item.label + 1 for item in self.objects]
        table = np.full(builder_lib.IGNORED + 1, 255, np.uint8)
        table[: len(classes) + 1] = [0, *classes]
        return table[instances]


def usable(record: Record, problems: Problems) -> Opened | None:
    """Opens an image and its labels; `None` if the image has to be left out.

    This is all that decides, beside the importers, what a set leaves out.

    Args:
        record: An image with its labels.
        problems: Where problems are noted, of the whole image and of single objects.

    Returns:
        An `Opened`, or `None`.

    Raises:
        BadLabels: Where `problems` is strict.
    """
    try:
        return _opened(record, problems)
    except BadLabels as error:
        found = dataclasses.replace(error.problem, image=record.filename)
        problems.add(found.file, found.kind, found.message, found.line, found.image)
    except (ValueError, OSError) as error:
        problems.add(record.path, _kind(record, error), str(error), image=record.filename)
    return None


def _kind(record: Record, error: Exception) -> str:
    if not record.path.is_file():
        return "missing image"
    return "unusable image" if str(record.path) in str(error) else "unusable label"


def _opened(record: Record, problems: Problems) -> Opened:
    found = opened_image(record)
    height, width = found.pixels.shape[:2]
    for item in record.objects or ():
        cut = item.mask(height, width) if item.mask is not None else None
        box = clipped_box(item, cut, height, width)
        if box is None:
            problems.add(
                record.where or record.path,
                "box without area",
                f"{item.where} (image {record.filename!r}) has no area inside of the image of "
                f"{width} x {height} pixels; its box is {item.box}",
            )
            continue
        found.boxes.append(box)
        found.objects.append(item)
        found.cuts.append(cut)
    if len(found.objects) > builder_lib.MAX_OBJECTS:
        raise ValueError(
            f"it has {len(found.objects)} objects; at most {builder_lib.MAX_OBJECTS} can be stored"
        )
    if record.mask is not None:
        found.mask = np.asarray(record.mask(height, width), np.uint8)
    return found


def _example(record: Record, found: Opened, columns: dict, has_mask: bool) -> dict:
    shape = found.pixels.shape[:2]
    crowd = [item.is_crowd for item in found.objects]
    here = labelled(record)
    instances = found.instances() if here["instances"] else np.zeros(shape, np.uint16)
    mask = None
    if has_mask:
        mask = found.class_map(instances) if here["mask"] else np.full(shape, 255, np.uint8)
    values = {column: float(record.values.get(column, np.nan)) for column in columns}
    return builder_lib.example(
        found.content if found.plain else builder_lib.png_bytes(found.pixels),
        record.filename,
        record.image_id,
        np.array(found.boxes, np.float32),
        [item.label for item in found.objects],
        crowd,
        instances,
        mask,
        here,
        values if columns else None,
    )


def opened_image(record: Record) -> Opened:
    """The image of a record, without labels.

    An image turned by its EXIF orientation becomes upright, unless only its form before turning
    has the size that the labels state.

    Raises:
        ValueError: If the image can't be read, or has another size than its labels state.
    """
    content = record.path.read_bytes()
    with open_image(record.path) as image:
        orientation = exif_orientation(image)
        mode, kind = image.mode, image.format or ""
        plain = orientation == 1 and mode == "RGB" and "transparency" not in image.info
        plain = plain and (kind == "JPEG" or (kind == "PNG" and content[24] == 8))
        before = image.size[::-1]
        upright = before if orientation < 5 else image.size
        stated = record.size or upright
        if tuple(stated) not in (upright, before):
            raise ValueError(
                f"the image {str(record.path)!r} is {upright[1]} x {upright[0]} pixels (width x "
                f"height), but {record.where or 'its labels'} say {stated[1]} x {stated[0]}; the "
                "labels would not fit it"
            )
        what = f"the image {str(record.path)!r}"
        pixels = pil_to_rgb(image, what, upright=tuple(stated) == upright)
    return Opened(content, plain, pixels, kind, mode, orientation)


def clipped_box(item: Object, cut: Cut | None, height: int, width: int) -> list[float] | None:
    """The box as xyxy inside of the image; `None` if it has no area there."""
    if item.box is None:
        if cut is None:
            return None
        top, left, pixels = cut
        return [left, top, left + pixels.shape[1], top + pixels.shape[0]]
    x0, y0, x1, y1 = item.box
    x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, width), min(y1, height)
    return [x0, y0, x1, y1] if x1 > x0 and y1 > y0 else None
