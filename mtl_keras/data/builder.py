"""The one TFDS layout of images with objects, and how a set in it is prepared and found again."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

VERSION = "1.0.0"
MAX_OBJECTS = 65535


def features(names: Sequence[str]) -> Any:
    """TFDS features of a set: image, its name and id, objects with boxes in pixels, instances."""
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "image/filename": tfds.features.Text(),
            "image/id": tfds.features.Scalar(np.int64),
            "objects": tfds.features.Sequence(
                {
                    "bbox": tfds.features.Tensor(shape=(4,), dtype=np.float32),
                    "label": tfds.features.ClassLabel(names=list(names)),
                    "is_crowd": tfds.features.Scalar(np.bool_),
                }
            ),
            "instances": tfds.features.Image(
                shape=(None, None, 1), dtype=np.uint16, encoding_format="png"
            ),
        }
    )


def example(
    image: bytes,
    filename: str,
    image_id: int,
    boxes: np.ndarray,
    labels: Sequence[int],
    is_crowd: Sequence[bool],
    instances: np.ndarray,
) -> dict[str, Any]:
    """One example in the layout of `features`, from an encoded image and NumPy arrays."""
    return {
        "image": io.BytesIO(image),
        "image/filename": filename,
        "image/id": image_id,
        "objects": {
            "bbox": np.asarray(boxes, np.float32).reshape(-1, 4),
            "label": np.asarray(labels, np.int64).reshape(-1),
            "is_crowd": np.asarray(is_crowd, np.bool_).reshape(-1),
        },
        "instances": io.BytesIO(png_bytes(instances)),
    }


def png_bytes(array: np.ndarray) -> bytes:
    """Encode a uint8 `(H, W, 3)` or uint16 `(H, W)` array as PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def paint_instances(
    shape: tuple[int, int],
    masks: Sequence[tuple[int, int, np.ndarray] | None],
    is_crowd: Sequence[bool],
) -> np.ndarray:
    """Paint instance masks into one map: crowds first, then large before small.

    Args:
        shape: `(height, width)` of the image.
        masks: for each object `(top, left, mask)` with a bool array that lies inside the image, or
            `None` for an object without a mask.
        is_crowd: one bool for each object.

    Returns:
        A uint16 array `(height, width)`: 0 where there is no object, i + 1 where object i lies.
    """
    canvas = np.zeros(shape, np.uint16)
    painted = [i for i, m in enumerate(masks) if m is not None]
    painted.sort(key=lambda i: (not is_crowd[i], -int(masks[i][2].sum())))
    for i in painted:
        top, left, mask = masks[i]
        canvas[top : top + mask.shape[0], left : left + mask.shape[1]][mask] = i + 1
    return canvas


def prepare(
    name: str,
    fingerprint: str,
    names: Sequence[str],
    splits: Mapping[str, tuple[int, Callable[[], Iterator[tuple[Any, dict]]]]],
    data_dir: str | None,
    description: str,
) -> Any:
    """Prepare a TFDS set once; find it again by its fingerprint.

    Args:
        name: name of the set; characters other than letters, digits and `_` become `_`.
        fingerprint: text that changes whenever the data or its conversion does.
        names: class names in the order of the class ids.
        splits: for each split its number of images and a function that yields `(key, example)`
            pairs.
        data_dir: folder of the prepared sets, `None` for TFDS's default.
        description: what the set is.

    Returns:
        A prepared TFDS builder.
    """
    import tensorflow_datasets as tfds

    def make() -> Any:
        config = tfds.core.BuilderConfig(name=fingerprint, version=VERSION)
        return _builder_class(config)(
            name=slug(name),
            config=config,
            version=VERSION,
            features=features(names),
            split_datasets={split: _Examples(generate) for split, (_, generate) in splits.items()},
            data_dir=None if data_dir is None else str(Path(data_dir).expanduser()),
            description=description,
        )

    builder = make()
    if _is_complete(builder, splits):
        return builder
    if Path(builder.data_dir).exists():  # left by an interrupted copy or an older crash
        import shutil

        shutil.rmtree(builder.data_dir)
        builder = make()
    smallest = min(count for count, _ in splits.values())
    config = tfds.download.DownloadConfig(num_shards=max(1, min(8, smallest // 16)))
    try:
        builder.download_and_prepare(download_config=config)
    except OSError:
        builder = make()  # another process may have prepared the same set meanwhile
        if not _is_complete(builder, splits):
            raise
    return builder


def slug(name: str) -> str:
    """A name that TFDS and file systems accept."""
    text = re.sub(r"\W+", "_", name.lower(), flags=re.ASCII).strip("_")
    return text if text[:1].isalpha() else f"set_{text}".rstrip("_")


def _builder_class(config: Any) -> Any:
    import tensorflow_datasets as tfds

    class Builder(tfds.dataset_builders.AdhocBuilder, skip_registration=True):
        # TFDS looks beside a builder's source for download checksums, of which there are none here,
        # and needs importlib_resources for it, which it does not declare.
        code_path = None
        BUILDER_CONFIGS = [config]

    return Builder


class _Examples:
    """A generator function as something to iterate over, as often as wanted."""

    def __init__(self, generate: Callable[[], Iterator]):
        self._generate = generate

    def __iter__(self) -> Iterator:
        return self._generate()


def _is_complete(builder: Any, splits: Mapping[str, tuple[int, Any]]) -> bool:
    folder = Path(builder.data_dir)
    if not (folder / "dataset_info.json").exists() or not (folder / "features.json").exists():
        return False
    for split, (count, _) in splits.items():
        info = builder.info.splits.get(split)
        if info is None or info.num_examples != count:
            return False
        if not all(Path(path).exists() for path in info.filepaths):
            return False
    return True
