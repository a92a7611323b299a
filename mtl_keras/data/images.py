"""Read any image that people have as 8-bit RGB (NumPy and Pillow only)."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np


def read_image(source: str | os.PathLike | np.ndarray | Any) -> np.ndarray:
    """Read an image file, or check an image array, and return it as 8-bit RGB.

    Grey, palette, CMYK, 1-bit and 16-bit images are converted; transparency is laid over white; the
    EXIF orientation is applied, so that the image stands as a viewer shows it. 16-bit values are
    scaled by 1/257 where any of them needs more than 8 bits, and taken as they are otherwise. Of an
    animation, the first frame is read.

    Args:
        source: path of an image file, a `PIL.Image.Image`, or an array of shape `(H, W)`, `(H, W,
            1)`, `(H, W, 3)` or `(H, W, 4)` and dtype uint8, uint16 or bool.

    Returns:
        A uint8 array of shape `(H, W, 3)`.

    Raises:
        FileNotFoundError: if there is no file at the path.
        ValueError: if the file is empty, damaged or not an image, or if the array has another rank,
            dtype or number of channels, or no pixels.
        TypeError: if `source` is none of the above.

    Example:
        ```python
        import numpy as np
        from mtl_keras.data import read_image

        image = read_image(np.full((4, 6), 65535, "uint16"))
        assert image.shape == (4, 6, 3) and image.dtype == np.uint8 and image.max() == 255
        ```
    """
    from PIL import Image

    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        with open_image(path) as image:
            return pil_to_rgb(image, f"the image {str(path)!r}")
    if isinstance(source, Image.Image):
        return pil_to_rgb(source, "the given PIL image")
    if hasattr(source, "__array__") and not np.isscalar(source):
        return _array_to_rgb(np.asarray(source))
    raise TypeError(
        "`source` should be a path, a PIL image or an array of shape (H, W), (H, W, 1), (H, W, 3) "
        "or "
        f"(H, W, 4), got {type(source).__name__}"
    )


def open_image(path: Path) -> Any:
    """Open an image file with Pillow; every way to fail becomes an error that names the file."""
    from PIL import Image, UnidentifiedImageError

    if not path.exists():
        raise FileNotFoundError(f"there is no image file {str(path)!r}")
    if path.is_dir():
        raise ValueError(f"{str(path)!r} is a folder; give the path of one image file")
    if path.stat().st_size == 0:
        raise ValueError(f"the image file {str(path)!r} is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            # Large images are welcome; Pillow still refuses those of more than 179 million pixels.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path)
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{str(path)!r} is not an image that Pillow can read; give a JPEG, PNG, BMP, TIFF, "
            f"GIF or "
            "WebP file"
        ) from error
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"the image {str(path)!r} is refused by Pillow as too large ({error}); cut it into "
            f"tiles, "
            "or raise PIL.Image.MAX_IMAGE_PIXELS if the file can be trusted"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"the image file {str(path)!r} is damaged: {error}") from error


def exif_orientation(image: Any) -> int:
    """The EXIF orientation (1 to 8) of an opened Pillow image; 1 where it has none."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF blocks raise many kinds of error and say nothing of the pixels
        return 1
    return value if value in range(1, 9) else 1


def pil_to_rgb(image: Any, what: str, upright: bool = True) -> np.ndarray:
    """An opened Pillow image as uint8 `(H, W, 3)`; `what` names it in errors.

    With `upright=False` its EXIF orientation is not applied.
    """
    from PIL import Image, ImageOps

    try:
        image.load()
    except (OSError, SyntaxError, ValueError, IndexError, EOFError) as error:
        raise ValueError(f"{what} is damaged or cut short: {error}") from error
    if image.width < 1 or image.height < 1:
        raise ValueError(f"{what} has no pixels (width {image.width}, height {image.height})")
    if upright and exif_orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError(
            f"{what} holds floating-point pixels, whose range is unknown; save it as 8- or 16-bit"
        )
    if image.mode.startswith("I"):  # 16-bit grey, also held as 32-bit integers
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(
                f"{what} holds integer pixels from {values.min()} to {values.max()}; at most 16 "
                f"bits "
                "(0 to 65535) can be read, so scale the values first"
            )
        return _array_to_rgb(values.astype(np.uint16))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    return np.array(image.convert("RGB"))


def _array_to_rgb(array: np.ndarray) -> np.ndarray:
    if array.dtype not in (np.uint8, np.uint16, np.bool_):
        hint = "; multiply a float image in [0, 1] by 255 first" if array.dtype.kind == "f" else ""
        raise ValueError(
            f"an image array should have dtype uint8, uint16 or bool, got {array.dtype}{hint}"
        )
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (1, 3, 4)):
        raise ValueError(
            "an image array should have shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got "
            f"{array.shape}; pass one image at a time, channels last"
        )
    if array.size == 0:
        raise ValueError(f"an image array should have at least one pixel, got shape {array.shape}")
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        wide = int(array.max()) > 255
        array = (np.rint(array / 257.0) if wide else array).astype(np.uint8)
    if array.shape[-1] == 4:
        alpha = array[..., 3:].astype(np.float32) / 255.0
        colour = array[..., :3].astype(np.float32) * alpha + 255.0 * (1.0 - alpha)
        return np.rint(colour).astype(np.uint8)
    if array.shape[-1] == 1:
        array = np.repeat(array, 3, axis=-1)
    return np.ascontiguousarray(array)
