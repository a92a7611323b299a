"""Street photographs of buildings, cut into tiles."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from mtl_keras.data.sets.named_set import NamedSet

_TILE = re.compile(r"(?P<photograph>.+)_scaled_\d+_[0-9a-f]+")


def photograph(filename: str) -> str:
    """The name of the photograph of which a tile is a part.

    Args:
        filename: Name of a tile, as `"IMG_0718_scaled_1_81608d.jpg"`.

    Returns:
        The name without the number of the tile and its hash; of another name, its stem.

    Example:

    ```python
    from mtl_keras.data.sets.facades import photograph

    assert photograph("20230329_200451_667_R_scaled_0_7bc5ab.jpg") == "20230329_200451_667_R"
    ```
    """
    stem = PurePosixPath(filename).stem
    found = _TILE.fullmatch(stem)
    return found["photograph"] if found else stem


SET = NamedSet(
    name="facades",
    title="Building facades, tiles of street photographs",
    description="Street photographs: facades, windows, cars, vegetation and more, large and small, "
    "nested, each with a box and a mask. Tiles of one photograph are in one split.",
    licence="CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/)",
    fetch="Its public home is not known.",
    tags=("street", "boxes", "instances"),
    scene=photograph,
)
