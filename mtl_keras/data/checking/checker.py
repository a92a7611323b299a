"""Check a folder of labelled images."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from mtl_keras.data import importing
from mtl_keras.data.checking import advice, duplicates, statistics
from mtl_keras.data.checking.lines import Lines
from mtl_keras.data.checking.look import Seen, look
from mtl_keras.data.checking.report import Group, Report
from mtl_keras.data.from_folder import read_folder, recognise
from mtl_keras.data.letterbox import MULTIPLE
from mtl_keras.data.records import BadLabels, Problem, Record, Source

LARGEST_SIZE = 640  # for the size at which objects are judged, where none is given
MAX_OBJECTS = 400  # what `Detection` takes if it is told nothing
MOST_THREADS = 8


def check(
    path: str | os.PathLike,
    layout: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    max_objects: int = MAX_OBJECTS,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Report:
    """Checks a folder of labelled images, and changes nothing.

    Every image and every label is opened, as for a preparation by `from_folder`; what that would
    leave out are the report's `problems`. A picture that is in two splits is one too. What can be
    used and is odd are its `warnings`: boxes that disagree with their masks or reach outside,
    objects that are there twice, images of one colour, pictures that are twice in a split.

    Duplicates are found by perceptual hashes and then compared as thumbnails: copies that were
    saved again, scaled or made lighter, and neighbouring frames of a video, are found; crops,
    mirrored and turned ones are not. Images of almost one colour are duplicates only if their files
    are the same.

    Args:
        path: The folder, in any layout that `from_folder` takes.
        layout: Its layout, if it could be taken for several.
        image_size: Size at which it is to be trained, `(height, width)` in pixels or one int for
            both, by which the sizes of objects are judged; by default a square that holds the
            largest image, of 640 at most.
        max_objects: Integer, images with more objects get a warning; as of `Detection`.
        progress: Called with the number of images that are done, and of all.
        **options: Arguments of the layout's own `read`, as for `from_folder`.

    Returns:
        A `Report`. Labels that can't be read at all are a problem of it too.

    Raises:
        FileNotFoundError: If there is no such folder, or no folder of images in it.
        ValueError: If the layout is not recognised, or is unknown, or a number is out of range.

    Example:
        ```python
        import json, pathlib, tempfile
        import numpy as np
        from PIL import Image
        import mtl_keras as mtl

        folder = pathlib.Path(tempfile.mkdtemp())
        (folder / "images").mkdir()
        for split in ("train", "val"):
            noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), "uint8")
            Image.fromarray(noise).save(folder / "images" / f"{split}.png")
            (folder / f"{split}.json").write_text(json.dumps({
                "images": [{"id": 1, "file_name": f"{split}.png", "width": 60, "height": 40}],
                "categories": [{"id": 7, "name": "cell"}],
                "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [5, 5, 9, 9]}],
            }))
        report = mtl.data.check(folder)
        assert [problem.kind for problem in report.problems] == ["duplicate across splits"]
        assert report.splits["train"].objects_of_class == [1]
        ```
    """
    start = time.perf_counter()
    image_size = _given_size(image_size)
    if isinstance(max_objects, bool) or not isinstance(max_objects, int) or max_objects < 1:
        raise ValueError(f"`max_objects` must be an integer of at least 1. Received: {max_objects}")
    folder = Path(path).expanduser()
    report = Report(folder.resolve().name, str(folder), layout, image_size or (LARGEST_SIZE,) * 2)
    try:
        if folder.is_dir() and layout is None:
            report.layout = recognise(folder)
        source = read_folder(folder, report.layout, on_bad="quarantine", **options)
    except BadLabels as error:  # nothing of the set can be read without this file
        report.problems = [error.problem]
        report.seconds = time.perf_counter() - start
        return report
    report.name = source.name
    records = [(split, record) for split, of in source.splits.items() for record in of]
    looked = _look_at(records, max_objects, progress)
    report.seen = [seen for seen, _ in looked if seen is not None]
    if image_size is None:
        longest = max((max(one.size) for one in report.seen), default=LARGEST_SIZE)
        report.image_size = (min(-(-longest // MULTIPLE) * MULTIPLE, LARGEST_SIZE),) * 2
    report.problems = [*source.problems, *(p for _, found in looked for p in found)]
    report.warnings = [w for one in report.seen for w in one.warnings]
    if not report.seen:
        message = "no image of the set can be used"
        report.problems.append(Problem(str(folder), None, "no images", message))
    for split in [split for split, of in source.splits.items() if not of]:
        message = f"the split {split!r} holds no image"
        report.warnings.append(Problem(str(folder), None, "empty split", message))
    _add_duplicates(report)
    _add_statistics(report, source, looked, [split for split, _ in records])
    lines = Lines()
    report.problems = [lines.found(problem) for problem in report.problems]
    report.warnings = [lines.found(problem) for problem in report.warnings]
    report.advice = advice.of_report(report)
    report.seconds = time.perf_counter() - start
    return report


_Looked = tuple[Seen | None, list[Problem]]


def _look_at(records: list[tuple[str, Record]], max_objects: int, progress: Any) -> list[_Looked]:
    """Looks at all images, some at a time: Pillow decodes without holding Python's lock."""
    looked: list[_Looked] = []
    threads = min(os.cpu_count() or 1, MOST_THREADS)
    # Restores the filters of warnings, which the threads change and restore in any order.
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        warnings.filterwarnings("ignore", module="PIL")
        for found in pool.map(lambda one: _look(*one, max_objects), records):
            looked.append(found)
            if progress is not None:
                progress(len(looked), len(records))
    return looked


