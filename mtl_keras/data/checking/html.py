"""A report as one HTML page that needs no other file, no script and no network."""

from __future__ import annotations

from datetime import datetime
from importlib import resources
from typing import Any

from mtl_keras.data.checking import rows, samples
from mtl_keras.data.checking.report import Report

MOST_LISTED = 500  # problems, or warnings, of a kind
MOST_ODD = 12  # warnings that are shown as pictures
MOST_GROUPS = 24  # of duplicates that are shown as pictures
MOST_OF_GROUP = 4
# Of a chart, in the units of its SVG.
WIDTH, HEIGHT, BOTTOM, TOP = 340, 150, 34, 12


def page(report: Report, count: int = 24) -> str:
    """The page as a text.

    Args:
        report: The report.
        count: How many images to draw with their labels; with 0, nothing is drawn.

    Returns:
        HTML.

    Raises:
        ImportError: If OpenCV is not installed and `count` is not 0.
    """
    import jinja2

    import mtl_keras
    from mtl_keras.draw import require_opencv

    if count:
        require_opencv()
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    chosen = samples.choose(report.seen, count)
    columns = next(iter(report.splits.values())).columns if report.splits else {}
    groups = sorted(report.duplicates, key=lambda group: not group.leaks)
    template = resources.files("mtl_keras.data.checking").joinpath("report.html")
    return environment.from_string(template.read_text("utf-8")).render(
        report=report,
        verdict=rows.verdict(report),
        counts=rows.counts(report) if report.seen else None,
        classes=rows.classes(report) if _has_objects(report) else None,
        pixels=rows.pixels(report) if report.seen and report.mask_names is not None else None,
        columns={column: rows.column(report, column) for column in columns},
        charts=[_bars(chart) for chart in rows.charts(report)],
        legend=_legend(report),
        problems=rows.by_kind(report.problems),
        warnings=rows.by_kind(report.warnings),
        most=MOST_LISTED,
        groups=[_group(group) for group in groups[:MOST_GROUPS]],
        odd=[_odd(*one) for one in samples.odd(report.seen, MOST_ODD if count else 0)],
        samples=[_sample(one, report) for one in chosen],
        version=mtl_keras.__version__,
        when=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )


def _legend(report: Report) -> dict[str, list[tuple[str, str]]]:
    """Names with their colours: of objects, and of pixels where these are others."""
    from mtl_keras.draw import class_colour

    def coloured(names: list[str]) -> list[tuple[str, str]]:
        return [(name, f"rgb{class_colour(i)}") for i, name in enumerate(names)]

    objects, of_mask = coloured(report.names), coloured(report.mask_names or [])
    return {
        "objects": objects,
        "mask": of_mask,
        "all": objects + [n for n in of_mask if n not in objects],
    }


def _has_objects(report: Report) -> bool:
    return any(split.objects for split in report.splits.values())


def _group(group: Any) -> dict[str, Any]:
    pictures = []
    for (split, name), path in zip(group.images, group.paths, strict=True):
        if len(pictures) < MOST_OF_GROUP:
            pictures.append({"split": split, "name": name, "uri": samples.small(path)})
    return {
        "leaks": group.leaks,
        "exact": group.exact,
        "difference": group.difference,
        "pictures": pictures,
        "more": len(group.images) - len(pictures),
    }


def _odd(one: Any, index: int) -> dict[str, Any]:
    warning = one.warnings[index]
    uri = samples.closely(one, one.objects_warned[index])
    return {"uri": uri, "kind": warning.kind, "message": warning.message}


def _sample(one: Any, report: Report) -> dict[str, Any]:
    columns = next(iter(report.splits.values())).columns
    values = {}
    for column, value in one.record.values.items():
        names = columns.get(column)
        values[column] = list(names)[int(value)] if isinstance(names, dict) else f"{value:g}"
    return {
        "uri": samples.drawn(one, report.names),
        "split": one.split,
        "name": one.record.filename,
        "size": f"{one.size[1]} × {one.size[0]}",
        "objects": len(one.classes) if one.labelled["boxes"] else None,
        "values": values,
    }


def _bars(chart: rows.Chart) -> dict[str, Any]:
    """A chart as rectangles, one a bin and split."""
    most = max(max(shares) for shares in chart.shares.values())
    slot = WIDTH / len(chart.labels)
    bar = 0.84 * slot / len(chart.shares)
    bars, texts = [], []
    for s, (split, shares) in enumerate(chart.shares.items()):
        for i, share in enumerate(shares):
            height = (HEIGHT - BOTTOM - TOP) * share / most
            bars.append(
                {
                    "x": round(i * slot + 0.08 * slot + s * bar, 1),
                    "y": round(HEIGHT - BOTTOM - height, 1),
                    "width": round(bar, 1),
                    "height": round(height, 1),
                    "series": s,
                    "about": f"{split}, {chart.labels[i]}: {chart.counts[split][i]:,} "
                    f"({share:.1%})",
                }
            )
    for i, label in enumerate(chart.labels):
        texts.append({"x": round((i + 0.5) * slot, 1), "text": label})
    return {
        "title": chart.title,
        "unit": chart.unit,
        "splits": list(chart.shares),
        "most": f"{most:.0%}",
        "bars": bars,
        "texts": texts,
        "width": WIDTH,
        "height": HEIGHT,
        "floor": HEIGHT - BOTTOM,
        "top": TOP,
    }
