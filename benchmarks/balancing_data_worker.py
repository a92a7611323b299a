"""What a process of balancing_data.py does: makes batches of real images, trains, measures."""

import functools
import gc
import json
import math
import os
import pathlib
import resource
import time
import zlib
from importlib import metadata

ROOT = pathlib.Path(__file__).parents[1]
BATCH, EPOCHS, WARM, PEAK = 8, 6, 4, 2e-3
TRAIN, TUNE, VAL = "train[:85%]", "train[85%:]", "val"
AT_PARAMETERS = ("mgda", "pcgrad", "cagrad", "nash_mtl", "aligned_mtl", "upgrad", "imtl_g")


def data_folder() -> pathlib.Path:
    return pathlib.Path(os.environ.get("MTL_KERAS_DATA", ROOT.parent / "shared" / "data"))


# === Data ===
def builder(name: str):
    import mtl_keras as mtl

    root = data_folder() / name
    return mtl.data.from_coco(
        {split: str(root / f"{split}.json") for split in ("train", "val")},
        str(root / "images"),
        name=name,
    )


def letterbox_size(data: str, size: int) -> int:
    """The size of pictures in measurements: training sees windows of nuclei, whole façades.

    Windows of nuclei are 5 / 8 of it a side.
    """
    return {"nuclei": 8 * size // 5 // 32 * 32, "facades": size}[data]


def tasks(data: str, names: list[str], edges: list[float] | None = None) -> list:
    import mtl_keras as mtl

    classes = len(names)
    found = [
        mtl.tasks.Detection(
            classes,
            levels=("P2", "P3") if data == "nuclei" else ("P3", "P4", "P5"),
            depth=1,
            class_names=names,
        ),
        mtl.tasks.Segmentation(classes + 1, class_names=["background", *names]),
    ]
    if data == "nuclei":
        if not hasattr(mtl.tasks, "BoundaryDistance"):
            raise RuntimeError("this version of mtl_keras.tasks has no BoundaryDistance")
        return [*found, mtl.tasks.BoundaryDistance(name="distance")]
    return [*found, window_count(names.index("window"), edges)]


def window_count(window: int, edges: list[float]):
    """The task of saying how many windows an image shows: one of as many bins as edges, and one."""
    import mtl_keras as mtl

    class WindowCount(mtl.tasks.Classification):
        needs = ("boxes",)

        def encode(self, labels, image_size=None):
            import tensorflow as tf

            count = tf.reduce_sum(tf.cast(labels["classes"] == window, "float32"))
            return {"label": tf.reduce_sum(tf.cast(count >= tf.constant(edges), "int32"))}

    return WindowCount(len(edges) + 1, name="windows")


def window_edges(source) -> list[float]:
    """Quartiles of the number of windows in the training pictures."""
    import numpy as np

    import mtl_keras as mtl

    window = source.info.features["objects"]["label"].names.index("window")
    counts = [
        int((example["classes"] == window).sum())
        for example in mtl.data.examples(source, TRAIN).as_numpy_iterator()
    ]
    return [float(edge) for edge in np.quantile(counts, (0.25, 0.5, 0.75))]


def augment(data: str, size: int):
    import mtl_keras as mtl

    if data == "facades":
        return mtl.data.Augment(scale=(0.8, 1.25), flip="horizontal", colour=0.3)
    reference = letterbox_size(data, size)
    return mtl.data.Augment(
        scale=(0.7, 1.4),
        flip="both",
        rotate90=True,
        colour=0.4,
        grayscale=0.15,
        invert=0.15,
        reference_size=(reference, reference),
        cover=0.7,
    )


def prepare(spec: dict) -> dict:
    """Makes batches for training and arrays to measure with, once for every run of a seed.

    Args:
        spec: Dict with `data`, `seed`, `steps`, `size` and `folder`.

    Returns:
        Dict, `checksum` of the training batches.
    """
    import numpy as np

    import mtl_keras as mtl

    folder, size, data = pathlib.Path(spec["folder"]), spec["size"], spec["data"]
    source = builder(data)
    names = source.info.features["objects"]["label"].names
    path = folder / f"{data}.json"
    if not path.exists():
        edges = window_edges(source) if data == "facades" else None
        path.write_text(json.dumps({"names": names, "edges": edges}))
    given = tasks(data, names, json.loads(path.read_text())["edges"])
    for part, split in (("tune", TUNE), ("val", VAL)):
        target = folder / f"{data}-{part}.npz"
        if not target.exists():
            side = letterbox_size(data, size)
            ds = mtl.data.batches(source, split, given, (side, side), BATCH)
            np.savez(target, **_arrays(list(ds.as_numpy_iterator())))
    target = folder / f"{data}-train-{spec['seed']}.npz"
    ds = mtl.data.batches(
        source,
        TRAIN,
        given,
        (size, size),
        BATCH,
        augment=augment(data, size),
        seed=spec["seed"],
        drop_remainder=True,
    )
    arrays = _arrays(list(ds.repeat().take(spec["steps"]).as_numpy_iterator()))
    # Places for objects that no image has cost time.
    most = int((arrays["detection/classes"] >= 0).sum(axis=1).max())
    for key in [key for key in arrays if key.startswith("detection/")]:
        arrays[key] = np.ascontiguousarray(arrays[key][:, :most])
    np.savez(target, **arrays)
    checksum = 0
    for key in sorted(arrays):
        checksum = zlib.crc32(arrays[key].tobytes(), checksum)
    return {"checksum": f"{checksum:08x}"}


def _arrays(batches: list) -> dict:
    import numpy as np

    joined = {"image": np.concatenate([np.rint(image).astype("uint8") for image, _ in batches])}
    for task, targets in batches[0][1].items():
        for key in targets:
            joined[f"{task}/{key}"] = np.concatenate([y[task][key] for _, y in batches])
    return joined


@functools.lru_cache(maxsize=4)
def _loaded(path: str) -> dict:
    """The arrays of a file, as tensors that all data sets of this process share."""
    import numpy as np
    import tensorflow as tf

    with np.load(path) as file, tf.device("CPU"):
        return {key: tf.constant(file[key]) for key in file.files}


def _dataset(path: pathlib.Path, names: tuple[str, ...], drop_remainder: bool):
    import tensorflow as tf

    arrays = dict(_loaded(str(path)))
    images = arrays.pop("image")
    targets = {name: {} for name in names}
    for key, value in arrays.items():
        task, part = key.split("/")
        if task in targets:
            targets[task][part] = value
    ds = tf.data.Dataset.from_tensor_slices((images, targets)).batch(BATCH, drop_remainder)
    return ds.map(lambda x, y: (tf.cast(x, "float32"), y)).prefetch(2)


# === Runs ===
def plan(spec: dict) -> list[tuple[str, str]]:
    """Lists the methods and where each takes gradients; those with weights by hand not."""
    from mtl_keras import balancing

    found = []
    for name in balancing.names():
        if name == "fixed":
            continue
        if not isinstance(balancing.get(name), balancing.GradientMethod):
            found.append((name, ""))
            continue
        try:
            balancing.get(name, on="features")
            found.append((name, "features"))
        except ValueError:
            found.append((name, "parameters"))
    return [*found, *((name, "parameters") for name in AT_PARAMETERS)]


def train(spec: dict) -> dict:
    """Trains one network and measures it.

    Args:
        spec: Dict with `data`, `role`, `method`, `on`, `weights` (by task), `seed`, `steps`,
            `size` and `folder`, with what `prepare` made.

    Returns:
        Dict with `train`, `val` and (for choosing weights) `tune`: dicts of metrics; `finite`;
        and what it cost.
    """
    import keras

    import mtl_keras as mtl

    keras.backend.clear_session()
    gc.collect()
    data, size, steps = spec["data"], spec["size"], spec["steps"]
    folder = pathlib.Path(spec["folder"])
    about = json.loads((folder / f"{data}.json").read_text())
    given = tasks(data, about["names"], about["edges"])
    if spec["role"] == "single":
        given = [task for task in given if task.name == spec["method"]]
    names = tuple(task.name for task in given)
    started = time.perf_counter()
    keras.utils.set_random_seed(spec["seed"])
    model = mtl.build(
        mtl.trunks.create("efficientnet_lite0", weights="imagenet"),
        given,
        "hard",
        (letterbox_size(data, size),) * 2,
    )
    model.compile(optimizer(), balancing=_balancing(spec, names))
    build = time.perf_counter() - started
    clock = _clock(steps)
    epochs = EPOCHS if steps % EPOCHS == 0 else 1  # Some methods look at losses by epoch.
    ds = _dataset(folder / f"{data}-train-{spec['seed']}.npz", names, True)
    result = {"finite": True, "train": {}, "val": {}, "tune": {}}
    try:
        history = model.fit(
            ds.repeat(),
            epochs=epochs,
            steps_per_epoch=steps // epochs,
            callbacks=[clock],
            verbose=0,
        )
        result["train"] = {name: float(v[-1]) for name, v in history.history.items()}
    except mtl.NonFiniteLossError as error:
        result["finite"], result["error"] = False, str(error)
    measured = time.perf_counter()
    if result["finite"]:
        for part in ("val", "tune") if spec["tune"] else ("val",):
            logs = model.evaluate(
                _dataset(folder / f"{data}-{part}.npz", names, False), verbose=0, return_dict=True
            )
            result[part] = {name: float(value) for name, value in logs.items()}
        losses = [v for k, v in result["val"].items() if k.endswith("loss")]
        result["finite"] = all(math.isfinite(value) for value in losses)
    with open("/proc/self/statm") as file:
        memory = int(file.read().split()[1]) * resource.getpagesize()
    return {
        **result,
        **clock.result(),
        "build_s": build,
        "evaluate_s": time.perf_counter() - measured,
        "total_s": time.perf_counter() - started,
        "memory_mb": memory / 1e6,
        "versions": ", ".join(f"{p} {metadata.version(p)}" for p in ("keras", "tensorflow")),
    }


def optimizer():
    """AdamW as in the recipes; `_clock` sets its learning rate.

    Keras evaluates a schedule anew for each variable that decays: tracing that takes longer than
    the whole training here.
    """
    import keras

    adamw = keras.optimizers.AdamW(PEAK, weight_decay=0.05, global_clipnorm=5.0)
    adamw.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return adamw


def learning_rate(step: int, steps: int) -> float:
    """Warm-up, then a cosine."""
    warm = max(1, steps // 10)
    if step < warm:
        return PEAK * (step + 1) / warm
    return PEAK * (0.01 + 0.99 * (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2)


def _balancing(spec: dict, names: tuple[str, ...]):
    from mtl_keras import balancing

    if spec["role"] == "single":
        return None
    if spec["role"] == "grid":
        return balancing.Fixed({name: spec["weights"][name] for name in names})
    return balancing.get(spec["method"], **({"on": spec["on"]} if spec["on"] else {}))


def _clock(steps: int):
    """Makes the callback that sets the learning rate, and measures a step after the first ones."""
    import keras

    class Clock(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.count, self.begun, self.fit = 0, None, time.perf_counter()
            self.last = self.begun

        def on_train_begin(self, logs=None):
            self.fit = time.perf_counter()

        def on_train_batch_begin(self, batch, logs=None):
            self.model.optimizer.learning_rate = learning_rate(self.count, steps)

        def on_train_batch_end(self, batch, logs=None):
            self.count += 1
            self.last = (time.perf_counter(), time.process_time())
            if self.count == min(WARM, steps - 1):
                self.begun = self.last
                self.trace = self.last[0] - self.fit

        def result(self):
            if self.begun is None or self.count <= WARM:
                return {"step_s": math.nan, "step_cpu_s": math.nan, "first_steps_s": math.nan}
            wall, cpu = (
                (b - a) / (self.count - min(WARM, steps - 1))
                for a, b in zip(self.begun, self.last, strict=True)
            )
            return {"step_s": wall, "step_cpu_s": cpu, "first_steps_s": self.trace}

    return Clock()
