"""Labels as people have them: each row is one thing that is odd or wrong, in one layout.

Every set has two images of one object each. A row spoils the labels of b, and says what must
happen: which objects b has afterwards, where that is usable; else which kind of problem is raised
under `strict`, with which words and in which line, and which images `quarantine` leaves.
"""

from pathlib import Path

import numpy as np
import pytest
from bad_rows_coco import COCO, PANOPTIC
from bad_rows_files import VOC, YOLO
from bad_rows_masks import COLUMNS, MASKS
from labelled_sets import LabelledSet

import mtl_keras as mtl
from mtl_keras.data.records import BadLabels

ROWS = [*COCO, *PANOPTIC, *VOC, *YOLO, *MASKS, *COLUMNS]


def made(row, folder):
    labelled = LabelledSet(folder, row.layout)
    for name in ("a.png", "b.png"):
        labelled.add(name)
    if getattr(row.spoil, "is_late", False):
        labelled.write()
        row.spoil(labelled)
    else:
        row.spoil(labelled)
        labelled.write()
    return labelled


def found_in(builder):
    examples = mtl.data.examples(builder, "train").as_numpy_iterator()
    return {one["filename"].decode().split("/")[-1]: one for one in examples}


def line_of(problem, text):
    lines = Path(problem.file).read_text("utf-8").split("\n")
    return 1 + next(i for i, line in enumerate(lines) if text in line)


def test_there_are_rows_enough():
    names = [(row.layout, row.what) for row in ROWS]
    assert len(set(names)) == len(names) >= 60


@pytest.mark.parametrize("row", [pytest.param(r, id=f"{r.layout}: {r.what}") for r in ROWS])
def test_row(row, tmp_path):
    labelled = made(row, tmp_path / "set")
    common = {"layout": row.layout, "data_dir": tmp_path / "prepared"}
    if row.usable is not None:
        builder = mtl.data.from_folder(labelled.folder, **common)
        one = found_in(builder)["b.png"]
        np.testing.assert_allclose(one["boxes"], np.reshape(row.usable, (-1, 4)), atol=0.01)
        assert mtl.data.quarantined(builder) == [] and set(one["classes"]) <= {0}
        if row.check is not None:
            row.check(one)
        return
    with pytest.raises(BadLabels, match=f"(?s){row.words}") as error:
        mtl.data.from_folder(labelled.folder, **common)
    problem = error.value.problem
    assert problem.kind == row.kind
    line = line_of(problem, row.line) if isinstance(row.line, str) else row.line
    assert row.line is None or problem.line == line
    assert str(labelled.folder) in problem.file
    if row.left is None:  # it concerns all images
        with pytest.raises(BadLabels, match=f"(?s){row.words}"):
            mtl.data.from_folder(labelled.folder, on_bad="quarantine", **common)
        return
    with pytest.warns(UserWarning, match="problem"):
        builder = mtl.data.from_folder(labelled.folder, on_bad="quarantine", **common)
    found, problems = found_in(builder), mtl.data.quarantined(builder)
    assert {problem.kind for problem in problems} >= {row.kind} and str(problem) in map(
        str, problems
    )
    assert set(found) == set(row.left)
    if row.layout in ("coco", "coco_panoptic", "voc", "yolo"):
        assert {name: len(one["boxes"]) for name, one in found.items()} == row.left
