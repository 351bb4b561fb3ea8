"""Adapters in training: small modules beside the layers of a frozen base, and what they come to in a file."""

from loravault.engine.training.networks.adapters import LayerAdapter, ModuleTensors
from loravault.engine.training.networks.network import Network
from loravault.engine.training.networks.targets import Layer, targets

__all__ = ["Layer", "LayerAdapter", "ModuleTensors", "Network", "targets"]
