"""The rows that benchmarks keep: a CSV that grows by a row a measurement."""

import csv
import pathlib


class Rows:
    """A kind of rows.

    Args:
        key: Names of the columns that say what was measured, and how.
        fields: Names of all columns, in order.
    """

    def __init__(self, key: tuple[str, ...], fields: tuple[str, ...]):
        self._key, self.fields = key, fields

    def read(self, path: pathlib.Path) -> list[dict]:
        """Returns what was measured. A row cut off in the middle is dropped, from the file too."""
        if not path.exists():
            return []
        lines = path.read_text("utf-8").splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            path.write_text("".join(lines[:-1]), encoding="utf-8")
            lines = lines[:-1]
        return list(csv.DictReader(lines))

    def append(self, path: pathlib.Path, row: dict) -> None:
        """Adds a row, at once, and the head of the file where there is none."""
        new = not path.exists() or not path.stat().st_size
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self.fields, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)

    def key(self, row: dict) -> tuple:
        """Returns what tells a row, or a job, from all others."""
        return tuple(str(row[name]) for name in self._key)
