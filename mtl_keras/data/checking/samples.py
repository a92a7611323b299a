"""Pictures for the page: samples with their labels, duplicates side by side."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from mtl_keras.data import importing
from mtl_keras.data.checking.look import Seen
from mtl_keras.data.images import read_image
from mtl_keras.data.records import Problems

SAMPLE, CLOSE, SMALL = 560, 320, 220  # longer side in pixels


def choose(seen: Sequence[Seen], count: int) -> list[Seen]:
    """Chooses images at random, but so that each class is among them, the rare ones first.

    Args:
        seen: Images that can be used.
        count: How many, at most.

    Returns:
        List of `Seen`, in the order of the set; the same for the same images.
    """
    order = np.random.default_rng(0).permutation(len(seen)).tolist()
    holders: dict[int, list[int]] = {}
    for i in order:
        for label in set(seen[i].classes.tolist()):
            holders.setdefault(label, []).append(i)
    chosen: list[int] = []
    for label in sorted(holders, key=lambda label: len(holders[label])):
        if not set(holders[label]) & set(chosen):
            chosen.append(holders[label][0])
    taken = set(chosen)
    chosen += [i for i in order if i not in taken]
    return [seen[i] for i in sorted(chosen[:count])]


def drawn(seen: Seen, names: list[str]) -> str | None:
    """The image with its labels, as a data URI; `None` if the file is gone meanwhile."""
    from mtl_keras.draw import draw_labels

    found = importing.usable(seen.record, Problems("quarantine"))
    if found is None:
        return None
    mask = found.class_map(found.instances()) if seen.labelled["mask"] else None
    return _uri(
        draw_labels(
            found.pixels,
            seen.boxes,
            seen.classes,
            mask,
            class_names=names,
            longer_side=SAMPLE,
        )
    )


def odd(seen: Sequence[Seen], count: int) -> list[tuple[Seen, int]]:
    """Chooses warnings about objects, of all kinds by turns.

    Args:
        seen: Images that can be used.
        count: How many, at most.

    Returns:
        List of `Seen` and index of the warning in its `warnings`.
    """
    of_kind: dict[str, list[tuple[Seen, int]]] = {}
    for one in seen:
        for i, (warning, index) in enumerate(zip(one.warnings, one.objects_warned, strict=True)):
            if index is not None:
                of_kind.setdefault(warning.kind, []).append((one, i))
    turns = zip_longest(*of_kind.values())
    chosen = [found for turn in turns for found in turn if found is not None]
    return chosen[:count]


def closely(seen: Seen, index: int) -> str | None:
    """One object with its surroundings, as a data URI; `None` if the file is gone meanwhile."""
    from mtl_keras.draw import draw_labels

    found = importing.usable(seen.record, Problems("quarantine"))
    if found is None or index >= len(found.boxes):
        return None
    box, cut, label = found.boxes[index], found.cuts[index], found.objects[index].label
    x0, y0, x1, y1 = box
    mask = None
    if cut is not None:
        top, left, pixels = cut
        mask = np.zeros(seen.size, np.uint8)
        mask[top : top + pixels.shape[0], left : left + pixels.shape[1]][pixels] = label + 1
        x0, y0 = min(x0, left), min(y0, top)
        x1, y1 = max(x1, left + pixels.shape[1]), max(y1, top + pixels.shape[0])
    around = max(24.0, 0.4 * max(x1 - x0, y1 - y0))
    left, right = max(int(x0 - around), 0), min(int(x1 + around), seen.size[1])
    top, bottom = max(int(y0 - around), 0), min(int(y1 + around), seen.size[0])
    part = np.ascontiguousarray(found.pixels[top:bottom, left:right])
    return _uri(
        draw_labels(
            part,
            np.array([box], np.float32) - np.array([left, top, left, top], np.float32),
            [label],
            None if mask is None else mask[top:bottom, left:right],
            longer_side=CLOSE,
        )
    )


def small(path: Any) -> str | None:
    """The image, reduced, as a data URI; `None` if the file is gone meanwhile."""
    from PIL import Image

    try:
        picture = Image.fromarray(read_image(path))
    except (OSError, ValueError):
        return None
    picture.thumbnail((SMALL, SMALL))
    return _uri(picture)


def _uri(picture: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
