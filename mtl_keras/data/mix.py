"""Several sources of images, each labelled for tasks of its own, as one data set of batches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl_keras.data.epochs import Endless, Epochs, numbers
from mtl_keras.data.untuned import untuned

SAMPLINGS = ("proportional", "uniform", "temperature", "annealed")
COMPOSITIONS = ("stratified", "image", "source")
LAST_EXPONENT = 0.2  # of annealed sampling, Stickland and Murray 2019


def mix(
    sources: Mapping[str, Any],
    batch_size: int = 8,
    sampling: str | Mapping[str, float] = "proportional",
    composition: str = "stratified",
    temperature: float = 5.0,
    total_epochs: int | None = None,
    steps_per_epoch: int | None = None,
    seed: int = 0,
    epochs: Epochs | None = None,
) -> Any:
    """Mixes data sets into one, whose batches hold images of all of them.

    Each source has the tasks that it was made with. A batch has the targets of all tasks of all
    sources and, for each task, weights: 0 for images of sources without it, which then move nothing
    of that task (see `MultiTaskModel.compute_loss`).

    The share of a source among the images is

    - `"proportional"`: to its number of images, so that an epoch shows each image about once,
    - `"uniform"`: the same for all,
    - `"temperature"`: proportional to `n ** (1 / temperature)`, n being its number of images,
    - `"annealed"`: proportional to `n ** a`, where a falls evenly from 1 in the first epoch to 0.2
      in the last of `total_epochs`,
    - or as given, in a dict.

    An image of a source is shown again when all of its others have been, as often as its share
    asks for, in another order and changed otherwise if the source is made so. Epochs go on in each
    source where the one before it is expected to have ended, so that a large source of which an
    epoch shows a part is seen whole in the end. Up to that place, its images are read but not
    decoded.

    Batches follow from the seeds and the number of the epoch; with an [`Epochs`](epochs.py), a
    training that was interrupted goes on with the batches that it would have seen. The sources need
    none.

    Args:
        sources: dict, name to a data set of `batches` (or another finite data set of `(images,
            targets)` or `(images, targets, weights)`, whose order is then its own, and of which all
            batches up to the place where an epoch begins are made). Sizes of their own batches do
            not matter. A task that several sources have must have targets of the same shape in all
            of them.
        batch_size: number of images in a batch.
        sampling: one of the above, or a dict, name of the source to its share; shares add up to 1.
        composition: of a batch. `"stratified"`: every batch holds each source by its share, rounded
            up or down so that shares are right on average. `"image"`: each image is drawn for
            itself. `"source"`: all images are of one source, which is drawn.
        temperature: number of at least 1; the higher, the more uniform.
        total_epochs: number of epochs in which `"annealed"` reaches its end.
        steps_per_epoch: number of batches that count as an epoch; by default as many as it takes to
            show as many images as the sources hold.
        seed: integer that fixes which source comes next.
        epochs: who knows the number of the epoch; by default the data set counts its iterations.

    Returns:
        A `tf.data.Dataset` of `(images, targets, weights)`, with dicts of all tasks.

    Raises:
        ValueError: if there is no source, one is empty or endless, images or targets of a task
            differ in shape between sources, or an argument is outside its range.

    Reference:
        - Arivazhagan et al. 2019, "Massively Multilingual Neural Machine Translation in the Wild"
          (temperature)
        - Stickland and Murray 2019, "BERT and PALs", section 3.2 (annealed: each step draws a task
          for its whole batch there, which is `composition="source"`)

    Example:

    ```python
    import tempfile
    import mtl_keras as mtl

    builder = mtl.data.digits(train=8, val=2, image_size=(64, 64), data_dir=tempfile.mkdtemp())
    detection, segmentation = mtl.tasks.Detection(10), mtl.tasks.Segmentation(11)
    ds = mtl.data.mix(
        {
            "boxed": mtl.data.batches(builder, "train[:4]", [detection], 64, shuffle=True),
            "painted": mtl.data.batches(builder, "train[4:]", [segmentation], 64),
        },
        batch_size=4,
    )
    images, targets, weights = next(iter(ds))
    assert weights["detection"].numpy().sum() == weights["segmentation"].numpy().sum() == 2
    ```
    """
    import tensorflow as tf

    if not isinstance(sources, Mapping) or not sources:
        raise ValueError(f"`sources` should be a dict of at least one data set, got {sources!r}")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"`batch_size` should be an integer of at least 1, got {batch_size!r}")
    if composition not in COMPOSITIONS:
        raise ValueError(f"`composition` should be one of {COMPOSITIONS}, got {composition!r}")
    if steps_per_epoch is not None and steps_per_epoch < 1:
        raise ValueError(f"`steps_per_epoch` should be at least 1, got {steps_per_epoch}")
    endless = {name: _endless(name, ds) for name, ds in sources.items()}
    counts = {name: source.images for name, source in endless.items()}
    shares = _Shares(counts, sampling, temperature, total_epochs)
    if composition == "stratified":
        shares.check(batch_size)
    steps = steps_per_epoch or math.ceil(sum(counts.values()) / batch_size)

    def begun(i: int) -> Any:
        """Where source `i` goes on in this epoch."""
        shown = numbers(epochs).map(lambda number: shares.before(number)[i] * steps * batch_size)
        return shown.map(lambda position: tf.cast(tf.round(position), tf.int64))

    made = {name: source.make(begun(i)) for i, (name, source) in enumerate(endless.items())}
    specs = _specs({name: ds.element_spec for name, ds in made.items()})
    filled = [ds.map(lambda *parts: _filled(parts, specs), 2) for ds in made.values()]

    def chosen(number: Any) -> Any:
        start = tf.random.experimental.stateless_fold_in(tf.constant([seed, 1], tf.int64), number)
        limits = tf.cumsum(shares(number))

        def of_batch(step: Any) -> Any:
            key = tf.random.experimental.stateless_fold_in(start, step)
            points = _points(composition, batch_size, key)
            found = tf.searchsorted(limits, points, side="right", out_type=tf.int64)
            return tf.minimum(found, len(filled) - 1)  # limits end a rounding error below 1

        return tf.data.Dataset.range(steps).map(of_batch).unbatch()

    choice = numbers(epochs).flat_map(chosen)
    ds = tf.data.Dataset.choose_from_datasets(filled, choice)
    ds = ds.batch(batch_size, drop_remainder=True)
    ds = ds.apply(tf.data.experimental.assert_cardinality(steps))
    return untuned(ds.prefetch(tf.data.AUTOTUNE))


class _Shares:
    """The share of each source in an epoch: called with its number, gives float64 `(sources,)`."""

    def __init__(
        self,
        counts: dict[str, int],
        sampling: str | Mapping[str, float],
        temperature: float,
        total_epochs: int | None,
    ):
        self.counts = counts
        images = np.array(list(counts.values()), "float64")
        if isinstance(sampling, Mapping):
            self.table = np.array([_given(sampling, counts)])  # `(epochs, sources)`
        else:
            exponents = _exponents(sampling, temperature, total_epochs)
            weights = images ** np.reshape(exponents, (-1, 1))
            self.table = weights / weights.sum(axis=1, keepdims=True)
        self.sums = np.cumsum(np.concatenate([0.0 * self.table[:1], self.table]), axis=0)

    def __call__(self, number: Any) -> Any:
        import tensorflow as tf

        return tf.gather(tf.constant(self.table), tf.minimum(number, len(self.table) - 1))

    def before(self, number: Any) -> Any:
        """The sum of the shares of all epochs before one: float64 `(sources,)`."""
        import tensorflow as tf

        known = tf.minimum(number, len(self.table))
        later = tf.cast(number - known, tf.float64) * self.table[-1]
        return tf.gather(tf.constant(self.sums), known) + later

    def check(self, batch_size: int) -> None:
        """Every batch shall hold every source: an error where one has too small a share."""
        for row in self.table[[0, -1]]:
            shares = dict(zip(self.counts, row, strict=True))
            few = {n: round(float(s), 4) for n, s in shares.items() if 0 < s * batch_size < 0.9999}
            if few:
                raise ValueError(
                    f"batches of `batch_size={batch_size}` can't all hold images of the sources "
                    f"{few} (their shares); enlarge the batches or the shares, or take "
                    "composition='image'"
                )


def _exponents(sampling: str, temperature: float, total_epochs: int | None) -> Any:
    """The power of the number of images that a share is proportional to, epoch by epoch."""
    if sampling not in SAMPLINGS:
        raise ValueError(f"`sampling` should be one of {SAMPLINGS} or a dict, got {sampling!r}")
    if not temperature >= 1:
        raise ValueError(f"`temperature` should be at least 1, got {temperature!r}")
    if sampling != "annealed":
        return {"proportional": 1.0, "uniform": 0.0, "temperature": 1.0 / temperature}[sampling]
    if total_epochs is None or total_epochs < 1:
        raise ValueError(
            "`sampling='annealed'` needs `total_epochs`, the number of epochs of the whole "
            f"training, at least 1; got {total_epochs!r}"
        )
    return np.linspace(1.0, LAST_EXPONENT, total_epochs)


def _given(shares: Mapping[str, float], counts: dict[str, int]) -> list[float]:
    if set(shares) != set(counts):
        raise ValueError(
            f"`sampling` should give a share to each of the sources {sorted(counts)}, and to no "
            f"other; got {sorted(shares)}"
        )
    values = [float(shares[name]) for name in counts]
    if min(values) < 0 or not math.isclose(sum(values), 1.0, abs_tol=1e-4):
        raise ValueError(
            f"the shares in `sampling` should not be negative and add up to 1, got {dict(shares)}"
        )
    return values


def _points(composition: str, batch_size: int, key: Any) -> Any:
    """Where in [0, 1), cut into shares, the images of a batch lie: float64 `(batch_size,)`."""
    import tensorflow as tf

    if composition == "image":
        return tf.random.stateless_uniform([batch_size], key, dtype=tf.float64)
    draw = tf.random.stateless_uniform([], key, dtype=tf.float64)
    if composition == "source":
        return tf.fill([batch_size], draw)
    # Systematic sampling: an even comb at a random place. A share s has floor(s * batch_size) or
    # ceil(s * batch_size) of its teeth, and s * batch_size on average.
    return (tf.range(batch_size, dtype=tf.float64) + draw) / batch_size


def _endless(name: str, ds: Any) -> Endless:
    """What is known of a source; a data set that `batches` did not make is taken as it is."""
    import tensorflow as tf

    if not isinstance(ds, tf.data.Dataset):
        raise ValueError(f"the source {name!r} should be a tf.data.Dataset, got {ds!r:.100}")
    spec = ds.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3) or not isinstance(spec[1], dict):
        raise ValueError(
            f"the source {name!r} should give (images, targets) or (images, targets, weights) with "
            f"dicts by task, as `batches` does; it gives {spec}"
        )
    known = getattr(ds, "endless", None)
    if known is not None:
        return known
    count = int(ds.cardinality())
    if count < 0:
        raise ValueError(
            f"the source {name!r} has no known end, so that its number of images is not known; "
            "leave out .repeat(), cut it off with .take(n), or say how many batches it has with "
            "tf.data.experimental.assert_cardinality(n)"
        )
    if not count:
        raise ValueError(f"the source {name!r} is empty")
    largest = int(tf.shape(next(iter(ds))[0])[0])  # The last batch may be smaller.
    images = count * largest
    repeated = ds.unbatch().repeat()
    return Endless(images, lambda at: at.flat_map(lambda p: repeated.skip(p % images)))


def _specs(specs: dict[str, tuple]) -> dict[str, Any]:
    """The targets of each task of any source; an error where sources contradict each other."""
    import tensorflow as tf

    images, tasks, first = None, {}, {}
    for name, spec in specs.items():
        if images is None:
            images, first[None] = spec[0], name
        elif not images.is_compatible_with(spec[0]):
            raise ValueError(
                f"all sources should give images of one size and type; {first[None]!r} gives "
                f"{images.shape}, {images.dtype.name}, and {name!r} {spec[0].shape}, "
                f"{spec[0].dtype.name}"
            )
        for task, target in spec[1].items():
            if task in tasks and tasks[task] != target:
                raise ValueError(
                    f"the targets of the task {task!r} should be alike in all sources; "
                    f"{first[task]!r} gives {tasks[task]}, and {name!r} {target}. Give both the "
                    "same task, or tasks of different names"
                )
            tasks.setdefault(task, target)
            first.setdefault(task, name)
            unknown = [part for part in tf.nest.flatten(target) if None in part.shape.as_list()]
            if unknown:
                raise ValueError(
                    f"the targets of the task {task!r} of the source {name!r} should have a shape "
                    f"that is known, got {unknown}"
                )
    return tasks


def _filled(parts: tuple, specs: dict[str, Any]) -> tuple[Any, dict, dict]:
    """An image with targets and weights of all tasks: zeros for those that it has not."""
    import tensorflow as tf

    image, targets, *rest = parts
    given = rest[0] if rest else {}
    every, weights = {}, {}
    for task, spec in specs.items():
        if task in targets:
            every[task] = targets[task]
            weight = given.get(task, 1.0) if isinstance(given, dict) else given
            weights[task] = tf.cast(weight, tf.float32)
        else:
            every[task] = tf.nest.map_structure(lambda s: tf.zeros(s.shape, s.dtype), spec)
            weights[task] = tf.constant(0.0)
    return image, every, weights
