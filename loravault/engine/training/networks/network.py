"""An adapter in training: one `LayerAdapter` for every layer that is trained, beside a base that stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from loravault.engine.bases import Base, ModuleKey
from loravault.engine.training.networks.adapters import LayerAdapter, ModuleTensors, Start
from loravault.engine.training.networks.low_rank import LowRank
from loravault.engine.training.networks.making import make_adapter
from loravault.engine.training.networks.pivotal import Pivotal
from loravault.engine.training.networks.seen import Call, first_of
from loravault.engine.training.networks.targets import targets
from loravault.errors import UserError
from loravault.formats.training import TrainingPlan


class Network:
    """An adapter in training, attached to a base whose own weights are never touched.

    Its parameters are fp32 whatever the base is. Where its first numbers come from is decided by one number drawn from
    the generator and the names of the layers: they are the same on every device and in any order.
    """

    def __init__(self, base: Base, plan: TrainingPlan, *, generator: torch.Generator, trigger: str = "") -> None:
        """Makes the adapters of `plan` and puts them in effect. `trigger`: the words that get vectors of their own.

        Raises `UserError` if the base has nothing that can be trained, or not in this form.
        """
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        layers = targets(
            base,
            denoiser=plan.learning_rate > 0,
            text=plan.te_rate > 0,
            convolutions=plan.conv_rank > 0,
            attention=plan.attention_only,
            ia3=plan.algorithm == "ia3",
        )
        if not layers:
            raise UserError(f"The base “{base.name}” has no layers that can be trained with these settings.")
        self.dynamic = plan.algorithm == "dylora"
        self.adapters: dict[ModuleKey, LayerAdapter] = {
            layer.key: made for layer in layers if (made := make_adapter(layer, plan, Start(seed, layer))) is not None
        }
        self.pivotal = Pivotal(base, trigger) if plan.pivotal > 0 else None
        #: Shape of every layer of the base, trained or not; those in packed form as they are meant.
        self.layers: dict[ModuleKey, tuple[int, ...]] = base.layers | {layer.key: layer.shape for layer in layers}
        #: Component → what it was first called with in training, one picture of it: to prove the file with.
        self.seen: dict[str, Call] = {}
        self._watches = [
            getattr(base.pipe, component).register_forward_pre_hook(self._watch(component), with_kwargs=True)
            for component in dict.fromkeys(layer.component for layer in layers)
        ]
        self._on = False
        self.enabled(True)

    def parameters(self) -> dict[str, list[nn.Parameter]]:
        """Component (`unet`, `transformer`, `text_encoder`, …) → what is trained in it; `words`: the trigger."""
        found: dict[str, list[nn.Parameter]] = {}
        for (component, _), adapter in self.adapters.items():
            found.setdefault(component, []).extend(adapter.parts.values())
        if self.pivotal is not None:
            found["words"] = list(self.pivotal.parts.values())
        return found

    def enabled(self, on: bool) -> None:
        """Off: exactly the base, at no cost."""
        if on == self._on:
            return
        for adapter in self.adapters.values():
            (adapter.attach if on else adapter.detach)()
        if self.pivotal is not None:
            (self.pivotal.attach if on else self.pivotal.detach)()
        self._on = on

    def detach(self) -> None:
        """The base is exactly as before; what was learned is still here."""
        self.enabled(False)
        for watch in self._watches:
            watch.remove()

    def _watch(self, component: str) -> Callable[[Any, tuple[Any, ...], dict[str, Any]], None]:
        def look(_model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if component not in self.seen:
                self.seen[component] = first_of((args, kwargs))

        return look

    @contextmanager
    def without(self) -> Iterator[None]:
        """The base alone, for as long as this lasts."""
        before = self._on
        self.enabled(False)
        try:
            yield
        finally:
            self.enabled(before)

    # ---- DyLoRA

    def step_begins(self, generator: torch.Generator) -> None:
        """DyLoRA draws how many of its ranks are in effect until the next step begins; nothing for the others."""
        if not self.dynamic:
            return
        share = float(torch.rand(1, generator=generator, device=generator.device))
        for adapter in self.adapters.values():
            if isinstance(adapter, LowRank):
                adapter.prefix = 1 + int(share * adapter.rank)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """All ranks of a DyLoRA, as the file has them: for measuring."""
        ranked = [one for one in self.adapters.values() if isinstance(one, LowRank)] if self.dynamic else []
        before = [one.prefix for one in ranked]
        for one in ranked:
            one.prefix = one.rank
        try:
            yield
        finally:
            for one, prefix in zip(ranked, before, strict=True):
                one.prefix = prefix

    # ---- what it holds

    def state(self) -> dict[str, Tensor]:
        """Everything that is trained, exactly: `component/path/part` → a copy on the CPU."""
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._named()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """As it was when `state` was taken. Raises `UserError`, and changes nothing, if that was another network."""
        mine = dict(self._named())
        if mine.keys() != state.keys() or any(state[name].shape != one.shape for name, one in mine.items()):
            raise UserError("The saved state is that of another training; start this one anew.")
        with torch.no_grad():
            for name, tensor in mine.items():
                tensor.copy_(state[name])

    def tensors(self) -> dict[ModuleKey, ModuleTensors]:
        """(component, path) → what a file says of this layer."""
        return {key: adapter.tensors() for key, adapter in self.adapters.items()}

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        for (component, path), adapter in self.adapters.items():
            for part, tensor in adapter.parts.items():
                yield f"{component}/{path}/{part}", tensor
        for component, tensor in self.pivotal.parts.items() if self.pivotal is not None else ():
            yield f"words//{component}", tensor
