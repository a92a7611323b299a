"""The pixels of mask files as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtl_keras.data.images import exif_orientation, open_image
from mtl_keras.data.mask_folders.places import Item
from mtl_keras.data.records import Problems

MOST_CODES = 4096  # of which a file's are kept; a colour mask with more of them is refused anyway


@dataclass
class Seen:
    """What a mask file holds: `kind` is "grey", "palette", "wide" (16 bits) or "rgb"."""

    kind: str
    shape: tuple[int, int]
    values: np.ndarray
    is_coloured: bool
    is_lossy: bool

    @property
    def grey(self) -> np.ndarray:
        return self.values & 255 if self.kind == "rgb" else self.values

    @property
    def present(self) -> frozenset[int]:
        """Values other than 0 of a mask of indices."""
        return frozenset(self.grey[self.grey != 0].tolist())


def decode(path: Path) -> tuple[str, np.ndarray, bool]:
    """Kind, pixels (indices, ids or RGB) and whether the format is a lossy one."""
    with open_image(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise ValueError(f"it holds {image.n_frames} frames; a mask should be one image")
        if exif_orientation(image) != 1:
            raise ValueError("its EXIF says that it is turned; save it upright")
        depth = 8
        if image.format == "PNG":
            with open(path, "rb") as file:
                depth = file.read(25)[24]
        elif image.format == "TIFF":
            depth = image.tag_v2.get(258, (8,))[0]
        lossy = image.format in ("JPEG", "MPO")
        mode = image.mode
        try:
            image.load()
        except (OSError, SyntaxError, ValueError, IndexError, EOFError) as error:
            raise ValueError(f"it is damaged or cut short: {error}") from error
        array = np.asarray(image)
    if mode == "1":
        return "grey", array.astype(np.uint8), lossy
    if mode == "L":
        # Pillow stretches values of 2 and 4 bits over 0 to 255.
        return "grey", array // {2: 85, 4: 17}.get(depth, 1), lossy
    if mode == "P":
        return "palette", array, lossy
    if mode.startswith("I"):
        array = array.astype(np.int64)
        if array.min() < 0:
            raise ValueError(f"it holds the value {array.min()}; ids should be 0 or more")
        return "wide", array, lossy
    if mode in ("RGB", "RGBA", "LA") and depth != 16:
        if mode != "RGB":
            alpha = array[..., -1]
            if not np.isin(alpha, (0, 255)).all():
                raise ValueError("it holds half-transparent pixels, whose label is unknown")
            array = np.where(alpha[..., None] == 255, array[..., :-1], 0)
        return ("grey", array[..., 0], lossy) if mode == "LA" else ("rgb", array, lossy)
    raise ValueError(
        f"its pixels are of the mode {mode!r} with {depth} bits; a mask should be grey of 8 or 16 "
        "bits, of a palette, or RGB of 8 bits"
    )


def coded(kind: str, array: np.ndarray, codes: str) -> np.ndarray:
    """Pixels as integers `(height, width)`; see `Reading`."""
    if codes == "colours" and kind == "grey":
        return array.astype(np.int32) * 0x010101
    if kind != "rgb":
        return array
    if codes == "grey":
        return array[..., 0]
    array = array.astype(np.int32)
    return array[..., 0] << 16 | array[..., 1] << 8 | array[..., 2]


def values_of(array: np.ndarray) -> np.ndarray:
    """The distinct values of an array, sorted."""
    if array.dtype == np.uint8:
        return np.flatnonzero(np.bincount(array.ravel(), minlength=256))
    return np.unique(array).astype(np.int64)


def look(items: list[Item], problems: Problems) -> dict[Path, Seen | None]:
    """What each mask holds; `None` for those that can't be read."""
    seen: dict[Path, Seen | None] = {}
    for item in items:
        for path in item.masks:
            try:
                kind, array, lossy = decode(path)
            except (ValueError, OSError) as error:
                problems.add(path, "unreadable mask", f"{error}", image=item.filename)
                seen[path] = None
                continue
            values = values_of(coded(kind, array, "codes"))
            coloured = kind == "rgb" and bool(((values >> 8) != (values & 255) * 257).any())
            if coloured:
                values = values[:MOST_CODES]
            seen[path] = Seen(kind, array.shape[:2], values, coloured, lossy)
    return seen
