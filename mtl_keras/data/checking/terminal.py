"""A report in the terminal; what matters most stands last, above the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mtl_keras.data.checking import rows
from mtl_keras.data.checking.report import Report
from mtl_keras.data.records import Problem

BAR = 14  # characters


def show(report: Report, console: Console, limit: int = 20) -> None:
    """Prints a report.

    Args:
        report: The report.
        console: Where to print it.
        limit: So many problems, and warnings, of a kind are listed; 0 lists all.
    """
    where = f"{report.path} ({report.layout or 'layout not read'})"
    console.print(Text(where), soft_wrap=True)
    if report.seen:
        _table(console, "Images and labels", rows.counts(report))
        if any(split.objects for split in report.splits.values()):
            _table(console, "Objects by class", rows.classes(report))
        if report.mask_names is not None:
            _table(console, "Pixels by class", rows.pixels(report))
        for column in next(iter(report.splits.values())).columns:
            _table(console, f"Label {column}", rows.column(report, column))
        for chart in rows.charts(report):
            _chart(console, chart)
    if report.advice:
        _heading(console, "What the numbers suggest", "cyan")
        for sentence in report.advice:
            line = Table.grid(padding=(0, 1))
            line.add_row("•", Text(sentence))
            console.print(Padding(line, (0, 0, 0, 1)))
    _list(console, "Warnings", report.warnings, report, limit, "yellow")
    _list(console, "Problems", report.problems, report, limit, "red")
    console.print()
    style = "bold red" if report.problems else "bold yellow" if report.warnings else "bold green"
    console.print(Text(rows.verdict(report), style=style))


def _heading(console: Console, title: str, style: str = "") -> None:
    console.print()
    console.print(Text(title, style=f"bold {style}".strip()))


def _table(console: Console, title: str, content: rows.Rows) -> None:
    if not content.rows:
        return
    _heading(console, title)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 1), header_style="dim")
    for i, name in enumerate(content.head):
        table.add_column(name, justify="right" if i else "left", overflow="fold")
    for row in content.rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _chart(console: Console, chart: rows.Chart) -> None:
    _heading(console, chart.title)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 1), header_style="dim")
    table.add_column(chart.unit, justify="right")
    for split in chart.shares:
        table.add_column(split)
    most = max((max(shares) for shares in chart.shares.values()), default=0.0) or 1.0
    for i, label in enumerate(chart.labels):
        cells = [_bar(shares[i], most) for shares in chart.shares.values()]
        table.add_row(label, *cells)
    console.print(table)


def _bar(share: float, most: float) -> Text:
    eighths = round(BAR * 8 * share / most)
    bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
    return Text(f"{share:>4.0%} ") + Text(bar, style="cyan")


def _list(
    console: Console,
    title: str,
    problems: Sequence[Problem],
    report: Report,
    limit: int,
    style: str,
) -> None:
    if not problems:
        return
    _heading(console, f"{title} ({len(problems):,})", style)
    for kind, found in rows.by_kind(problems).items():
        console.print(Text(f" {kind} ({len(found):,})", style=style))
        for problem in found[: limit or None]:
            _line(console, problem, report)
        if limit and len(found) > limit:
            console.print(Text(f"   … and {len(found) - limit:,} more", style="dim"))


def _line(console: Console, problem: Problem, report: Report) -> None:
    line = "" if problem.line is None else f":{problem.line}"
    text: Any = Text("   ") + Text(f"{report.relative(problem.file)}{line}", style="bold")
    console.print(text + Text(f": {problem.message}"), soft_wrap=True)
