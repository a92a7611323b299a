"""Offers for names that do not exist."""

import difflib
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
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.6)
    return f"Did you mean {' or '.join(map(repr, near))}?" if near else f"There are {known}."
