"""Pictures of predictions: boxes and masks, side by side."""

import colorsys
from typing import Any

import numpy as np

from mtl_keras.data.images import read_image

# Longer side of a panel in pixels: small images are enlarged, so that thin lines stay thin
# beside small objects, and huge ones are reduced.
SMALLEST, LARGEST = 768, 1600
GAP = 8


def draw_predictions(image: Any, predictions: dict, class_names: list[str] | None = None) -> Any:
    """Draws what a model found in one image: a panel with boxes, a panel with the mask.

    Each class has a colour, the same in both panels. Boxes carry the name of their class where
    there is more than one class and the box is large enough to hold the text.

    Args:
        image: Path of the image, or an array as `mtl_keras.data.read_image` takes.
        predictions: Dict, task name to predictions, as `MultiTaskModel.predict_images` gives for
            one image. Tasks with `boxes` and `classes` and tasks with `mask` get a panel each.
        class_names: Optional list of strings, the classes of objects (background not counted).

    Returns:
        A `PIL.Image.Image`, RGB. Panels have the aspect of the image, and a longer side of
        768 to 1600 pixels.

    Raises:
        ImportError: If OpenCV, with which Keras draws boxes, is not installed.
        ValueError: If there is nothing to draw in `predictions`, or a mask does not have the size
            of the image.

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
    pixels = read_image(image)
    height, width = pixels.shape[:2]
    scale = np.clip(max(height, width), SMALLEST, LARGEST) / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    canvas = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    panels = []
    for found in predictions.values():
        if "boxes" in found:
            panels.append(_boxes(canvas, found, scale, class_names))
        elif "mask" in found:
            mask = np.asarray(found["mask"])
            if mask.shape != (height, width):
                raise ValueError(
                    "a mask in `predictions` must have the size of the image, "
                    f"{(height, width)}. Received: mask.shape={mask.shape}"
                )
            panels.append(_mask(canvas, mask))
    if not panels:
        raise ValueError(
            "`predictions` must hold a task with `boxes` or `mask`. "
            f"Received: { ({name: sorted(found) for name, found in predictions.items()}) }"
        )
    picture = Image.new("RGB", (len(panels) * (size[0] + GAP) - GAP, size[1]), "white")
    for i, panel in enumerate(panels):
        picture.paste(Image.fromarray(panel), (i * (size[0] + GAP), 0))
    return picture


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
