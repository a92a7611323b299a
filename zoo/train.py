"""Trains a model by its recipe.

Command: python zoo/train.py RECIPE          (writes to runs/NAME)

A run that was interrupted goes on with the same command.
"""

import argparse

from mtl_keras.training.recipe import load_recipe, train

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", help="recipe file, or the name of one in zoo/recipes")
    parser.add_argument("--out", help="folder to write to; default: runs/NAME")
    parser.add_argument("--epochs", type=int, help="fewer epochs than the recipe says, for a trial")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe)
    train(recipe, arguments.out or f"runs/{recipe.name}", arguments.epochs)
