"""Import images that lie beside masks: of classes, of instances, or a mask an instance."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mtl_keras.data.mask_folders.labels import add_files, add_mask
from mtl_keras.data.mask_folders.meaning import Reading, decide, object_names
from mtl_keras.data.mask_folders.pairs import items_of
from mtl_keras.data.mask_folders.pixels import look
from mtl_keras.data.mask_folders.places import places_of, visible_folders
from mtl_keras.data.mask_folders.tables import read_tables
from mtl_keras.data.records import Problems, Record, Source

LAYOUT = "mask_folders"
MASKS = ("auto", "classes", "instances", "binary")


@dataclass
class MaskSource(Source):
    """A `Source` that says what the masks were taken for.

    Attributes:
        kind: `"binary"`, `"classes"`, `"colours"`, `"instances"` or `"instance files"`.
        notes: Sentences on how the masks were read, and on what was assumed.
    """

    kind: str = ""
    notes: list[str] = field(default_factory=list)


def read(path: str | os.PathLike, on_bad: str = "strict", masks: str = "auto") -> MaskSource:
    """Reads a folder of images beside masks. Every mask is opened, of images only the size.

    Where the files lie:

    - `images/` beside `masks/` (or `labels`, `annotations`, `gt`, `SegmentationClass`, ...), with
      folders `train`, `val`, `test` above or below; or `train/` beside `train_masks/`. Without such
      folders all is split `"train"`; but where `ImageSets/Segmentation/` lists train, val or test,
      its lists are the splits.
    - A mask has the name of its image, perhaps with `_mask`, `_label`, `_gt` or `_seg` after it;
      with it, it may lie beside the image, as `train/a.jpg` and `train/a_mask.png`.
    - An instance a file: `masks/<image>/*.png`, or `<id>/images/<id>.png` and `<id>/masks/*.png`,
      as in the Data Science Bowl of 2018.

    What the masks are is found out from all files together, and said in `notes`:

    - Binary: values 0 and 255, or 0 and 1. The class is `"foreground"`.
    - Classes: grey masks of 8 bits and palette masks hold indices; colours of a palette are never
      looked at. 0 is background, 255 is ignored. Names are in `classes.txt` (or `labels.txt`, ...):
      if one of them is `background`, or `void` (ignored), the first line is the name of value 0;
      else it is that of value 1. Lines such as `0 road` say it themselves. Without names, they are
      `"class_1"`, `"class_2"`, ..., for values of 64 at most.
    - Colours: RGB masks, with a table of names and colours (`class_dict.csv`, `labelmap.txt`,
      `classes.txt` with `name r g b`). Black is background if the table does not list it. Without a
      table, the distinct colours in sorted order are classes such as `"rgb_128_0_0"`, 64 at most.
      Transparent pixels are black.
    - Instances: masks of 16 bits, and an instance a file. 0 is background, every other value an
      object. The class is `"object"`, or the one in `classes.txt`.

    Binary masks and masks of classes give `Record.mask` and no objects. An image without a mask, or
    with an empty folder of instances, is not labelled. A mask of instances that is 0 everywhere
    says that there are none.

    Args:
        path: The folder.
        on_bad: `"strict"` or `"quarantine"`; see `records.py`.
        masks: `"auto"`; or what they are: `"classes"`, `"instances"` (ids of 8 bits look like
            classes), or `"binary"` (one value other than 0 a file, whichever it is).

    Returns:
        A `MaskSource`.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it has another layout, if what the masks mean can't be told, or if `masks` is
            something else.
        BadLabels: For a list of names that can't be read; under `"strict"`, for the first mask that
            can't be used.

    Example:
        ```python
        import pathlib, tempfile
        import numpy as np
        from PIL import Image
        from mtl_keras.data import mask_folders

        folder = pathlib.Path(tempfile.mkdtemp())
        for part in ("images", "masks"):
            (folder / part).mkdir()
        Image.fromarray(np.zeros((4, 6, 3), "uint8")).save(folder / "images/a.jpg")
        Image.fromarray(np.eye(4, 6, dtype="uint8") * 255).save(folder / "masks/a_mask.png")
        source = mask_folders.read(folder)
        assert source.kind == "binary" and source.mask_names == ["foreground"]
        (record,) = source.splits["train"]
        assert record.mask(4, 6).sum() == 4
        ```
    """
    if masks not in MASKS:
        raise ValueError(f"`masks` must be one of {MASKS}. Received: masks={masks!r}")
    problems = Problems(on_bad)
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {str(root)!r}")
    places, notes = places_of(root)
    if not places:
        raise ValueError(
            f"{str(root)!r} has no folder of images (such as 'images') beside one of masks (such "
            "as 'masks'), nor folders <id>/images beside <id>/masks"
        )
    items = items_of(root, places, problems, notes)
    parts = {item.parts for item in items if item.masks}
    if not parts:
        raise ValueError(
            f"no mask below {str(root)!r} has the name of an image, as in 'images/a.jpg' and "
            "'masks/a.png' or 'masks/a_mask.png'"
        )
    if len(parts) > 1:
        raise ValueError(
            f"{str(root)!r} holds folders of masks, an instance a file, beside masks of whole "
            "images; keep the one or the other"
        )
    tables = read_tables(root, places)
    if parts == {True}:
        reading = Reading("instance files", "codes", object_names(tables))
        if masks not in ("auto", "instances"):
            raise ValueError(
                f"`masks` must be 'auto' or 'instances' where each instance is a file. Received: "
                f"masks={masks!r}"
            )
        notes.insert(0, "Each file in an image's folder is the mask of one instance.")
        seen = {}
    else:
        seen = look(items, problems)
        reading = decide(list(seen.values()), tables, masks)
        notes[:0] = reading.notes
    splits: dict[str, list[Record]] = {place.split: [] for place in places}
    counts: Counter = Counter()
    for item in items:
        image_id = counts[item.split]
        counts[item.split] += 1
        record = Record(item.path, item.filename, image_id)
        if item.bad or any(mask in seen and seen[mask] is None for mask in item.masks):
            continue
        if item.masks:
            if reading.kind == "instance files":
                usable = add_files(record, item, problems)
            else:
                usable = add_mask(record, item, seen[item.masks[0]], reading, problems)
            if not usable:
                continue
        splits[item.split].append(record)
    objects = reading.kind in ("instances", "instance files")
    return MaskSource(
        name=root.resolve().name,
        layout=LAYOUT,
        names=reading.names if objects else [],
        splits=splits,
        mask_names=None if objects else reading.names,
        problems=problems.found,
        files=[table.path for table in tables] + [m for item in items for m in item.masks],
        kind=reading.kind,
        notes=notes,
    )


def recognise(path: str | os.PathLike) -> str | None:
    """Says in a sentence that a folder holds images beside masks. Lists names, opens no file.

    Args:
        path: The folder.

    Returns:
        The sentence, or `None` if the folder has another layout.

    Example:
        ```python
        import tempfile
        from mtl_keras.data import mask_folders

        assert mask_folders.recognise(tempfile.mkdtemp()) is None
        ```
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        return None
    if any(child.suffix.lower() == ".xml" for child in _xml_of_voc(root)):
        return None
    problems = Problems("quarantine")
    try:
        places, _ = places_of(root)
        items = items_of(root, places, problems, [])
    except ValueError:
        return None
    labelled = [item for item in items if item.masks]
    if not labelled:
        return None
    first = labelled[0]
    what = "a file of masks an instance" if first.parts else "a mask"
    return (
        f"{len(labelled)} of {len(items)} images have {what}, as "
        f"{first.path.relative_to(root).as_posix()!r} has "
        f"{first.masks[0].relative_to(root).as_posix()!r}"
    )


def _xml_of_voc(root: Path) -> Iterator[Path]:
    for child in visible_folders(root):
        if child.name.lower() == "annotations":
            yield from child.iterdir()
