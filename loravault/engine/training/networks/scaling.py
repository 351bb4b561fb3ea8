"""IA3 in the form of LyCORIS: every output, or every input, of a layer times 1 + weight; the bias stays."""

from __future__ import annotations

import torch
from torch import Tensor

from loravault.engine.training.networks.adapters import LayerAdapter, as_input
from loravault.engine.training.networks.targets import Layer


class Scaling(LayerAdapter):
    """One number for each output or each input of a linear layer."""

    algorithm = "ia3"

    def __init__(self, layer: Layer, *, on_input: bool) -> None:
        super().__init__(layer)
        self.on_input = on_input
        self._weight = self._new("weight", torch.zeros(layer.shape[1] if on_input else layer.shape[0]))

    def forward(self, x: Tensor) -> Tensor:
        """The base's own weight is not needed: what goes in or comes out is multiplied."""
        weight = as_input(self._weight, x)
        if self.on_input:
            scaled: Tensor = self._inner(x + x * weight)
            return scaled
        y: Tensor = self._inner(x)
        bias = self._bias
        return y + (y if bias is None else y - bias) * as_input(self._weight, y)

    def change(self, w0: Tensor) -> Tensor:
        """Each row or column times its number."""
        weight = self._weight.to(w0.device)
        return w0 * (weight if self.on_input else weight[:, None])

    def written(self) -> dict[str, Tensor]:
        """With the mark which side is meant."""
        return {**super().written(), "on_input": torch.tensor(float(self.on_input))}
