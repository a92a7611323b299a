"""Lines of YOLO's label files as objects."""

from __future__ import annotations

from pathlib import Path

from mtl_keras.data import segmentations
from mtl_keras.data.files import finite, relative, text_lines
from mtl_keras.data.images import exif_orientation, open_image
from mtl_keras.data.records import Bad, Object, Problems, Record
from mtl_keras.data.yolo.layout import Layout
from mtl_keras.data.yolo.texts import label_file

# By how much rounding may carry a coordinate out of [0, 1]; Ultralytics allows as much.
TOLERANCE = 0.01


def record_of(
    image: Path, name: str, image_id: int, found: Layout, problems: Problems
) -> Record | None:
    """An image with its labels; `None` if they, or the image, can't be read."""
    record = Record(image, name, image_id)
    file = label_file(image)
    if file is None:
        return record
    found.files.append(file)
    record.where = str(file)
    record.objects = []
    try:
        lines = text_lines(file)
    except Bad as bad:
        problems.add(file, bad.kind, str(bad), bad.line, name)
        return None
    parsed, is_whole = [], True
    for i, line in enumerate(lines, 1):
        if columns := line.split():
            try:
                parsed.append((i, *_parsed(columns, found)))
            except Bad as bad:
                problems.add(file, bad.kind, str(bad), i, name)
                is_whole = False
    if not is_whole:
        return None
    if not parsed:
        return record
    try:
        height, width = record.size = upright_size(image)
    except (OSError, ValueError) as error:
        problems.add(image, "unreadable image", str(error), image=name)
        return None
    where = relative(file, found.root)
    for i, label, box, polygon in parsed:
        x0, y0, x1, y1 = box
        if min(x1, 1.0) <= max(x0, 0.0) or min(y1, 1.0) <= max(y0, 0.0) or _is_flat(polygon):
            message = f"the object covers nothing of the image {name!r}; its box is {box}"
            problems.add(file, "box without area", message, i)
            continue
        mask = None
        if polygon is not None:
            sizes = (width, height) * (len(polygon) // 2)
            pixels = [v * size for v, size in zip(polygon, sizes, strict=True)]
            mask = segmentations.of_polygons([pixels])
        pixel_box = (x0 * width, y0 * height, x1 * width, y1 * height)
        record.objects.append(Object(label, pixel_box, mask, where=f"{where}, line {i}"))
    return record


def _parsed(
    columns: list[str], found: Layout
) -> tuple[int, tuple[float, float, float, float], list[float] | None]:
    """Class id, box `(x0, y0, x1, y1)` and polygon of a line, in parts of the image's size."""
    values = [finite(column) for column in columns]
    if None in values:
        i = values.index(None)
        message = f"column {i + 1} is {columns[i]!r:.50}; it should be a finite number"
        raise Bad("no number", message)
    if values[0] % 1 or not 0 <= values[0] < len(found.names):
        message = f"class id {columns[0]:.50} is not of 0 to {len(found.names) - 1}"
        raise Bad("unknown class", message)
    label, rest = int(values[0]), values[1:]
    if found.columns is not None:
        if len(values) != found.columns:
            message = f"{len(values)} columns; by kpt_shape there should be {found.columns}"
            raise Bad("number of columns", message)
        rest = rest[:4]
    if len(rest) == 5:
        raise Bad(
            "confidence in labels",
            "six columns: the last looks like the confidence of a prediction; labels hold five: "
            "class, cx, cy, w, h",
        )
    if len(rest) != 4 and (len(rest) < 6 or len(rest) % 2):
        raise Bad(
            "number of columns",
            f"{len(values)} columns; a box has 5, a polygon a class and x, y of three points or "
            "more. Keypoints need kpt_shape in data.yaml, a confidence does not belong here",
        )
    if len(rest) == 4 and min(rest[2:]) < 0:
        message = f"a box of width {rest[2]} and height {rest[3]}; neither may be below 0"
        raise Bad("reversed box", message)
    worst = max(rest, key=lambda value: abs(value - 0.5))
    if not -TOLERANCE <= worst <= 1 + TOLERANCE:
        message = f"{worst} is out of [0, 1]; coordinates are parts of the image's width and height"
        raise Bad("not normalised", message)
    if len(rest) == 4:
        x, y, w, h = rest
        return label, (x - w / 2, y - h / 2, x + w / 2, y + h / 2), None
    return label, (min(rest[::2]), min(rest[1::2]), max(rest[::2]), max(rest[1::2])), rest


def _is_flat(polygon: list[float] | None) -> bool:
    """Whether all points of a polygon lie on one line."""
    if polygon is None:
        return False
    points = [
        (x - polygon[0], y - polygon[1]) for x, y in zip(polygon[::2], polygon[1::2], strict=True)
    ]
    far = max(points, key=lambda p: p[0] ** 2 + p[1] ** 2)
    return all(abs(far[0] * y - far[1] * x) <= 1e-12 for x, y in points)


def upright_size(path: Path) -> tuple[int, int]:
    """Height and width of an image as a viewer shows it, from its header."""
    with open_image(path) as image:
        width, height = image.size
        if image.format == "PNG" and "exif" not in image.info:
            # Pillow would decode all pixels to find the rare EXIF block behind them.
            content = path.read_bytes()
            words = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
            if not any(word in content for word in words):
                return height, width
        return (width, height) if exif_orientation(image) >= 5 else (height, width)
