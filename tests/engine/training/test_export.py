"""The finished file: its names, that it gives back what was trained, that nothing is left over."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from loravault.engine.adapters import Adapter, load_adapter
from loravault.engine.apply import Patcher, Strength
from loravault.engine.bases import Base
from loravault.engine.training import export, proof
from loravault.engine.training.export import add_thumbnail, write_adapter
from loravault.engine.training.networks import Network
from loravault.errors import UserError
from loravault.formats.hashes import file_hashes
from loravault.formats.safetensors_header import read_header
from tests.engine.training.exported import ALGORITHMS, FAMILIES, Bases, drawn, network_of
from tests.engine.training.plans import plan
from tests.tiny import use_of

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]


def read(path: Path, base: Base) -> Adapter:
    return load_adapter(use_of(path), base)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_family_and_algorithm_comes_back(name: str, family: str, bases: Bases, tmp_path: Path) -> None:
    """Each file is read again by the general reader: every key used, every layer with the change it was trained to."""
    base = bases[family]
    network = network_of(base, **ALGORITHMS[name])
    network.detach()
    written = write_adapter(network, base, plan(**ALGORITHMS[name]), tmp_path / "a.safetensors", {})
    assert written.error < 1e-3
    assert written.precision == "F16"
    assert written.modules == len(network.adapters)
    assert not written.zero
    assert [one.name for one in tmp_path.iterdir()] == ["a.safetensors"]
    adapter = read(written.path, base)
    assert not adapter.unused
    assert use_of(written.path).weight_id == written.weight_id


def test_it_draws_what_the_network_drew(bases: Bases, tmp_path: Path) -> None:
    """Through `load_adapter` and `Patcher`, as a note's picture is made; and the models' outputs were compared."""
    base = bases["sd15"]
    bare = drawn(base)
    for name, options in ALGORITHMS.items():
        network = network_of(base, **options)
        live = drawn(base)
        path = tmp_path / f"{name}.safetensors"
        written = write_adapter(network, base, plan(**options), path, {}, dtype=torch.float32)
        assert set(network.seen) == {"unet", "text_encoder"}
        assert torch.equal(drawn(base), live), name
        network.detach()
        assert torch.equal(drawn(base), bare), name
        patcher = Patcher(base.modules)
        patcher.apply([Strength(read(path, base), 1.0, 1.0)])
        again = drawn(base)
        patcher.restore()
        effect = float((live - bare).norm())
        assert effect > 0.01 * float(bare.norm()), name
        assert float((again - live).norm()) < 1e-4 * effect + 1e-5 * float(bare.norm()), name
        assert written.error < 1e-4, name


def test_names_of_sd1(bases: Bases, tmp_path: Path) -> None:
    """Prefix, diffusers' path, the level `text_model`, an alpha of no dimension for each module."""
    base = bases["sd15"]
    network = network_of(base, rslora=True)
    network.detach()
    path = tmp_path / "a.safetensors"
    write_adapter(network, base, plan(rslora=True), path, {"lora_adapter_metadata": "{}", "ss_seed": "7"})
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    modules = {name.split(".", maxsplit=1)[0] for name in tensors}
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0" in modules
    assert "lora_te_text_model_encoder_layers_2_self_attn_q_proj" in modules
    assert all(f"{module}.alpha" in tensors for module in modules)
    assert {(one.shape, float(one)) for name, one in tensors.items() if name.endswith(".alpha")} == {((), 4.0)}
    assert {one.dtype for name, one in tensors.items() if not name.endswith(".alpha")} == {torch.float16}
    assert "lora_adapter_metadata" not in metadata
    hashes = file_hashes(path)
    assert metadata["sshs_model_hash"] == hashes.autov3
    assert metadata["modelspec.hash_sha256"] == f"0x{hashes.autov3}"
    assert metadata["ss_seed"] == "7"


def test_names_of_sdxl_are_those_of_its_own_code(bases: Bases, tmp_path: Path) -> None:
    base = bases["sdxl"]
    network = network_of(base, conv_rank=2)
    network.detach()
    write_adapter(network, base, plan(conv_rank=2), tmp_path / "a.safetensors", {})
    modules = {name.split(".", maxsplit=1)[0] for name in load_file(tmp_path / "a.safetensors")}
    assert "lora_unet_input_blocks_3_1_transformer_blocks_1_attn2_to_k" in modules
    assert "lora_unet_input_blocks_1_0_in_layers_2" in modules
    assert "lora_te1_text_model_encoder_layers_0_mlp_fc1" in modules
    assert "lora_te2_text_model_encoder_layers_0_mlp_fc1" in modules
    assert not any("down_blocks" in module or "up_blocks" in module for module in modules)


