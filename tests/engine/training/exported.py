"""What tests of finished adapter files share: a small base of each family, and networks as if they had learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loravault.engine.bases import Base, load_base
from loravault.engine.devices import choose_device
from loravault.engine.training.networks import Network
from tests.engine.training.layers import randomise
from tests.engine.training.plans import plan
from tests.tiny_families import make_family

FAMILIES = ("sd15", "sd2", "sdxl", "sd3", "flux", "chroma", "flux2", "z-image", "qwen-image")
ALGORITHMS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"rslora": True},
    "locon": {"algorithm": "locon", "conv_rank": 3, "conv_alpha": 2.0},
    "loha": {"algorithm": "loha", "conv_rank": 2},
    "lokr": {"algorithm": "lokr", "rank": 2, "factor": 2, "conv_rank": 2},
    "lokr whole": {"algorithm": "lokr", "rank": 500, "factor": 4},
    "dylora": {"algorithm": "dylora"},
    "ia3": {"algorithm": "ia3"},
    "dora": {"dora": True, "conv_rank": 2},
}


class Bases:
    """One small base of each family, made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, Base] = {}

    def __getitem__(self, family: str) -> Base:
        if family not in self._made:
            ref = make_family(self._folder / family, family)
            self._made[family] = load_base(ref, choose_device("cpu"))
        return self._made[family]


def network_of(base: Base, *, size: float = 0.1, **changes: Any) -> Network:
    """With numbers as if it had learned."""
    network = Network(base, plan(**changes), generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for adapter in network.adapters.values():
            randomise(adapter)
            for part, one in adapter.parts.items():
                if part != "dora_scale":
                    one.mul_(size * float(torch.rand(1, generator=generator) + 0.5) / 0.3)
    return network


def states_of(base: Base) -> Tensor:
    ids = torch.arange(2, 79)[None]
    found: Tensor = base.pipe.text_encoder(ids).last_hidden_state
    return found


def drawn(base: Base) -> Tensor:
    """What an SD 1 gives, text encoder included."""
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(1, 4, 8, 8, generator=generator)
    with torch.no_grad():
        found: Tensor = base.denoiser(latents, torch.tensor(500), encoder_hidden_states=states_of(base)).sample
    return found
