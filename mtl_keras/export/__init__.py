"""Exports: one file a format."""

from mtl_keras.export.savedmodel import saved_model

__all__ = ["saved_model"]
