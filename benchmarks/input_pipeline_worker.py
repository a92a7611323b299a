"""What a process of input_pipeline.py does, for one set and one pipeline: it runs what it is told.

It reads one line of JSON that says what it is, answers when all is ready, and then answers each
line, the name of a measurement, with its numbers.
"""

import json
import os
import sys
import time
from importlib import metadata

import input_pipeline_peers as peers

OURS = "mtl_keras"
EPOCHS = 10
OBJECTS, ENCODED = 400, 100


# === What is measured ===
def tasks(data: str, names: list[str]) -> list:
    """Detection and segmentation; for `nuclei`, which touch each other, distances too."""
    import mtl_keras as mtl

    levels = ("P2", "P3", "P4") if data == "nuclei" else ("P3", "P4", "P5")
    found = [
        mtl.tasks.Detection(len(names), levels=levels, max_objects=OBJECTS, class_names=names),
        mtl.tasks.Segmentation(len(names) + 1, class_names=["background", *names]),
    ]
    return [*found, mtl.tasks.BoundaryDistance()] if data == "nuclei" else found


def same_tasks(data: str, names: list[str]) -> list:
    """The tasks of which keras-cv's pipeline makes the targets."""
    return tasks(data, names)[:2]


def pipelines(spec: dict) -> dict:
    """The data sets by what they are for."""
    import mtl_keras as mtl

    builder = mtl.data.load(spec["data"])
    names = builder.info.features["objects"]["label"].names
    splits = {"alone": f"train[:{spec['images']}]", "train": f"train[:{spec['trained']}]"}
    if spec["library"] != OURS:
        scale = peers.median_scale(builder, splits["alone"], spec["size"])
        return {
            name: peers.pipeline(
                spec["library"], builder, split, spec["size"], spec["batch"], OBJECTS, scale
            )
            for name, split in splits.items()
        }
    augment = mtl.data.Augment(scale=peers.SCALE, flip=peers.FLIP, colour=peers.COLOUR)

    def ours(split: str, tasks: list):
        size, batch = spec["size"], spec["batch"]
        return mtl.data.batches(builder, split, tasks, size, batch, augment=augment)

    same, every = (of(spec["data"], names) for of in (same_tasks, tasks))
    found = {name: ours(split, same) for name, split in splits.items()}
    if len(every) > len(same):
        found["all tasks"] = ours(splits["alone"], every)
    return found | {"memory": ours("train", every)}


# === Measuring ===
def status(name: str) -> float:
    """Returns a line of the process' status, in bytes (Linux)."""
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


class Clock:
    """Time on the wall and of all of the process' threads, per image."""

    def __enter__(self) -> "Clock":
        self._started = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_) -> None:
        self.wall = time.perf_counter() - self._started[0]
        self.cpu = time.process_time() - self._started[1]

    def each(self, images: int) -> dict:
        return {"wall_ms": 1e3 * self.wall / images, "cpu_ms": 1e3 * self.cpu / images}


def epoch(dataset) -> dict:
    """Times an epoch: all that has been begun has been counted when it ends."""
    images = 0
    with Clock() as clock:
        for batch in dataset:
            images += len(batch[0])
    return clock.each(images)


class Measurements:
    """The measurements of a process by name."""

    def __init__(self, spec: dict):
        import tensorflow as tf

        self.spec, self.data = spec, pipelines(spec)
        self._model = None
        if "train" in spec["what"]:
            first = next(iter(self.data["train"]))
            self.data["fixed"] = tf.data.Dataset.from_tensors(first).repeat(
                spec["trained"] // spec["batch"]
            )

    def model(self):
        """The network that is trained, EfficientNet-Lite0 shared hard."""
        if self._model is None:
            import keras

            import mtl_keras as mtl

            builder = mtl.data.load(self.spec["data"])
            names = builder.info.features["objects"]["label"].names
            self._model = mtl.build(
                mtl.trunks.create("efficientnet_lite0"),
                same_tasks(self.spec["data"], names),
                "hard",
                (self.spec["size"], self.spec["size"]),
            )
            self._model.compile(keras.optimizers.AdamW(1e-4))
        return self._model

    def __call__(self, what: str) -> dict:
        if what == "memory":
            return {"epochs": self.memory()}
        if what.startswith("train"):
            return self.train("fixed" if what == "train, one batch" else "train")
        return epoch(self.data[what])

    def train(self, what: str) -> dict:
        with Clock() as clock:
            self.model().fit(self.data[what], verbose=0)
        return clock.each(self.spec["trained"])

    def memory(self) -> list[dict]:
        """What the process holds at the end of each epoch, and what it held at most until then."""
        found = []
        for _ in range(EPOCHS):
            for _ in self.data["memory"]:
                pass
            found.append({"rss": status("VmRSS"), "peak": status("VmHWM")})
        return found


# === Encoding ===
def crowded(size: int, objects: int) -> dict:
    """Labels of an image full of touching ellipses, as `encode` gets them."""
    import numpy as np

    side = int(np.ceil(np.sqrt(objects)))
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    instances = np.zeros((size, size), "int32")
    boxes = []
    for i in range(objects):
        cell = size / side
        center = (np.array(divmod(i, side)) + 0.5 + rng.uniform(-0.2, 0.2, 2)) * cell
        radii = cell * rng.uniform(0.4, 0.7, 2)
        part = ((y - center[0]) / radii[0]) ** 2 + ((x - center[1]) / radii[1]) ** 2 <= 1.0
        instances[part] = i + 1
        low, high = center - radii, center + radii
        boxes.append([low[1], low[0], high[1], high[0]])
    return {
        "boxes": np.clip(np.array(boxes, "float32"), 0, size),
        "classes": np.zeros(objects, "int32"),
        "is_crowd": np.zeros(objects, bool),
        "mask": np.minimum(instances, 1),
        "instances": instances,
    }


def encoding(spec: dict) -> dict:
    """Times `encode` of each task on one image, one after another, in a `tf.data` map."""
    import tensorflow as tf

    labels = crowded(spec["size"], OBJECTS)

    def times(encode) -> dict:
        image = tf.data.Dataset.from_tensors(labels)
        ds = image.repeat(ENCODED).map(encode, num_parallel_calls=1)
        found = []
        for _ in range(4):
            with Clock() as clock:
                for _ in ds:
                    pass
            found.append(clock.each(ENCODED))
        return min(found[1:], key=lambda each: each["cpu_ms"])

    nothing = times(lambda labels: labels["boxes"])
    found = {}
    for task in tasks("nuclei", ["nucleus"]):
        each = times(lambda labels, task=task: task.encode(labels, (spec["size"], spec["size"])))
        found[task.name] = {name: each[name] - nothing[name] for name in each}
    return found


# === Process ===
def main() -> None:
    # Only answers are to be read: what libraries print goes where errors go.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(found: dict) -> None:
        print(json.dumps(found), file=answers, flush=True)

    spec = json.loads(sys.stdin.readline())
    packages = ["tensorflow", "keras"] + ["keras-cv"] * (spec["library"] not in (OURS, "encoding"))
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    if spec["library"] == "encoding":
        answer({"versions": versions})
        for line in sys.stdin:
            answer(encoding({"size": json.loads(line)}))
        return
    measurements = Measurements(spec)
    for what in spec["what"]:  # Graphs are made, and caches of files filled.
        if what != "memory":
            measurements(what)
    answer({"versions": versions})
    for line in sys.stdin:
        answer(measurements(json.loads(line)))


if __name__ == "__main__":
    main()
