"""Offers for names that do not exist."""

import difflib
import re
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Says which names are near to one that is unknown.

    Args:
        name: The unknown name.
        known: Names that exist.

    Returns:
        A sentence: a question that offers the nearest names or, where none is near, what exists.

    Example:

    ```python
    from mtl_keras.nearest import did_you_mean
    assert did_you_mean("detecton", ["detection", "depth"]) == "Did you mean 'detection'?"
    ```
    """
    known = list(known)
    words = [word for word in re.split(r"[\W_]+", str(name).lower()) if len(word) > 2]
    held = {one: sum(word in one.lower() for word in words) for one in known}
    # Names that hold every word of it, or else look like it, or else hold some word of it.
    whole = [one for one in known if words and held[one] == len(words)]
    alike = difflib.get_close_matches(str(name), known, n=3, cutoff=0.6)
    some = difflib.get_close_matches(str(name), [one for one in known if held[one]], 3, 0.0)
    near = whole[:3] or alike or some
    return f"Did you mean {' or '.join(map(repr, near))}?" if near else f"There are {known}."
