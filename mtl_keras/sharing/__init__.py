"""Ways to share: each is an object that wires a trunk and tasks into one network."""

import difflib
from typing import Any

from mtl_keras.sharing.hard import HardSharing
from mtl_keras.sharing.report import SharingReport, sharing_report
from mtl_keras.sharing.sharing import Sharing

_SHARINGS = {"hard": HardSharing}

__all__ = ["HardSharing", "Sharing", "SharingReport", "get", "names", "sharing_report"]


def names() -> list[str]:
    """Lists the registered ways to share.

    Example:

    ```python
    import mtl_keras as mtl
    assert "hard" in mtl.sharing.names()
    ```
    """
    return sorted(_SHARINGS)


def get(sharing: Any) -> Sharing:
    """Returns a way to share.

    Args:
        sharing: A `Sharing`, or a registered name, which gives the object with its defaults.

    Returns:
        A `Sharing`.

    Raises:
        ValueError: If the name is not registered.
    """
    if isinstance(sharing, Sharing):
        return sharing
    if not isinstance(sharing, str) or sharing not in _SHARINGS:
        near = difflib.get_close_matches(str(sharing), _SHARINGS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"`sharing` must be a `Sharing` object or one of {names()}. "
            f"Received: sharing={sharing!r}.{hint}"
        )
    return _SHARINGS[sharing]()
