"""Measures a model on a split of its recipe's data and prints the metrics as JSON.

Command: python zoo/evaluate.py efficientnet_lite0_hard_nuclei
         python zoo/evaluate.py efficientnet_lite0_hard_nuclei --write    (into the card)
"""

import argparse
import json

import keras
from publish import save_card

from mtl_keras.training.recipe import load_recipe
from mtl_keras.zoo import load, registry
from mtl_keras.zoo.measure import measure

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", help="recipe file, or the name of one in zoo/recipes")
    parser.add_argument("--model", help="a .keras file in place of the published model")
    parser.add_argument("--split", help="default: the recipe's validation split")
    parser.add_argument("--image-size", type=int, nargs=2, help="another height and width")
    parser.add_argument("--write", action="store_true", help="write them into the model's card")
    arguments = parser.parse_args()
    if arguments.write and (arguments.model or arguments.split or arguments.image_size):
        parser.error("--write is for the published model, as it is, on its recipe's split")
    recipe = load_recipe(arguments.recipe)
    if arguments.model:
        model = keras.saving.load_model(arguments.model, compile=False)
    else:
        model = load(recipe.name)
    if arguments.image_size:
        model.image_size = tuple(arguments.image_size)
    metrics = measure(model, recipe.data(), arguments.split or recipe.val_split)
    print(json.dumps(metrics, indent=2))
    if arguments.write:
        save_card(recipe.name, {**registry.info(recipe.name), "metrics": metrics})
