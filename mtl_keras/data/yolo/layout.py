"""What a YOLO folder holds: classes, and the images of each split."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Layout:
    """What images there are, and what their labels mean.

    `splits`: folders of images, and text files that list images. `columns`: of a line with
    keypoints. `is_flat`: images lie in the root itself, whose folders hold other things.
    """

    root: Path
    names: list[str]
    splits: dict[str, list[Path]]
    files: list[Path] = field(default_factory=list)
    columns: int | None = None
    is_flat: bool = False
