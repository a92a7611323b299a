"""Batches as arrays in files, for training where there is no TensorFlow.

`write_arrays` (TensorFlow) writes what a data set of `batches` yields; `ArrayBatches` reads it
with NumPy alone, for any backend of Keras.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from mtl_keras.data.untuned import untuned

IMAGES = "images"
_PARTS = (IMAGES, "targets", "weights")


def write_arrays(batches: Any, folder: str | os.PathLike) -> dict[str, Any]:
    """Writes an epoch of batches, one `.npy` file for the images and one for each target.

    Images are rounded to whole levels and written as uint8; everything else is written as it is.

    Args:
        batches: data set of `mtl_keras.data.batches`.
        folder: where to write to; it is made if need be, and files in it are replaced.

    Returns:
        A dict: `images`, how many there are; `bytes`, the size of all files; and `arrays`, a dict
        of file name, without `.npy`, to `shape` (of one image) and `dtype`.

    Example:
        ```python
        import tempfile
        import mtl_keras as mtl

        folder = tempfile.mkdtemp()
        builder = mtl.data.digits(train=4, val=2, image_size=(64, 64), data_dir=folder)
        tasks = [mtl.tasks.Segmentation(num_classes=11)]
        ds = mtl.data.batches(builder, "train", tasks, 64, batch_size=3)
        written = mtl.data.write_arrays(ds, folder + "/0")
        again = mtl.data.ArrayBatches([folder + "/0"], batch_size=3)
        assert written["images"] == 4 and len(again) == 2
        ```
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    count, at = batches.endless.images, 0
    files: dict[str, np.memmap] = {}
    for batch in batches.as_numpy_iterator():
        arrays = dict(_flat(dict(zip(_PARTS, batch, strict=False))))
        arrays[IMAGES] = np.clip(np.rint(arrays[IMAGES]), 0, 255).astype("uint8")
        for name, values in arrays.items():
            if name not in files:
                shape = (count, *values.shape[1:])
                path = folder / f"{name}.npy"
                files[name] = np.lib.format.open_memmap(path, "w+", values.dtype, shape)
            files[name][at : at + len(values)] = values
        at += len(arrays[IMAGES])
    if at != count:
        raise RuntimeError(f"the data set was to hold {count} images and held {at}")
    for file in files.values():
        file.flush()
    return {
        "images": count,
        "bytes": sum((folder / f"{name}.npy").stat().st_size for name in files),
        "arrays": {
            name: {"shape": list(file.shape[1:]), "dtype": file.dtype.name}
            for name, file in files.items()
        },
    }


class ArrayBatches(keras.utils.PyDataset):
    """Batches from files of `write_arrays`, for `fit` and `evaluate` with any backend.

    Files are mapped into memory: only the batch in use is read.

    Args:
        folders: folders of `write_arrays`, one an epoch. Epoch `e` shows folder
            `e % len(folders)`.
        batch_size: number of images in a batch; the last one may have fewer.

    Attributes:
        epoch: integer, the epoch that is shown; as a callback, `counter()` sets it.
        images: integer, number of images in an epoch.

    Raises:
        ValueError: if there are no folders, or they hold different numbers of images.
    """

    def __init__(self, folders: Sequence[str | os.PathLike], batch_size: int):
        super().__init__()
        if not folders:
            raise ValueError("`folders` should name one folder of write_arrays or more, got none")
        self.batch_size = int(batch_size)
        self.epoch = 0
        self._epochs = [_read(pathlib.Path(folder)) for folder in folders]
        counts = {len(arrays[IMAGES]) for arrays in self._epochs}
        if len(counts) != 1:
            raise ValueError(f"`folders` should hold equally many images, got {sorted(counts)}")
        (self.images,) = counts

    def __len__(self) -> int:
        return -(-self.images // self.batch_size)

    def __getitem__(self, index: int) -> tuple:
        return self._batch(self._epochs[self.epoch % len(self._epochs)], index)

    def counter(self) -> keras.callbacks.Callback:
        """The callback that says which epoch begins."""

        def begin(epoch: int, logs: dict | None = None) -> None:
            self.epoch = epoch

        return keras.callbacks.LambdaCallback(on_epoch_begin=begin)

    def as_dataset(self) -> Any:
        """A `tf.data.Dataset` of the same batches, with the shapes of `mtl_keras.data.batches`."""
        import tensorflow as tf

        def generate() -> Iterator[tuple]:
            arrays = self._epochs[self.epoch % len(self._epochs)]
            for index in range(len(self)):
                yield self._batch(arrays, index)

        signature = keras.tree.map_structure(
            lambda values: tf.TensorSpec((None, *values.shape[1:]), values.dtype),
            self._batch(self._epochs[0], 0),
        )
        ds = tf.data.Dataset.from_generator(generate, output_signature=signature)
        ds = ds.apply(tf.data.experimental.assert_cardinality(len(self)))
        return untuned(ds.prefetch(2))

    def _batch(self, arrays: dict[str, np.ndarray], index: int) -> tuple:
        rows = slice(index * self.batch_size, (index + 1) * self.batch_size)
        found: dict[str, Any] = {}
        for name, values in arrays.items():
            *folders, leaf = name.split(".")
            into = found
            for folder in folders:
                into = into.setdefault(folder, {})
            into[leaf] = np.array(values[rows])
        found[IMAGES] = found[IMAGES].astype("float32")
        return tuple(found[part] for part in _PARTS if part in found)


def _flat(parts: dict, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for name, values in parts.items():
        if isinstance(values, dict):
            yield from _flat(values, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", values


def _read(folder: pathlib.Path) -> dict[str, np.ndarray]:
    files = sorted(folder.glob("*.npy"))
    if folder / f"{IMAGES}.npy" not in files:
        raise FileNotFoundError(f"the folder {str(folder)!r} holds no arrays of write_arrays")
    return {file.name.removesuffix(".npy"): np.load(file, mmap_mode="r") for file in files}
