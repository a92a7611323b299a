"""Measures a model on a split of its recipe's data and prints the metrics as JSON.

Command: python zoo/evaluate.py efficientnet_lite0_hard_nuclei
         python zoo/evaluate.py efficientnet_lite0_hard_nuclei --write      (zoo/results, and card)
         python zoo/evaluate.py efficientnet_lite0_hard_kvasir --split test --write
         python zoo/evaluate.py NAME --run runs/NAME-seed1 --write          (another seed)
         python zoo/evaluate.py NAME NAME … --cost --write      (latency and memory alone, again)

A file of zoo/results holds metrics, those of 200 bootstrap resamples over images, what the network
is and how it was trained, and what it costs: latency and memory of inference, in a process of its
own, with the load of the machine at that time. `zoo/report.py` makes tables of these files.

Where the machine is busy, costs are too high: measure those that will be compared one after the
other, with `--cost`, when it is idle.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import tempfile
from importlib import metadata

import mtl_keras as mtl
from mtl_keras.training.recipe import load_recipe
from mtl_keras.training.settings import difference, run_settings
from mtl_keras.zoo import info, load, measure, registry
from mtl_keras.zoo.card import Card, plain
from mtl_keras.zoo.save import sharing_name

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "zoo" / "results"
PACKAGES = ("tensorflow", "keras", "numpy", "tensorflow-datasets", "pycocotools")
CALLS = 20


def path_of(name: str, seed: int = 0, split: str = "val") -> pathlib.Path:
    """Where results are written: those of seed 0 on `val` under the model's own name."""
    ending = (f"-seed{seed}" if seed else "") + (f"-{split}" if split != "val" else "")
    return RESULTS / f"{name}{ending}.json"


def result(recipe, model, measured, split: str, about: dict) -> dict:
    """What a file of zoo/results holds, but for what the network costs.

    Args:
        recipe: `Recipe`.
        model: `MultiTaskModel`.
        measured: `Measured` of the model.
        split: String.
        about: Dict with `training`, `training_minutes`, `cost` of a card, and the command.
    """
    metrics = plain(measured.metrics())
    tasks = [task.name for task in model.tasks]
    chosen = Card(tasks=tasks, classes=class_names(model), metrics=metrics).headlines()
    resampled = measured.bootstrap()
    balancing = about["training"].get("balancing")
    return {
        "name": recipe.name,
        "data": recipe.about["data"]["name"],
        "split": split,
        "images": measured.images,
        "scenes": measured.scenes,
        "trunk": model.trunk.name,
        "sharing": sharing_name(model),
        **({"balancing": balancing} if balancing else {}),
        "tasks": tasks,
        "parameters": model.count_params(),
        "image_size": list(model.image_size),
        "seed": about["training"]["seed"],
        "epochs": about["training"]["epochs"],
        "steps": about["training"]["steps"],
        "training_minutes": about["training_minutes"],
        "trained_on": about["cost"],
        "command": about["command"],
        "versions": versions(),
        "metrics": metrics,
        "bootstrap": {
            name: [None if v is None else round(v, 4) for v in plain(list(resampled[name]))]
            for name in chosen
        },
    }


