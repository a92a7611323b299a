"""Random augmentation that moves image, boxes and instances together (TensorFlow ops)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import keras

from mtl_keras.data.letterbox import PAD_VALUE, letterbox_scale

FLIPS = (None, "horizontal", "vertical", "both")


@keras.saving.register_keras_serializable(package="mtl_keras")
@dataclass(frozen=True)
class Augment:
    """What `batches` may do at random to the images of a training set.

    Each image is scaled, a window of the training size is cut out of it (or it is placed at random
    in the window, where it is the smaller one), it is flipped and turned, and its colours are
    changed. Boxes and instances move with it.

    Args:
        scale: `(lowest, highest)` size of the image relative to its letterboxed size, drawn
            log-uniformly; `(1, 1)` leaves it.
        flip: `"horizontal"`, `"vertical"`, `"both"` or `None`; each flip happens with probability
            1/2.
        rotate90: whether to turn by 0, 90, 180 or 270 degrees, for images without an upright
            (microscopy, aerial).
        colour: strength in [0, 1) of the changes of brightness, contrast, saturation and tint; 0
            leaves the colours.
        grayscale: probability of removing the colours.
        invert: probability of inverting the image (bright on dark against dark on bright, as stains
            of microscopy differ).
        min_visible: an object stays if at least this share of its box's area is inside the window,
            and one pixel each way. What is visible of the others stays in the segmentation mask.
        reference_size: `(height, width)` of the letterbox whose scale counts as 1, by default the
            training size. `(512, 512)` with a training size of 256 trains on crops at the scale
            that images have when they are letterboxed into 512 x 512.
        cover: in [0, 1], how often an epoch shows an image that is larger than the window at scale
            1: `max(1, round(n ** cover))` times, `n` being its area over that of the window. With
            0, once; with 1, every part of every image is shown about once.

    Raises:
        ValueError: if a value is outside its range.

    Example:
        ```python
        from mtl_keras.data import Augment

        augment = Augment(scale=(0.5, 2.0), flip="both", rotate90=True, colour=0.3, invert=0.1)
        assert Augment.from_config(augment.get_config()) == augment
        ```
    """

    scale: tuple[float, float] = (0.5, 2.0)
    flip: str | None = "horizontal"
    rotate90: bool = False
    colour: float = 0.3
    grayscale: float = 0.0
    invert: float = 0.0
    min_visible: float = 0.25
    reference_size: tuple[int, int] | None = None
    cover: float = 0.0

    def __post_init__(self) -> None:
        scale = tuple(float(s) for s in self.scale) if _is_pair(self.scale) else ()
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] < math.inf:
            raise ValueError(
                f"`scale` should be (lowest, highest) with 0 < lowest <= highest, got "
                f"{self.scale!r}"
            )
        object.__setattr__(self, "scale", scale)
        if self.flip not in FLIPS:
            raise ValueError(f"`flip` should be one of {FLIPS}, got {self.flip!r}")
        if not 0 <= self.colour < 1:
            raise ValueError(f"`colour` should be a strength in [0, 1), got {self.colour!r}")
        for key in ("grayscale", "invert", "min_visible", "cover"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"`{key}` should be in [0, 1], got {getattr(self, key)!r}")
        if self.reference_size is not None:
            if not _is_pair(self.reference_size) or min(self.reference_size) < 1:
                raise ValueError(
                    "`reference_size` should be (height, width) in pixels or None, got "
                    f"{self.reference_size!r}"
                )
            object.__setattr__(self, "reference_size", tuple(int(s) for s in self.reference_size))

    def get_config(self) -> dict[str, Any]:
        """The arguments, as JSON-ready values."""
        config = asdict(self)
        config["scale"] = list(self.scale)
        if self.reference_size is not None:
            config["reference_size"] = list(self.reference_size)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Augment:
        """An `Augment` from what `get_config` returned."""
        return cls(**config)

    def repeats(self, height: Any, width: Any, size: tuple[int, int]) -> Any:
        """How often an epoch shows an image.

        Args:
            height: height of the image in pixels.
            width: width of the image in pixels.
            size: `(height, width)` of the window.

        Returns:
            A scalar int64 tensor of at least 1.
        """
        import tensorflow as tf

        _, new_h, new_w = letterbox_scale(height, width, self.reference_size or size)
        windows = tf.cast(new_h * new_w, tf.float32) / float(size[0] * size[1])
        return tf.cast(tf.maximum(tf.round(windows**self.cover), 1.0), tf.int64)

    def geometry(
        self, image: Any, instances: Any, boxes: Any, size: tuple[int, int], seed: Any
    ) -> Any:
        """Scale, crop or place, flip and turn.

        Args:
            image: uint8 tensor `(h, w, 3)`.
            instances: integer tensor `(h, w, 1)`.
            boxes: float32 tensor `(n, 4)`, xyxy in pixels.
            size: `(height, width)` of the result.
            seed: int64 tensor `(2,)`.

        Returns:
            `(image, instances, boxes, inside)`: float32 `(H, W, 3)`, int32 `(H, W)`, float32 `(n,
            4)` not yet clipped, and a bool tensor `(H, W)`, false where there is only padding.
        """
        import tensorflow as tf

        draw = tf.random.stateless_uniform([6], seed)
        turns = tf.cast(draw[5] * 4.0, tf.int32) if self.rotate90 else tf.constant(0)
        odd = turns % 2 == 1
        shape = tf.shape(image)
        h, w = shape[0], shape[1]
        # The window before turning: turned by 90 degrees, its height becomes the result's width.
        window_h, window_w = tf.where(odd, size[1], size[0]), tf.where(odd, size[0], size[1])
        upright = letterbox_scale(h, w, self.reference_size or size)[0]
        turned = letterbox_scale(w, h, self.reference_size or size)[0]
        low, high = math.log(self.scale[0]), math.log(self.scale[1])
        scale = tf.where(odd, turned, upright) * tf.exp(low + (high - low) * draw[0])
        top, rows, place_y, new_h = _window(h, window_h, scale, draw[1])
        left, columns, place_x, new_w = _window(w, window_w, scale, draw[2])

        new_size = tf.stack([new_h, new_w])
        image = image[top : top + rows, left : left + columns]
        image = tf.image.resize(image, new_size, "bilinear", antialias=True)
        instances = instances[top : top + rows, left : left + columns]
        instances = tf.image.resize(instances, new_size, "nearest")
        pad = [
            [place_y, window_h - new_h - place_y],
            [place_x, window_w - new_w - place_x],
            [0, 0],
        ]
        image = tf.pad(image, pad, constant_values=PAD_VALUE)
        instances = tf.pad(tf.cast(instances, tf.int32) + 1, pad) - 1  # -1 marks the padding
        scale_y = tf.cast(new_h, tf.float32) / tf.cast(rows, tf.float32)
        scale_x = tf.cast(new_w, tf.float32) / tf.cast(columns, tf.float32)
        factor = tf.stack([scale_x, scale_y, scale_x, scale_y])
        origin = tf.cast(tf.stack([left, top, left, top]), tf.float32)
        offset = tf.cast(tf.stack([place_x, place_y, place_x, place_y]), tf.float32)
        boxes = (boxes - origin) * factor + offset

        width, height = tf.cast(window_w, tf.float32), tf.cast(window_h, tf.float32)
        if self.flip in ("horizontal", "both"):
            do = draw[3] < 0.5
            image, instances = _if(do, lambda x: x[:, ::-1], image, instances)
            boxes = tf.where(
                do,
                tf.gather(boxes, [2, 1, 0, 3], axis=1) * [-1, 1, -1, 1]
                + tf.stack([width, 0.0, width, 0.0]),
                boxes,
            )
        if self.flip in ("vertical", "both"):
            do = draw[4] < 0.5
            image, instances = _if(do, lambda x: x[::-1], image, instances)
            boxes = tf.where(
                do,
                tf.gather(boxes, [0, 3, 2, 1], axis=1) * [1, -1, 1, -1]
                + tf.stack([0.0, height, 0.0, height]),
                boxes,
            )
        if self.rotate90:
            image = tf.image.rot90(image, turns)
            instances = tf.image.rot90(instances, turns)
            boxes = _rot90_boxes(boxes, turns, height, width)
        image = tf.ensure_shape(image, (*size, 3))
        instances = tf.ensure_shape(instances, (*size, 1))[..., 0]
        return image, tf.maximum(instances, 0), boxes, instances >= 0

    def colours(self, image: Any, seed: Any) -> Any:
        """Change the colours of a float32 image `(H, W, 3)` in [0, 255]; same shape and range."""
        import tensorflow as tf

        draw = tf.random.stateless_uniform([8], seed, -1.0, 1.0)
        weights = tf.constant([0.299, 0.587, 0.114])
        # All of it is one affine map of the colours: image @ matrix + shift.
        matrix, shift = tf.eye(3), tf.zeros([3])
        gray = tf.tile(weights[:, None], [1, 3])
        if self.colour:
            c = self.colour
            saturation = 1.0 + c * draw[0]
            matrix = saturation * tf.eye(3) + (1.0 - saturation) * gray
            matrix = matrix * (1.0 + 0.25 * c * draw[1:4])[None]
            contrast = 1.0 + c * draw[4]
            mean = tf.reduce_mean(image, axis=[0, 1])
            mean = tf.linalg.matvec(matrix, mean, transpose_a=True)
            matrix = matrix * contrast
            shift = mean * (1.0 - contrast) + 64.0 * c * draw[5]
        if self.grayscale:
            do = draw[6] * 0.5 + 0.5 < self.grayscale
            shift = tf.where(do, tf.fill([3], tf.reduce_sum(shift * weights)), shift)
            matrix = tf.where(do, matrix @ gray, matrix)
        if self.invert:
            do = draw[7] * 0.5 + 0.5 < self.invert
            shift = tf.where(do, 255.0 - shift, shift)
            matrix = tf.where(do, -matrix, matrix)
        if not (self.colour or self.grayscale or self.invert):
            return image
        image = tf.reshape(tf.reshape(image, [-1, 3]) @ matrix, tf.shape(image)) + shift
        return tf.clip_by_value(image, 0.0, 255.0)


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(isinstance(v, (int, float)) for v in value)
    )


def _window(length: Any, target: Any, scale: Any, draw: Any) -> tuple[Any, Any, Any, Any]:
    """Along one axis: start and length of the cut in the source, place and length in the window."""
    import tensorflow as tf

    source = tf.cast(length, tf.float32)
    scaled = tf.maximum(tf.cast(tf.round(source * scale), tf.int32), 1)
    cut = tf.clip_by_value(
        tf.cast(tf.round(tf.cast(target, tf.float32) / scale), tf.int32), 1, length
    )
    crops = scaled > target
    count = tf.where(crops, cut, length)
    new = tf.where(crops, target, scaled)
    room = tf.where(crops, length - count, target - new)
    chosen = tf.minimum(tf.cast(draw * tf.cast(room + 1, tf.float32), tf.int32), room)
    return tf.where(crops, chosen, 0), count, tf.where(crops, 0, chosen), new


def _if(condition: Any, change: Any, *tensors: Any) -> list[Any]:
    import tensorflow as tf

    return tf.cond(condition, lambda: [change(t) for t in tensors], lambda: list(tensors))


def _rot90_boxes(boxes: Any, turns: Any, height: Any, width: Any) -> Any:
    """Boxes after `turns` counter-clockwise quarter turns of a `(height, width)` canvas."""
    import tensorflow as tf

    x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
    turned = tf.stack(
        [
            boxes,
            tf.stack([y1, width - x2, y2, width - x1], axis=1),
            tf.stack([width - x2, height - y2, width - x1, height - y1], axis=1),
            tf.stack([height - y2, x1, height - y1, x2], axis=1),
        ]
    )
    return turned[turns]
