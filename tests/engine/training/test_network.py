"""A network on a whole base: which layers, where it begins, what it leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from loravault.engine.bases import Base, load_base
from loravault.engine.devices import choose_device
from loravault.engine.training.networks import Network, targets
from loravault.engine.training.networks.targets import layers_in
from loravault.errors import UserError
from tests.engine.training.layers import randomise
from tests.engine.training.plans import plan
from tests.tiny_families import make_family

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]


def base_of(folder: Path, family: str) -> Base:
    return load_base(make_family(folder / family, family), choose_device("cpu"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return base_of(tmp_path_factory.mktemp("base"), "sd15")


def network_of(base: Base, seed: int = 1, **changes: Any) -> Network:
    return Network(base, plan(**changes), generator=torch.Generator().manual_seed(seed))


def bits(base: Base) -> dict[str, Tensor]:
    """Every parameter and buffer of every model, copied."""
    models = {name: getattr(base.pipe, name) for name in base.drawer.models}
    return {
        f"{name}.{key}": tensor.clone()
        for name, model in models.items() if model is not None
        for key, tensor in model.state_dict().items()
    }  # fmt: skip


def drawn(base: Base) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    latents, words = torch.randn(2, 4, 8, 8, generator=generator), torch.randint(1, 90, (2, 77), generator=generator)
    states = base.pipe.text_encoder(words).last_hidden_state
    found: Tensor = base.denoiser(latents, torch.tensor([10, 500]), encoder_hidden_states=states).sample
    return found


def test_on_sd1_the_same_modules_as_kohya() -> None:
    """192 layers of attention in the UNet; with convolutions 278 in all (the counts that sd-scripts logs)."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            cross_attention_dim=768, block_out_channels=(320, 640, 1280, 1280), attention_head_dim=8
        )
    attention = list(layers_in("unet", unet, {"Transformer2DModel"}))
    assert len(attention) == 192
    everything = list(layers_in("unet", unet, {"Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D"}))
    assert len(everything) == 278
    assert sum(layer.wide for layer in everything) == 2 * 22 + 3 + 3
    assert not {"conv_in", "conv_out", "time_embedding.linear_1"} & {layer.path for layer in everything}


@pytest.mark.parametrize(
    ("family", "inside", "outside"),
    [
        ("sd3", "transformer_blocks.1.norm1_context.linear", "context_embedder"),
        ("flux", "single_transformer_blocks.0.proj_mlp", "x_embedder"),
        ("chroma", "transformer_blocks.0.ff.net.0.proj", "distilled_guidance_layer.layers.0.linear_1"),
        ("flux2", "single_transformer_blocks.0.attn.to_qkv_mlp_proj", "double_stream_modulation_img.linear"),
        ("z-image", "layers.0.feed_forward.w2", "noise_refiner.0.attention.to_q"),
        ("qwen-image", "transformer_blocks.0.attn.to_add_out", "transformer_blocks.0.img_mod.1"),
    ],
)
def test_of_a_transformer_the_blocks(family: str, inside: str, outside: str, tmp_path: Path) -> None:
    """Each family has its blocks, and what trainers leave alone is left alone; no T5 or LLM is ever trained."""
    base = base_of(tmp_path, family)
    found = targets(base, text=True)
    paths = {layer.path for layer in found if layer.component == "transformer"}
    assert inside in paths
    assert outside in {path for _, path in base.modules}
    assert outside not in paths
    assert all(
        "self_attn" in layer.path or "mlp.fc" in layer.path for layer in found if layer.component != "transformer"
    )


def test_the_attention_alone(base: Base, tmp_path: Path) -> None:
    """What diffusers' own script trains: queries, keys, values and outputs, in text encoders and transformers too."""
    paths = {layer.path for layer in targets(base, text=True, attention=True)}
    assert {path.rsplit(".attn", 1)[-1].split(".", 1)[-1] for path in paths if ".attn" in path} == {
        "to_q", "to_k", "to_v", "to_out.0",
    }  # fmt: skip
    assert {path.rsplit(".", 1)[-1] for path in paths if ".self_attn." in path} == {
        "q_proj", "k_proj", "v_proj", "out_proj",
    }  # fmt: skip
    assert all(".attn" in path or ".self_attn." in path for path in paths)
    flux = {layer.path for layer in targets(base_of(tmp_path, "flux"), attention=True)}
    assert "transformer_blocks.0.attn.add_q_proj" in flux
    assert not any("ff" in path or "proj_mlp" in path for path in flux)


