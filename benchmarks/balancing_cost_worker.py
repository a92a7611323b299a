"""A process of balancing_cost.py: trains one network in several ways, taking turns.

The first line that it reads describes what to measure, as JSON. It gets all ways ready (builds,
compiles, runs some steps) and answers with the memory of each. Then each line "turn" makes it run
some steps of each way, answered by their times, and "wake" one step, whose times are not to be
used. It ends when there is nothing more to read.

With TensorFlow and mtl_keras it measures those, with torch and the libraries those
(balancing_cost_peers.py). Imports neither by itself.
"""

import contextlib
import ctypes
import gc
import json
import os
import pathlib
import runpy
import sys
import time
from collections.abc import Callable

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
HERE = pathlib.Path(__file__).parent
MEMORY_STEPS, CALLS = 2, 50


def serve(spec: dict, answer: Callable, prepare: Callable, told: Callable) -> None:
    """Answers until there are no more questions.

    Args:
        spec: Dict with `ways`, a list of dicts with `name`, and `steps`, those of a turn.
        answer: Function that sends a dict.
        prepare: Function of a way: what runs a step and returns its seconds, and a dict of what
            is known already.
        told: Function that returns what is known of the whole process.
    """
    runners, ready, errors = {}, {}, {}
    for way in spec["ways"]:
        try:
            runners[way["name"]], ready[way["name"]] = prepare(way)
        except Exception as error:
            errors[way["name"]] = f"{type(error).__name__}: {error}"[:500]
    answer({"ready": ready, "errors": errors, **told()})
    for line in sys.stdin:
        steps = 1 if json.loads(line) == "wake" else spec["steps"]
        times = {}
        for name, run in runners.items():
            try:
                times[name] = [run() for _ in range(steps)]
            except Exception as error:
                errors[name] = f"{type(error).__name__}: {error}"[:500]
        answer({"times": times, "errors": errors})


def channel() -> Callable:
    """Returns what sends a dict to the parent; all that is printed goes to the errors instead."""
    file = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(found: dict) -> None:
        print(json.dumps(found), file=file, flush=True)

    return answer


# === Memory of the process, of one step after another (Linux) ===
def release() -> None:
    """Gives back what is free, and lets the largest memory so far start anew from what is left."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def resident() -> int | None:
    """Returns the bytes that the process holds once it gave back what is free, or `None`."""
    try:
        release()
        return peak_memory()
    except OSError:
        return None


peak_memory = runpy.run_path(str(HERE.parent / "mtl_keras/sharing/memory.py"))["peak_memory"]


# === mtl_keras ===
def ours(spec: dict, answer: Callable) -> None:
    import keras
    import numpy as np
    import tensorflow as tf

    import mtl_keras as mtl

    imported = peak_memory()
    size, batch = spec["size"], spec["batch"]
    make = lite if spec["network"] == "efficientnet_lite0" else resnet
    trunk, tasks, labels = make(spec["tasks"])
    x, y = labels(size, batch)
    names = [task.name for task in tasks()]

    def allocated() -> dict | None:
        try:
            return tf.config.experimental.get_memory_info("CPU:0")
        except ValueError:  # The allocator of this build does not count.
            return None

    def method(way: dict):
        if way["method"] == "plain":
            return None
        own = {"task_weights": dict.fromkeys(names, 1.0)} if way["method"] == "fixed" else {}
        if way["mode"] != "losses":
            own["on"] = way["mode"]
        return mtl.balancing.get(way["method"], **own)

    def solver(way: dict) -> float | None:
        """Seconds of the method's own computation, from losses or scalar products to weights."""
        if way["mode"] not in ("losses", "parameters"):
            return None
        own = method(way)
        own.build(tuple(names))
        rows = np.random.default_rng(0).normal(size=(len(names), 8)).astype("float32")
        given = np.abs(rows[:, 0]) if way["mode"] == "losses" else rows @ rows.T
        given = tf.constant(given)
        compute = own.weights if way["mode"] == "losses" else own.weights_from_gramian
        try:
            compute = tf.function(compute, autograph=False)
            compute(given).numpy()
        except (NotImplementedError, AttributeError):
            return None
        started = time.perf_counter()
        for _ in range(CALLS):
            compute(given).numpy()
        return (time.perf_counter() - started) / CALLS

    def prepare(way: dict) -> tuple[Callable, dict]:
        gc.collect()
        before = allocated()
        keras.utils.set_random_seed(0)
        model = mtl.build(trunk(), tasks(), "hard", (size, size))
        model.compile(spec["optimizer"], balancing=method(way))
        # Otherwise the first step makes the optimizer's variables, and is traced twice.
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        gc.disable()  # Of no use while a graph is made, and slow.
        try:
            model.train_on_batch(x, y)
        finally:
            gc.enable()
        found = {"memory": None}
        if before is not None:
            tf.config.experimental.reset_memory_stats("CPU:0")
        for _ in range(MEMORY_STEPS):
            model.train_on_batch(x, y)
        if before is not None:
            found["memory"] = allocated()["peak"] - before["current"]
        if spec["solver"] and way["method"] != "plain":
            found["solver"] = solver(way)

        def run() -> float:
            started = time.perf_counter()
            model.train_on_batch(x, y)
            return time.perf_counter() - started

        return run, found

    versions = f"keras {keras.__version__}, tensorflow {tf.__version__}"
    serve(
        spec,
        answer,
        prepare,
        lambda: {"process": peak_memory() - imported, "versions": versions},
    )


