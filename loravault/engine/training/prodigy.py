"""Prodigy: Adam that finds its own step size (Mishchenko and Defazio 2023, algorithm 4); `lr` is a factor of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

#: The first guess of the distance to the solution: anything that is surely too small.
FIRST_GUESS = 1e-6


class Prodigy(torch.optim.Optimizer):
    """With decoupled weight decay and β₃ = √β₂. One estimate d for all groups, on the device: no step waits for it.

    d grows to max(d, r/‖s‖₁) with r and s running sums of λ·d²·⟨g, x₀ - x⟩ and of λ·d²·g, λ being the schedule's share.
    Steps are λ·d·m/(√v + d·ε), with Adam's m and v of d·g and (d·g)².
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        d0: float = FIRST_GUESS,
        d_coef: float = 1.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        self._d0, self._d_coef = d0, d_coef

    def _shared(self) -> dict[str, Tensor]:
        """d and r: kept with the first parameter, so that a state dict holds them."""
        first: Tensor = self.param_groups[0]["params"][0]
        state: dict[str, Tensor] = self.state[first]
        if "d" not in state:
            state["d"] = torch.tensor(self._d0, device=first.device)
            state["r"] = torch.zeros((), device=first.device)
            state["k"] = torch.zeros((), device=first.device)
        return state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step. Learning rates of groups are relative: one of 0 leaves its group out of the estimate."""
        loss = None if closure is None else closure()
        shared = self._shared()
        d, learning = shared["d"], []
        beta2 = self.param_groups[0]["betas"][1]
        beta3 = beta2**0.5
        upper, lower = torch.zeros_like(d), torch.zeros_like(d)
        shared["k"] += 1
        for group in self.param_groups:
            # without this the first steps would be √10 times as long as those of a settled average
            bias = (1 - group["betas"][1] ** shared["k"]).sqrt() / (1 - group["betas"][0] ** shared["k"])
            rate = d * group["lr"] * bias
            for one in group["params"]:
                if one.grad is None or group["lr"] == 0:
                    continue
                state = self._of(one)
                upper += self._observe(one, state, group, d, rate, beta3)
                lower += state["s"].abs().sum()
                learning.append((one, state, group, rate))
        if not learning:
            return loss
        shared["r"].mul_(beta3).add_(upper)
        d_hat = self._d_coef * shared["r"] / lower.clamp_min(torch.finfo(lower.dtype).tiny)
        for one, state, group, rate in learning:
            if group["weight_decay"]:
                one.mul_(1 - rate * group["weight_decay"])
            one.sub_(rate * state["m"] / (state["v"].sqrt() + d * group["eps"]))
        shared["d"] = torch.where(torch.isfinite(d_hat), torch.maximum(d, d_hat), d)
        return loss

    def _of(self, one: Tensor) -> dict[str, Any]:
        state: dict[str, Any] = self.state[one]
        if "m" not in state:
            state["m"], state["v"], state["s"] = (torch.zeros_like(one) for _ in range(3))
            state["x0"] = one.detach().clone()
        return state

    def _observe(  # noqa: PLR0917
        self, one: Tensor, state: dict[str, Any], group: dict[str, Any], d: Tensor, rate: Tensor, beta3: float
    ) -> Tensor:
        """Takes a gradient into the averages; returns how far it pulls from where it began."""
        gradient = one.grad
        assert gradient is not None
        beta1, beta2 = group["betas"]
        # d/d₀ instead of d: the sums would be too small for fp32 else, and their quotient is the same
        scale = d / self._d0 * rate
        state["m"].mul_(beta1).add_(d * gradient * (1 - beta1))
        state["v"].mul_(beta2).add_((d * gradient).square() * (1 - beta2))
        state["s"].mul_(beta3).add_(scale * gradient)
        return scale * torch.dot(gradient.flatten(), (state["x0"] - one).flatten())
