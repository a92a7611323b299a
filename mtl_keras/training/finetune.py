"""Fine-tuning: a trained model goes on with somebody's own pictures and classes."""

import json
import pathlib
import shutil
from typing import Any

import keras

from mtl_keras.tasks import Detection, Segmentation
from mtl_keras.training import freezing
from mtl_keras.training.files import save_whole
from mtl_keras.training.model import MultiTaskModel, heads_of
from mtl_keras.training.recipe import backup

# In pixels. Larger crops cost more than they teach.
LARGEST_CROP = 320


def with_classes(
    model: MultiTaskModel,
    class_names: list[str],
    image_size: tuple[int, int] | None = None,
    mask_names: list[str] | None = None,
) -> MultiTaskModel:
    """Makes a model for other classes of objects, with all else as it was learned.

    Args:
        model: `MultiTaskModel` with detection, segmentation or both.
        class_names: List of strings, the classes of objects; background is not one of them.
        image_size: Optional `(height, width)` to letterbox images to, in place of the model's own.
        mask_names: Optional list of strings, the classes of pixels where these are others than
            those of objects; background is not one of them.

    Returns:
        A new `MultiTaskModel`, not compiled: tasks whose classes differ have new heads with
        random weights, everything else has a copy of the weights of `model` and is frozen where
        it is there. Where neither the classes nor the size differ, `model` itself.

    Raises:
        ValueError: If the model has a task that has no such classes, or that would have none.

    Example:

    ```python
    import mtl_keras as mtl
    from mtl_keras.training.finetune import with_classes
    model = mtl.build(
        mtl.trunks.create("efficientnet_lite0", weights=None),
        tasks=[mtl.tasks.Detection(num_classes=1), mtl.tasks.Segmentation(num_classes=2)],
        image_size=(64, 64),
    )
    model = with_classes(model, ["cat", "dog"])
    assert [task.num_classes for task in model.tasks] == [2, 3]
    ```
    """
    config = model.architecture()
    heads = []
    for task, described in zip(model.tasks, config["tasks"], strict=True):
        if isinstance(task, Detection):
            names = list(class_names)
        elif isinstance(task, Segmentation):
            names = ["background", *(class_names if mask_names is None else mask_names)]
        elif "num_classes" not in described["config"]:
            continue
        else:
            raise ValueError(
                f"`model` must have detection and segmentation only to take other classes. "
                f"Received a model with the task {task.name!r} ({type(task).__name__})"
            )
        if not names or names == ["background"]:
            raise ValueError(
                f"the images have no classes that the task {task.name!r} could learn: no "
                f"{'boxes' if isinstance(task, Detection) else 'masks'}. Give a model without this "
                "task, or images that are labelled for it"
            )
        if task.class_names != names:
            described["config"].update(num_classes=len(names), class_names=names)
            heads += heads_of(task.name)
    if image_size is not None:
        config["image_size"] = list(image_size)
    if not heads and tuple(config["image_size"]) == model.image_size:
        return model
    adapted = MultiTaskModel.from_config(config)
    for layer in adapted.layers:
        if layer.name not in heads:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    freezing.freeze(
        adapted, [path for path in freezing.frozen(model) if path.split("/")[0] not in heads]
    )
    return adapted


def finetune(
    model: MultiTaskModel,
    builder: Any,
    out: str | pathlib.Path,
    epochs: int = 20,
    batch_size: int = 8,
    learning_rate: float = 5e-4,
) -> dict[str, float]:
    """Trains a model on the pictures of a builder; an interrupted run goes on with its last epoch.

    Training sees random crops of at most 320 pixels each way, at half to one and a half times the
    scale that pictures have in the model; large pictures are cropped several times an epoch. AdamW,
    with a warm-up and a cosine decay.

    Writes into `out`: `backup/` (to go on from, gone at the end), `settings.json`, `history.csv`
    (a line an epoch) and, at the end, `model.keras`.

    Args:
        model: `MultiTaskModel`, with the classes of the builder (see `with_classes`). It is
            trained in place.
        builder: TFDS builder, see `mtl_keras.data`, with the split `train`. Where it has no
            split `val`, the last 20 % of `train` are held out.
        out: Folder to write to.
        epochs: Integer.
        batch_size: Integer, images a step.
        learning_rate: Float, the highest.

    Returns:
        Dict of metrics on the pictures held out. On these, the score from which on boxes are shown
        is chosen too, see `MultiTaskModel.choose_confidence`.

    Raises:
        FileExistsError: If `out` holds a finished run.
        ValueError: If `out` holds a run that was interrupted and had other settings, or there
            are too few pictures to hold some out.
    """
    from mtl_keras import data

    out = pathlib.Path(out).expanduser()
    if (out / "model.keras").exists():
        raise FileExistsError(
            f"`out` holds a finished run already: {str(out / 'model.keras')!r}; give another folder"
        )
    train_split, val_split = splits(builder)
    settings = {
        "model": model.name,
        "data": str(builder.data_dir),
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "image_size": list(model.image_size),
    }
    resumes = _resumes(out, settings)
    _make_room(model, builder)

    crop = tuple(min(side, LARGEST_CROP) for side in model.image_size)
    augment = data.Augment(
        scale=(0.5, 1.5),
        flip="horizontal",
        colour=0.3,
        reference_size=model.image_size,
        cover=0.5,
    )
    common = {"builder": builder, "tasks": model.tasks, "batch_size": batch_size}
    counted = data.Epochs()  # A run that goes on sees the batches that it would have seen.
    batches = data.batches(
        split=train_split, image_size=crop, augment=augment, epochs=counted, **common
    )
    val = data.batches(split=val_split, image_size=model.image_size, **common)
    model.compile(optimizer=_optimizer(learning_rate, epochs * int(batches.cardinality())))
    model.fit(
        batches,
        epochs=epochs,
        validation_data=val,
        callbacks=[
            counted,
            backup(out / "backup"),
            keras.callbacks.CSVLogger(str(out / "history.csv"), append=resumes),
        ],
    )
    metrics = model.evaluate(val, return_dict=True) | model.choose_confidence()
    save_whole(model, out / "model.keras")
    shutil.rmtree(out / "backup", ignore_errors=True)
    return {name: float(value) for name, value in metrics.items()}