def _look(split: str, record: Record, max_objects: int) -> _Looked:
    try:
        return look(split, record, max_objects)
    except Exception as error:  # a preparation would stop here
        message = f"its labels can't be used: {type(error).__name__}: {error}"
        where = str(record.where or record.path)
        return None, [Problem(where, None, "unusable label", message, record.filename)]


def _add_statistics(
    report: Report, source: Source, looked: list[_Looked], splits: list[str]
) -> None:
    labels = importing.labels_of(source)
    report.names = list(labels.names)
    if any(one.labelled["mask"] for one in report.seen):
        report.mask_names = list(labels.mask_names or labels.names)
    for split in source.splits:
        of_split = [one for (one, _), name in zip(looked, splits, strict=True) if name == split]
        seen = [one for one in of_split if one is not None]
        report.splits[split] = statistics.of_split(
            seen, source, report.mask_names, len(of_split) - len(seen), report.image_size
        )


def _add_duplicates(report: Report) -> None:
    seen = report.seen
    if not seen:
        return
    thumbnails = np.stack([one.thumbnail for one in seen])
    for i in np.flatnonzero(duplicates.is_blank(thumbnails)):
        record = seen[i].record
        message = f"the image {record.filename!r} is of almost one colour"
        report.warnings.append(
            Problem(str(record.path), None, "blank image", message, record.filename)
        )
    found = duplicates.find(thumbnails, [o.size for o in seen], [o.digest for o in seen])
    for one in found:
        members = [seen[i] for i in one.members]
        group = Group(
            tuple((m.split, m.record.filename) for m in members),
            tuple(str(m.record.path) for m in members),
            one.exact,
            one.difference,
        )
        report.duplicates.append(group)
        _note(report, group, members)


def _note(report: Report, group: Group, members: list[Seen]) -> None:
    """A group of duplicates as a problem, if it is in several splits, or as a warning."""
    first = members[0]
    other = next((m for m in members[1:] if m.split != first.split), members[1])
    what = "the same file as" if group.exact else "almost the same picture as"
    more = f", and {len(members) - 2} more" if len(members) > 2 else ""
    counts = {len(m.classes) for m in members}
    labels = f"; they hold {_range(counts)} objects" if len(counts) > 1 else ""
    message = f"{other.name} is {what} {first.name}{more}{labels}"
    kind, listed = "duplicate", report.warnings
    if group.leaks:
        kind, listed = "duplicate across splits", report.problems
    listed.append(Problem(str(other.record.path), None, kind, message))


def _range(counts: set[int]) -> str:
    return f"{min(counts)} to {max(counts)}"


def _given_size(image_size: Any) -> tuple[int, int] | None:
    if image_size is None:
        return None
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(size) != 2 or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in size):
        raise ValueError(
            "`image_size` must be (height, width) in pixels, or one int for both. Received: "
            f"image_size={image_size!r}"
        )
    return size
