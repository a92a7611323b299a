"""What is wrong with the values of a mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mtl_keras.data.mask_folders.meaning import GREYS, IGNORE, MAX_UNNAMED, Reading, rgb
from mtl_keras.data.mask_folders.pixels import MOST_CODES, Seen, coded, decode


def unusable(path: Path, seen: Seen, reading: Reading) -> tuple[str, str] | None:
    """Kind and message of what is wrong with the values of a mask."""
    lossy = "lossy mask", "it is a JPEG, which changes values around every edge; save masks as PNG"
    if reading.kind == "instances":
        if seen.is_lossy:
            return lossy
        if seen.is_coloured and len(seen.values) >= MOST_CODES:
            return "smoothed mask", f"it holds {MOST_CODES} colours or more"
        return None
    if reading.kind == "colours":
        if seen.kind not in GREYS:
            return "another kind of mask", (
                f"its pixels are {'of 16 bits' if seen.kind == 'wide' else 'of a palette'}, while "
                "most masks of the set are RGB"
            )
        values = seen.values if seen.kind == "rgb" else seen.values * 0x010101
        unknown = [v for v in values.tolist() if v not in reading.pixels]
        if not unknown:
            return None
        if seen.is_lossy:
            return lossy
        shown = ", ".join(str(rgb(v)) for v in unknown[:3]) + ", …" * (len(unknown) > 3)
        x, y, count = _where(path, reading.codes, unknown)
        return "unknown colour", (
            f"{count} pixels are of colours (r, g, b) that are no class: {shown}; the first at x "
            f"{x}, y {y}. Add them to the table of colours, or, if they are smoothed edges, resize "
            "masks without interpolation"
        )
    if seen.is_coloured:
        return "another kind of mask", (
            "it holds colours, while most masks of the set hold grey values or a palette"
        )
    # A JPEG may hold white, but nothing as dark as an index: that vanishes.
    white = reading.kind == "binary" and 255 in (reading.foreground or {255})
    if seen.is_lossy and not (white and seen.present <= {255}):
        return lossy
    if reading.kind == "binary":
        allowed = seen.present if reading.foreground is None else reading.foreground
        if len(seen.present) <= 1 and seen.present <= allowed:
            return None
        unknown = sorted(seen.present - {255})
    else:
        unknown = sorted(seen.present - set(reading.pixels))
        if not unknown:
            return None
    shown = ", ".join(map(str, unknown[:5])) + ", …" * (len(unknown) > 5)
    x, y, count = _where(path, "grey", unknown)
    if reading.kind == "binary":
        return "grey values between", (
            f"{count} pixels of a binary mask hold {shown}, the first at x {x}, y {y}: smoothed "
            "edges, or the mask was a JPEG once. Set a threshold, or say what the masks are, as in "
            "masks='classes'"
        )
    if any(v > MAX_UNNAMED for v in unknown):
        return "grey values between", (
            f"{count} pixels hold {shown}, the first at x {x}, y {y}, which are no class: smoothed "
            "edges, a mask that was a JPEG once, or classes without names. Set a threshold, list "
            "the names in 'classes.txt', or say what the masks are, as in masks='classes'"
        )
    return "unknown class", (
        f"{count} pixels hold {shown}, the first at x {x}, y {y}; the names are of values "
        f"{sorted(reading.pixels)[0]} to {max(v for v in reading.pixels if v != IGNORE)}"
    )


def _where(path: Path, codes: str, values: list[int]) -> tuple[int, int, int]:
    kind, array, _ = decode(path)
    found = np.isin(coded(kind, array, codes), values)
    y, x = np.unravel_index(int(np.argmax(found)), found.shape)
    return int(x), int(y), int(found.sum())