def test_flux_is_fused_with_three_times_the_rank(bases: Bases, tmp_path: Path) -> None:
    """q, k, v: down stacked, up block by block, alpha three times; a single block has four in one."""
    base = bases["flux"]
    network = network_of(base)
    network.detach()
    write_adapter(network, base, plan(), tmp_path / "a.safetensors", {}, dtype=torch.float32)
    tensors = load_file(tmp_path / "a.safetensors")
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    up, down = tensors[f"{name}.lora_up.weight"], tensors[f"{name}.lora_down.weight"]
    assert float(tensors[f"{name}.alpha"]) == 6.0
    for piece, part in enumerate("qkv"):
        own = network.adapters["transformer", f"transformer_blocks.0.attn.to_{part}"].parts
        rows, ranks = slice(32 * piece, 32 * piece + 32), slice(4 * piece, 4 * piece + 4)
        assert torch.equal(up[rows, ranks], own["lora_up"])
        assert torch.equal(down[ranks], own["lora_down"])
        assert not up[rows, : ranks.start].any()
        assert not up[rows, ranks.stop :].any()
    assert tensors["lora_unet_single_blocks_0_linear1.lora_down.weight"].shape[0] == 16
    assert float(tensors["lora_unet_single_blocks_0_linear1.alpha"]) == 8.0
    assert {name.split("_")[1] for name in tensors} == {"unet", "te1"}


def test_what_cannot_be_fused_stands_apart(bases: Bases, tmp_path: Path) -> None:
    """A LoKr of q, k and v is no LoKr of one layer: SimpleTuner's names, of diffusers' own layers."""
    for options in ({"algorithm": "lokr", "factor": 4}, {"dora": True}):
        base = bases["flux"]
        network = network_of(base, **options)
        network.detach()
        write_adapter(network, base, plan(**options), tmp_path / "a.safetensors", {})
        modules = {name.split(".", maxsplit=1)[0] for name in load_file(tmp_path / "a.safetensors")}
        assert "lycoris_transformer_blocks_0_attn_to_q" in modules
        assert "lora_te1_text_model_encoder_layers_0_mlp_fc1" in modules
        assert not any("double_blocks" in module for module in modules)


# ---- what goes wrong


def test_broken_numbers_are_refused_and_nothing_is_left(bases: Bases, tmp_path: Path) -> None:
    base = bases["sd15"]
    network = network_of(base)
    network.detach()
    with torch.no_grad():
        next(iter(network.adapters.values())).parts["lora_up"][0, 0] = float("nan")
    with pytest.raises(UserError, match="has diverged: 1 of"):
        write_adapter(network, base, plan(), tmp_path / "a.safetensors", {})
    assert not list(tmp_path.iterdir())


def test_nothing_learned_is_said(bases: Bases, tmp_path: Path) -> None:
    base = bases["sd15"]
    network = Network(base, plan(), generator=torch.Generator().manual_seed(1))
    network.detach()
    with pytest.raises(UserError, match="Nothing was learned"):
        write_adapter(network, base, plan(), tmp_path / "a.safetensors", {})
    assert not list(tmp_path.iterdir())


def test_modules_that_learned_nothing_are_named(bases: Bases, tmp_path: Path) -> None:
    base = bases["sd15"]
    network = network_of(base)
    network.detach()
    key, adapter = next(iter(network.adapters.items()))
    with torch.no_grad():
        adapter.parts["lora_up"].zero_()
    written = write_adapter(network, base, plan(), tmp_path / "a.safetensors", {})
    assert written.zero == ("/".join(key),)
    assert written.norms["/".join(key)] == 0


@pytest.mark.parametrize(("size", "word"), [(1e-4, "would be lost"), (1e6, "too large")])
def test_half_precision_gives_way_where_it_would_lose(size: float, word: str, bases: Bases, tmp_path: Path) -> None:
    """Numbers under or over what 16 bits hold: the file has 32, and says so."""
    base = bases["sd15"]
    network = network_of(base, te_rate=0.0)
    network.detach()
    with torch.no_grad():
        for adapter in network.adapters.values():
            adapter.parts["lora_up"].mul_(size * 1e-3 if size < 1 else size)
    written = write_adapter(network, base, plan(te_rate=0.0), tmp_path / "a.safetensors", {})
    assert written.precision == "F32"
    assert word in " ".join(written.remarks)
    assert written.error < 1e-4


