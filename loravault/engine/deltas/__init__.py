"""The algorithms: what a patch does to the weight of a layer. The reference of each is named in docs/algorithms.md."""

from loravault.engine.deltas.delta import Delta
from loravault.engine.deltas.parts import BrokenPatch, Read
from loravault.engine.deltas.reading import read_delta

__all__ = ["BrokenPatch", "Delta", "Read", "read_delta"]
