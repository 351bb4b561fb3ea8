"""The finished file as others read it: diffusers and LyCORIS give every layer the change that was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders import FluxLoraLoaderMixin
from safetensors.torch import load_file

from loravault.engine.training import proof
from loravault.engine.training.export import write_adapter
from loravault.engine.training.networks import ModuleTensors, Network
from loravault.engine.training.spelling import spell
from tests.engine.training.exported import ALGORITHMS, FAMILIES, Bases, drawn, network_of
from tests.engine.training.plans import plan

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]

#: diffusers has no way to read kohya's names of SD 3 and Chroma; it reads those of Flux.1, Flux.2 in real widths only.
UNREAD = {("sd3", "kohya"), ("chroma", "kohya"), ("flux", "kohya"), ("flux2", "kohya")}


@pytest.mark.parametrize(
    ("family", "naming"),
    [(family, naming) for family in FAMILIES for naming in ("kohya", "diffusers") if (family, naming) not in UNREAD],
)
def test_diffusers_loads_it_as_the_same(family: str, naming: Any, bases: Bases, tmp_path: Path) -> None:
    """`load_lora_weights` gives every layer the change that was trained, in either spelling."""
    pytest.importorskip("peft")
    base = bases[family]
    options: dict[str, Any] = {"naming": naming} | ({"conv_rank": 2} if family in ("sd15", "sdxl") else {})
    network = network_of(base, **options)
    network.detach()
    path = tmp_path / "a.safetensors"
    write_adapter(network, base, plan(**options), path, {}, dtype=torch.float32)
    if naming == "diffusers":
        assert not any(name.endswith(".alpha") for name in load_file(path))
    pipe = base.pipe
    try:
        pipe.load_lora_weights(str(path), adapter_name="a")
        assert _loaded_error(pipe, network) < 1e-5
    finally:
        pipe.unload_lora_weights()


def _loaded_error(pipe: Any, network: Network) -> float:
    """Greatest difference of one layer, as a share of its change, of every layer that was trained."""
    worst = 0.0
    for (component, path), adapter in network.adapters.items():
        wanted = adapter.change(proof.weight_of(adapter)).detach()
        holder: Any = getattr(pipe, component).get_submodule(path)
        found = holder.get_delta_weight("a").detach().reshape(wanted.shape)
        worst = max(worst, float((found - wanted).norm() / wanted.norm()))
    return worst


def test_diffusers_reads_fused_layers_of_flux_apart() -> None:
    """In the real widths, which its converter knows by heart: each piece comes back with its own rank and change."""
    convert = FluxLoraLoaderMixin.lora_state_dict
    width, generator = 3072, torch.Generator().manual_seed(4)
    layers: dict[tuple[str, str], tuple[int, ...]] = {}
    for block, rows in {
        "transformer_blocks.0": {"attn.to_q": 1, "attn.to_k": 1, "attn.to_v": 1, "attn.to_out.0": 1, "norm1.linear": 6},
        "single_transformer_blocks.0": {"attn.to_q": 1, "attn.to_k": 1, "attn.to_v": 1, "proj_mlp": 4},
    }.items():
        for module, times in rows.items():
            layers["transformer", f"{block}.{module}"] = (times * width, width)
    trained = {
        key: ModuleTensors(
            "lora",
            shape,
            {
                "lora_down": torch.randn(2, shape[1], generator=generator),
                "lora_up": torch.randn(shape[0], 2, generator=generator),
            },
            1.0,
        )
        for key, shape in layers.items()
    }
    spelled = spell(trained, layers, "flux", "kohya")
    assert len(spelled.tensors) == 4 * 3
    found = convert({name: tensor.clone() for name, tensor in spelled.tensors.items()})
    probe = torch.randn(width, 3, generator=generator)
    for (component, path), one in trained.items():
        down, up = (found[f"{component}.{path}.lora_{side}.weight"] for side in "AB")
        assert down.shape[0] == 2
        wanted = one.parts["lora_up"] @ (one.parts["lora_down"] @ probe) * 0.5
        assert float((up @ (down @ probe) - wanted).norm()) < 1e-5 * float(wanted.norm())


@pytest.mark.parametrize("name", ALGORITHMS)
def test_lycoris_applies_it_as_the_same(name: str, bases: Bases, tmp_path: Path) -> None:
    """LyCORIS' modules made from the file, with `apply_to` (its `merge_to` is wrong), where that library is there.

    Not DoRA and IA3: its loader takes every `dora_scale` for lengths of outputs, and fails on `on_input`. Its modules
    themselves are compared in `test_algorithms`.
    """
    if name in ("dora", "ia3"):
        pytest.skip("its loader")
    modules = pytest.importorskip("lycoris.modules")
    base = bases["sd15"]
    network = network_of(base, te_rate=0.0, **ALGORITHMS[name])
    live = drawn(base)
    path = tmp_path / "a.safetensors"
    write_adapter(network, base, plan(te_rate=0.0, **ALGORITHMS[name]), path, {}, dtype=torch.float32)
    network.detach()
    bare = drawn(base)
    tensors, theirs = load_file(path), []
    for component, layer in network.adapters:
        spelled = f"lora_unet_{layer.replace('.', '_')}"
        kind, parameters = modules.get_module(tensors, spelled)
        theirs.append(modules.make_module(kind, parameters, spelled, base.modules[component, layer]))
    for one in theirs:
        one.apply_to()
    try:
        found = drawn(base)
    finally:
        for one in theirs:
            one.restore()
    assert len(tensors) >= 2 * len(theirs) > 0
    assert float((found - live).norm()) < 1e-3 * float((live - bare).norm())
    assert torch.equal(drawn(base), bare)
