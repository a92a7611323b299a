"""What a card may hold: every key, its type and its allowed values."""

import difflib
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

SCHEMA = 1


def _is(kind: Any, said: str, allowed: Callable[[Any], bool] = lambda value: True) -> tuple:
    def fits(value: Any) -> bool:
        return isinstance(value, kind) and not isinstance(value, bool) and allowed(value)

    return fits, said


def _list(of: Callable[[Any], bool], count: int | None = None) -> Callable[[Any], bool]:
    return lambda value: all(map(of, value)) and count in (None, len(value))


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _metric(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or number and math.isfinite(value)


_TEXT = _is(str, "a text that is not empty", _text)
_COUNT = _is(int, "an integer of at least 0", _whole)
_SIZE = _is(list, "[height, width], positive integers", _list(lambda v: _whole(v) and v > 0, 2))
_METRICS = _is(
    dict,
    "a dict of names to finite numbers, or None",
    lambda value: all(map(_text, value)) and all(map(_metric, value.values())),
)
_HOURS = _is(int | float, "a number of at least 0", lambda value: 0 <= value < math.inf)
_DICT = _is(dict, "a dict")
_SHA = set("0123456789abcdef")

# A key's value is a pair (whether it fits, what it must be) or the fields of a dict; keys that end
# with "?" may be missing, those with "*" only of a card that is not complete.
CARD: dict[str, Any] = {
    "schema": _is(int, f"{SCHEMA}, the schema that this version reads", lambda v: v == SCHEMA),
    "name": _is(
        str,
        "the name of a folder that begins with a letter or a digit, without wildcards",
        lambda v: v[:1].isalnum() and not set(v) & set("/\\:*?[]"),
    ),
    "description*": _TEXT,
    "recipe*": _TEXT,
    "intended_use*": _TEXT,
    "limits*": _TEXT,
    "tasks": _is(list, "a list of names", lambda v: bool(v) and all(map(_text, v))),
    "classes": _is(
        dict,
        "a dict of tasks to lists of names",
        lambda v: all(isinstance(names, list) and all(map(_text, names)) for names in v.values()),
    ),
    "sharing": _TEXT,
    # Of images, or of sequences.
    "input": {
        "letterbox?": _SIZE,
        "channels?": _is(str, "'RGB'", lambda v: v == "RGB"),
        "range?": _is(list, "[0, 255]", lambda v: v == [0, 255]),
        "sequence?": _is(list, "a list, the shape of a sequence"),
        "dtype?": _TEXT,
    },
    "parameters": _is(int, "a positive integer", lambda v: v > 0),
    "shared_fraction": _is(int | float, "a number in [0, 1]", lambda v: 0 <= v <= 1),
    "config": _DICT,
    "data*": {
        "name": _TEXT,
        "title?": _TEXT,
        "licence*": _TEXT,
        "citation?": _is(str | None, "a text or None"),
        "home?": _is(str | None, "a text or None"),
        "images*": _is(
            dict, "a dict of splits to counts of images", lambda v: all(map(_whole, v.values()))
        ),
    },
    "licences*": {"code*": _TEXT, "weights*": _TEXT, "data*": _TEXT, "trunk?": _TEXT},
    "metrics*": _METRICS,
    "metrics_split*": _TEXT,
    "metrics_command*": _TEXT,
    "metrics_before_rounding*": _METRICS,
    "expected*": {"images": _is(int, "a positive integer", lambda v: v > 0), "metrics": _METRICS},
    "epochs*": _COUNT,
    "training_minutes*": _HOURS,
    "training*": {
        "epochs*": _COUNT,
        "steps*": _COUNT,
        "batch_size*": _COUNT,
        "train_size*": _SIZE,
        "augment*": _DICT,
        "optimizer*": _TEXT,
        "ema*": (lambda value: isinstance(value, bool), "True or False"),
        "balancing?": _TEXT,
        "seed*": _COUNT,
    },
    "cost*": {"cpu_hours": _HOURS, "cores": _COUNT, "device": _TEXT},
    "versions": _is(dict, "a dict of packages to versions", lambda v: all(map(_text, v.values()))),
    "files": _is(
        dict,
        "a dict of files to dicts of `sha256` (64 hexadecimal digits), `bytes` and `dtype`",
        lambda v: all(
            isinstance(about, dict)
            and len(str(about.get("sha256"))) == 64
            and set(str(about["sha256"])) <= _SHA
            and _whole(about.get("bytes"))
            and set(about) <= {"sha256", "bytes", "dtype"}
            for about in v.values()
        ),
    ),
    "pictures?": _is(
        list,
        "a list of dicts of `file` and `caption`",
        _list(
            lambda v: (
                isinstance(v, dict)
                and set(v) == {"file", "caption"}
                and all(map(_text, v.values()))
                and pathlib.PurePath(v["file"]).name == v["file"]
            )
        ),
    ),
}


def check_fields(given: Mapping, fields: dict, complete: bool, above: str = "") -> None:
    """Checks a dict against a schema such as `CARD`.

    Args:
        given: Dict to check.
        fields: The schema.
        complete: Whether keys marked with "*" must be there.
        above: String before the keys in errors, such as `"data."`.

    Raises:
        ValueError: If a key is missing or unknown, or a value is not what it must be.

    Example:

    ```python
    from mtl_keras.zoo.card_schema import CARD, check_fields
    check_fields({"cpu_hours": 1.5, "cores": 2, "device": "CPU"}, CARD["cost*"], complete=True)
    ```
    """
    names = {key.rstrip("?*"): key for key in fields}
    # The unknown first: one that is misspelt is missing too.
    for key in given:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" The keys are {sorted(names)}."
            raise ValueError(f"the card has an unknown key '{above}{key}'.{hint}")
    for name, key in names.items():
        where = f"{above}{name}"
        if name not in given:
            if key == name or complete and key.endswith("*"):
                raise ValueError(f"the card lacks the key {where!r}")
            continue
        value, wanted = given[name], fields[key]
        if isinstance(wanted, dict):
            if not isinstance(value, dict):
                keys = sorted(key.rstrip("?*") for key in wanted)
                raise ValueError(
                    f"the card's {where!r} must be a dict of {keys}. Received: {value!r:.200}"
                )
            check_fields(value, wanted, complete, f"{where}.")
            continue
        fits, said = wanted
        if not fits(value):
            raise ValueError(f"the card's {where!r} must be {said}. Received: {value!r:.200}")
