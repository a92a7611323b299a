"""Whether the same image, or the same scene, is in several splits."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any


def leaks(builder: Any, scene: Callable[[str], str] | None = None) -> list[str]:
    """Lists images that are in several splits: the same pixels, or the same scene.

    Args:
        builder: A prepared builder.
        scene: Function from the name of an image to the name of what it shows; by default, for a
            builder of `load`, the one of that set, as of facades, where several tiles are of one
            photograph.

    Returns:
        List of sentences, empty if the splits share nothing.

    Example:

    ```python
    import tempfile
    import mtl_keras as mtl

    builder = mtl.data.digits(train=4, val=2, image_size=(64, 64), data_dir=tempfile.mkdtemp())
    assert mtl.data.leaks(builder) == []
    ```
    """
    from mtl_keras.data import sets
    from mtl_keras.data.pipeline import _decode, _read

    scene = scene or sets.scene_of(builder)
    by_pixels: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    by_scene: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for split, about in builder.info.splits.items():
        if not about.num_examples:
            continue
        encoded = _read(builder, split)
        images = encoded.map(lambda e: (_decode(e)["image"], e["image/filename"]))
        for pixels, filename in images.as_numpy_iterator():
            name = filename.decode("utf-8")
            digest = hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).hexdigest()
            by_pixels[digest][split].append(name)
            if scene is not None:
                by_scene[scene(PurePosixPath(name).name)][split].append(name)
    found = [_sentence("the same image", where) for where in by_pixels.values() if len(where) > 1]
    for key, where in by_scene.items():
        if len(where) > 1:
            found.append(_sentence(f"the same scene {key!r}", where))
    return found


def _sentence(what: str, where: dict[str, list[str]]) -> str:
    places = " and ".join(f"{files[0]!r} in {split!r}" for split, files in sorted(where.items()))
    return f"{what} is in several splits: {places}"
