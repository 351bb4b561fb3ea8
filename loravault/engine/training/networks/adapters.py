"""What the adapters of one layer have in common: parameters beside it, a forward in place of its own.

They are plain objects, not `nn.Module`s: nothing is looked up by name in a step, and nothing of them is in the base.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from loravault.engine.training.networks.targets import Layer


@dataclass(frozen=True, eq=False)
class ModuleTensors:
    """What a file says of one layer: the parts as kohya and LyCORIS call them, without `.weight`; fp32 on the CPU."""

    #: `lora`, `loha`, `lokr` or `ia3`.
    algorithm: str
    #: Of the layer's weight.
    shape: tuple[int, ...]
    parts: Mapping[str, Tensor]
    #: The file's `alpha`, so that alpha / rank is the scale; None: this kind has none.
    alpha: float | None


class Start:
    """Where the first numbers of one layer come from: from its name and one number, so that order does not matter."""

    def __init__(self, seed: int, layer: Layer) -> None:
        self._name = f"{seed} {layer.component} {layer.path}"

    def __call__(self, part: str) -> torch.Generator:
        """The generator of one part; on the CPU, so that every device begins with the same numbers."""
        digest = hashlib.blake2b(f"{self._name} {part}".encode(), digest_size=8).digest()
        return torch.Generator("cpu").manual_seed(int.from_bytes(digest, "little") >> 1)


class LayerAdapter(ABC):
    """Adds to, or multiplies, what one layer of a frozen base computes."""

    #: As `ModuleTensors.algorithm`.
    algorithm: str

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.module: Any = layer.module
        #: Part (as `ModuleTensors.parts`) → what is trained: fp32, on the device of the layer.
        self.parts: dict[str, nn.Parameter] = {}
        #: What the layer did before, hooks of other libraries included.
        self._inner = self.module.forward
        self._own = self.module.__dict__.get("forward")
        #: Whether that is nothing but `linear` or `conv2d`, so that it may be done here in one go with what is added.
        self._plain = self._own is None and type(self.module) in (nn.Linear, nn.Conv2d)
        self._held = self.module._parameters

    # ---- what each algorithm does

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """What the adapted layer gives."""

    @abstractmethod
    def change(self, w0: Tensor) -> Tensor:
        """W′ − W0 in fp32 on the device and in the shape of `w0`, the weight of the layer in fp32."""

    @property
    def alpha(self) -> float | None:
        """As `ModuleTensors.alpha`."""
        return None

    def written(self) -> dict[str, Tensor]:
        """The parts as a file has them."""
        return {part: tensor.detach() for part, tensor in self.parts.items()}

    # ---- being there

    def attach(self) -> None:
        """In effect from now on."""
        self.module.forward = self.forward

    def detach(self) -> None:
        """The layer is as it was."""
        if self._own is not None:
            self.module.forward = self._own
        else:
            self.module.__dict__.pop("forward", None)

    def tensors(self) -> ModuleTensors:
        """What a file says of it."""
        parts = {part: tensor.to("cpu", torch.float32, copy=True) for part, tensor in self.written().items()}
        return ModuleTensors(self.algorithm, self.layer.shape, parts, self.alpha)

    # ---- for the algorithms

    def _new(self, part: str, value: Tensor) -> nn.Parameter:
        """A part, on the device of the layer, with `value` (fp32 on the CPU) in it."""
        held = next((one for one in (*self._held.values(), *self.module.buffers()) if one is not None), None)
        device = held.device if held is not None else torch.device("cpu")
        made = self.parts[part] = nn.Parameter(value.to(device, torch.float32))
        return made

    def _fused(self, x: Tensor) -> bool:
        """Whether the layer's own product can be formed here, without rounding away what is added."""
        weight = self._held["weight"]
        return self._plain and weight is not None and x.dtype == weight.dtype and not _autocast(x)

    @property
    def _bias(self) -> Tensor | None:
        bias: Tensor | None = self._held.get("bias")
        return bias

    def _apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The layer's operation with another weight."""
        if not self.layer.convolution:
            return functional.linear(x, weight, bias)
        module = self.module
        return functional.conv2d(x, weight, bias, module.stride, module.padding, module.dilation)


def _autocast(x: Tensor) -> bool:
    return torch.is_autocast_enabled(x.device.type)


def as_input(part: Tensor, x: Tensor) -> Tensor:
    """`part` in the precision of `x`, with its gradient."""
    return part if part.dtype == x.dtype else part.to(x.dtype)


def kaiming(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Kaiming-uniform with a = √5: between ±1/√(inputs), fp32 on the CPU. Microsoft's LoRA began with it."""
    bound = 1.0 / max(1, torch.Size(shape[1:]).numel()) ** 0.5
    return torch.empty(shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator)


def normal(shape: tuple[int, ...], std: float, generator: torch.Generator) -> Tensor:
    """Normal numbers, fp32 on the CPU."""
    return torch.empty(shape, dtype=torch.float32).normal_(0.0, std, generator=generator)