def write_result(path: pathlib.Path, found: dict) -> None:
    """Writes a file of zoo/results, a line a value."""
    lines = []
    for key, value in found.items():
        if key in ("metrics", "bootstrap"):
            inner = ",\n".join(f"  {json.dumps(k)}: {_compact(v)}" for k, v in value.items())
            lines.append(f" {json.dumps(key)}: {{\n{inner}\n }}")
        else:
            lines.append(f" {json.dumps(key)}: {_compact(value)}")
    path.parent.mkdir(exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def results_of(name: str) -> dict[pathlib.Path, dict]:
    """The files of zoo/results of a model, of all its seeds and splits."""
    files = {path: json.loads(path.read_text("utf-8")) for path in RESULTS.glob(f"{name}*.json")}
    return {path: found for path, found in sorted(files.items()) if found["name"] == name}


def save_result(found: dict, model) -> None:
    """Writes what was measured, with the cost of the network: measured before, or now."""
    known = [
        one["inference"]
        for one in results_of(found["name"]).values()
        if one["parameters"] == found["parameters"] and one["image_size"] == found["image_size"]
    ]
    path = path_of(found["name"], found["seed"], found["split"])
    write_result(path, {**found, "inference": known[0] if known else inference_cost(model)})
    print(f"wrote {path}")


def _compact(value) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def inference_cost(model) -> dict:
    """Latency of one picture and memory, of a new process that has nothing else to do."""
    import numpy as np

    from mtl_keras.sharing import cost

    load_average = round(os.getloadavg()[0], 2)
    shape = (*model.image_size, 3)
    with tempfile.TemporaryDirectory() as folder:
        batch = pathlib.Path(folder) / "batch.npz"
        image = np.random.default_rng(0).uniform(0, 255, (1, *shape)).astype("float32")
        cost.save_batch(batch, image, {})
        modules = cost.needed_modules(model)
        found = cost.run(model.architecture(), batch, modules, steps=0, calls=CALLS)
    return {
        "input": list(shape),
        "latency_ms": round(found["latency"] * 1e3, 2),
        "memory_mb": round(found["inference_memory"] / 1e6, 1),
        "imported_mb": round(found["imported_memory"] / 1e6, 1),
        "cores": os.cpu_count(),
        "load_average": load_average,
    }


# === What is known of a model and its training ===
def class_names(model) -> dict[str, list[str]]:
    return {
        task.name: [task.class_name(c) for c in range(task.num_classes)]
        if "num_classes" in task.get_config()
        else []
        for task in model.tasks
    }


def versions() -> dict[str, str]:
    return {package: metadata.version(package) for package in PACKAGES}


def training(recipe, builder, model) -> dict:
    """What the card says of how a model was trained by its recipe."""
    steps = steps_of(recipe, builder, model)
    optimizer = recipe.optimizer(steps)
    return plain(
        {
            "epochs": recipe.epochs,
            "steps": steps,
            "batch_size": recipe.batch_size,
            "train_size": recipe.train_size,
            "augment": {} if recipe.augment is None else recipe.augment.get_config(),
            "optimizer": type(optimizer).__name__,
            "ema": bool(optimizer.use_ema),
            **({} if recipe.balancing is None else {"balancing": described(recipe.balancing())}),
            "seed": recipe.seed,
        }
    )


def described(balancing: mtl.balancing.Balancing) -> str:
    """A method as one would write it, such as `DWA(temperature=2.0)`."""
    given = ", ".join(f"{key}={value!r}" for key, value in balancing.get_config().items())
    return f"{type(balancing).__name__}({given})"


def steps_of(recipe, builder, model) -> int:
    """The number of steps of a training by a recipe."""
    batches = mtl.data.batches(
        builder,
        recipe.train_split,
        model.tasks,
        image_size=recipe.train_size,
        batch_size=recipe.batch_size,
        augment=recipe.augment,
    )
    return recipe.epochs * int(batches.cardinality())


def cost(minutes: float, cores: int, device: str) -> dict:
    """What the card says of the cost of a training: core hours are those that were set aside."""
    return {"cpu_hours": round(minutes * cores / 60, 2), "cores": cores, "device": device}


def as_trained(recipe, run: pathlib.Path, builder):
    """The recipe with the seed of a run; all else has to be as the recipe says.

    Args:
        recipe: `Recipe`.
        run: Folder of zoo/train.py.
        builder: Builder of the recipe's data.

    Raises:
        FileNotFoundError: If the folder does not say how the run was made.
        ValueError: If it is the run of another recipe, of a trial or of a recipe that was changed.
    """
    path = run / "run.json"
    if not path.is_file():
        raise FileNotFoundError(f"there is no {str(path)!r}: {str(run)!r} is no folder of a run")
    made = json.loads(path.read_text("utf-8"))
    recipe = dataclasses.replace(recipe, seed=made["seed"])
    model = recipe.model(builder)
    recipe.compile(model, steps_of(recipe, builder, model))
    # Where batches were read from, and the backend, may differ: the recipe leaves them open.
    wanted = run_settings(recipe, model, recipe.epochs, made["batches"])
    if differs := difference(wanted, {**made, "backend": wanted["backend"]}):
        raise ValueError(f"the run in {str(run)!r} is not one of {recipe.name}: {differs}")
    return recipe


def minutes_of(run: pathlib.Path) -> float:
    return round(sum(json.loads((run / "minutes.json").read_text("utf-8"))), 2)


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Options that say on what a run was trained, which its folder does not."""
    parser.add_argument(
        "--cores", type=int, default=os.cpu_count(), help="cores that the training had"
    )
    parser.add_argument("--device", default="CPU", help='such as "NVIDIA H100"; default: CPU')


# === Program ===
def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="+", help="recipe file, or the name of one in zoo/recipes")
    parser.add_argument("--run", type=pathlib.Path, help="folder of zoo/train.py, to measure that")
    parser.add_argument("--split", help="default: the recipe's validation split")
    parser.add_argument("--images", type=int, help="only the first so many images")
    parser.add_argument("--image-size", type=int, nargs=2, help="another height and width")
    parser.add_argument("--cost", action="store_true", help="measure latency and memory alone")
    parser.add_argument("--write", action="store_true", help="write into zoo/results and the card")
    add_machine(parser)
    arguments = parser.parse_args(given)
    if arguments.write and (arguments.images or arguments.image_size):
        parser.error("--write is for a whole split and the size that the recipe says")
    if arguments.run and len(arguments.recipe) > 1:
        parser.error("--run is of one recipe")
    for name in arguments.recipe:
        recipe = load_recipe(name)
        if arguments.cost:
            again_cost(recipe, arguments)
        else:
            evaluate(recipe, arguments)


def again_cost(recipe, arguments: argparse.Namespace) -> None:
    found = inference_cost(_model(recipe, arguments))
    print(recipe.name, json.dumps(found))
    if not arguments.write:
        return
    # The cost is that of the network: the same for all seeds and splits.
    for path, before in results_of(recipe.name).items():
        write_result(path, {**before, "inference": found})


def evaluate(recipe, arguments: argparse.Namespace) -> None:
    model = _model(recipe, arguments)
    builder = recipe.data()
    if arguments.write and arguments.run:
        recipe = as_trained(recipe, arguments.run, builder)
    elif arguments.write:
        recipe = dataclasses.replace(recipe, seed=info(recipe.name)["training"]["seed"])
    if arguments.image_size:
        model.image_size = tuple(arguments.image_size)
    split = arguments.split or recipe.val_split
    found = measured(model, builder, split, arguments.run is not None, arguments.images)
    metrics = plain(found.metrics())
    print(json.dumps(metrics, indent=2))
    if not arguments.write:
        return
    command = f"python zoo/evaluate.py {recipe.name}"
    command += f" --split {split}" if split != recipe.val_split else ""
    about = {"training": training(recipe, builder, model), "command": command}
    if arguments.run:
        about["command"] += f" --run runs/{arguments.run.name}"
        about["training_minutes"] = minutes_of(arguments.run)
        about["cost"] = cost(about["training_minutes"], arguments.cores, arguments.device)
    else:
        card = info(recipe.name)
        about |= {key: card[key] for key in ("training_minutes", "cost")}
        if split == card["metrics_split"]:
            images = card["expected"]["images"]
            card["metrics"] = metrics
            card["expected"] = {"images": images, "metrics": plain(found.first(images))}
            save_card(recipe.name, card)
    save_result(result(recipe, model, found, split, about), model)


def measured(model, builder, split: str, choose: bool, images: int | None = None):
    """Measures a model; one that was trained just now first gets the best confidence."""
    found = measure.measure_images(model, builder, split, images=images)
    if choose and found.choose_confidence():
        found = measure.measure_images(model, builder, split, images=images)
    return found


def _model(recipe, arguments: argparse.Namespace):
    return load(recipe.name) if arguments.run is None else of_run(arguments.run)


def of_run(run: pathlib.Path):
    """The trained model of a folder of zoo/train.py."""
    return mtl.load_model(run / "model.keras", compile=False)


def save_card(name: str, card: dict) -> None:
    """Writes a card and its page, after a check."""
    card = Card(card)
    card.check(complete=True)
    folder = registry.find(name).folder
    text = json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / "card.json").write_text(text, encoding="utf-8")
    (folder / "card.md").write_text(card.markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
