"""Trains a model by its recipe.

Command: python zoo/train.py RECIPE                        (writes to runs/NAME)
         python zoo/train.py RECIPE --seed 1               (writes to runs/NAME-seed1)
         python zoo/train.py RECIPE --fast                 (a smoke run, to runs/NAME-fast)
         KERAS_BACKEND=jax python zoo/train.py RECIPE --arrays FOLDER     (see zoo/prepare.py)

A run that was interrupted goes on with the same command. docs/recipes.md says more.
"""

import argparse

from mtl_keras.training.recipe import load_recipe, train


def read_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What `zoo/train.py` and `zoo/prepare.py` both take; `recipe` is the chosen `Recipe`."""
    parser.add_argument("recipe", help="recipe file, or the name of one in zoo/recipes")
    parser.add_argument("--seed", type=int, help="another seed than the recipe's")
    parser.add_argument("--fast", action="store_true", help="a smoke run: few and small images")
    arguments = parser.parse_args()
    arguments.recipe = load_recipe(arguments.recipe, arguments.seed, arguments.fast)
    arguments.name = arguments.recipe.name
    arguments.name += f"-seed{arguments.seed}" if arguments.seed else ""
    arguments.name += "-fast" if arguments.fast else ""
    return arguments


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="folder to write to; default: runs/NAME")
    parser.add_argument("--epochs", type=int, help="fewer epochs than the recipe says, for a trial")
    parser.add_argument("--arrays", help="folder of zoo/prepare.py, to read batches from")
    arguments = read_arguments(parser)
    out = arguments.out or f"runs/{arguments.name}"
    train(arguments.recipe, out, arguments.epochs, arguments.arrays)
