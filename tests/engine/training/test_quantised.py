"""Weights in eight or four bits: what is given back, forward and backward, and how little room it takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from loravault.engine.bases import load_base
from loravault.engine.devices import choose_device
from loravault.engine.training import chance
from loravault.engine.training.learning import objective_for
from loravault.engine.training.loop import Loop
from loravault.engine.training.networks import Network
from loravault.engine.training.quantised import BLOCK, LEVELS, QuantisedLinear, quantise
from tests.engine.training.plans import plan
from tests.engine.training.source import Made
from tests.tiny_families import make_family

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]


def layer(out: int = 96, into: int = 80) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(into, out).requires_grad_(False)


@pytest.mark.parametrize(("kind", "most"), [("int8", 0.01), ("nf4", 0.12)])
def test_a_weight_comes_back_as_exactly_as_its_bits_allow(kind: str, most: float) -> None:
    one = layer()
    before = one.weight.detach().clone()
    assert quantise(nn.ModuleList([one]), kind) == 1  # type: ignore[arg-type]
    assert one.weight.shape == before.shape
    assert float((one.weight - before).norm() / before.norm()) < most


def test_nf4_takes_the_nearest_of_its_levels_times_the_largest_of_a_block() -> None:
    """Against a loop over all sixteen levels for every weight; the last block is not full."""
    one = layer(65, 67)
    before = one.weight.detach().flatten()
    quantise(nn.ModuleList([one]), "nf4")
    levels = torch.tensor(LEVELS)
    expected = torch.cat(
        [
            levels[(part[:, None] / part.abs().max() - levels).abs().argmin(dim=1)] * part.abs().max()
            for part in before.split(BLOCK)
        ]
    )
    torch.testing.assert_close(one.weight.flatten(), expected)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_the_gradient_of_what_goes_in_is_that_of_the_weight_that_comes_back(kind: str) -> None:
    one = layer()
    quantise(nn.ModuleList([one]), kind)  # type: ignore[arg-type]
    x = torch.randn(3, 5, 80, generator=torch.Generator().manual_seed(2), requires_grad=True)
    other = x.detach().clone().requires_grad_(True)
    one(x).square().sum().backward()
    nn.functional.linear(other, one.weight, one.bias).square().sum().backward()
    torch.testing.assert_close(x.grad, other.grad)


def test_it_takes_a_quarter_and_an_eighth_of_the_room() -> None:
    sizes = {}
    for kind in ("none", "int8", "nf4"):
        one = layer(256, 256)
        quantise(nn.ModuleList([one]), kind)  # type: ignore[arg-type]
        sizes[kind] = sum(t.numel() * t.element_size() for t in one.state_dict().values())
    assert sizes["int8"] < 0.27 * sizes["none"]
    assert sizes["nf4"] < 0.2 * sizes["none"]


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_an_adapter_is_trained_beside_packed_weights(tmp_path: Path, kind: str) -> None:
    """Nothing of the base is changed, and what is learned lowers the loss."""
    device = choose_device("cpu")
    base = load_base(make_family(tmp_path / "flux", "flux"), device)
    for part in (base.denoiser, base.pipe.text_encoder):
        part.requires_grad_(False)
    assert quantise(base.denoiser, kind) > 0  # type: ignore[arg-type]
    packed = {name: one.clone() for name, one in base.denoiser.state_dict().items()}
    wanted = plan(batch=4, te_rate=0.0, rank=8, alpha=8.0, learning_rate=1e-2, quantised=kind)
    network = Network(base, wanted, generator=chance.generator(1, purpose="network"))
    loop = Loop(
        base=base, network=network, objective=objective_for(base, wanted), source=Made(base, batch=4), plan=wanted,
        device=device,
    )  # fmt: skip
    for _ in range(12):
        loop.advance()
    assert any(isinstance(module, QuantisedLinear) for module in base.modules.values())
    network.detach()
    assert all(torch.equal(one, packed[name]) for name, one in base.denoiser.state_dict().items())
    assert any(bool(one.any()) for one in network.parameters()["transformer"])
    assert all(bool(torch.isfinite(one).all()) for one in network.parameters()["transformer"])
