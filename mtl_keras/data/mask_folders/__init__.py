"""Images beside masks: of classes, of instances, or a mask an instance."""

from mtl_keras.data.mask_folders.importer import MaskSource, read, recognise

__all__ = ["MaskSource", "read", "recognise"]
