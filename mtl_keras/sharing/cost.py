"""What a network costs: memory of its process, time of an inference and of a training step.

`compare` and `run` start new processes; as a program (`python -m mtl_keras.sharing.cost`) this
module is such a process. It reads what to measure as JSON from its input, and the last line that
it writes is the result as JSON.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mtl_keras.sharing.memory import peak_memory

BATCH = 8
STEPS = 5
CALLS = 20
_WARM_UP = 2


def compare(model: Any, input_shape: tuple, batch: tuple | None = None) -> dict:
    """Measures a multi-task network and its single-task networks, with random weights.

    Args:
        model: `mtl_keras.MultiTaskModel`; its classes must be found by import in a new process.
        input_shape: Shape of one input, without the batch.
        batch: Optional `(images, targets)` to train on, arrays; made at random by default.

    Returns:
        Dict with `batch` (size), `input_shape`, and what `run` returns for `model`; for each task's
        network alone (`alone`, by task); for all tasks' networks used one after the other in
        processes of their own (`in_turn`: the sum of the times, the largest memory); and for all
        of them loaded into one process (`together`, sharing "separate").

    Raises:
        ValueError: If a class is not found by import, or random targets can't be made for a task.
        RuntimeError: If a process fails.
    """
    from mtl_keras.sharing.separate import SeparateNetworks

    x, y = _checked(model, input_shape, batch)
    config, modules = model.architecture(), needed_modules(model)
    separate = SeparateNetworks(getattr(model.sharing, "neck_channels", 64))
    separate = keras.saving.serialize_keras_object(separate)
    jobs = {"model": (config, y), "together": ({**config, "sharing": separate}, y)}
    for task, described in zip(model.tasks, config["tasks"], strict=True):
        alone = {**config, "sharing": separate, "tasks": [described]}
        jobs[task.name, "alone"] = (alone, {task.name: y[task.name]} if task.name in y else {})
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (key, (described, targets)) in enumerate(jobs.items()):
            path = Path(folder) / f"batch{number}.npz"
            save_batch(path, x, targets)
            results[key] = run(described, path, modules)
    alone = {task.name: results[task.name, "alone"] for task in model.tasks}
    added = ("latency", "step", "parameters")
    in_turn = {
        key: (sum if key in added else max)(result[key] for result in alone.values())
        for key in results["model"]
    }
    return {
        "batch": len(x),
        "input_shape": tuple(x.shape[1:]),
        "model": results["model"],
        "alone": alone,
        "in_turn": in_turn,
        "together": results["together"],
    }


def run(
    config: dict,
    batch: Any,
    modules: list[str],
    steps: int = STEPS,
    calls: int = CALLS,
    optimizer: str = "adamw",
) -> dict:
    """Measures one network in a new process.

    The process imports, builds the network with random weights, calls it with one input, then
    trains it. Times are medians after a warm-up. Memory is the most that the process held, less
    what it held when all was imported.

    Args:
        config: What `MultiTaskModel.get_config` returns.
        batch: Path of a batch that `save_batch` wrote.
        modules: Names of modules to import first, see `needed_modules`.
        steps: Integer, training steps to time; with 0 the network is not trained.
        calls: Integer, inferences to time.
        optimizer: Name of a Keras optimizer.

    Returns:
        Dict with `parameters`; `latency` (inference of one, seconds, raw outputs) and `step`
        (seconds); `inference_memory` (before training), `training_memory` and `imported_memory`,
        bytes. Without training, there is no `step` and no `training_memory`.

    Raises:
        RuntimeError: If the process fails; the message ends with its error.
    """
    spec = {
        "config": config,
        "batch": str(batch),
        "modules": modules,
        "steps": steps,
        "calls": calls,
        "optimizer": optimizer,
    }
    environment = {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **os.environ,
        "KERAS_BACKEND": keras.backend.backend(),
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }
    return answer([sys.executable, "-m", "mtl_keras.sharing.cost"], spec, environment)


def answer(command: list[str], spec: dict, environment: dict) -> dict:
    """Gives a program JSON to read and returns the JSON of the last line that it writes.

    Args:
        command: The program and its arguments.
        spec: Dict for its input.
        environment: Its environment variables.

    Returns:
        Dict.

    Raises:
        RuntimeError: If it fails; the message ends with the last lines of its errors.
    """
    done = subprocess.run(
        command, input=json.dumps(spec), env=environment, capture_output=True, text=True
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        errors = "\n".join(done.stderr.strip().splitlines()[-8:])
        raise RuntimeError(f"the process that measures ended with {done.returncode}:\n{errors}")
    return json.loads(lines[-1])


def save_batch(path: Any, x: Any, y: dict) -> None:
    """Writes a batch for `run`.

    Args:
        path: Path of the `.npz` file.
        x: Array of inputs.
        y: Dict, task name to a dict of arrays.
    """
    targets = {f"{task}/{key}": v for task, own in y.items() for key, v in own.items()}
    np.savez(path, **{"": np.asarray(x), **{k: np.asarray(v) for k, v in targets.items()}})


def needed_modules(model: Any) -> list[str]:
    """Names the modules that a new process must import to build a model from its config.

    Raises:
        ValueError: If a class was made in the program that runs, where no other finds it.
    """
    from mtl_keras.trunks import registry

    modules = {type(model).__module__, *_modules(model.get_config())}
    if "model" not in model.trunk.get_config():
        modules.add(registry.find(model.trunk.name).stages.__module__)
    if "__main__" in modules:
        raise ValueError(
            "`measure` needs tasks, trunk and sharing that another process can import. Received "
            "some of the module '__main__'; define them in a file of their own and import it"
        )
    return sorted(modules)


def _modules(config: Any) -> Iterator[str]:
    """Modules of the serialised objects in a config, but for those of Keras."""
    if isinstance(config, dict):
        name = config.get("module")
        made = "class_name" in config and isinstance(name, str)
        if made and name.split(".")[0] not in ("builtins", "keras"):
            yield name
        for value in config.values():
            yield from _modules(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from _modules(value)


# === The batch ===
def random_batch(model: Any, input_shape: tuple, size: int = BATCH) -> tuple[Any, dict]:
    """Makes random pictures with eight random objects each, and the targets of each task.

    Args:
        model: `mtl_keras.MultiTaskModel`, whose tasks encode the labels.
        input_shape: `(height, width, channels)` of one picture.
        size: Integer, pictures in the batch.

    Returns:
        Tuple of images, float32 `(size, *input_shape)` in [0, 255], and a dict of targets.

    Raises:
        ValueError: If the input is no picture, or a task needs other labels than boxes and masks.

    Example:

    ```python
    import mtl_keras as mtl
    from mtl_keras.sharing.cost import random_batch
    model = mtl.build(
        mtl.trunks.create("efficientnet_lite0", weights=None),
        tasks=[mtl.tasks.Segmentation(num_classes=3)],
        image_size=(64, 64),
    )
    images, targets = random_batch(model, (64, 64, 3), size=2)
    assert targets["segmentation"]["mask"].shape == (2, 64, 64)
    ```
    """
    if len(input_shape) != 3 or None in input_shape:
        raise ValueError(
            "`measure` must be a batch `(inputs, targets)` where inputs are no images of a known "
            f"size. Received inputs of shape {tuple(input_shape)}"
        )
    rng, height, width = np.random.default_rng(0), *input_shape[:2]
    targets: dict[str, list] = {task.name: [] for task in model.tasks}
    for _ in range(size):
        for task in model.tasks:
            labels = _labels(rng, height, width, task.num_classes)
            try:
                encoded = task.encode(labels, (height, width))
            except Exception as error:
                raise ValueError(
                    f"`measure` must be a batch `(images, targets)`: random targets can't be made "
                    f"for task {task.name!r} ({type(error).__name__}: {error})"
                ) from error
            targets[task.name].append({key: np.asarray(value) for key, value in encoded.items()})
    images = rng.uniform(0, 255, (size, *input_shape)).astype("float32")
    return images, {
        name: {key: np.stack([one[key] for one in several]) for key in several[0]}
        for name, several in targets.items()
    }


def _labels(rng: Any, height: int, width: int, classes: int, count: int = 8) -> dict:
    low = rng.uniform(0, 0.8, (count, 2)) * (width, height)
    high = np.minimum(low + rng.uniform(0.05, 0.4, (count, 2)) * (width, height), (width, height))
    kinds = rng.integers(0, max(1, classes - 1), count).astype("int32")
    mask, instances = np.zeros((2, height, width), "int32")
    for i, (x0, y0, x1, y1) in enumerate(np.concatenate([low, high], -1).astype(int)):
        mask[y0:y1, x0:x1] = min(kinds[i] + 1, classes - 1)
        instances[y0:y1, x0:x1] = i + 1
    return {
        "boxes": np.concatenate([low, high], -1).astype("float32"),
        "classes": kinds,
        "is_crowd": np.zeros(count, bool),
        "mask": mask,
        "instances": instances,
    }


def _checked(model: Any, input_shape: tuple, batch: Any) -> tuple[Any, dict]:
    if batch is None:
        return random_batch(model, input_shape)
    if (
        not isinstance(batch, (list, tuple))
        or len(batch) != 2
        or not isinstance(batch[1], dict)
        or not all(isinstance(own, dict) for own in batch[1].values())
        or {task.name for task in model.tasks} != set(batch[1])
    ):
        names = [task.name for task in model.tasks]
        raise ValueError(
            f"`measure` must be True, False or a batch `(images, targets)` with targets (a dict of "
            f"arrays) of each of the tasks {names}. Received: {type(batch).__name__}"
        )
    return np.asarray(batch[0]), batch[1]


# === In the process that is measured ===
def median_time(function: Callable, times: int, warm_up: int = _WARM_UP) -> float:
    """Returns the median time of a call in seconds, after calls that are not timed."""
    measured = []
    for i in range(warm_up + times):
        started = time.perf_counter()
        function()
        if i >= warm_up:
            measured.append(time.perf_counter() - started)
    return statistics.median(measured)


def measure(spec: dict) -> dict:
    """Measures in this process what `run` described."""
    for name in spec["modules"]:
        import_module(name)
    # The package is above this room: only a process that measures builds networks.
    training = import_module("mtl_keras.training")
    imported = peak_memory()
    keras.utils.set_random_seed(0)
    with np.load(spec["batch"]) as file:
        x = file[""]
        y: dict[str, dict] = {}
        for key in file.files:
            if key:
                task, name = key.split("/", 1)
                y.setdefault(task, {})[name] = file[key]
    model = training.MultiTaskModel.from_config(spec["config"])
    model.compile(spec["optimizer"])
    latency = median_time(lambda: model.predict_on_batch(x[:1]), spec["calls"])
    inference = peak_memory()
    result = {
        "parameters": model.count_params(),
        "latency": latency,
        "inference_memory": inference - imported,
        "imported_memory": imported,
    }
    if spec["steps"]:
        result["step"] = median_time(lambda: model.train_on_batch(x, y), spec["steps"])
        result["training_memory"] = peak_memory() - imported
    return result


if __name__ == "__main__":
    print("\n" + json.dumps(measure(json.load(sys.stdin))))
