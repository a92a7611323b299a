"""What is known of a named set, and how it is found and read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from mtl_keras.data.records import Record, Source

VARIABLE = "MTL_KERAS_DATA"
DEFAULT = os.path.join("..", "shared", "data")
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class NamedSet:
    """A set that has a name.

    Attributes:
        name: Its name, and that of its folder.
        title: What it is called elsewhere.
        description: What the images show, and how they are labelled.
        licence: Under which it may be used.
        citation: What to cite, or `None` if nothing is known.
        home: Address of its public home, or `None` if it is not known.
        fetch: Sentences: from where to fetch it, and how to lay it.
        read_home: Function from a folder to a `Source`, or to `None` if the folder is not laid out
            as at the public home; `None` if only COCO JSONs can be read.
        tags: Words by which it is described.
        make: Function from a folder of prepared sets to a prepared builder, for a set that is
            made, not read.
        scene: Function from the name of an image to the name of the scene that it shows, if several
            images may show one: these stay in one split.
    """

    name: str
    title: str
    description: str
    licence: str
    citation: str | None = None
    home: str | None = None
    fetch: str = ""
    read_home: Callable[[Path], Source | None] | None = None
    tags: tuple[str, ...] = field(default=())
    make: Callable[[Any], Any] | None = None
    scene: Callable[[str], str] | None = None


def read(named: NamedSet, manual_dir: str | os.PathLike | None = None) -> Source:
    """Finds a set and reads its labels, as COCO JSON or in the layout of its public home.

    Raises:
        FileNotFoundError: If it is nowhere; says from where to fetch it, and how to lay it.
    """
    if manual_dir is not None:
        given = Path(manual_dir).expanduser()
        places = [given, given / named.name]
        said = f"manual_dir={os.fspath(manual_dir)!r}"
    else:
        places = [Path(os.environ.get(VARIABLE) or DEFAULT).expanduser() / named.name]
        said = f"the environment variable {VARIABLE}, {os.environ.get(VARIABLE) or 'not set'}"
    for place in places:
        source = _read_coco(place) if place.is_dir() else None
        if source is None and place.is_dir() and named.read_home is not None:
            source = named.read_home(place)
        if source is not None:
            source.name = named.name
            return source
    looked = " and ".join(repr(str(place)) for place in places)
    raise FileNotFoundError(
        f"the set {named.name!r} ({named.title}) is not there: looked in {looked}, because of "
        f"{said}. {named.fetch} COCO JSON is read too: '{named.name}/images/' beside "
        f"'{named.name}/train.json' and 'val.json'. Then give the folder as `manual_dir`, or name "
        f"the one that holds '{named.name}/' in {VARIABLE}. Licence: {named.licence}."
    )


def _read_coco(folder: Path) -> Source | None:
    from mtl_keras.data import coco

    jsons = {split: folder / f"{split}.json" for split in SPLITS}
    jsons = {split: path for split, path in jsons.items() if path.is_file()}
    if "train" not in jsons or not (folder / "images").is_dir():
        return None
    return coco.read(jsons, images=folder / "images")


def split_by_lists(named: str, records: list[Record]) -> dict[str, list[Record]]:
    """Distributes the images of a public home, which has no splits, over the splits of the set.

    Images that are listed in no split are of `train`.

    Args:
        named: Name of the set.
        records: All images.

    Returns:
        Dict, split to records; splits without images are left out.
    """
    listed = _lists()[named]
    of = {stem: split for split, stems in listed["splits"].items() for stem in stems}
    found: dict[str, list[Record]] = {"train": [], **{split: [] for split in listed["splits"]}}
    for record in records:
        stem = record.path.stem[: listed["length"]] if listed["length"] else record.path.stem
        found[of.get(stem, "train")].append(record)
    return {split: some for split, some in found.items() if some}


@lru_cache(maxsize=1)
def _lists() -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "splits.json").read_text("utf-8"))