def test_it_begins_as_nothing_and_depends_on_nothing_but_the_seed(base: Base) -> None:
    """Up is zero, so the base is unchanged; down is the same whichever other layers are trained beside it."""
    before = drawn(base)
    one = network_of(base)
    assert torch.equal(drawn(base), before) or torch.allclose(drawn(base), before, atol=1e-6)
    one.detach()
    two = network_of(base, te_rate=0.0, conv_rank=3)
    two.detach()
    shared = one.state().keys() & two.state().keys()
    assert any("lora_down" in name for name in shared)
    assert all(torch.equal(one.state()[name], two.state()[name]) for name in shared)
    other = network_of(base, seed=2)
    other.detach()
    assert not torch.equal(*(net.state()["unet/mid_block.attentions.0.proj_in/lora_down"] for net in (one, other)))
    down = one.state()["unet/mid_block.attentions.0.proj_in/lora_down"]
    assert float(down.abs().max()) <= 1 / 8
    assert float(down.abs().max()) > 0.1


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": "locon", "conv_rank": 2},
        {"algorithm": "loha", "conv_rank": 2},
        {"algorithm": "lokr", "factor": 4},
        {"algorithm": "ia3"},
        {"algorithm": "dylora"},
        {"dora": True, "conv_rank": 2},
    ],
)
def test_detached_the_base_is_bit_for_bit_what_it_was(base: Base, changes: dict[str, Any]) -> None:
    """After a step of training, weights, outputs and forwards are those of before."""
    before, picture = bits(base), drawn(base)
    network = network_of(base, **changes)
    parameters = [one for group in network.parameters().values() for one in group]
    optimizer = torch.optim.SGD(parameters, lr=10.0)
    for _ in range(2):
        drawn(base).square().mean().backward()
        optimizer.step()
    assert not torch.allclose(drawn(base), picture, atol=1e-4)
    with network.without():
        assert torch.equal(drawn(base), picture)
    assert not torch.allclose(drawn(base), picture, atol=1e-4)
    network.detach()
    assert torch.equal(drawn(base), picture)
    assert all(torch.equal(tensor, before[name]) for name, tensor in bits(base).items())
    assert not any("forward" in module.__dict__ for module in base.modules.values())
    assert all(one.grad is None for module in base.modules.values() for one in module.parameters())


def test_parameters_are_grouped_by_component_and_whole(base: Base) -> None:
    network = network_of(base)
    network.detach()
    groups = network.parameters()
    assert set(groups) == {"unet", "text_encoder"}
    assert len(groups["text_encoder"]) == 2 * 6 * 3
    assert all(one.dtype == torch.float32 and one.requires_grad for group in groups.values() for one in group)


def test_state_is_exact_and_of_this_network_only(base: Base) -> None:
    network, other = network_of(base), network_of(base, seed=2)
    other.detach()
    network.detach()
    other.load_state(network.state())
    assert all(torch.equal(tensor, network.state()[name]) for name, tensor in other.state().items())
    with pytest.raises(UserError, match="another training"):
        other.load_state(network_of(base, rank=5).state())


def test_dylora_draws_one_share_for_all(base: Base) -> None:
    """The prefix is that of the generator, between 1 and the rank; measured is with all ranks."""
    network = network_of(base, algorithm="dylora")
    seen = set()
    for step in range(30):
        network.step_begins(torch.Generator().manual_seed(step))
        found = {adapter.prefix for adapter in network.adapters.values()}  # type: ignore[attr-defined]
        assert len(found) == 1
        seen |= found
        with network.whole():
            assert {adapter.prefix for adapter in network.adapters.values()} == {4}  # type: ignore[attr-defined]
    assert seen == {1, 2, 3, 4}
    network.detach()


def test_nothing_to_train_is_said(base: Base) -> None:
    with pytest.raises(UserError, match="no layers"):
        network_of(base, learning_rate=0.0, te_rate=0.0)


def test_hooks_of_other_libraries_stay(base: Base) -> None:
    """A forward that stands on the layer itself, as offloading puts it there, is called and put back."""
    module: Any = base.modules["unet", "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"]
    own, calls = module.forward, []

    def hooked(x: Tensor) -> Tensor:
        calls.append(x.shape)
        found: Tensor = own(x)
        return found

    module.forward = hooked
    try:
        network = network_of(base)
        for adapter in network.adapters.values():
            randomise(adapter)
        drawn(base)
        network.detach()
        assert len(calls) == 1
        assert module.forward is hooked
    finally:
        del module.forward
    assert isinstance(module, nn.Linear)
