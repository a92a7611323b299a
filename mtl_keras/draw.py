"""Pictures of predictions: boxes, masks, distances and instances, side by side."""

import colorsys
from typing import Any

import numpy as np

from mtl_keras.data.images import read_image

# Longer side of a panel in pixels: small images are enlarged, so that thin lines stay thin
# beside small objects, and huge ones are reduced.
SMALLEST, LARGEST = 768, 1600
GAP = 8
# The least distance that hides the picture below it.
OPAQUE = 0.5
IGNORED = 255  # in a mask of labels
HATCH = (150, 150, 150)


def draw_predictions(image: Any, predictions: dict, class_names: list[str] | None = None) -> Any:
    """Draws what a model found in one image: a panel for each task.

    Boxes and masks have a colour for each class, the same in all panels. Boxes carry the name of
    their class where there is more than one class and the box is large enough to hold the text.
    Distances to the boundary are a heat map, from clear over violet to yellow at 1, over the image
    in grey. Instances have colours that differ from those of the instances they touch.

    Args:
        image: Path of the image, or an array as `mtl_keras.data.read_image` takes.
        predictions: Dict, task name to predictions, as `MultiTaskModel.predict_images` gives for
            one image. Tasks with `boxes` and `classes`, with `mask` or with `distance` get a panel
            each, and so do instances, which have `mask` and `boxes`.
        class_names: Optional list of strings, the classes of objects (background not counted).

    Returns:
        A `PIL.Image.Image`, RGB. Panels have the aspect of the image, and a longer side of
        768 to 1600 pixels.

    Raises:
        ImportError: If OpenCV, with which Keras draws boxes, is not installed.
        ValueError: If there is nothing to draw in `predictions`, or a mask or distances do not
            have the size of the image.

    Example:

    ```python
    import numpy as np
    import mtl_keras as mtl
    image = np.full((32, 48, 3), 200, "uint8")
    mask = np.zeros((32, 48), "int32")
    mask[8:20, 10:30] = 1
    found = {
        "detection": {"boxes": np.array([[10, 8, 30, 20]]), "classes": np.array([0])},
        "segmentation": {"mask": mask},
    }
    picture = mtl.draw.draw_predictions(image, found)
    assert picture.size == (2 * 768 + 8, 512)
    ```
    """
    from PIL import Image

    require_opencv()
    canvas, scale, (height, width) = _canvas(image, SMALLEST, LARGEST)
    size = (canvas.shape[1], canvas.shape[0])
    panels = []
    for found in predictions.values():
        if "boxes" in found and "mask" in found:
            panels.append(_instances(canvas, _of_size(found, "mask", (height, width))))
        elif "boxes" in found:
            panels.append(_boxes(canvas, found, scale, class_names))
        elif "mask" in found:
            panels.append(_mask(canvas, _of_size(found, "mask", (height, width))))
        elif "distance" in found:
            panels.append(_distance(canvas, _of_size(found, "distance", (height, width))))
    if not panels:
        raise ValueError(
            "`predictions` must hold a task with `boxes`, `mask` or `distance`. "
            f"Received: { ({name: sorted(found) for name, found in predictions.items()}) }"
        )
    picture = Image.new("RGB", (len(panels) * (size[0] + GAP) - GAP, size[1]), "white")
    for i, panel in enumerate(panels):
        picture.paste(Image.fromarray(panel), (i * (size[0] + GAP), 0))
    return picture