def test_a_file_that_is_not_the_network_is_never_put_in_place(
    bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the exporter were wrong (here: half the strength, or a layer left out) the old file stays."""
    base = bases["flux"]
    network = network_of(base)
    network.detach()
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"the old one")
    true = export.spell

    def weaker(*arguments: Any) -> Any:
        spelled = true(*arguments)
        spelled.tensors["lora_unet_double_blocks_0_img_attn_qkv.alpha"].mul_(0.5)
        return spelled

    def shorter(*arguments: Any) -> Any:
        spelled = true(*arguments)
        for name in [name for name in spelled.tensors if "txt_mlp_2" in name]:
            del spelled.tensors[name]
        return spelled

    for wrong, why in ((weaker, "differs by"), (shorter, "not found again")):
        monkeypatch.setattr(export, "spell", wrong)
        with pytest.raises(UserError, match=why):
            write_adapter(network, base, plan(), path, {})
        assert path.read_bytes() == b"the old one"
        assert [one.name for one in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_same_training_is_the_same_file(bases: Bases, tmp_path: Path) -> None:
    """Byte for byte: metadata have an order."""
    base = bases["sd15"]
    network = network_of(base)
    network.detach()
    metadata = {f"ss_{number}": "x" for number in range(40)}
    digests = set()
    for number in range(2):
        path = tmp_path / f"{number}.safetensors"
        write_adapter(network, base, plan(), path, metadata)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_thumbnail_changes_no_weight(bases: Bases, tmp_path: Path) -> None:
    """Weight id, hashes of the weights and all other metadata stay; the picture is 256 pixels wide."""
    base = bases["sd15"]
    network = network_of(base)
    network.detach()
    path, picture = tmp_path / "a.safetensors", tmp_path / "sample.webp"
    written = write_adapter(network, base, plan(), path, {"ss_output_name": "a"})
    before, hashes = read_header(path), file_hashes(path)
    Image.new("RGB", (300, 200), "teal").save(picture)
    add_thumbnail(path, picture)
    after = read_header(path)
    assert after.metadata.pop("modelspec.thumbnail").startswith("data:image/jpeg;base64,/9j/")
    assert after.metadata == before.metadata
    assert after.tensors == before.tensors
    assert file_hashes(path).autov3 == hashes.autov3
    assert use_of(path).weight_id == written.weight_id
    assert load_file(path).keys() == before.tensors.keys()
    add_thumbnail(path, picture)
    picture.write_bytes(b"no picture")
    with pytest.raises(UserError, match="thumbnail"):
        add_thumbnail(path, picture)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.safetensors", "sample.webp"]


def test_a_packed_base_is_proven_without_its_weights(bases: Bases, tmp_path: Path) -> None:
    """Layers of another class whose weights are packed: the file is still compared, change by change."""

    class Packed(torch.nn.Module):
        def __init__(self, layer: torch.nn.Linear) -> None:
            super().__init__()
            self.in_features, self.out_features, self.bias = layer.in_features, layer.out_features, layer.bias
            self.weight = torch.nn.Parameter((layer.weight * 99).to(torch.int8).flatten()[:, None], requires_grad=False)
            self.shape = layer.weight.shape

        def forward(self, x: Tensor) -> Tensor:
            weight = self.weight.view(self.shape).to(x.dtype) / 99
            return torch.nn.functional.linear(x, weight, self.bias)

    base = bases["z-image"]
    transformer, originals = base.pipe.transformer, {}
    for path, module in list(transformer.named_modules()):
        if path.startswith("layers.") and isinstance(module, torch.nn.Linear):
            originals[path] = module
            transformer.set_submodule(path, Packed(module))
    try:
        for options in ({}, {"algorithm": "ia3"}, {"algorithm": "lokr", "factor": 4}):
            network = network_of(base, **options)
            network.detach()
            written = write_adapter(network, base, plan(**options), tmp_path / "a.safetensors", {})
            assert written.error < 1e-3
            assert written.modules == len(network.adapters) > 2
    finally:
        for path, module in originals.items():
            transformer.set_submodule(path, module)
    assert not read(tmp_path / "a.safetensors", base).unused


def test_what_cannot_be_compared_is_not_taken_for_the_same(
    bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN is neither more nor less than the limit: a comparison that gives it has failed."""
    base = bases["sd15"]
    network = network_of(base)
    drawn(base)
    network.seen["unet"] = (network.seen["unet"][0], {**network.seen["unet"][1]})
    network.seen["unet"][1]["encoder_hidden_states"].fill_(float("nan"))
    with pytest.raises(UserError, match="does not give back"):
        write_adapter(network, base, plan(), tmp_path / "a.safetensors", {})
    network.detach()
    network.seen.clear()
    monkeypatch.setattr(export, "prove", lambda *_: proof.Proof(float("nan"), norms={("unet", "a"): 1.0}))
    with pytest.raises(UserError, match="does not give back"):
        write_adapter(network, base, plan(), tmp_path / "a.safetensors", {})
    assert not list(tmp_path.iterdir())
