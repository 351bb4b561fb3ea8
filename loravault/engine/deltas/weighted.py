"""Changes that multiply the weight without turning it: IA3 of LyCORIS and of PEFT, GLoRA."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from loravault.engine.deltas.delta import Delta, any_zero, fp32
from loravault.engine.deltas.parts import Parts, shape_of


@dataclass(frozen=True, eq=False)
class Scaling(Delta):
    """IA3: every output or every input of the layer is multiplied by 1 + strength · (factor − neutral)."""

    #: As many as the layer has outputs or inputs.
    scales: Tensor
    #: The factor that changes nothing: 0 for LyCORIS, which keeps what is added to 1; 1 for PEFT.
    neutral: float
    #: Whether inputs are multiplied; None: their number decides, outputs first.
    on_input: bool | None
    #: Whether the bias is multiplied as the outputs are: PEFT multiplies what the layer gives, LyCORIS the weight.
    with_bias: bool

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The factors."""
        return (self.scales,)

    def _change(self, w0: Tensor, strength: float) -> Tensor:
        added = (fp32(self.scales, w0).flatten() - self.neutral) * strength
        axis = 1 if self._is_on_input(w0) else 0
        return w0 * added.view(*(-1 if dimension == axis else 1 for dimension in range(w0.ndim)))

    def _is_on_input(self, w0: Tensor) -> bool:
        sizes = tuple(w0.shape[:2])
        count = self.scales.numel()
        on_input = self.on_input if self.on_input is not None else count != sizes[0]
        if w0.ndim < 2 or sizes[on_input] != count:
            raise self.misfit(w0, f"{count} {'inputs' if on_input else 'outputs'}")
        return on_input

    @property
    def touches_bias(self) -> bool:
        """Only that of PEFT, and only on outputs."""
        return self.with_bias and self.on_input is not True

    def bias(self, strength: float, b0: Tensor | None = None) -> Tensor | None:
        """A share of the bias that the layer has."""
        if not self.touches_bias or b0 is None or strength == 0 or b0.numel() != self.scales.numel():
            return None
        return b0.to(torch.float32) * ((fp32(self.scales, b0).flatten() - self.neutral) * strength)

    def is_zero(self) -> bool:
        """All factors are the neutral one."""
        return bool((self.scales.float() == self.neutral).all())


def read_scaling(parts: Parts) -> Scaling:
    """`weight` and `on_input` (LyCORIS), or `ia3_l` (PEFT). Raises `BrokenPatch`."""
    if "ia3_l" in parts:
        scales = parts.tensor("ia3_l")
        # Of a linear layer PEFT keeps (out, 1) or (1, in). Of a convolution (1, n, 1, 1), whichever of them it is.
        tells = scales.ndim == 2 and 1 in scales.shape and scales.numel() > 1
        on_input = scales.shape[0] == 1 if tells else None
        return Scaling(parts.name, scales, 1.0, on_input, with_bias=True)
    scales, on = parts.tensor("weight"), parts.number("on_input")
    if on is None:
        raise parts.broken("is incomplete: on_input is missing")
    return Scaling(parts.name, scales, 0.0, on != 0, with_bias=False)


@dataclass(frozen=True, eq=False)
class Generalised(Delta):
    """GLoRA: ΔW = scale · (W · a_up · a_down + b_up · b_down)."""

    #: (in, rank) and (rank, in).
    a_up: Tensor
    a_down: Tensor
    #: (out, rank) and (rank, columns).
    b_up: Tensor
    b_down: Tensor
    scale: float

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Two pairs."""
        return (self.a_up, self.a_down, self.b_up, self.b_down)

    def _change(self, w0: Tensor, strength: float) -> Tensor:
        a_up, a_down, b_up, b_down = (fp32(tensor, w0) for tensor in self.tensors)
        flat = self._checked(w0, b_up.shape[0], b_down.shape[1])
        if a_up.shape[0] == w0.shape[1]:  # the same for every place of the kernel
            turned = torch.einsum("oi...,ir,rj->oj...", w0, a_up, a_down).reshape(flat.shape)
        elif a_up.shape[0] == flat.shape[1]:
            turned = flat @ a_up @ a_down
        else:
            raise self.misfit(w0, f"{a_up.shape[0]} inputs")
        return turned.addmm_(b_up, b_down).mul_(self.scale * strength)

    def is_zero(self) -> bool:
        """Both products are."""
        return any_zero((self.a_up, self.a_down)) and any_zero((self.b_up, self.b_down))


def read_generalised(parts: Parts) -> Generalised:
    """`a1`, `a2`, `b1`, `b2` in LyCORIS' order or in that of its versions before 2. Raises `BrokenPatch`."""
    a1, a2, b1, b2 = (parts.matrix(part) for part in ("a1", "a2", "b1", "b2"))
    new, old = (a1, a2, b1, b2), (a2, a1, b2, b1)
    fitting = [order for order in (new, old) if _is_glora(*order)]
    if not fitting:
        shapes = ", ".join(map(shape_of, new))
        raise parts.broken(f"has matrices that cannot be multiplied: a1, a2, b1, b2 are {shapes}")
    # In a layer with as many outputs as inputs both orders can be multiplied. The rank is less than the width.
    a_up, a_down, b_up, b_down = old if len(fitting) == 2 and a1.shape[0] < a1.shape[1] else fitting[0]
    return Generalised(parts.name, a_up, a_down, b_up, b_down, parts.scale(a_up.shape[1]))


def _is_glora(a_up: Tensor, a_down: Tensor, b_up: Tensor, b_down: Tensor) -> bool:
    same_rank = a_up.shape[1] == a_down.shape[0] == b_up.shape[1] == b_down.shape[0]
    # The columns of b_down are the inputs, times the area of the kernel.
    return same_rank and a_up.shape[0] == a_down.shape[1] and b_down.shape[1] % a_up.shape[0] == 0