def lite(count: int) -> tuple:
    """EfficientNet-Lite0 with detection, segmentation, and as many more tasks as are asked for."""
    from types import SimpleNamespace

    import numpy as np

    import mtl_keras as mtl
    from mtl_keras.sharing import cost

    def pictured():
        return [
            mtl.tasks.Detection(10),
            mtl.tasks.Segmentation(11),
            mtl.tasks.Segmentation(3, name="parts"),
            mtl.tasks.Segmentation(2, name="foreground"),
        ][:count]

    def tasks():
        more = [f"scene{i}" for i in range(count - 4)]
        return pictured() + [mtl.tasks.Classification(10, name=name) for name in more]

    def labels(size: int, batch: int) -> tuple:
        x, y = cost.random_batch(SimpleNamespace(tasks=pictured()), (size, size, 3), batch)
        rng = np.random.default_rng(1)
        for task in tasks()[4:]:
            y[task.name] = {"label": rng.integers(0, task.num_classes, batch).astype("int32")}
        return x, y

    return lambda: mtl.trunks.create("efficientnet_lite0", weights=None), tasks, labels


def resnet(count: int) -> tuple:
    """ResNet-18 with as many classifiers as are asked for: what the libraries are given too."""
    import keras_hub
    import numpy as np
    from resnet_task import ImageClass

    import mtl_keras as mtl

    names = [f"task{i}" for i in range(count)]

    def trunk():
        return mtl.trunks.create(
            keras_hub.models.ResNetBackbone(
                input_conv_filters=[64],
                input_conv_kernel_sizes=[7],
                stackwise_num_filters=[64, 128, 256, 512],
                stackwise_num_blocks=[2, 2, 2, 2],
                stackwise_num_strides=[1, 2, 2, 2],
                block_type="basic_block",
            )
        )

    def labels(size: int, batch: int) -> tuple:
        rng = np.random.default_rng(0)
        x = rng.uniform(0, 255, (batch, size, size, 3)).astype("float32")
        return x, {name: {"label": rng.integers(0, 10, batch).astype("int32")} for name in names}

    return trunk, lambda: [ImageClass(10, name) for name in names], labels


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    send = channel()
    described = json.loads(sys.stdin.readline())
    if described["library"] == "mtl_keras":
        ours(described, send)
    else:
        import balancing_cost_peers

        balancing_cost_peers.peers(described, send)
