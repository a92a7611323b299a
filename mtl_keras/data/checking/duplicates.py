"""Pictures that are there twice: the same file, or almost the same picture.

Two steps. Perceptual hashes of 64 bits say which pairs could be the same picture; that is fast, and
wrong for pictures of one kind (microscopy, aerial). So each such pair is then compared by its
thumbnails, pixel by pixel, relative to how much there is to see: what differs must be small
against the contrast of the picture. Pictures of almost one colour hold too little to compare;
they are duplicates only where their files are the same, byte for byte.

Reference: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, for
the hash by the signs of the low frequencies of the DCT.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SIDE = 32  # of a thumbnail
LOW = 8  # frequencies along each side that make the hash
MOST_BITS = 8  # of 64 in which the hashes of one picture may differ
# Root mean square of the difference of two thumbnails, relative to the contrast of the fainter one.
# Both were chosen by looking at the nearest pairs of four real sets (microscopy, street, aerial,
# endoscopy): JPEGs of half the size and of quality 60 stay below, neighbouring frames of a video
# and one place at two times too, and the nearest pictures of different things above.
MOST_DIFFERENCE = 0.25
# Standard deviation in grey levels, of 255, below which a picture counts as blank.
BLANK = 2.0
MOST_STRETCH = 1.05  # how much the aspects of one picture may differ
_BLOCK = 1 << 22  # pairs of hashes at once
_ROWS = 1 << 12  # thumbnails at once
_MOST_PAIRS = 1 << 14  # pairs of thumbnails at once: 50 MB


@dataclass(frozen=True)
class Duplicates:
    """Images that show the same picture.

    Attributes:
        members: Indices of the images, increasing.
        exact: Whether all files are the same, byte for byte.
        difference: The largest relative difference that was found between two of them, 0 if exact.
    """

    members: tuple[int, ...]
    exact: bool
    difference: float


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """The picture averaged to 32 x 32, whatever its aspect.

    Args:
        pixels: uint8 array `(height, width, 3)`.

    Returns:
        A uint8 array `(32, 32, 3)`.
    """
    from PIL import Image

    small = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small)


def is_blank(thumbnails: np.ndarray) -> np.ndarray:
    """Says of each thumbnail whether it is of almost one colour.

    Args:
        thumbnails: uint8 array `(n, 32, 32, 3)`.

    Returns:
        A bool array `(n,)`.
    """
    return contrast(thumbnails) < BLANK


def contrast(thumbnails: np.ndarray) -> np.ndarray:
    """Standard deviation over the pixels, in grey levels, of the colour that varies most.

    Args:
        thumbnails: uint8 array `(n, 32, 32, 3)`.

    Returns:
        A float array `(n,)`.
    """
    parts = [part.astype(np.float32).std((1, 2)).max(-1) for part in _blocks(thumbnails)]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def hashes(thumbnails: np.ndarray) -> np.ndarray:
    """Perceptual hashes: which low frequencies of the DCT lie above their median.

    Args:
        thumbnails: uint8 array `(n, 32, 32, 3)`.

    Returns:
        A uint64 array `(n,)`.
    """
    # The constant along one or both sides says how bright a picture is, not what it shows: the
    # first frequency is left out.
    at = (2 * np.arange(SIDE) + 1) * np.pi / (2 * SIDE)
    waves = np.cos(np.arange(1, LOW + 1)[:, None] * at).astype(np.float32)
    codes = [np.zeros(0, np.uint64)]
    for part in _blocks(thumbnails):
        grey = part.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        low = np.matmul(np.matmul(waves, grey), waves.T).reshape(len(grey), LOW * LOW)
        bits = low > np.median(low, axis=1, keepdims=True)
        codes.append(np.packbits(bits, axis=1).view(np.uint64).reshape(-1))
    return np.concatenate(codes)


def _blocks(thumbnails: np.ndarray) -> Iterator[np.ndarray]:
    return (thumbnails[i : i + _ROWS] for i in range(0, len(thumbnails), _ROWS))


def find(thumbnails: np.ndarray, sizes: Sequence[Any], digests: Sequence[str]) -> list[Duplicates]:
    """Finds all pictures that are there twice.

    Args:
        thumbnails: uint8 array `(n, 32, 32, 3)`.
        sizes: `(height, width)` of each image.
        digests: A text a file, the same for the same bytes.

    Returns:
        List of `Duplicates`, in order of their first members. No image is in two of them; where A
        is like B and B like C, they are together.
    """
    count = len(digests)
    parent = list(range(count))
    worst: dict[int, float] = {}

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    first: dict[str, int] = {}
    for i, digest in enumerate(digests):
        parent[i] = first.setdefault(digest, i)
    # Files that are the same are compared once.
    kept = np.array([i for i in range(count) if parent[i] == i], np.int64)
    kept = kept[~is_blank(thumbnails[kept])] if len(kept) else kept
    aspects = np.array([width / height for height, width in sizes])
    for i, j, difference in _pairs(thumbnails[kept], aspects[kept]):
        a, b = root(int(kept[i])), root(int(kept[j]))
        most = max(difference, worst.get(a, 0.0), worst.get(b, 0.0))
        parent[max(a, b)] = min(a, b)
        worst[min(a, b)] = most
    groups: dict[int, list[int]] = {}
    for i in range(count):
        groups.setdefault(root(i), []).append(i)
    return [
        Duplicates(tuple(group), first_of not in worst, worst.get(first_of, 0.0))
        for first_of, group in groups.items()
        if len(group) > 1
    ]


def _pairs(thumbnails: np.ndarray, aspects: np.ndarray) -> Iterator[tuple[int, int, float]]:
    """Pairs of one picture, and how much they differ."""
    strength = contrast(thumbnails)
    for i, j in candidates(hashes(thumbnails)):
        for start in range(0, len(i), _MOST_PAIRS):
            a, b = i[start : start + _MOST_PAIRS], j[start : start + _MOST_PAIRS]
            stretch = aspects[a] / aspects[b]
            near = (stretch <= MOST_STRETCH) & (stretch >= 1.0 / MOST_STRETCH)
            a, b = a[near], b[near]
            relative = distance(thumbnails[a], thumbnails[b]) / np.minimum(strength[a], strength[b])
            for k in np.flatnonzero(relative <= MOST_DIFFERENCE):
                yield int(a[k]), int(b[k]), float(relative[k])


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Root mean square of what differs between thumbnails, but for the brightness of each colour.

    Args:
        a: uint8 array `(n, 32, 32, 3)`.
        b: The same for the others.

    Returns:
        A float array `(n,)`, in grey levels.
    """
    off = a.astype(np.float32) - b
    off -= off.mean((1, 2), keepdims=True)
    return np.sqrt(np.square(off).mean((1, 2, 3)))


def candidates(codes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of hashes that differ in few bits, each once, in blocks.

    All pairs are compared, in NumPy: 100,000 hashes take seconds, so that an index, which would
    miss some, is not worth it.

    Args:
        codes: uint64 array `(n,)`.

    Yields:
        Two int arrays, indices of the pairs `i < j`.
    """
    rows = max(1, _BLOCK // max(1, len(codes)))
    for start in range(0, len(codes), rows):
        bits = _count_bits(codes[start : start + rows, None] ^ codes[None, start:])
        i, j = np.nonzero(bits <= MOST_BITS)
        later = i < j
        if later.any():
            yield i[later] + start, j[later] + start


def _count_bits(values: np.ndarray) -> np.ndarray:
    if hasattr(np, "bitwise_count"):  # NumPy 2
        return np.bitwise_count(values)
    table = np.array([bin(i).count("1") for i in range(1 << 16)], np.uint8)
    return table[values[..., None].view(np.uint16)].sum(-1, dtype=np.uint8)
