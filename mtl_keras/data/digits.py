"""The embedded set: real handwritten digits on textured scenes, made without a download."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from mtl_keras.data import builder as builder_lib

GENERATOR_VERSION = "1"
MAX_DIGITS = 8
SMALLEST, LARGEST = 24, 96  # height of a digit in pixels, in an image whose shorter side is 256


def digits(
    train: int = 400,
    val: int = 100,
    image_size: int | tuple[int, int] = (256, 256),
    seed: int = 0,
    data_dir: str | os.PathLike | None = None,
) -> Any:
    """Scenes with handwritten digits: boxes, ten classes and instance masks, without a download.

    The 8 x 8 digits that scikit-learn ships (1,797 of them, written by 43 people) are enlarged
    smoothly to 24 to 96 pixels (in images of 256), turned a little, inked in colours that stand
    out, and laid with some overlap on scenes made of noise and of cut-outs of the two photographs
    that scikit-learn ships. An image holds up to eight of them, some hold none. `train` and `val`
    use different digits. The same arguments give the same images. Boxes surround the whole digit,
    also where another one covers it.

    Args:
        train: number of images in the split `"train"`.
        val: number of images in the split `"val"`; 0 for no such split.
        image_size: `(height, width)` in pixels, or one int for both; at least 32.
        seed: integer that fixes the images.
        data_dir: where prepared sets are kept, by default TFDS's own folder
            (`~/tensorflow_datasets`).

    Returns:
        A prepared TFDS builder, with the same features as those of `from_coco`; its classes are the
        names `"0"` to `"9"`.

    Raises:
        ImportError: if scikit-learn is not installed.
        ValueError: if a number is outside its range.

    Reference:
        Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
        Repository, 1998 (https://doi.org/10.24432/C50P49).

    Example:
        ```python
        import tempfile
        from mtl_keras.data import digits

        builder = digits(train=4, val=2, image_size=(64, 64), data_dir=tempfile.mkdtemp())
        assert builder.info.splits["train"].num_examples == 4
        assert builder.info.features["objects"]["label"].names[3] == "3"
        ```
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if not isinstance(size, (tuple, list)) or len(size) != 2 or min(size) < 32:
        raise ValueError(
            f"`image_size` should be (height, width) or one int, of at least 32 pixels, got "
            f"{image_size!r}"
        )
    for key, value, least in (("train", train, 1), ("val", val, 0), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"`{key}` should be an integer of at least {least}, got {value!r}")
    try:
        import sklearn.datasets as sklearn_datasets
    except ImportError as error:
        raise ImportError(
            "mtl_keras.data.digits makes its images from those that scikit-learn ships; "
            'install it with: pip install "mtl_keras[demo]"'
        ) from error

    size = (int(size[0]), int(size[1]))
    text = f"digits {GENERATOR_VERSION} {builder_lib.VERSION} {train} {val} {size} {seed}"
    counts = {"train": train, "val": val} if val else {"train": train}

    def generator(split: str, count: int) -> Any:
        def generate() -> Iterator[tuple[int, dict]]:
            source = sklearn_datasets.load_digits()
            photos = [sklearn_datasets.load_sample_image(n) for n in ("china.jpg", "flower.jpg")]
            order = np.random.default_rng([seed, 2]).permutation(len(source.images))
            cut = len(order) * 4 // 5
            chosen = order[:cut] if split == "train" else order[cut:]
            for i in range(count):
                rng = np.random.default_rng([seed, split == "train", i])
                yield i, _scene(rng, size, photos, source.images, source.target, chosen, i)

        return generate

    return builder_lib.prepare(
        name="digits",
        fingerprint=hashlib.sha256(text.encode()).hexdigest()[:20],
        names=[str(i) for i in range(10)],
        splits={split: (count, generator(split, count)) for split, count in counts.items()},
        data_dir=None if data_dir is None else os.fspath(data_dir),
        description="Handwritten digits on textured scenes, with boxes, classes and instances.",
    )


def _scene(
    rng: np.random.Generator,
    size: tuple[int, int],
    photos: list[np.ndarray],
    images: np.ndarray,
    targets: np.ndarray,
    chosen: np.ndarray,
    index: int,
) -> dict[str, Any]:
    """One image with its objects, in the layout of `builder.example`."""
    from PIL import Image

    canvas = _background(rng, size, photos)
    count = 0 if rng.random() < 0.06 else int(rng.integers(1, MAX_DIGITS + 1))
    unit = min(size) / 256
    glyphs = []
    for k in rng.choice(chosen, count, replace=False):
        height = np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST))) * unit
        glyphs.append((_glyph(rng, images[k], max(10.0, height)), int(targets[k])))
    # Large first, as instances are painted, so that image and map agree on what covers what.
    glyphs.sort(key=lambda g: -int((g[0] > 0.5).sum()))
    covered = np.zeros(size, bool)
    boxes, labels, masks = [], [], []
    for alpha, label in glyphs:
        place = _place(rng, alpha > 0.5, covered)
        if place is None:
            continue
        top, left = place
        window = (slice(top, top + alpha.shape[0]), slice(left, left + alpha.shape[1]))
        below = canvas[window]
        canvas[window] = below + alpha[..., None] * (_ink(rng, below, alpha) - below)
        mask = alpha > 0.5
        covered[window] |= mask
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes.append([left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1])
        labels.append(label)
        masks.append((top, left, mask))
    buffer = io.BytesIO()
    pixels = np.clip(np.rint(canvas + rng.normal(0, 2, canvas.shape)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
    crowd = [False] * len(labels)
    return builder_lib.example(
        buffer.getvalue(),
        f"{index:05d}.jpg",
        index,
        np.array(boxes, np.float32),
        labels,
        crowd,
        builder_lib.paint_instances(size, masks, crowd),
    )


def _background(
    rng: np.random.Generator, size: tuple[int, int], photos: list[np.ndarray]
) -> np.ndarray:
    """Noise of several octaves in two colours, mixed with a cut-out of a photograph."""
    height, width = size
    noise = np.zeros(size)
    for octave in range(2, 7):
        cells = 2**octave
        noise += _resize(rng.random((cells, cells)), size) * rng.uniform(0.4, 1.0) / (octave - 1)
    noise = (noise - noise.min()) / max(float(np.ptp(noise)), 1e-6)
    first, second = rng.uniform(20, 235, 3), rng.uniform(20, 235, 3)
    texture = first + noise[..., None] * (second - first)

    photo = photos[rng.integers(len(photos))]
    zoom = rng.uniform(0.35, 1.0) * min(photo.shape[0] / height, photo.shape[1] / width)
    cut_h, cut_w = max(1, int(height * zoom)), max(1, int(width * zoom))
    top = rng.integers(photo.shape[0] - cut_h + 1)
    left = rng.integers(photo.shape[1] - cut_w + 1)
    cut = photo[top : top + cut_h, left : left + cut_w]
    cut = np.stack([_resize(cut[..., c], size) for c in range(3)], axis=-1)
    if rng.random() < 0.5:
        cut = cut[:, ::-1]
    share = rng.uniform(0.0, 0.8)
    scene = share * cut + (1 - share) * texture
    mean = scene.mean(axis=(0, 1))
    return mean + (scene - mean) * rng.uniform(0.5, 1.0)


def _glyph(rng: np.random.Generator, image: np.ndarray, height: float) -> np.ndarray:
    """Coverage in [0, 1] of a digit, `height` pixels high, slightly turned, cut to its ink."""
    from PIL import Image

    padded = np.pad(image / 16.0, 2)
    side = int(round(height * 12 / 8))
    wide = int(round(side * rng.uniform(0.85, 1.15)))
    large = Image.fromarray(_resize(padded, (side, wide)).astype(np.float32))
    ink = np.asarray(large.rotate(rng.uniform(-15, 15), Image.Resampling.BILINEAR))
    # Soft enough around the threshold to leave the strokes that thin ink hardly closed visible.
    slope = rng.uniform(1.8, 3.0)
    alpha = np.clip((ink - rng.uniform(0.42, 0.5)) * slope + 0.5, 0.0, 1.0)
    rows, columns = np.flatnonzero((alpha > 0.5).any(1)), np.flatnonzero((alpha > 0.5).any(0))
    if not len(rows):
        return np.zeros((1, 1))
    top, left = max(rows[0] - 1, 0), max(columns[0] - 1, 0)
    return alpha[top : rows[-1] + 2, left : columns[-1] + 2]


def _place(
    rng: np.random.Generator, mask: np.ndarray, covered: np.ndarray
) -> tuple[int, int] | None:
    """A place where at most a tenth of the digit lies on others; `None` if none is found."""
    room = covered.shape[0] - mask.shape[0], covered.shape[1] - mask.shape[1]
    if min(room) < 0 or not mask.any():
        return None
    for _ in range(20):
        top, left = int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1))
        under = covered[top : top + mask.shape[0], left : left + mask.shape[1]]
        if (under & mask).sum() <= 0.1 * mask.sum():
            return top, left
    return None


def _ink(rng: np.random.Generator, below: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """A colour whose brightness differs by 70 or more from what the digit covers, on average."""
    weights = np.array([0.299, 0.587, 0.114])
    brightness = float(np.average(below @ weights, weights=alpha + 1e-6))
    contrast = rng.uniform(70, 130)
    dark, light = brightness - contrast, brightness + contrast
    lighter = rng.random() < 0.5
    if light > 245 or (dark >= 10 and not lighter):
        target = max(dark, 10.0)
    else:
        target = min(light, 245.0)
    colour = rng.uniform(0, 255, 3)
    tint = (colour - colour @ weights) * rng.uniform(0, 0.5)
    return np.clip(target + tint, 0, 255)


def _resize(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    image = Image.fromarray(np.asarray(array, np.float32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BICUBIC), np.float64)