def draw_labels(
    image: Any,
    boxes: Any = None,
    classes: Any = None,
    mask: Any = None,
    instances: Any = None,
    class_names: list[str] | None = None,
    longer_side: int = SMALLEST,
) -> Any:
    """Draws the labels of one image: boxes over a mask, in one picture.

    Colours are those of `draw_predictions`. Pixels of the mask that are ignored are hatched in
    grey; edges of instances are white lines.

    Args:
        image: Path of the image, or an array as `mtl_keras.data.read_image` takes.
        boxes: Array `(N, 4)`, xyxy in pixels of the image, or `None`.
        classes: Array `(N,)`, class ids of the boxes from 0; needed with `boxes`.
        mask: Array `(height, width)` of integers: 0 background, class id + 1, 255 ignored; or
            `None`.
        instances: Array `(height, width)` of integers, 0 none and i + 1 object i; or `None`.
        class_names: Optional list of strings, the classes of objects.
        longer_side: Integer, longer side of the picture in pixels.

    Returns:
        A `PIL.Image.Image`, RGB, of the image's aspect.

    Raises:
        ImportError: If OpenCV, with which Keras draws boxes, is not installed.
        ValueError: If a map does not have the size of the image.

    Example:

    ```python
    import numpy as np
    import mtl_keras as mtl
    image = np.full((32, 48, 3), 200, "uint8")
    mask = np.zeros((32, 48), "uint8")
    mask[8:20, 10:30] = 1
    picture = mtl.draw.draw_labels(image, [[10, 8, 30, 20]], [0], mask, longer_side=96)
    assert picture.size == (96, 64)
    ```
    """
    from PIL import Image

    require_opencv()
    canvas, scale, shape = _canvas(image, longer_side, longer_side)
    size = (canvas.shape[1], canvas.shape[0])

    def enlarged(values: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.NEAREST))

    if mask is not None:
        mask = _of_size({"mask": mask}, "mask", shape)
        canvas = np.array(_mask(canvas, np.where(mask == IGNORED, 0, mask)))
        rows, columns = np.indices(canvas.shape[:2])
        canvas[enlarged(mask == IGNORED) & ((rows + columns) % 8 < 2)] = HATCH
    if instances is not None:
        drawn = enlarged(_of_size({"instances": instances}, "instances", shape).astype("int32"))
        around = np.pad(drawn, 1)
        edges = np.zeros(drawn.shape, bool)
        for neighbour in (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]):
            edges |= neighbour != drawn
        canvas = np.array(canvas)
        canvas[edges & (drawn > 0)] = 255
    if boxes is not None and len(boxes):
        canvas = _boxes(canvas, {"boxes": boxes, "classes": classes}, scale, class_names)
    return Image.fromarray(canvas)


def _canvas(image: Any, least: int, most: int) -> tuple[np.ndarray, float, tuple[int, int]]:
    """The image with a longer side between two lengths, by how much it was scaled, its size."""
    from PIL import Image

    pixels = read_image(image)
    height, width = pixels.shape[:2]
    scale = np.clip(max(height, width), least, most) / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    canvas = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    return canvas, scale, (height, width)


def _of_size(found: dict, key: str, size: tuple[int, int]) -> np.ndarray:
    values = np.asarray(found[key])
    if values.shape != size:
        raise ValueError(
            f"`{key}` in `predictions` must have the size of the image, {size}. "
            f"Received: {key}.shape={values.shape}"
        )
    return values


def require_opencv() -> None:
    """Raises an `ImportError` that says what to install where OpenCV is missing."""
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "pictures of predictions are drawn by keras.visualization, which needs OpenCV; "
            'install it with: pip install "mtl_keras[draw]"'
        ) from error


def class_colour(index: int) -> tuple[int, int, int]:
    """Returns the RGB colour of a class: hues a golden angle apart, the first one green."""
    hue = (0.36 + 0.381966 * index) % 1.0
    return tuple(round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, 1.0, 0.9))


def _boxes(canvas: np.ndarray, found: dict, scale: float, class_names: Any) -> np.ndarray:
    import keras

    boxes = np.asarray(found["boxes"], "float32").reshape(-1, 4) * scale
    classes = np.asarray(found["classes"], "int32").reshape(-1)
    names = {int(c): class_names[c] if class_names else str(c) for c in np.unique(classes)}
    several = len(class_names) > 1 if class_names else len(names) > 1
    sides = boxes[:, 2:] - boxes[:, :2]
    thickness = 1 if len(sides) and np.median(sides) < 16 else 2
    # About the width and height of a label at the font scale used below.
    room = [(13 * len(names[int(c)]) + 6, 36) for c in classes]
    labelled = several & (sides >= np.reshape(room, (-1, 2))).all(axis=1)
    for index in names:
        for with_label in (False, True):
            chosen = (classes == index) & (labelled == with_label)
            if chosen.any():
                canvas = keras.visualization.draw_bounding_boxes(
                    canvas[None],
                    {
                        "boxes": boxes[None, chosen],
                        "labels": classes[None, chosen],
                    },
                    bounding_box_format="xyxy",
                    class_mapping=names if with_label else None,
                    color=class_colour(index),
                    line_thickness=thickness,
                    text_thickness=2,
                    font_scale=0.6,
                    data_format="channels_last",
                )[0]
    return canvas


