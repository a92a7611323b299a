"""Pascal VOC: an XML an image, and PNGs of classes and objects of pixels."""

from mtl_keras.data.voc.importer import read, recognise

__all__ = ["read", "recognise"]
