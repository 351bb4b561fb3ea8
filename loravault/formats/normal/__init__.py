"""The normaliser: from the tensor names of an adapter file, in anybody's spelling, to places in one base."""

from loravault.formats.normal.names import BaseNames, base_names
from loravault.formats.normal.patches import LayerKey, Normal, Patch, Place, Shape
from loravault.formats.normal.placing import normalise, place

__all__ = ["BaseNames", "LayerKey", "Normal", "Patch", "Place", "Shape", "base_names", "normalise", "place"]
