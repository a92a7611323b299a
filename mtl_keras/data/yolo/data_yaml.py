"""The data.yaml of YOLO: names of classes, and folders or lists of images."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mtl_keras.data.files import list_lines, unique_names
from mtl_keras.data.records import Problems, bad_labels
from mtl_keras.data.splits import ORDER, SPLITS_AND_BOTH
from mtl_keras.data.yolo.layout import Layout

YAML = frozenset([".yaml", ".yml"])


def yamls_in(root: Path) -> list[Path]:
    """YAML that names classes: the one of the usual name, else all."""
    found = []
    for path in sorted(root.iterdir()):
        if path.suffix.lower() in YAML and path.is_file() and not path.name.startswith("."):
            text = path.read_text("utf-8-sig", errors="replace")
            if re.search(r"^[\"']?(names|nc)[\"']?\s*:", text, re.MULTILINE):
                found.append(path)
    usual = [p for p in found if p.stem.lower() in ("data", "dataset")]
    return usual[:1] if len(usual) == 1 else found


def of_yaml(file: Path, problems: Problems) -> Layout:
    """What a YAML states.

    Raises:
        BadLabels: If it can't be read.
        ValueError: If it names no images, or PyYAML is missing.
    """
    try:
        import yaml
    except ImportError as error:
        raise ValueError(
            f"{str(file)!r} can't be read without PyYAML: pip install PyYAML; or remove it and "
            "write the names to classes.txt, one a line"
        ) from error

    def fail(kind: str, message: str, line: int | None = None) -> None:
        raise bad_labels(file, line, kind, message)

    def line_of(key: str) -> int | None:
        found = (i for i, t in enumerate(lines, 1) if re.match(rf"[\"']?{key}[\"']?\s*:", t))
        return next(found, None)

    lines = list_lines(file)
    try:
        content = yaml.safe_load("\n".join(lines))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        fail("damaged YAML", f"{error.problem or error.context}", mark and mark.line + 1)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        fail("damaged YAML", " ".join(str(error).split())[:200])
    if not isinstance(content, dict):
        fail("damaged YAML", "it should hold keys: names, train, val")
    root = file.parent
    files = [file]
    count = content.get("nc")
    if content.get("names") is not None:
        names = _yaml_names(content["names"], lambda text: fail("names", text, line_of("names")))
    elif isinstance(count, int) and not isinstance(count, bool) and count > 0:
        names = [f"class_{i}" for i in range(count)]
    else:
        fail("names", "it should hold `names`, a list of the classes", line_of("names"))
    if count is not None and count != len(names):
        fail("names", f"nc is {count!s:.20}, but there are {len(names)} names", line_of("nc"))
    columns = None
    if (shape := content.get("kpt_shape")) is not None:
        if not isinstance(shape, list) or len(shape) != 2 or not all(type(v) is int for v in shape):
            fail("kpt_shape", "it should be [number of keypoints, 2 or 3]", line_of("kpt_shape"))
        columns = 5 + shape[0] * shape[1]
    bases = [root]
    if isinstance(content.get("path"), str) and (root / content["path"]).is_dir():
        bases.insert(0, Path(os.path.normpath(root / content["path"])))
    splits: dict[str, list[Path]] = {}
    for key, value in content.items():
        if not isinstance(key, str) or key not in SPLITS_AND_BOTH or not value:
            continue
        for place in value if isinstance(value, list) else [value]:
            if not isinstance(place, str):
                fail("path", f"{key} should be a path or a list of paths", line_of(key))
            candidates = [base / place for base in bases]
            if place.startswith("../"):
                candidates += [base / place[3:] for base in bases]
            found = next((c for c in candidates if c.exists()), None)
            if found is None:
                message = f"{key} is {place!r}, which is neither a folder nor a list of images"
                problems.add(file, "missing folder", message, line_of(key))
                continue
            splits.setdefault(SPLITS_AND_BOTH[key], []).append(Path(os.path.normpath(found)))
    if not splits:
        raise ValueError(f"{str(file)!r} names no images; it should hold `train`, a folder of them")
    splits = {split: splits[split] for split in ORDER if split in splits}
    files += [place for places in splits.values() for place in places if place.is_file()]
    return Layout(bases[0], names, splits, files, columns)


def _yaml_names(names: Any, fail: Any) -> list[str]:
    if isinstance(names, dict):
        by_id = {str(key): name for key, name in names.items()}
        if len(by_id) < len(names) or by_id.keys() != {str(i) for i in range(len(names))}:
            fail(f"a dict of names should have the keys 0 to {len(names) - 1}, each once")
        names = [by_id[str(i)] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        fail("names should be a list of the classes, or a dict from 0 on")
    for i, name in enumerate(names):
        if (
            isinstance(name, bool)
            or not isinstance(name, (str, int, float))
            or not str(name).strip()
        ):
            fail(f"the name of class {i} is {name!r:.50}; write it in quotes")
    return unique_names([str(name) for name in names])
