"""Masks in colours, as some tools export them, as the indices that the colours stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mtl_keras.data.records import Bad

# Pairs of a colour and its index.
Colours = tuple[tuple[tuple[int, int, int], int], ...]


def _standard(index: int) -> tuple[int, int, int]:
    """The colour of an index in VOC's palette: its bits, least first, dealt to red, green, blue."""
    colour = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            colour[channel] |= (index >> (3 * place + channel) & 1) << (7 - place)
    return colour[0], colour[1], colour[2]


STANDARD: Colours = tuple((_standard(index), index) for index in range(256))


def stated(colours: Colours) -> Colours:
    """Colours of a list of classes, with those of background and of what is ignored."""
    known = {colour for colour, _ in colours}
    return (*colours, *(pair for pair in (STANDARD[0], STANDARD[255]) if pair[0] not in known))


def indices_of(pixels: np.ndarray, colours: Colours, path: Path) -> np.ndarray:
    """Indices, uint8 `(height, width)`, of pixels `(height, width, 3)`.

    Raises:
        Bad: If a pixel has another colour.
    """
    codes = pixels.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
    index_of = {(r << 16) + (g << 8) + b: index for (r, g, b), index in colours}
    known = np.array(sorted(index_of))
    place = np.searchsorted(known, codes).clip(max=len(known) - 1)
    strange = known[place] != codes
    if strange.any():
        y, x = np.unravel_index(int(np.argmax(strange)), strange.shape)
        message = (
            f"{int(strange.sum())} pixels are of colours (r, g, b) that are no class, the first is "
            f"{tuple(pixels[y, x].tolist())} at x {x}, y {y}; write them to labelmap.txt, as "
            "'name:r,g,b', or save the mask with a palette"
        )
        raise Bad("unknown colour", message, path)
    return np.array([index_of[int(code)] for code in known], np.uint8)[place]
