"""What the numbers of a set suggest, in plain sentences; nothing where they suggest nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mtl_keras.data.builder import KINDS
from mtl_keras.data.checking.look import Seen
from mtl_keras.data.checking.report import Report
from mtl_keras.data.checking.statistics import SMALL, TINY, trained_sizes
from mtl_keras.data.letterbox import MULTIPLE

MANY_SMALL = 0.1  # share of objects from which their size is worth a word
MANY_TINY = 0.01
LARGE = 64.0  # pixels: objects that stay easy to find at half the size
FEW_OBJECTS = 20  # of a class, to learn from
FEW_IMAGES = 20  # to measure on
IMBALANCE = 20.0  # most frequent class to rarest
THIN_CLASS = 0.01  # share of the pixels
ELONGATED = 4.0  # longer to shorter side
TOO_LARGE = 4.0  # side of the images to that of training
SHIFT, ENOUGH = 1.5, 50  # ratio of medians of two splits, each of so many objects


def of_report(report: Report) -> list[str]:
    """Sentences on a report whose statistics are complete.

    Args:
        report: The report.

    Returns:
        List of texts.
    """
    parts = (_splits, _classes, _pixels, _sizes, _images, _labels)
    return [sentence for part in parts for sentence in part(report)]


def _splits(report: Report) -> Iterator[str]:
    leaks = sum(group.leaks for group in report.duplicates)
    if leaks:
        yield (
            f"{_count(leaks, 'picture')} {'is' if leaks == 1 else 'are'} in more than one split, "
            "which makes metrics look better than they are: keep each in one split."
        )
    if not report.splits:
        return
    if "train" not in report.splits:
        yield f"There is no split train; the splits are {_listed(list(report.splits))}."
    if "val" not in report.splits:
        yield (
            "There is no split val to measure on while training: hold out some of train, pictures "
            "of one scene, patient or day together."
        )
    elif (images := report.splits["val"].images) < FEW_IMAGES:
        yield f"The split val holds {_count(images, 'image')}: metrics on so few are noisy."
    train, val = report.splits.get("train"), report.splits.get("val")
    sizes = {}
    for name in ("train", "val"):
        boxes = np.concatenate(
            [o.boxes for o in report.seen if o.split == name] or [np.zeros((0, 4))]
        )
        if len(boxes) >= ENOUGH:
            sizes[name] = float(np.median(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))))
    if train and val and len(sizes) == 2:
        ratio = sizes["val"] / sizes["train"]
        if not 1.0 / SHIFT <= ratio <= SHIFT:
            yield (
                f"Objects of val are {ratio:.1f} times as large as those of train (median "
                f"{sizes['val']:.0f} and {sizes['train']:.0f} px): the splits may be of two kinds."
            )


def _classes(report: Report) -> Iterator[str]:
    names, splits = report.names, report.splits
    if not splits or not any(split.objects for split in splits.values()):
        return
    counts = {name: np.array(split.objects_of_class) for name, split in splits.items()}
    total = sum(counts.values())
    if unused := [names[c] for c in np.flatnonzero(total == 0)]:
        yield f"No image holds an object of {_classes_named(unused)}."
    train, val = counts.get("train"), counts.get("val")
    if train is not None and train.any():
        few = [c for c in np.flatnonzero((train > 0) & (train < FEW_OBJECTS))]
        if few:
            shown = _listed([f"{names[c]} ({train[c]})" for c in few])
            yield (
                f"Fewer than {FEW_OBJECTS} objects to learn from: {shown}. Label more, or merge "
                "with a class that looks alike."
            )
        most, least = int(train.argmax()), int(np.where(train > 0, train, train.max()).argmin())
        if train[most] >= IMBALANCE * train[least]:
            yield (
                f"Classes are unequal: {names[most]} has {train[most]:,} objects in train, "
                f"{names[least]} has {train[least]:,}. Look at AP by class, not only at the mean."
            )
    if train is not None and val is not None and train.any() and val.any():
        if missing := [names[c] for c in np.flatnonzero((train > 0) & (val == 0))]:
            yield f"In train and not in val, so never measured: {_classes_named(missing)}."
        if missing := [names[c] for c in np.flatnonzero((train == 0) & (val > 0))]:
            yield f"In val and not in train, so never learned: {_classes_named(missing)}."


def _pixels(report: Report) -> Iterator[str]:
    split = report.splits.get("train")
    if split is None or report.mask_names is None or not any(split.pixels_of_class):
        return
    shares = split.pixels_of_class[1:]
    thin = [
        f"{n} ({s:.2%})"
        for n, s in zip(report.mask_names, shares, strict=True)
        if 0 < s < THIN_CLASS
    ]
    if thin:
        yield (
            f"Classes that cover less than {THIN_CLASS:.0%} of the pixels of train's masks: "
            f"{_listed(thin)}. Look at IoU by class: pixel accuracy hides them."
        )


def _sizes(report: Report) -> Iterator[str]:
    sizes = trained_sizes(report.seen, report.image_size)
    if not len(sizes):
        return
    at = _size(report.image_size)
    small = float((sizes < SMALL).mean())
    if small >= MANY_SMALL:
        larger = _larger(report.seen, report.image_size)
        yield (
            f"{small:.0%} of the {len(sizes):,} objects are smaller than {SMALL:g} px at {at}, one "
            "cell of the level P3: add level P2 to Detection" + larger + "."
        )
    tiny = sizes < TINY
    if tiny.mean() >= MANY_TINY:
        of_image = [int((trained_sizes([o], report.image_size) < TINY).sum()) for o in report.seen]
        most = int(np.argmax(of_image))
        yield (
            f"{_count(int(tiny.sum()), 'object')} ({tiny.mean():.1%}) in "
            f"{_count(sum(n > 0 for n in of_image), 'image')} are smaller than {TINY:g} px at "
            f"{at}, too small to tell what they are; most of them ({of_image[most]}) in "
            f"{report.seen[most].name}."
        )
    if np.quantile(sizes, 0.05) >= LARGE:
        half = tuple(max(MULTIPLE, side // 2 // MULTIPLE * MULTIPLE) for side in report.image_size)
        yield (
            f"95 % of the objects are larger than {LARGE:g} px at {at}: at {_size(half)} they are "
            f"still larger than {LARGE / 2:g} px, and a step of training costs about a quarter."
        )


def _larger(seen: Sequence[Seen], image_size: tuple[int, int]) -> str:
    """At which larger size the small objects are few, if there is one."""
    for factor in (1.5, 2, 3, 4):
        size = tuple(int(side * factor) // MULTIPLE * MULTIPLE for side in image_size)
        share = float((trained_sizes(seen, size) < SMALL).mean())
        if share < MANY_SMALL:
            return f", or train at a larger image_size: at {_size(size)} it would be {share:.0%}"
    return ""


def _images(report: Report) -> Iterator[str]:
    if not report.seen:
        return
    sides = np.array([one.size for one in report.seen], np.float64)
    long = int((sides.max(1) / sides.min(1) > ELONGATED).sum())
    if long:
        yield (
            f"{_count(long, 'image')} {'is' if long == 1 else 'are'} more than {ELONGATED:g} times "
            "as long as wide: most of the canvas is padding; cut them into tiles."
        )
    ratio = float(
        np.median(
            np.maximum(sides[:, 0] / report.image_size[0], sides[:, 1] / report.image_size[1])
        )
    )
    if ratio >= TOO_LARGE:
        yield (
            f"Images are {ratio:.1f} times as large as {_size(report.image_size)} (median): copies "
            "of about twice the size of training are read much faster."
        )
    empty = sum(split.empty for split in report.splits.values())
    counted = sum(split.labelled["boxes"] for split in report.splits.values())
    if counted and empty > counted / 2:
        yield (
            f"{empty:,} of {_count(counted, 'image')} hold no object. If they are not labelled "
            "yet, they teach that there is nothing: leave them out of the labels."
        )


def _labels(report: Report) -> Iterator[str]:
    for name, split in report.splits.items():
        for kind, count in split.labelled.items():
            if 0 < count < split.images:
                what = kind if kind in KINDS else f"a label {kind!r}"
                yield (
                    f"{count:,} of {_count(split.images, 'image')} of {name} have {what}; the "
                    "others do not count for tasks that need it."
                )


def _size(size: tuple[int, ...]) -> str:
    return f"{size[1]} × {size[0]}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _classes_named(names: list[str]) -> str:
    return f"class{'es' * (len(names) > 1)} {_listed(names)}"


def _listed(names: list[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
