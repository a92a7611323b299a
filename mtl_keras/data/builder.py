"""The one TFDS layout of images with objects, and how a set in it is prepared and found again."""

from __future__ import annotations

import io
import json
import re
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

VERSION = "1.1.0"
IGNORED = 65535  # in the map of instances: what is here is not known
MAX_OBJECTS = IGNORED - 1
LEFT_OUT = "left_out.json"
KINDS = ("boxes", "instances", "mask")


@dataclass(frozen=True)
class Labels:
    """What the images of a set are labelled with, beside objects.

    Attributes:
        names: Class names of objects.
        mask_names: Class names of a mask of its own, without background; `None` where classes of
            pixels are those of the instances.
        columns: Dict, name of a label of the whole image to its class names, or `None` for numbers.
        counts: Dict, split to dict of kind of label (`KINDS` and columns) to the number of images
            that have it.
        advice: Sentence on what to do where a task lacks labels, for messages.
        images: Dict, split to the number of all images, before any is left out.
    """

    names: tuple[str, ...]
    mask_names: tuple[str, ...] | None = None
    columns: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    advice: str = ""
    images: Mapping[str, int] = field(default_factory=dict)

    def metadata(self) -> dict[str, Any]:
        """What a builder remembers of it, ready for JSON."""
        return {
            "mask_names": None if self.mask_names is None else list(self.mask_names),
            "columns": {k: None if v is None else list(v) for k, v in self.columns.items()},
            "images": dict(self.images),
            "counts": {split: dict(kinds) for split, kinds in self.counts.items()},
            **({"advice": self.advice} if self.advice else {}),
        }


