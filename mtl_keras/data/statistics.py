"""What a prepared set holds: images, objects a class, sizes of images and of boxes."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtl_keras.data.builder import KINDS

QUANTILES = (5, 25, 50, 75, 95)


def statistics(builder: Any) -> dict[str, Any]:
    """Counts what a prepared set holds; no image is decoded.

    Objects and boxes are those that are not crowds. An image that is not labelled with boxes counts
    in `images` and in `labelled`, not in `objects_per_image`.

    Args:
        builder: A prepared builder of `load`, `from_folder`, `from_coco`, `from_tfds` or `digits`.

    Returns:
        A dict, ready for JSON, with `classes`, the list of class names, and `splits`, a dict from
        split to a dict of

        - `images`: number of images;
        - `labelled`: dict, kind of label or column to the number of images that have it;
        - `objects`, `crowds`: numbers of objects;
        - `objects_by_class`: dict, class name to the number of its objects;
        - `objects_per_image`, `image_width`, `image_height`: dicts of `min`, `median` and `max`;
        - `box_size`: dict, percent to the quantile of the square root of boxes' areas, in pixels.

        Where there is nothing to count, values are `None`.

    Raises:
        ValueError: If the builder has another layout.

    Example:

    ```python
    import tempfile
    import mtl_keras as mtl

    builder = mtl.data.digits(train=4, val=2, image_size=(64, 64), data_dir=tempfile.mkdtemp())
    found = mtl.data.statistics(builder)
    assert found["splits"]["train"]["images"] == 4
    assert found["splits"]["val"]["image_width"] == {"min": 64, "median": 64, "max": 64}
    ```
    """
    from mtl_keras.data.pipeline import _read

    if "objects" not in builder.info.features:
        raise ValueError(
            f"the builder {builder.info.full_name!r} has no feature 'objects'; import the set with "
            "mtl_keras.data.from_folder, from_coco or from_tfds"
        )
    names = builder.info.features["objects"]["label"].names
    filled = [split for split, info in builder.info.splits.items() if info.num_examples]
    return {
        "classes": list(names),
        "splits": {split: _of_split(_read(builder, split), names) for split in sorted(filled)},
    }


def _of_split(encoded: Any, names: list[str]) -> dict[str, Any]:
    widths, heights, per_image = [], [], []
    boxes, classes = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.int64)]
    labelled: dict[str, int] = {}
    crowds = 0
    for example in encoded.as_numpy_iterator():
        # The header of the PNG holds width and height.
        width, height = np.frombuffer(example["instances"][16:24], ">u4").tolist()
        widths.append(width)
        heights.append(height)
        here = example.get("labelled", dict.fromkeys(KINDS, True))
        here = {**here, **{k: np.isfinite(v) for k, v in example.get("values", {}).items()}}
        for kind, is_here in here.items():
            labelled[kind] = labelled.get(kind, 0) + bool(is_here)
        if not here["boxes"]:
            continue
        objects = example["objects"]
        single = ~objects["is_crowd"]
        crowds += int((~single).sum())
        per_image.append(int(single.sum()))
        boxes.append(objects["bbox"][single])
        classes.append(objects["label"][single])
    sides = np.concatenate(boxes)
    areas = np.prod((sides[:, 2:] - sides[:, :2]).astype(np.float64), axis=1)
    counts = np.bincount(np.concatenate(classes), minlength=len(names)).tolist()
    return {
        "images": len(widths),
        "labelled": labelled,
        "objects": int(sum(per_image)),
        "crowds": crowds,
        "objects_by_class": dict(zip(names, counts, strict=True)),
        "objects_per_image": _range(per_image),
        "image_width": _range(widths),
        "image_height": _range(heights),
        "box_size": {
            str(q): round(float(np.percentile(np.sqrt(areas), q)), 1) if len(areas) else None
            for q in QUANTILES
        },
    }


def _range(values: list[int]) -> dict[str, float | None]:
    if not values:
        return {"min": None, "median": None, "max": None}
    median = float(np.median(values))
    return {
        "min": min(values),
        "median": int(median) if median.is_integer() else median,
        "max": max(values),
    }
