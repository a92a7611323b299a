"""Writes a recipe's batches as arrays, for training on a machine without TensorFlow.

Command: python zoo/prepare.py RECIPE --out FOLDER               (all epochs of the recipe)
         python zoo/prepare.py RECIPE --out FOLDER --epochs 4    (training goes through them again)

Then, there: KERAS_BACKEND=jax python zoo/train.py RECIPE --arrays FOLDER
"""

import argparse

from train import read_arguments

from mtl_keras.training.sources import prepare

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="folder to write to")
    parser.add_argument("--epochs", type=int, help="number of epochs to write; default: all")
    arguments = read_arguments(parser)
    manifest = prepare(arguments.recipe, arguments.out, arguments.epochs)
    print(f"{manifest['MB']:.1f} MB in {arguments.out}, hash {manifest['hash']}")