def features(labels: Labels) -> Any:
    """TFDS features of a set: image, its name and id, objects with boxes in pixels, instances.

    `labelled` says of each image which kinds of labels it has, `values` holds labels of the whole
    image (class ids too as numbers; NaN where there is none), and `mask` the class of each pixel,
    where that is not the class of the instance.
    """
    import tensorflow_datasets as tfds

    more: dict[str, Any] = {}
    if labels.mask_names is not None:
        more["mask"] = tfds.features.Image(
            shape=(None, None, 1), dtype=np.uint8, encoding_format="png"
        )
    if labels.columns:
        more["values"] = {column: tfds.features.Scalar(np.float32) for column in labels.columns}
    return tfds.features.FeaturesDict(
        {
            **more,
            "labelled": {kind: tfds.features.Scalar(np.bool_) for kind in KINDS},
            "image": tfds.features.Image(shape=(None, None, 3)),
            "image/filename": tfds.features.Text(),
            "image/id": tfds.features.Scalar(np.int64),
            "objects": tfds.features.Sequence(
                {
                    "bbox": tfds.features.Tensor(shape=(4,), dtype=np.float32),
                    "label": tfds.features.ClassLabel(names=list(labels.names)),
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
    mask: np.ndarray | None = None,
    labelled: Mapping[str, bool] | None = None,
    values: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """One example in the layout of `features`, from an encoded image and NumPy arrays.

    `labelled` is needed only where the image lacks a kind of label, `mask` and `values` only where
    the set has them.
    """
    more: dict[str, Any] = {}
    if mask is not None:
        more["mask"] = io.BytesIO(png_bytes(mask))
    if values is not None:
        more["values"] = {column: np.float32(value) for column, value in values.items()}
    return {
        **more,
        "labelled": {**dict.fromkeys(KINDS, True), **(labelled or {})},
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
    """Encode a uint8 `(H, W, 3)` or `(H, W)` or uint16 `(H, W)` array as PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def paint_instances(
    shape: tuple[int, int],
    masks: Sequence[tuple[int, int, np.ndarray] | None],
    is_crowd: Sequence[bool],
    boxes: Sequence[Sequence[float]] | None = None,
) -> np.ndarray:
    """Paint instance masks into one map: crowds first, then large before small.

    Of an object without a mask, all that is known is that it lies somewhere in its box: what no
    other object covers there is `IGNORED`.

    Args:
        shape: `(height, width)` of the image.
        masks: for each object `(top, left, mask)` with a bool array that lies inside the image, or
            `None` for an object without a mask.
        is_crowd: one bool for each object.
        boxes: optional xyxy box of each object, in pixels and inside the image.

    Returns:
        A uint16 array `(height, width)`: 0 where there is no object, i + 1 where object i lies,
        `IGNORED` where nobody knows.
    """
    canvas = np.zeros(shape, np.uint16)
    for mask, box in zip(masks, boxes or (), strict=False):
        if mask is None:
            x0, y0, x1, y1 = (int(v) for v in (*np.floor(box[:2]), *np.ceil(box[2:])))
            canvas[y0:y1, x0:x1] = IGNORED
    painted = [i for i, m in enumerate(masks) if m is not None]
    painted.sort(key=lambda i: (not is_crowd[i], -int(masks[i][2].sum())))
    for i in painted:
        top, left, mask = masks[i]
        canvas[top : top + mask.shape[0], left : left + mask.shape[1]][mask] = i + 1
    return canvas


class NoExamples(Exception):
    """Says that no split of a set has an example."""


def prepare(
    name: str,
    fingerprint: str,
    names: Labels | Sequence[str],
    splits: Mapping[str, tuple[int, Callable[[], Iterator[tuple[Any, dict]]]]],
    data_dir: str | None,
    description: str,
    finish: Callable[[Path], None] | None = None,
) -> Any:
    """Prepare a TFDS set once; find it again by its fingerprint.

    It is made in a folder of its own and then moved, so that an interruption leaves nothing that
    looks like a set, and several processes may prepare the same one.

    Args:
        name: name of the set; characters other than letters, digits and `_` become `_`.
        fingerprint: text that changes whenever the data or its conversion does.
        names: class names in the order of the class ids, or all that images are labelled with.
        splits: for each split its number of images and a function that yields `(key, example)`
            pairs. A split whose function yields nothing is left out.
        data_dir: folder of the prepared sets, `None` for TFDS's default.
        description: what the set is.
        finish: called with the folder of the set before it is moved, to write more into it.

    Returns:
        A prepared TFDS builder.

    Raises:
        NoExamples: if no split has an example.
    """
    import tensorflow_datasets as tfds

    labels = names if isinstance(names, Labels) else Labels(tuple(names))

    def make(root: str | Path | None, some: Collection[str]) -> Any:
        config = tfds.core.BuilderConfig(name=fingerprint, version=VERSION)
        return _builder_class(config, labels.metadata())(
            name=slug(name),
            config=config,
            version=VERSION,
            features=features(labels),
            split_datasets={split: _Examples(splits[split][1]) for split in some},
            data_dir=None if root is None else str(Path(root).expanduser()),
            description=description,
        )

    def prepared(root: Path, some: list[str]) -> Any:
        smallest = min(splits[split][0] for split in some)
        config = tfds.download.DownloadConfig(num_shards=max(1, min(8, smallest // 16)))
        builder = make(root, some)
        builder.download_and_prepare(download_config=config)
        return builder

    builder = make(data_dir, splits)
    folder = Path(builder.data_dir)
    if _is_complete(builder, splits):
        return builder
    if not splits:
        raise NoExamples
    staging = folder.parent / f".incomplete-{uuid.uuid4().hex}"
    try:
        try:
            made = prepared(staging, list(splits))
        except AssertionError:
            # TFDS makes no split without examples.
            some = [split for split, (_, generate) in splits.items() if next(generate(), None)]
            if not some:
                raise NoExamples from None
            if len(some) == len(splits):
                raise
            made = prepared(staging, some)
        if finish is not None:
            finish(Path(made.data_dir))
        _move(Path(made.data_dir), folder, lambda: _is_complete(make(data_dir, splits), splits))
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return make(data_dir, splits)


def _move(made: Path, folder: Path, is_there: Callable[[], bool]) -> None:
    """Moves a prepared set to its place, unless another process was faster."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for last in (False, True):
        if is_there():
            return
        if folder.exists():  # what an interrupted copy left
            folder.rename(made.with_name("broken"))
        try:
            made.rename(folder)
            return
        except OSError:
            if last:
                raise


def slug(name: str) -> str:
    """A name that TFDS and file systems accept."""
    text = re.sub(r"\W+", "_", name.lower(), flags=re.ASCII).strip("_")
    return text if text[:1].isalpha() else f"set_{text}".rstrip("_")


def _builder_class(config: Any, metadata: dict) -> Any:
    import tensorflow_datasets as tfds

    class Builder(tfds.dataset_builders.AdhocBuilder, skip_registration=True):
        # TFDS looks beside a builder's source for download checksums, of which there are none here,
        # and needs importlib_resources for it, which it does not declare.
        code_path = None
        BUILDER_CONFIGS = [config]

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(
                builder=self,
                description=self._description,
                features=self._feature_spec,
                metadata=tfds.core.MetadataDict(metadata),
            )

    return Builder


class _Examples:
    """A generator function as something to iterate over, as often as wanted."""

    def __init__(self, generate: Callable[[], Iterator]):
        self._generate = generate

    def __iter__(self) -> Iterator:
        return self._generate()


def _is_complete(builder: Any, splits: Mapping[str, tuple[int, Any]]) -> bool:
    folder = Path(builder.data_dir)
    listed = folder / LEFT_OUT
    left_out = json.loads(listed.read_text("utf-8")) if listed.exists() else {}
    if not (folder / "dataset_info.json").exists() or not (folder / "features.json").exists():
        return False
    for split, (count, _) in splits.items():
        info = builder.info.splits.get(split)
        if (info.num_examples if info else 0) != count - len(left_out.get(split, ())):
            return False
        if info and not all(Path(path).exists() for path in info.filepaths):
            return False
    return True
