"""Pictures for the page: samples with their labels, duplicates side by side."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_keras.data import importing
from mtl_keras.data.checking.look import Seen
from mtl_keras.data.images import read_image
from mtl_keras.data.records import Problems

SAMPLE, SMALL = 560, 220  # longer side in pixels


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
    chosen += [i for i in order if i not in set(chosen)]
    return [seen[i] for i in sorted(chosen[:count])]


def drawn(seen: Seen, names: list[str]) -> str | None:
    """The image with its labels, as a data URI; `None` if the file is gone meanwhile."""
    from mtl_keras.draw import draw_labels

    found = importing.usable(seen.record, Problems("quarantine"))
    if found is None:
        return None
    mask = found.class_map(found.instances()) if seen.labelled["mask"] else None
    return _uri(draw_labels(found.pixels, seen.boxes, seen.classes, mask, names, SAMPLE))


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
