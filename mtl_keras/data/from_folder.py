"""Import a folder of labelled images, whatever its layout."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from mtl_keras.data import importing

# In the order in which they are asked: the one that is most sure first.
LAYOUTS = ("coco_panoptic", "coco", "voc", "yolo", "mask_folders", "columns")


def from_folder(
    path: str | os.PathLike,
    layout: str | None = None,
    name: str | None = None,
    on_bad: str = "strict",
    data_dir: str | os.PathLike | None = None,
    **options: Any,
) -> Any:
    """Imports a folder of labelled images; prepared once, found again afterwards.

    The layout is found out from what lies in the folder:

    | layout | what it looks like |
    | --- | --- |
    | `"coco_panoptic"` | COCO panoptic JSON with PNGs of segments |
    | `"coco"` | COCO JSON with polygons or RLE |
    | `"voc"` | Pascal VOC: an XML an image, masks in `SegmentationClass` and `SegmentationObject` |
    | `"yolo"` | a text file an image, in `labels/` beside `images/`: boxes or polygons |
    | `"mask_folders"` | images beside masks of classes, of instances, or a mask an instance |
    | `"columns"` | a CSV with labels of whole images, or a folder a class |

    Args:
        path: The folder.
        layout: One of these, if the folder could be taken for several.
        name: Name of the set; by default that of the folder.
        on_bad: What to do with what can't be used: `"strict"` stops at the first and names it;
            `"quarantine"` leaves such images out, and `quarantined` lists them.
        data_dir: Where prepared sets are kept, by default TFDS's own folder
            (`~/tensorflow_datasets`).
        **options: Arguments of the layout's own `read`: `masks` of `"mask_folders"`, `kinds` of
            `"columns"`.

    Returns:
        A prepared TFDS builder, for `batches` and `examples`.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If the layout is not recognised, or is unknown.
        BadLabels: Under `"strict"`, for the first image or label that can't be used.

    Example:

    ```python
    import pathlib, tempfile
    import numpy as np
    from PIL import Image
    import mtl_keras as mtl

    folder = pathlib.Path(tempfile.mkdtemp())
    for part in ("images/train", "labels/train"):
        (folder / part).mkdir(parents=True)
    Image.fromarray(np.zeros((40, 60, 3), "uint8")).save(folder / "images/train/a.png")
    (folder / "labels/train/a.txt").write_text("0 0.5 0.5 0.25 0.5\\n")
    (folder / "classes.txt").write_text("cell\\n")
    builder = mtl.data.from_folder(folder, data_dir=folder / "prepared")
    assert builder.info.features["objects"]["label"].names == ["cell"]
    ```
    """
    return importing.prepare(read_folder(path, layout, name, on_bad, **options), data_dir, on_bad)


def read_folder(
    path: str | os.PathLike,
    layout: str | None = None,
    name: str | None = None,
    on_bad: str = "strict",
    **options: Any,
) -> Any:
    """Reads the labels of a folder, without preparing a set; see `from_folder`.

    Returns:
        A `Source`.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}")
    if layout is None:
        layout = recognise(folder)
    elif layout not in LAYOUTS:
        raise ValueError(f"`layout` must be one of {LAYOUTS}. Received: layout={layout!r}")
    source = _module(layout).read(folder, on_bad=on_bad, **options)
    if name is not None:
        source.name = name
    return source


def recognise(folder: Path) -> str:
    """Finds the layout of a folder.

    Raises:
        ValueError: If it has none of `LAYOUTS`.
    """
    for layout in LAYOUTS:
        if _module(layout).recognise(folder):
            return layout
    inside = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
    shown = ", ".join(inside[:10]) + (", …" if len(inside) > 10 else "")
    raise ValueError(
        f"the folder {str(folder)!r} has none of the layouts {', '.join(LAYOUTS)}; it holds: "
        f"{shown or 'nothing'}. If it has one of them, name it: from_folder(path, layout=...)"
    )


def _module(layout: str) -> Any:
    return import_module(f"mtl_keras.data.{layout}")
