"""What the masks of a set are taken for, from all of them together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from mtl_keras.data.mask_folders.pixels import Seen
from mtl_keras.data.mask_folders.tables import Entry, Table

# Without a list of names, more classes than these are rather smoothed edges.
MAX_UNNAMED = 64
_MAX_CLASSES = 254
IGNORE = 255
GREYS = frozenset(("rgb", "grey"))


@dataclass
class Reading:
    """What the masks of a set are taken for.

    `codes` says how pixels become numbers: "grey"; "codes", where those of RGB are r * 65536 + g *
    256 + b; "colours", where grey is RGB too. `pixels` gives the label of each number. In a binary
    set, `foreground` are the values that may stand for it, or `None` where any may.
    """

    kind: str
    codes: str
    names: list[str]
    pixels: dict[int, int] | None = None
    notes: list[str] = field(default_factory=list)
    foreground: frozenset[int] | None = None


def decide(all_seen: Sequence[Seen | None], tables: list[Table], masks: str) -> Reading:
    """What masks are taken for.

    Raises:
        ValueError: If it can't be told.
    """
    seen = [s for s in all_seen if s is not None]
    wide = sum(s.kind == "wide" for s in seen)
    rgb = sum(s.kind == "rgb" for s in seen)
    indices = len(seen) - wide - rgb
    if masks == "instances":
        return _instances(tables, "each value or colour other than 0")
    if masks == "auto" and wide and wide >= max(rgb, indices):
        of_wide = frozenset().union(*(s.present for s in seen if s.kind == "wide"))
        if of_wide != {65535}:
            return _instances(tables, "masks of 16 bits: each value other than 0")
        return _binary(_table_of(tables, tables), of_wide, [])
    has_colours = any(table.has_colours for table in tables)
    any_coloured = any(s.is_coloured for s in seen)
    # A table such as 0,0,0 and 255,255,255 says what grey values are, too.
    all_grey = has_colours and all(
        len(set(e.colour)) == 1 for t in tables if t.has_colours for e in t.entries
    )
    as_colours = rgb >= max(wide, indices, 1) and (any_coloured or has_colours)
    if masks != "binary" and (as_colours or (all_grey and {s.kind for s in seen} <= GREYS)):
        return _colours(seen, tables)
    table = _table_of(tables, [t for t in tables if not t.has_colours] or tables)
    values = [s.present for s in seen if not (s.is_coloured or _is_smoothed(s, masks, table))]
    filled = [v for v in values if v]
    whites = filled.count({255})
    several = table is not None and len(table.classes()) > 1
    of_one = whites + filled.count({1}) == len(filled) and (whites or not several)
    if masks == "binary":
        return _binary(table, None, filled)
    if masks == "auto" and (of_one or 2 * whites >= len(filled) > 0):
        found = frozenset().union(*filled)
        return _binary(table, found & {1, 255}, filled)
    kinds = Counter(s.kind for s in seen)
    return _indices(values, table, ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())))


def _is_smoothed(seen: Seen, masks: str, table: Table | None) -> bool:
    """Whether values are none of classes: those of smoothed edges, or of a lossy format."""
    if seen.is_lossy:
        return not seen.present <= {255}
    limit = MAX_UNNAMED if masks == "auto" and table is None else _MAX_CLASSES
    return any(limit < v != IGNORE for v in seen.present)


def object_names(tables: list[Table]) -> list[str]:
    """The class of instances."""
    table = _table_of(tables, tables)
    if table is None:
        return ["object"]
    names = table.classes()
    if len(names) != 1:
        raise ValueError(
            f"{str(table.path)!r} names {len(names)} classes, but masks of instances do not say "
            "the class of an instance; it should name one"
        )
    return names


def _table_of(tables: list[Table], chosen: list[Table]) -> Table | None:
    if len(chosen) > 1:
        names = ", ".join(repr(str(t.path)) for t in tables)
        raise ValueError(f"there are several lists of class names: {names}; keep one")
    return chosen[0] if chosen else None


def _instances(tables: list[Table], what: str) -> Reading:
    return Reading(
        "instances", "codes", object_names(tables), notes=[f"Instances: {what} is an object."]
    )


def _binary(
    table: Table | None, foreground: frozenset[int] | None, filled: list[frozenset[int]]
) -> Reading:
    names = ["foreground"]
    if table is not None:
        names = table.classes()
        if len(names) != 1:
            raise ValueError(
                f"{str(table.path)!r} names {len(names)} classes, but the masks hold one value "
                "other than 0; name one (and background, if you like), or say what the masks are, "
                "as in masks='classes'"
            )
    notes = ["Binary masks: what is not 0 is foreground."]
    ones, whites = filled.count({1}), filled.count({255})
    if ones and whites:
        notes.append(f"In {ones} files the foreground is 1, in {whites} it is 255.")
    return Reading("binary", "grey", names, notes=notes, foreground=foreground)


def _indices(values: list[frozenset[int]], table: Table | None, kinds: str) -> Reading:
    known = [v - {IGNORE} for v in values]
    notes = []
    white = sum(v == {IGNORE} for v in values)
    if table is None:
        most = max((max(v) for v in known if v), default=0)
        if not most:
            raise ValueError(
                "the masks hold no value other than 0 and 255, and 255 is ignored in masks of "
                "classes; if it is foreground, say so: masks='binary'"
            )
        names = [f"class_{v}" for v in range(1, most + 1)]
        pixels = {v: v for v in range(most + 1)}
    else:
        names, pixels = [], {0: 0}
        for value, entry in _numbered(table, known).items():
            if entry.is_background or entry.is_ignored:
                pixels[value] = 0 if entry.is_background else IGNORE
            else:
                names.append(entry.name)
                pixels[value] = len(names)
        _check_count(names, table)
        notes.append(f"Names are those of {table.path.name!r}.")
    pixels.setdefault(IGNORE, IGNORE)
    zero = "background" if pixels[0] == 0 else "ignored" if pixels[0] == 255 else repr(names[0])
    notes.insert(0, f"Masks of classes ({kinds}): values are indices, 0 is {zero}, 255 is ignored.")
    if white:
        notes.append(f"{white} masks hold nothing but 0 and 255, which is ignored.")
    return Reading("classes", "grey", names, pixels, notes)


def _check_count(names: list[str], table: Table) -> None:
    if not 1 <= len(names) <= _MAX_CLASSES:
        raise ValueError(
            f"{str(table.path)!r} names {len(names)} classes beside background; it should name 1 "
            f"to {_MAX_CLASSES}"
        )


def _numbered(table: Table, values: list[frozenset[int]]) -> dict[int, Entry]:
    """Which value each name belongs to."""
    entries = table.entries
    if entries[0].value is not None:
        return {e.value: e for e in sorted(entries, key=lambda e: e.value)}
    if len(entries) > 1 and entries[0].is_ignored and entries[1].is_background:
        entries = entries[1:]  # as labelme writes it, for which ignored is -1
    if any(e.is_background or e.is_ignored for e in entries):
        return dict(enumerate(entries))
    n = len(entries)
    if n == 1 or any(n in v and max(v) <= n for v in values):
        return dict(enumerate(entries, 1))
    raise ValueError(
        f"{str(table.path)!r} names {n} classes, and no mask of theirs holds the value {n}: its "
        f"first line could be the name of value 0 or of value 1. Write 'background' above it if 0 "
        f"is background, or the value before each name, as in '0 {entries[0].name}'"
    )


def _colours(seen: list[Seen], tables: list[Table]) -> Reading:
    table = _table_of(tables, [t for t in tables if t.has_colours] or tables)
    names: list[str] = []
    pixels = {}
    if table is None:
        codes: set[int] = set()
        for s in seen:
            if s.kind == "rgb" and not s.is_lossy and len(s.values) <= MAX_UNNAMED + 1:
                codes.update(s.values.tolist())
        codes.discard(0)
        if len(codes) > MAX_UNNAMED:
            raise ValueError(
                f"the masks hold {len(codes)} colours; without a table of names and colours (as "
                f"'class_dict.csv' with name, r, g, b) at most {MAX_UNNAMED} become classes"
            )
        for code in sorted(codes):
            names.append("rgb_{}_{}_{}".format(*rgb(code)))
            pixels[code] = len(names)
        notes = [
            f"Colour masks without a table of names: each of {len(names)} colours is a class, "
            "black is background. Put names and colours into 'class_dict.csv': name, r, g, b."
        ]
        if not names:
            raise ValueError("no colour mask can be used: each has too many colours, or is a JPEG")
    else:
        if not table.has_colours:
            raise ValueError(
                f"{str(table.path)!r} names classes without colours, but the masks are RGB; write "
                "r, g, b behind each name"
            )
        for entry in table.entries:
            r, g, b = entry.colour
            if entry.is_background or entry.is_ignored:
                pixels[r << 16 | g << 8 | b] = 0 if entry.is_background else IGNORE
            else:
                names.append(entry.name)
                pixels[r << 16 | g << 8 | b] = len(names)
        _check_count(names, table)
        notes = [f"Colour masks: names and colours are those of {table.path.name!r}."]
        if 0 not in pixels:
            notes.append("It does not list black, which is background.")
    pixels.setdefault(0, 0)
    return Reading("colours", "colours", names, pixels, notes)


def rgb(code: int) -> tuple[int, int, int]:
    """Red, green and blue of a code."""
    return code >> 16, code >> 8 & 255, code & 255