def splits(builder: Any) -> tuple[str, str]:
    """Returns the splits to train on and to hold out.

    Args:
        builder: TFDS builder with the split `train` and perhaps `val`.

    Returns:
        `("train", "val")` or, where there is no `val`, `("train[:80%]", "train[80%:]")`. Where
        there is no `train`, but `trainval`, as in Pascal VOC, that takes its place.

    Raises:
        ValueError: If there is no `train`, or too little of it.
    """
    found = builder.info.splits
    train = "train" if "train" in found else "trainval"
    if train not in found:
        raise ValueError(f"`builder` must have a split 'train'. It has {sorted(found)}")
    if "val" in found:
        return train, "val"
    held_out = f"{train}[80%:]"
    if not 0 < found[held_out].num_examples < found[train].num_examples:
        raise ValueError(
            "`builder` must have a split 'val', or enough images in 'train' to hold out 20 % of "
            f"them. It has {found[train].num_examples} images in {train!r}"
        )
    return f"{train}[:80%]", held_out


def _resumes(out: pathlib.Path, settings: dict) -> bool:
    """Says whether `out` holds this run, interrupted; makes the folder and notes the settings."""
    out.mkdir(parents=True, exist_ok=True)
    noted = out / "settings.json"
    resumes = (out / "backup" / "training_metadata.json").exists()
    if not resumes:  # What was killed while it wrote its first epoch left half a file.
        shutil.rmtree(out / "backup", ignore_errors=True)
    if resumes and noted.exists() and (before := json.loads(noted.read_text())) != settings:
        other = {k: (before.get(k), v) for k, v in settings.items() if before.get(k) != v}
        raise ValueError(
            f"`out` holds an interrupted run with other settings (there, given): {other}. Give "
            f"the same settings to go on, or another folder than {str(out)!r}"
        )
    noted.write_text(json.dumps(settings, indent=2) + "\n")
    return resumes


def image_size_for(builder: Any, most: tuple[int, int]) -> tuple[int, int]:
    """Finds the size of a canvas that holds every picture of a builder.

    Args:
        builder: TFDS builder, see `mtl_keras.data`.
        most: `(height, width)` in pixels, which the result does not exceed.

    Returns:
        `(height, width)`, multiples of 32.
    """
    import tensorflow as tf

    sides = [(0, 0)]
    for example in _undecoded(builder):
        # The header of a PNG holds width and height.
        width, height = tf.io.decode_raw(
            tf.strings.substr(example["instances"], 16, 8), tf.int32, little_endian=False
        ).numpy()
        sides.append((int(height), int(width)))
    largest = (max(side) for side in zip(*sides, strict=True))
    return tuple(min(-(-side // 32) * 32, limit) for side, limit in zip(largest, most, strict=True))


def _make_room(model: MultiTaskModel, builder: Any) -> None:
    """Lets detection take as many objects as the fullest picture holds."""
    most = max(len(example["objects"]["label"]) for example in _undecoded(builder))
    for task in model.tasks:
        if isinstance(task, Detection):
            task.max_objects = max(task.max_objects, most)
            task.max_detections = max(task.max_detections, most)


def _undecoded(builder: Any) -> Any:
    """Yields the examples of all splits, with their pictures as bytes."""
    import tensorflow_datasets as tfds

    decoders = dict.fromkeys(("image", "instances"), tfds.decode.SkipDecoding())
    for split in builder.info.splits:
        yield from builder.as_dataset(split=split, decoders=decoders).as_numpy_iterator()


def _optimizer(learning_rate: float, steps: int) -> keras.optimizers.Optimizer:
    warmup = max(1, min(300, steps // 10))
    schedule = keras.optimizers.schedules.CosineDecay(
        learning_rate / 100,
        max(steps - warmup, 1),
        alpha=0.01,
        warmup_target=learning_rate,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.05, global_clipnorm=5.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
