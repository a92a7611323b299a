"""Publishes a trained model: measures it, writes weights, card, pictures and results.

Command: python zoo/publish.py NAME --run runs/NAME
         python zoo/publish.py efficientnet_lite0_hard_nuclei     (card and pictures anew, no run)

Weights are written as small as they can be: in float16 rounded to 8 significant bits, or else to 9,
or else in float16, or else in float32. They are measured as they will be loaded, and kept where
that costs at most 0.002 of any metric. What jumps where one box of few is shown or not is left out
there: metrics of one class among several, and those of one limit of score (instances, precision,
recall). That limit, the score from which on boxes are shown, is the one with the best F1 on the
validation split.

Where a run was not trained on this machine with all its cores, say on what: --cores, --device.
"""

import argparse
import dataclasses
import json
import pathlib

import evaluate
import gallery
import history

import mtl_keras as mtl
from mtl_keras.metrics.directions import known
from mtl_keras.training.recipe import load_recipe
from mtl_keras.zoo import info, list_models, load, registry, save_to_zoo
from mtl_keras.zoo.card import plain
from mtl_keras.zoo.card_schema import SCHEMA
from mtl_keras.zoo.measure import measure_images
from mtl_keras.zoo.save import sharing_name

TOLERANCE = 0.002
AT_ONE_SCORE = ("_precision", "_recall", "_F1")
DTYPES = ("float16_rounded", "float16_rounded9", "float16", "float32")
EXPECTED = 40
FIRST_TRUNK = "efficientnet_lite0"


def publish(recipe, run: pathlib.Path, cores: int, device: str) -> dict:
    """Publishes the model of a run."""
    builder = recipe.data()
    model = evaluate.of_run(run)
    recipe = evaluate.as_trained(recipe, run, builder)
    reference = evaluate.measured(model, builder, recipe.val_split, choose=True).metrics()
    before = steady(reference, model)
    for dtype in DTYPES:
        write(recipe, model, dtype)
        measured = measure_images(load(recipe.name), builder, recipe.val_split)
        name, loss = worst(before, measured.metrics())
        print(f"{dtype}: {name} loses most, {loss:.5f}")
        if loss <= TOLERANCE:
            break
    minutes = evaluate.minutes_of(run)
    about = {"training_minutes": minutes, "cost": evaluate.cost(minutes, cores, device)}
    card = {**info(recipe.name), **about, "metrics_before_rounding": before}
    return finish(recipe, builder, card, measured, run)


def renew(recipe) -> dict:
    """Writes card, pictures and results of a published model anew, and leaves its weights."""
    builder = recipe.data()
    card = info(recipe.name)
    recipe = dataclasses.replace(recipe, seed=card["training"]["seed"])
    model = load(recipe.name)
    measured = evaluate.measured(model, builder, recipe.val_split, choose=True)
    card["config"]["tasks"] = model.architecture()["tasks"]
    evaluate.save_card(recipe.name, card)
    return finish(recipe, builder, {**card, **recipe.about}, measured, None)


def write(recipe, model, dtype: str) -> None:
    """Writes weights and what of the card follows from recipe and model.

    Twins and networks of several towers go into the data package, since the wheel would be too
    large with them. So would the data package with those of other trunks: they go into the wheel.
    """
    one_trunk = len(model.tasks) > 1 and isinstance(model.sharing, mtl.sharing.HardSharing)
    in_wheel = one_trunk or model.trunk.name != FIRST_TRUNK
    root = registry.PUBLISHED if in_wheel else registry.CHECKOUT / "published"
    root.mkdir(parents=True, exist_ok=True)
    save_to_zoo(model, root / recipe.name, about=recipe.about, dtype=dtype)


def steady(metrics: dict, model) -> dict[str, float]:
    """The metrics that have a value and do not jump with single boxes."""
    names = {task: classes for task, classes in evaluate.class_names(model).items() if classes}
    single = {
        f"_{name}" for classes in names.values() if len(classes) > 2 for name in map(str, classes)
    }
    return {
        name: value
        for name, value in plain(metrics).items()
        if value is not None
        and not name.startswith("instances_")
        and not name.endswith((*single, *AT_ONE_SCORE))
    }


def worst(before: dict, found: dict) -> tuple[str, float]:
    """The metric that rounding costs most, and how much."""
    losses = {
        name: (value - found[name]) * (-1 if known(name.split("_", 1)[1]) is False else 1)
        for name, value in before.items()
    }
    return max(losses.items(), key=lambda item: item[1])


def finish(recipe, builder, card: dict, measured, run: pathlib.Path | None) -> dict:
    """Writes the whole card, its page and pictures, and the file of zoo/results."""
    model = load(recipe.name)
    folder = registry.find(recipe.name).folder
    pictures = gallery.prediction(model, builder, recipe, folder / "prediction.png")
    if run is None:
        pictures += [history.about(recipe)] * (folder / history.PICTURE).is_file()
    else:
        history.draw(run / "history.jsonl", folder / history.PICTURE)
        pictures.append(history.about(recipe))
    command = f"python zoo/evaluate.py {recipe.name}"
    known_before = {k: v for k, v in card.items() if k not in ("config", "files")}
    card = {
        "schema": SCHEMA,
        **known_before,
        "sharing": sharing_name(model),
        "classes": evaluate.class_names(model),
        "recipe": f"zoo/recipes/{recipe.name}.py",
        "epochs": recipe.epochs,
        "training": evaluate.training(recipe, builder, model),
        "metrics_split": recipe.val_split,
        "metrics_command": command,
        "metrics": plain(measured.metrics()),
        "expected": {"images": EXPECTED, "metrics": plain(measured.first(EXPECTED))},
        "pictures": pictures,
        "files": card["files"],
        "config": card["config"],
    }
    evaluate.save_card(recipe.name, card)
    about = {**card, "command": command}
    evaluate.save_result(evaluate.result(recipe, model, measured, recipe.val_split, about), model)
    return card


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", help="recipe file, or the name of one in zoo/recipes")
    parser.add_argument("--run", type=pathlib.Path, help="folder of zoo/train.py")
    evaluate.add_machine(parser)
    arguments = parser.parse_args()
    chosen = load_recipe(arguments.recipe)
    if arguments.run is None and not list_models(chosen.name):
        parser.error(f"{chosen.name} is not published yet: give the folder of its run as --run")
    if arguments.run is None:
        made = renew(chosen)
    else:
        made = publish(chosen, arguments.run, arguments.cores, arguments.device)
    print(json.dumps(made["metrics"], indent=2))
