"""What a row of the table of bad labels is, and ways to spoil labels."""

from collections.abc import Callable
from dataclasses import dataclass, field

from labelled_sets import BOX

WHOLE = list(BOX)
NOT_FOUR = "four finite numbers"
EMPTY = {"a.png": 1, "b.png": 0}
A, BOTH = {"a.png": 1}, {"a.png": 1, "b.png": 1}


@dataclass
class Row:
    """What is spoiled, and what must happen. `usable`: the boxes of b afterwards."""

    layout: str
    what: str
    spoil: Callable
    usable: list | None = None
    kind: str = ""
    words: str = ""
    line: str | int | None = None
    left: dict | None = field(default_factory=lambda: dict(A))
    check: Callable | None = None


def after(name, change):
    """Changes the text of a file that is written already."""

    def spoil(s):
        path = s.folder / name
        content = change(path.read_bytes())
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    spoil.is_late = True
    return spoil


def file(name, content):
    spoil = after(name, lambda old: content)

    def late(s):
        (s.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (s.folder / name).touch()
        spoil(s)

    late.is_late = True
    return late


def replaced(name, old, new):
    def change(content):
        assert old.encode() in content
        return content.replace(old.encode(), new.encode(), 1)

    return after(name, change)
