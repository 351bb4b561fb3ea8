"""The normaliser: from the tensor names of an adapter file, in anybody's spelling, to places in one base."""

from loravault.formats.normal.names import BaseNames, base_names
from loravault.formats.normal.patches import LayerKey, Normal, Patch, Place, Shape
from loravault.formats.normal.placing import normalise, place
from loravault.formats.normal.writing import Spelling, kohya_spellings

__all__ = [
    "BaseNames",
    "LayerKey",
    "Normal",
    "Patch",
    "Place",
    "Shape",
    "Spelling",
    "base_names",
    "kohya_spellings",
    "normalise",
    "place",
]
