"""Labels of whole images: columns of a CSV, or a folder a class."""

from mtl_keras.data.columns.importer import attach, read, recognise

__all__ = ["attach", "read", "recognise"]
