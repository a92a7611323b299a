"""In which line of its file a label stands."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from mtl_keras.data.coco_json import CocoJson
from mtl_keras.data.records import BadLabels, Problem

_LINE = re.compile(r"^.*?, line (\d+) \(image ")
_FILE_AND_LINE = re.compile(r"^(.*), line (\d+)$")
_BY_ID = re.compile(r"^annotation (\S+) ")
_BY_INDEX = re.compile(r"^annotations\[(\d+)\] ")


class Lines:
    """Finds lines of problems that are known by the name of their label only.

    Importers name a label in the text of a problem, as "labels/a.txt, line 3" or "annotation 12".
    Lines of a JSON cost a second reading of it, which happens when the first is asked for.
    """

    def __init__(self) -> None:
        self._files: dict[str, tuple[CocoJson, dict[str, int]] | None] = {}

    def found(self, problem: Problem) -> Problem:
        """The problem with its line, if it had none and one is known."""
        if problem.line is not None:
            return problem
        if match := _FILE_AND_LINE.match(problem.file):
            return dataclasses.replace(problem, file=match[1], line=int(match[2]))
        if match := _LINE.match(problem.message):
            return dataclasses.replace(problem, line=int(match[1]))
        by_id, by_index = _BY_ID.match(problem.message), _BY_INDEX.match(problem.message)
        if not problem.file.endswith(".json") or not (by_id or by_index):
            return problem
        if (json := self._json(problem.file)) is None:
            return problem
        coco, index_of = json
        index = index_of.get(by_id[1]) if by_id else int(by_index[1])
        line = None if index is None else coco.line("annotations", index)
        return dataclasses.replace(problem, line=line)

    def _json(self, file: str) -> tuple[CocoJson, dict[str, int]] | None:
        if file not in self._files:
            try:
                coco = CocoJson.read(Path(file))
            except (BadLabels, OSError):
                self._files[file] = None
            else:
                entries = [(i, a) for i, a in enumerate(coco.annotations) if isinstance(a, dict)]
                self._files[file] = coco, {str(a.get("id")): i for i, a in entries}
        return self._files[file]