def _mask(canvas: np.ndarray, mask: np.ndarray) -> np.ndarray:
    import keras
    from PIL import Image

    size = (canvas.shape[1], canvas.shape[0])
    mask = Image.fromarray(mask.astype("uint8")).resize(size, Image.Resampling.NEAREST)
    mask = np.asarray(mask, "int32")
    classes = int(mask.max()) + 1
    return keras.visualization.draw_segmentation_masks(
        canvas[None],
        mask[None, ..., None],
        num_classes=classes,
        color_mapping={0: (0, 0, 0)} | {i: class_colour(i - 1) for i in range(1, classes)},
        alpha=0.5,
        ignore_index=0,
        data_format="channels_last",
    )[0]


def _instances(canvas: np.ndarray, instances: np.ndarray) -> np.ndarray:
    from PIL import Image

    number = _numbers(instances)
    colours = np.array([(0, 0, 0), *(class_colour(i) for i in range(number.max(initial=0)))])
    size = (canvas.shape[1], canvas.shape[0])
    resized = Image.fromarray(instances.astype("int32")).resize(size, Image.Resampling.NEAREST)
    shown = np.asarray(resized)
    painted = np.rint(0.5 * canvas + 0.5 * colours[number[shown]]).astype("uint8")
    panel = np.where((shown > 0)[..., None], painted, canvas)
    # A line between instances that touch.
    edge = np.zeros(shown.shape, bool)
    edge[1:] |= (shown[1:] != shown[:-1]) & (shown[1:] > 0) & (shown[:-1] > 0)
    edge[:, 1:] |= (shown[:, 1:] != shown[:, :-1]) & (shown[:, 1:] > 0) & (shown[:, :-1] > 0)
    panel[edge] = 255
    return panel


def _numbers(instances: np.ndarray) -> np.ndarray:
    """For each instance the number of its colour, from 1; those that touch have different ones."""
    count = int(instances.max(initial=0)) + 1
    pairs = []
    for reach in (1, 2, 3):  # a gap of two pixels still looks like touching
        for a, b in (
            (instances[reach:], instances[:-reach]),
            (instances[:, reach:], instances[:, :-reach]),
        ):
            touch = (a != b) & (a > 0) & (b > 0)
            pairs.append(np.stack([a[touch], b[touch]], -1))
    pairs = np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)
    neighbours: list[list[int]] = [[] for _ in range(count)]
    for a, b in pairs.tolist():
        neighbours[a].append(b)
        neighbours[b].append(a)
    number = np.zeros(count, int)
    for i in range(1, count):
        taken = {int(number[j]) for j in neighbours[i]}
        start = i % 7  # so that those that stand alone differ too
        number[i] = next(k for k in range(start + 1, start + 2 + len(taken)) if k not in taken)
    return number


def _distance(canvas: np.ndarray, distance: np.ndarray) -> np.ndarray:
    import cv2

    size = (canvas.shape[1], canvas.shape[0])
    distance = cv2.resize(distance.astype("float32"), size, interpolation=cv2.INTER_LINEAR)
    distance = np.clip(distance, 0.0, 1.0)
    heat = cv2.applyColorMap(np.rint(255 * distance).astype("uint8"), cv2.COLORMAP_PLASMA)
    grey = cv2.cvtColor(cv2.cvtColor(canvas, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    share = np.minimum(distance / OPAQUE, 1.0)[..., None]
    mixed = share * heat[..., ::-1] + (1.0 - share) * grey
    return np.rint(mixed).astype("uint8")
