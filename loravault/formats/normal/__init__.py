"""The normaliser: from the tensor names of an adapter file, in anybody's spelling, to places in one base."""

from loravault.formats.normal.patches import LayerKey, Normal, Patch, Place, Shape

__all__ = ["LayerKey", "Normal", "Patch", "Place", "Shape"]
