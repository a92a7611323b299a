"""Publishes a trained model: measures it, writes its weights and its card into the package.

Command: python zoo/publish.py efficientnet_lite0_hard_nuclei --run runs/nuclei

Weights are written in float16 and measured as they will be loaded; where that costs more than
0.002 of any metric, they are written in float32.
"""

import argparse
import hashlib
import json
import pathlib
from importlib import metadata

import keras

import mtl_keras as mtl
from mtl_keras.training.recipe import load_recipe
from mtl_keras.zoo import load, registry
from mtl_keras.zoo.measure import measure
from mtl_keras.zoo.weights import save_weights

TOLERANCE = 0.002
PACKAGES = ("tensorflow", "keras", "numpy", "tensorflow-datasets", "pycocotools")


def publish(recipe_name: str, run: pathlib.Path) -> dict:
    recipe = load_recipe(recipe_name)
    builder = recipe.data()
    model = keras.saving.load_model(run / "model.keras", compile=False)
    reference = measure(model, builder, recipe.val_split)
    for dtype in ("float16", "float32"):
        card = write(recipe, run, model, dtype)
        card["metrics"] = measure(load(recipe.name), builder, recipe.val_split)
        loss = max(reference[key] - value for key, value in card["metrics"].items())
        print(f"{dtype}: the metric that loses most loses {loss:.5f}")
        if loss <= TOLERANCE:
            break
    card["metrics_before_rounding"] = reference
    save_card(recipe.name, card)
    return card


def write(recipe, run: pathlib.Path, model, dtype: str) -> dict:
    folder = registry.PUBLISHED / recipe.name
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "weights.npz"
    save_weights(model, weights, dtype)
    report = mtl.sharing_report(model)
    card = {
        "name": recipe.name,
        **recipe.about,
        "tasks": [task.name for task in model.tasks],
        "classes": {
            task.name: [task.class_name(c) for c in range(task.num_classes)] for task in model.tasks
        },
        "input": {"letterbox": list(model.image_size), "channels": "RGB", "range": [0, 255]},
        "parameters": report.parameters,
        "shared_fraction": report.shared_fraction,
        "metrics_split": recipe.val_split,
        "metrics_command": f"python zoo/evaluate.py {recipe.name}",
        "recipe": f"zoo/recipes/{recipe.name}.py",
        "epochs": recipe.epochs,
        "training_minutes": sum(json.loads((run / "minutes.json").read_text())),
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "files": {
            "weights.npz": {
                "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
                "bytes": weights.stat().st_size,
                "dtype": dtype,
            }
        },
        "config": model.get_config(),
    }
    save_card(recipe.name, card)
    return card


def save_card(name: str, card: dict) -> None:
    text = json.dumps(card, indent=2) + "\n"
    (registry.PUBLISHED / name / "card.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", help="recipe file, or the name of one in zoo/recipes")
    parser.add_argument("--run", required=True, type=pathlib.Path, help="folder of zoo/train.py")
    arguments = parser.parse_args()
    print(json.dumps(publish(arguments.recipe, arguments.run)["metrics"], indent=2))
