"""Random augmentation that moves image, boxes and instances together (TensorFlow ops)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import keras

from mtl_keras.data import maps
from mtl_keras.data.augment import sample as samples
from mtl_keras.data.augment.colours import change
from mtl_keras.data.augment.cutout import cutout
from mtl_keras.data.augment.geometry import move
from mtl_keras.data.letterbox import PAD_VALUE, letterbox_scale

FLIPS = (None, "horizontal", "vertical", "both")
SHARES = (
    "grayscale",
    "invert",
    "min_visible",
    "cover",
    "keep_objects",
    "mosaic",
    "copy_paste",
    "mixup",
    "cutout",
)
# How strong a preset is; what `upright` decides is not among it.
PRESETS: dict[str, dict[str, Any]] = {
    "none": {"scale": (1.0, 1.0), "colour": 0.0},
    "light": {"scale": (0.8, 1.25), "colour": 0.2},
    "medium": {
        "scale": (0.5, 2.0),
        "colour": 0.3,
        "hue": 0.02,
        "keep_objects": 0.5,
        "mosaic": 0.25,
        "copy_paste": 0.25,
    },
    "strong": {
        "scale": (0.4, 2.5),
        "colour": 0.4,
        "hue": 0.05,
        "grayscale": 0.05,
        "keep_objects": 0.5,
        "mosaic": 0.5,
        "copy_paste": 0.5,
        "mixup": 0.15,
        "cutout": 0.3,
    },
}


@keras.saving.register_keras_serializable(package="mtl_keras")
@dataclass(frozen=True)
class Augment:
    """What `batches` may do at random to the images of a training set.

    Each image is scaled, a window of the training size is cut out of it (or it is placed at random
    in the window, where it is the smaller one), it is flipped and turned. It may be mixed with
    others (`mosaic`, then `copy_paste`, then `mixup`) and partly covered (`cutout`). Its colours
    are changed last. Boxes, instances and masks move with it. The box of an object that is cut or
    covered goes around what is visible of it, where its pixels are known. A probability of 0 costs
    nothing.

    Images are mixed with others of the same group of up to 16 that follow one another after
    shuffling, all of them scaled and cut already. Only images that have all kinds of labels of the
    image (boxes, instances, mask) are taken, so that the result has them too; if there is none, the
    image stays alone. An image that would then hold more objects than a task takes
    (`max_objects`) is not made a mosaic or mixed up, and no more is pasted into it. Labels of the
    whole image (classes, numbers) are not true of a mosaic or a mixup and are absent from it;
    `copy_paste` and `cutout` leave them.

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
        min_visible: an object stays if at least this share of it is visible in the window, and one
            pixel each way: of the area of its box, and of its pixels where others or a cutout cover
            them. What is visible of the others stays in the segmentation mask. Crowds stay as
            long as anything of them is visible, since they are to be ignored.
        reference_size: `(height, width)` of the letterbox whose scale counts as 1, by default the
            training size. `(512, 512)` with a training size of 256 trains on crops at the scale
            that images have when they are letterboxed into 512 x 512.
        cover: in [0, 1], how often an epoch shows an image that is larger than the window at scale
            1: `max(1, round(n ** cover))` times, `n` being its area over that of the window. With
            0, once; with 1, every part of every image is shown about once.
        keep_objects: probability that a window is drawn among those that hold one object (any but
            crowds, all as likely) wholly, or as much of it as fits. Without it windows of sparse
            images often show background alone.
        hue: largest turn of the hues, as a share of the circle, in [0, 0.5].
        mosaic: probability of putting parts of four images together.
        copy_paste: probability of pasting objects of another image, whose pixels are known.
        mixup: probability of blending with another image. Pixels of which the two masks say
            different classes are ignored in the mask.
        cutout: probability of covering a square with a side of 0.1 to 0.4 of the window. What is
            under it is ignored in the mask.

    Raises:
        ValueError: if a value is outside its range.

    Reference:
        - Bochkovskiy et al. 2020, "YOLOv4" (mosaic)
        - Ghiasi et al. 2021, "Simple Copy-Paste" (copy-paste)
        - Zhang et al. 2019, "Bag of Freebies for Training Object Detection Neural Networks" (mixup)
        - DeVries & Taylor 2017, "Improved Regularization of Convolutional Neural Networks with
          Cutout"
        - Wu et al. 2019, "Detectron2", `gen_crop_transform_with_instance`; there a window holds the
          centre of an object, here all of it (`keep_objects`)

    Example:
        ```python
        from mtl_keras.data import Augment

        augment = Augment(scale=(0.5, 2.0), flip="both", rotate90=True, colour=0.3, mosaic=0.3)
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
    keep_objects: float = 0.0
    hue: float = 0.0
    mosaic: float = 0.0
    copy_paste: float = 0.0
    mixup: float = 0.0
    cutout: float = 0.0

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
        if not 0 <= self.hue <= 0.5:
            raise ValueError(
                f"`hue` should be in [0, 0.5], a share of the circle of hues, got {self.hue!r}"
            )
        for key in SHARES:
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

    @classmethod
    def preset(cls, strength: str, upright: bool = True, **overrides: Any) -> Augment:
        """An `Augment` by its strength.

        Args:
            strength: `"none"` (images as they are, at a random place in the window), `"light"`
                (a little scale and colour), `"medium"` (more of both, windows that keep objects,
                some mosaic and copy-paste; a good start for a few hundred images), or `"strong"`
                (all, for long training).
            upright: whether images have an up: they are flipped left to right only. Otherwise
                (microscopy, aerial, endoscopy) they are flipped both ways and turned. `"none"`
                does neither.
            **overrides: arguments of `Augment` that take the place of the preset's.

        Returns:
            An `Augment`.

        Raises:
            ValueError: if there is no such preset, or a value is outside its range.

        Example:
            ```python
            from mtl_keras.data import Augment

            augment = Augment.preset("medium", upright=False, mosaic=0.0)
            assert augment.rotate90 and augment.copy_paste and not augment.mosaic
            ```
        """
        if strength not in PRESETS:
            raise ValueError(f"`strength` should be one of {tuple(PRESETS)}, got {strength!r}")
        ways = {"flip": "horizontal"} if upright else {"flip": "both", "rotate90": True}
        if strength == "none":
            ways = {"flip": None}
        return cls(**{**PRESETS[strength], **ways, **overrides})

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

    @property
    def mixes(self) -> bool:
        """Whether images are made of several."""
        return bool(self.mosaic or self.copy_paste or self.mixup)

    @property
    def hides_values(self) -> bool:
        """Whether images may lose what is said of the whole image."""
        return bool(self.mosaic or self.mixup)

    def geometry(
        self,
        image: Any,
        instances: Any,
        boxes: Any,
        size: tuple[int, int],
        seed: Any,
        is_crowd: Any = None,
    ) -> Any:
        """Scale, crop or place, flip and turn.

        Args:
            image: uint8 tensor `(h, w, 3)`.
            instances: integer tensor `(h, w, 1)`.
            boxes: float32 tensor `(n, 4)`, xyxy in pixels.
            size: `(height, width)` of the result.
            seed: int64 tensor `(2,)`.
            is_crowd: bool tensor `(n,)`, objects that `keep_objects` does not look for; by default
                none.

        Returns:
            `(image, instances, boxes, inside)`: float32 `(H, W, 3)`, int32 `(H, W)`, float32 `(n,
            4)` not yet clipped, and a bool tensor `(H, W)`, false where there is only padding.
        """
        import tensorflow as tf

        if is_crowd is None:
            is_crowd = tf.zeros(tf.shape(boxes)[:1], tf.bool)
        return move(self, image, instances, boxes, is_crowd, size, seed)

    def colours(self, image: Any, seed: Any) -> Any:
        """Change the colours of a float32 image `(H, W, 3)` in [0, 255]; same shape and range."""
        return change(self, image, seed)

    def sample(self, example: dict[str, Any], size: tuple[int, int], seed: Any) -> dict[str, Any]:
        """One example in a window of the training size, its colours as they are.

        Args:
            example: decoded example of `batches`.
            size: `(height, width)` of the window.
            seed: int64 tensor `(2,)`.

        Returns:
            A sample (see `mtl_keras/data/augment/sample.py`).
        """
        image, packed, moved, inside = self.geometry(
            example["image"], maps.pack(example), example["boxes"], size, seed, example["is_crowd"]
        )
        instances, mask = maps.unpack(packed, example)
        made = samples.make(image, instances, mask, moved, inside, example)
        return samples.settle(made, self.min_visible)

    def finish(self, sample: dict[str, Any], seed: Any) -> tuple[Any, dict[str, Any]]:
        """Cutout and colours of a sample: `(image, labels)` as the tasks of `batches` get them."""
        import tensorflow as tf

        if self.cutout:
            do = tf.random.stateless_uniform([], seed + 3) < self.cutout
            before = sample
            sample = tf.cond(
                do,
                lambda: cutout(before, self.min_visible, seed + 10),
                lambda: dict(before),
            )
        image = self.colours(tf.cast(sample["image"], tf.float32), seed + 1)
        seen = sample["instances"] >= 0
        image = tf.cond(
            tf.reduce_all(seen),
            lambda: image,
            lambda: tf.where(seen[..., None], image, PAD_VALUE),
        )
        labels = ("boxes", "classes", "is_crowd", "mask", "labelled", "values")
        return image, {
            **{key: sample[key] for key in labels},
            "instances": tf.maximum(sample["instances"], 0),
        }


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(isinstance(v, (int, float)) for v in value)
    )
