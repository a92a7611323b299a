"""The tables and charts of a report as rows of texts, for the terminal and the page alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mtl_keras.data.builder import KINDS
from mtl_keras.data.checking.report import Histogram, Report, Split, Spread
from mtl_keras.data.records import Problem

_KIND_NAMES = {"boxes": "with boxes", "instances": "with instances", "mask": "with a mask"}


@dataclass(frozen=True)
class Rows:
    """A table.

    Attributes:
        head: A text a column.
        rows: Rows of texts.
    """

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass(frozen=True)
class Chart:
    """A histogram of each split.

    Attributes:
        title: What is counted.
        unit: Of the labels.
        labels: A text a bin.
        shares: Split to the share of each bin.
        counts: Split to the number in each bin.
    """

    title: str
    unit: str
    labels: tuple[str, ...]
    shares: dict[str, list[float]]
    counts: dict[str, list[int]]


def verdict(report: Report) -> str:
    """One line on what was found."""
    images = sum(split.images for split in report.splits.values())
    problems, warned = len(report.problems), len(report.warnings)
    if not problems and not warned:
        return f"No problems in {images:,} images ({report.seconds:.1f} s)"
    found = [
        f"{n:,} {what}{'s' * (n != 1)}"
        for n, what in ((problems, "problem"), (warned, "warning"))
        if n
    ]
    left_out = len({(p.file, p.image) for p in report.problems if p.image is not None})
    gone = f"; {left_out:,} image{'s' * (left_out != 1)} can't be used" if left_out else ""
    return f"{' and '.join(found)} in {images:,} images{gone} ({report.seconds:.1f} s)"


def by_kind(problems: Sequence[Problem]) -> dict[str, list[Problem]]:
    """Problems by their kind, in the order in which the kinds come first."""
    groups: dict[str, list[Problem]] = {}
    for problem in problems:
        groups.setdefault(problem.kind, []).append(problem)
    return groups


def counts(report: Report) -> Rows:
    """Images and labels of each split."""
    splits = report.splits
    rows = [("images", *(f"{s.images:,}" for s in splits.values()))]
    if any(s.left_out for s in splits.values()):
        rows.append(("can't be opened", *(f"{s.left_out:,}" for s in splits.values())))
    kinds = next(iter(splits.values())).labelled
    for kind in kinds:
        if any(s.labelled[kind] for s in splits.values()):
            name = _KIND_NAMES[kind] if kind in KINDS else f"with {kind}"
            rows.append((f"  {name}", *(f"{s.labelled[kind]:,}" for s in splits.values())))
    if any(s.labelled["boxes"] for s in splits.values()):
        rows.append(("  without objects", *(f"{s.empty:,}" for s in splits.values())))
        rows.append(("objects", *(f"{s.objects:,}" for s in splits.values())))
        if any(s.crowd for s in splits.values()):
            rows.append(("  crowds, difficult", *(f"{s.crowd:,}" for s in splits.values())))
        rows.append(("  an image", *(_spread(s.per_image) for s in splits.values())))
    rows.append(("width, px", *(_spread(s.width) for s in splits.values())))
    rows.append(("height, px", *(_spread(s.height) for s in splits.values())))
    rows.append(("files", *(_named(s.formats) for s in splits.values())))
    rows.append(("modes", *(_named(s.modes) for s in splits.values())))
    if any(s.grey for s in splits.values()):
        rows.append(("without colour", *(f"{s.grey:,}" for s in splits.values())))
    if any(s.turned for s in splits.values()):
        rows.append(("turned by EXIF", *(f"{s.turned:,}" for s in splits.values())))
    return Rows(("", *splits), rows)


def classes(report: Report) -> Rows:
    """Objects of each class, the images that hold them, and their usual size."""
    splits = {name: split for name, split in report.splits.items() if split.objects}
    rows = []
    for c, name in enumerate(report.names):
        cells = [f"{s.objects_of_class[c]:,} in {s.images_of_class[c]:,}" for s in splits.values()]
        sizes = [s.size_of_class[c] for s in splits.values() if s.size_of_class[c] is not None]
        rows.append((name, *cells, f"{sizes[0]:.0f} px" if sizes else "–"))
    return Rows(("objects in images", *splits, "median size"), rows)


def pixels(report: Report) -> Rows:
    """Share of the pixels of each class."""
    names = ["background", *(report.mask_names or ())]
    splits = {name: s for name, s in report.splits.items() if s.labelled["mask"]}
    rows = [
        (name, *(f"{s.pixels_of_class[c]:.2%}" for s in splits.values()))
        for c, name in enumerate(names)
    ]
    return Rows(("class", *splits), rows)


def column(report: Report, name: str) -> Rows:
    """Values of a label of whole images."""
    splits = report.splits
    values = {split: of.columns[name] for split, of in splits.items()}
    first = next(iter(values.values()))
    if isinstance(first, dict):
        rows = [(value, *(f"{of[value]:,}" for of in values.values())) for value in first]
        return Rows(("class", *splits), rows)
    return Rows(("", *splits), [("least · median · most", *map(_spread, values.values()))])


def charts(report: Report) -> list[Chart]:
    """Histograms of boxes; none without objects."""
    splits = {name: s for name, s in report.splits.items() if s.objects}
    if not splits:
        return []
    height, width = report.image_size
    wanted = (
        ("Size of boxes, as the images are", "√area, px", "box_size"),
        (f"Size of boxes at {width} × {height}", "√area, px", "box_size_trained"),
        ("Aspect of boxes", "width / height", "box_aspect"),
    )
    return [_chart(title, unit, splits, key) for title, unit, key in wanted]


def _chart(title: str, unit: str, splits: dict[str, Split], key: str) -> Chart:
    histograms: dict[str, Histogram] = {name: getattr(s, key) for name, s in splits.items()}
    labels = next(iter(histograms.values())).labels
    used = [i for i in range(len(labels)) if any(h.counts[i] for h in histograms.values())]
    part = slice(used[0], used[-1] + 1)
    counted = {name: list(h.counts) for name, h in histograms.items()}
    return Chart(
        title,
        unit,
        labels[part],
        {name: [n / sum(c) for n in c[part]] for name, c in counted.items()},
        {name: c[part] for name, c in counted.items()},
    )


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "–"
    if spread.least == spread.most:
        return f"{spread.most:g}"
    return f"{spread.least:g} · {spread.median:g} · {spread.most:g}"


def _named(counts: dict[str, int]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "–"
