"""YOLO: a text file an image, a line an object."""

from mtl_keras.data.yolo.importer import read, recognise

__all__ = ["read", "recognise"]
