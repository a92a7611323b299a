"""The joint sets of TensorFlow Datasets, in the layout of this package."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mtl_keras.data import builder as builder_lib
from mtl_keras.data.importing import QUARANTINE, clipped_box, quarantined
from mtl_keras.data.records import Problem
from mtl_keras.data.tfds_sets import Adapted, adapter

CONVERTER_VERSION = "1"


def from_tfds(
    name: Any,
    data_dir: str | os.PathLike | None = None,
    download: bool = True,
    **options: Any,
) -> Any:
    """Adapts a set of TensorFlow Datasets that several tasks can learn from.

    It is converted once, image by image, and found again afterwards. If TFDS has not prepared it
    yet, it is downloaded, as `tfds.load` does; of `oxford_iiit_pet` and `voc` some gigabytes, of
    `coco` some twenty.

    | set | objects | pixels | columns |
    | --- | --- | --- | --- |
    | `"oxford_iiit_pet"` | a box around the head | pet, border, background | `species`, `breed` |
    | `"coco/2017_panoptic"` | things, with masks and crowds | things and stuff | |
    | `"coco/2014"`, `"coco/2017"` | boxes and crowds | | |
    | `"voc/2007"`, `"voc/2012"` | boxes | | one a class: absent or present |

    - Pets: head boxes have the class `label="species"` (the default) or `"breed"`. The border of
      the trimap is ignored (`border="ignore"`, the default) or a class of its own (`"class"`).
      TFDS has no boxes of the split `test`: these images have no label for boxes, which is not the
      same as no heads. Hold out from `train`: `"train[:90%]"`, `"train[90%:]"`. Boxes are as TFDS
      states them.
    - VOC: objects marked as difficult are treated as crowds, that is, ignored. An image that shows
      a class only in difficult objects has no label in the column of that class. Boxes are counted
      from 0. Of `voc/2012`, TFDS has no labels of the split `test`. TFDS has no masks of VOC; those
      are in VOC's own folder, see `from_folder`.
    - COCO panoptic: what no segment covers is ignored in the mask. A crowd keeps its class there.

    What does not fit together, as a mask of another size than its image, is ignored in training;
    `quarantined` lists it, and a warning counts it.

    Args:
        name: Name of the set, or a TFDS builder of it.
        data_dir: Folder of prepared sets, of TFDS's own and of converted ones; by default TFDS's.
        download: Whether to download what TFDS has not prepared.
        **options: `label` and `border` of `"oxford_iiit_pet"`.

    Returns:
        A prepared TFDS builder, for `batches` and `examples`.

    Raises:
        ValueError: If the set or an option is unknown.
        FileNotFoundError: If TFDS has not prepared it, and `download` is `False` or fails.

    Reference:
        - Parkhi et al., "Cats and Dogs", CVPR 2012.
        - Kirillov et al., "Panoptic Segmentation", CVPR 2019.
        - Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010.

    Example:

    ```python
    import mtl_keras as mtl

    try:
        builder = mtl.data.from_tfds("oxford_iiit_pet", download=False, label="breed")
    except FileNotFoundError as error:
        assert "download=True" in str(error)
    ```
    """
    import tensorflow_datasets as tfds

    folder = None if data_dir is None else os.fspath(Path(data_dir).expanduser())
    source = tfds.builder(name, data_dir=folder) if isinstance(name, str) else name
    given = adapter(source.info.name, source.info.features, **options)  # unknown: before downloads
    _download(source, download)
    if isinstance(name, str):
        given = adapter(source.info.name, source.info.features, **options)
    splits = {split: source.info.splits[split].num_examples for split in source.info.splits}
    splits = {split: count for split, count in splits.items() if count}
    about = [CONVERTER_VERSION, builder_lib.VERSION, source.info.full_name, sorted(options.items())]
    about += [splits, given.labels().names]
    fingerprint = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:20]
    set_name = source.info.full_name.rsplit("/", 1)[0]
    problems: list[Problem] = []
    root = Path(folder or tfds.core.constants.DATA_DIR).expanduser()
    known = root / builder_lib.slug(set_name) / fingerprint / builder_lib.VERSION
    labels = given.labels()
    remembered = known / "metadata.json"
    if remembered.exists():
        counts = json.loads(remembered.read_text("utf-8"))["counts"]
    else:
        counts = {split: _counts(source, given, split, n) for split, n in splits.items()}
    labels = dataclasses.replace(labels, counts=counts)
    builder = builder_lib.prepare(
        name=set_name,
        fingerprint=fingerprint,
        names=labels,
        splits={s: (n, _generator(source, given, s, problems)) for s, n in splits.items()},
        data_dir=folder,
        description=f"{source.info.full_name} of TensorFlow Datasets.",
        finish=lambda folder: _note(folder, problems),
    )
    _report(builder, source.info.full_name)
    return builder


def _download(source: Any, download: bool) -> None:
    name = source.info.full_name
    if (Path(source.data_dir) / "dataset_info.json").exists():
        return
    if not download:
        raise FileNotFoundError(
            f"TFDS has not prepared {name!r} in {str(source.data_dir)!r}; give download=True, or "
            "`data_dir`, the folder in which it is prepared"
        )
    try:
        source.download_and_prepare()
    except Exception as error:  # whatever the network, the disk or TFDS raises
        raise FileNotFoundError(
            f"TFDS could not download and prepare {name!r}: {type(error).__name__}: {error}. "
            "Prepare it where there is a network (tfds.load), and give its folder as `data_dir`"
        ) from error


def _read(source: Any, split: str) -> Iterator[dict]:
    import tensorflow_datasets as tfds

    return source.as_dataset(
        split=split,
        shuffle_files=False,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(try_autocache=False),
    ).as_numpy_iterator()


def _counts(source: Any, given: Any, split: str, images: int) -> dict[str, int]:
    """How many images of a split have each kind of label."""
    columns = given.labels().columns
    if not given.partial:
        return dict.fromkeys((*builder_lib.KINDS, *columns), images)
    counts = dict.fromkeys((*builder_lib.KINDS, *columns), 0)
    for example in _read(source, split):
        _, (height, width) = _encoded(example["image"])
        adapted = given.adapt(example, split, height, width)
        for kind, here in _labelled(adapted).items():
            counts[kind] += here
        for column in adapted.values:
            counts[column] += 1
    return counts


def _labelled(adapted: Adapted) -> dict[str, bool]:
    boxes = adapted.objects is not None
    instances = boxes and adapted.has_masks
    return {"boxes": boxes, "instances": instances, "mask": adapted.mask is not None}


def _generator(source: Any, given: Any, split: str, problems: list[Problem]) -> Any:
    labels = given.labels()

    def generate() -> Iterator[tuple[int, dict]]:
        for i, example in enumerate(_read(source, split)):
            filename = example[given.filename].decode("utf-8")
            image_id = i if given.image_id is None else int(example[given.image_id])
            content, (height, width) = _encoded(example["image"])
            adapted = given.adapt(example, split, height, width)
            where = f"{source.info.full_name}, {split}, {filename}"
            if adapted.problem:
                problems.append(Problem(where, None, "does not fit", adapted.problem))
            yield i, _example(adapted, labels, content, filename, image_id, height, width)

    return generate


def _example(
    adapted: Adapted,
    labels: builder_lib.Labels,
    content: bytes,
    filename: str,
    image_id: int,
    height: int,
    width: int,
) -> dict:
    objects = adapted.objects or ()  # those without area are left out by the adapter
    cuts = [None if item.mask is None else item.mask(height, width) for item in objects]
    boxes = [clipped_box(item, cut, height, width) for item, cut in zip(objects, cuts, strict=True)]
    crowd = [item.is_crowd for item in objects]
    here = _labelled(adapted)
    instances = np.zeros((height, width), np.uint16)
    if here["instances"]:
        instances = builder_lib.paint_instances((height, width), cuts, crowd, boxes)
    mask = adapted.mask
    if mask is None and labels.mask_names is not None:
        mask = np.full((height, width), 255, np.uint8)
    values = {column: float(adapted.values.get(column, np.nan)) for column in labels.columns}
    return builder_lib.example(
        content,
        filename,
        image_id,
        np.array(boxes, np.float32),
        [item.label for item in objects],
        crowd,
        instances,
        mask,
        here,
        values or None,
    )


def _encoded(image: bytes | np.ndarray) -> tuple[bytes, tuple[int, int]]:
    """Encoded bytes, and height and width from their header."""
    from PIL import Image

    if isinstance(image, np.ndarray):
        return builder_lib.png_bytes(image), image.shape[:2]
    with Image.open(io.BytesIO(image)) as opened:
        return image, opened.size[::-1]


def _note(folder: Path, problems: list[Problem]) -> None:
    """Lists what is ignored beside the set, before the set can be found."""
    if problems:
        listed = json.dumps([dataclasses.asdict(problem) for problem in problems], indent=1)
        (folder / QUARANTINE).write_text(listed, "utf-8")


def _report(builder: Any, name: str) -> None:
    if found := quarantined(builder):
        warnings.warn(
            f"{len(found)} images of {name!r} have labels that do not fit together; these labels "
            "are ignored. "
            f"mtl_keras.data.quarantined(builder) lists them. The first: {found[0]}",
            stacklevel=3,
        )
