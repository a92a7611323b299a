"""Measures the named sets; needs their data, in MTL_KERAS_DATA.

Command: python zoo/sets.py [NAME ...]      (then python zoo/tables.py, for docs/data.md)

Writes mtl_keras/data/sets/statistics.json, which `mtl_keras.data.info` shows, and splits.json, the
lists of images by which the files of a public home, which knows no splits, get those of the set.
"""

import argparse
import json
import pathlib
import tempfile

import mtl_keras as mtl
from mtl_keras.data import sets
from mtl_keras.data.pipeline import _read

SPLITS = sets.STATISTICS.with_name("splits.json")
# The public home of nuclei names images by 64 letters, the set by the first 16 of them.
LENGTHS = {"nuclei": 16}


def stems(builder, split: str) -> list[str]:
    names = (e["image/filename"].decode() for e in _read(builder, split).as_numpy_iterator())
    return sorted(pathlib.PurePosixPath(name).stem for name in names)


def written(path: pathlib.Path, changes: dict) -> None:
    old = json.loads(path.read_text("utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**old, **changes}, indent=1, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=mtl.data.names(), metavar="NAME")
    for name in parser.parse_args().names:
        builder = mtl.data.load(name, data_dir=tempfile.mkdtemp())
        if found := mtl.data.leaks(builder):
            raise SystemExit("\n".join(found))
        written(sets.STATISTICS, {name: mtl.data.statistics(builder)})
        if sets.get(name).read_home is not None:
            others = [split for split in builder.info.splits if split != "train"]
            listed = {split: stems(builder, split) for split in others}
            written(SPLITS, {name: {"length": LENGTHS.get(name), "splits": listed}})
        print(name, {k: v["images"] for k, v in mtl.data.info(name)["splits"].items()})
