"""Files that cannot be applied are refused in words, before a weight is touched."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from loravault.engine.adapters import describe_unused, load_adapter
from loravault.engine.apply import Patcher, Strength
from loravault.engine.bases import Base, load_base
from loravault.engine.devices import choose_device
from loravault.errors import UserError
from loravault.formats.generation import AdapterUse, BaseRef
from loravault.formats.hashes import file_hashes
from loravault.formats.normal import Place
from tests.tiny import PARTS, WIDTH, Part, make_adapter, make_base, use_of
from tests.tiny_families import make_family

pytestmark = pytest.mark.engine

K = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
Q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_q"


@pytest.fixture(scope="module")
def base(tiny: BaseRef) -> Base:
    return load_base(tiny, choose_device("cpu"))


def refusal(path: Path, base: Base, use: AdapterUse | None = None) -> str:
    before = [module.weight.data_ptr() for module in base.modules.values()]
    with pytest.raises(UserError) as caught:
        load_adapter(use or use_of(path), base)
    assert [module.weight.data_ptr() for module in base.modules.values()] == before
    assert "\n" not in caught.value.message
    return caught.value.message


def test_an_adapter_of_another_family_is_named_by_its_family(base: Base, tmp_path: Path) -> None:
    """SD 1.5 and SD 2 modules have the demo's names; only the width of cross-attention tells."""
    path = tmp_path / "ghibli.safetensors"
    for width, family in ((768, "sd15"), (1024, "sd2")):
        make_adapter(path, {K: Part((32, width)), Q: Part((32, 32))})
        text = refusal(path, base)
        assert f"“ghibli” is made for {family}, the base “tiny” is tiny" in text
        assert "1 of its 2 modules have other shapes" in text


def test_an_adapter_without_any_module_of_this_base_is_named_by_its_family(base: Base, tmp_path: Path) -> None:
    path = tmp_path / "flux.safetensors"
    make_adapter(path, {"lora_unet_double_blocks_0_img_attn_proj": Part((3072, 3072))})
    assert "is made for flux, the base “tiny” is tiny: no module of it fits" in refusal(path, base)


def test_an_adapter_of_no_known_family_that_does_not_fit(base: Base, tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    make_adapter(path, {K: Part((32, WIDTH + 1))})
    assert f"1 of its 1 modules are incomplete or have other shapes (first: {K})" in refusal(path, base)


@pytest.mark.parametrize(
    ("up", "down", "alpha"),
    [
        ((32, 4), (5, WIDTH), ()),
        ((32, 4), (4, WIDTH, 3, 3), ()),
        ((32, 4, 3, 3), (4, WIDTH, 1, 1), ()),
        ((33, 4), (4, WIDTH), ()),
        ((32,), (4, WIDTH), ()),
        ((32, 0), (0, WIDTH), ()),
        ((32, 4), (4, WIDTH), (7,)),
    ],
)
def test_shapes_that_do_not_multiply_are_refused(
    base: Base, tmp_path: Path, up: tuple[int, ...], down: tuple[int, ...], alpha: tuple[int, ...]
) -> None:
    path = tmp_path / "bent.safetensors"
    tensors = {f"{K}.lora_up.weight": torch.ones(up), f"{K}.lora_down.weight": torch.ones(down)}
    save_file({**tensors, f"{K}.alpha": torch.ones(alpha)}, path)
    assert "bent" in refusal(path, base)


def test_half_a_module_is_refused(base: Base, tmp_path: Path) -> None:
    """A file that lost tensors on its way would be applied at less than it says."""
    path = tmp_path / "half.safetensors"
    make_adapter(path, {Q: Part((32, 32))}, extra={f"{K}.lora_down.weight": torch.ones(4, WIDTH)})
    assert "one of its modules has only one of the two matrices of a LoRA" in refusal(path, base)


def test_two_algorithms_in_one_module_are_refused(base: Base, tmp_path: Path) -> None:
    path = tmp_path / "both.safetensors"
    make_adapter(path, {K: Part((32, WIDTH))}, extra={f"{K}.lokr_w1": torch.ones(4, 4)})
    assert load_adapter(use_of(path), base).unused == (f"{K}.lokr_w1",)
    extra = {f"{K}.diff": torch.ones(32, WIDTH), f"{K}.set_weight": torch.ones(32, WIDTH)}
    save_file(extra, path)
    assert "are incomplete or have other shapes" in refusal(path, base)


def test_ia3_whose_own_word_contradicts_its_shape_is_refused(base: Base, tmp_path: Path) -> None:
    """Whether inputs are meant is a number in the file: the header alone does not tell that it cannot be."""
    path = tmp_path / "scaled.safetensors"
    save_file({f"{K}.weight": torch.ones(WIDTH), f"{K}.on_input": torch.tensor(False)}, path)
    assert f"its module “{K}” is made for {WIDTH} outputs, the layer of the base is 32×{WIDTH}" in refusal(path, base)
    save_file({f"{K}.weight": torch.ones(WIDTH), f"{K}.on_input": torch.tensor(True)}, path)
    assert len(load_adapter(use_of(path), base).changes) == 1


def test_a_number_format_without_arithmetic_is_refused(base: Base, tmp_path: Path) -> None:
    path = tmp_path / "whole.safetensors"
    tensors = make_adapter(path, {K: Part((32, WIDTH))})
    save_file({name: tensor.to(torch.int32) for name, tensor in tensors.items()}, path)
    assert "“whole” cannot be used: its module" in refusal(path, base)


def test_what_fits_by_its_text_encoder_alone_is_of_another_family(tmp_path: Path) -> None:
    """CLIP is the same in several families: applied there only, an adapter of another would do next to nothing."""
    wide = load_base(replace(make_base(tmp_path / "wide", width=768), family="sd15"), choose_device("cpu"))
    path = tmp_path / "flux.safetensors"
    names = [f"lora_unet_double_blocks_{n}_img_attn_proj" for n in range(3)]
    text = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
    make_adapter(path, {text: Part((768, 768)), **{name: Part((3072, 3072), rank=1) for name in names}})
    assert "is made for flux, the base “wide” is sd15: 3 of its 4 modules have no place there" in refusal(path, wide)


def test_a_whole_model_is_no_adapter(base: Base, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.ones(4, 4)}, path)
    assert "it is not a LoRA" in refusal(path, base)


def test_unused_keys_are_counted_and_told(base: Base, tmp_path: Path) -> None:
    path = tmp_path / "ink.safetensors"
    extra = {"lora_unet_conv_nowhere.lora_down.weight": torch.ones(2, 2), "something_else": torch.ones(1)}
    make_adapter(path, {K: Part((32, WIDTH))}, extra=extra)
    adapter = load_adapter(use_of(path), base)
    assert adapter.unused == ("lora_unet_conv_nowhere.lora_down.weight", "something_else")
    sentence = describe_unused("ink", adapter, base)
    assert sentence is not None
    assert sentence.startswith("2 of the 5 tensors of “ink” have no place in the base “tiny” and were not used")
    make_adapter(path, {K: Part((32, WIDTH))})
    assert describe_unused("ink", load_adapter(use_of(path), base), base) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["lora_up.weight", "lora_down.weight"])
def test_nan_and_infinity_are_told_and_never_merged(base: Base, tmp_path: Path, value: float, part: str) -> None:
    path = tmp_path / "burnt.safetensors"
    tensors = make_adapter(path, PARTS)
    tensors[f"{K}.{part}"].view(-1)[0] = value
    save_file(tensors, path)
    text = refusal(path, base)
    assert "“burnt” is damaged: 1 of its modules hold NaN or infinite numbers" in text
    assert "Get the file again" in text


def test_an_alpha_that_is_no_number_is_told(base: Base, tmp_path: Path) -> None:
    path = tmp_path / "burnt.safetensors"
    tensors = make_adapter(path, PARTS)
    save_file({**tensors, f"{K}.alpha": torch.tensor(float("nan"))}, path)
    assert f"“burnt” cannot be used: its module “{K}” has nan as alpha, which is no amount" in refusal(path, base)


def test_an_adapter_of_zeros_is_known_to_change_nothing(base: Base, tmp_path: Path) -> None:
    make_adapter(tmp_path / "zero.safetensors", {K: Part((32, WIDTH))}, size=0.0)
    assert load_adapter(use_of(tmp_path / "zero.safetensors"), base).void


def test_a_file_that_was_replaced_since_it_was_indexed_is_refused(base: Base, tmp_path: Path) -> None:
    path = tmp_path / "ink.safetensors"
    make_adapter(path, seed=1)
    use = use_of(path)
    make_adapter(path, seed=2)
    assert "is another one by now. Run the note again." in refusal(path, base, use)


def test_a_file_that_is_gone_or_a_folder(base: Base, tmp_path: Path) -> None:
    use = AdapterUse(name="ink", path=str(tmp_path / "gone.safetensors"), weight_id="w1-0", te=1, unet=1)
    assert "“ink” cannot be read: No such file or directory. Is its drive there?" in refusal(tmp_path, base, use)
    assert "cannot be read" in refusal(tmp_path, base, replace(use, path=str(tmp_path)))


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.1, 0.6, 0.999])
def test_a_truncated_file_is_refused_wherever_it_was_cut(base: Base, tmp_path: Path, keep: float) -> None:
    path = tmp_path / "cut.safetensors"
    make_adapter(path)
    use = use_of(path)
    os.truncate(path, int(path.stat().st_size * keep))
    assert "“cut” cannot be used: " in refusal(path, base, use)


def test_a_pickle_is_never_opened(base: Base, tmp_path: Path) -> None:
    """Neither a bare pickle nor torch's zip: the trap would leave a file behind."""

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    bare, zipped = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    bare.write_bytes(pickle.dumps(Trap(), protocol=2))
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Trap(), protocol=2))
    for path in (bare, zipped):
        use = AdapterUse(name="evil", path=str(path), weight_id="w1-0", te=1, unet=1)
        assert "pickles are never opened" in refusal(path, base, use)
    assert not (tmp_path / "sprung").exists()
    pickle.loads(bare.read_bytes())
    assert (tmp_path / "sprung").exists(), "the trap works"


def test_a_linear_adapter_fits_a_pointwise_convolution(base: Base, tmp_path: Path) -> None:
    """`proj_in` is a 1×1 convolution in SD 1 and a linear layer in SD 2; trainers write either."""
    path = tmp_path / "linear.safetensors"
    make_adapter(path, {"lora_unet_mid_block_attentions_0_proj_in": Part((64, 64))})
    (change,) = load_adapter(use_of(path), base).changes
    assert change.places == (Place("unet", "mid_block.attentions.0.proj_in"),)
    weight = base.modules["unet", "mid_block.attentions.0.proj_in"].weight
    assert change.delta.change(weight, 1.0).shape == (64, 64, 1, 1)  # type: ignore[arg-type]


def test_the_hashes_are_those_of_the_bytes_that_were_read(base: Base, tmp_path: Path) -> None:
    """Computed behind what follows, from memory: the file may be another one by then."""
    path = tmp_path / "ink.safetensors"
    make_adapter(path)
    known = file_hashes(path)
    adapter = load_adapter(use_of(path), base)
    path.unlink()
    found = adapter.hashes
    assert (found.sha256, found.autov2, found.autov3) == (known.sha256, known.autov2, known.autov3)


@pytest.mark.parametrize("bad", [False, True])
def test_tensors_that_begin_at_odd_bytes_are_read(base: Base, tmp_path: Path, bad: bool) -> None:
    """The format does not promise that numbers are aligned; a view of memory would need it. NaN is seen there, too."""
    path = tmp_path / "odd.safetensors"
    tensors = make_adapter(path, {K: Part((32, WIDTH))})
    if bad:
        tensors[f"{K}.lora_up.weight"][3, 1] = float("nan")
    rows, data = {}, b""
    for name, tensor in {"odd": torch.ones(1, dtype=torch.uint8), **tensors}.items():
        raw = tensor.numpy().tobytes()
        kind = "U8" if name == "odd" else "F32"
        rows[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    header = json.dumps(rows).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    if bad:
        assert "1 of its modules hold NaN" in refusal(path, base)
        return
    (change,) = load_adapter(use_of(path), base).changes
    assert torch.equal(change.delta.tensors[0], tensors[f"{K}.lora_up.weight"])


@pytest.mark.parametrize("part", ["lora_up.weight", "lora_down.weight"])
def test_nan_is_seen_where_halves_have_formats_of_their_own(base: Base, tmp_path: Path, part: str) -> None:
    """One look at all of memory in one format would see nothing in the other."""
    path = tmp_path / "mixed.safetensors"
    tensors = make_adapter(path, {K: Part((32, WIDTH))})
    tensors[f"{K}.{part}"][0, 0] = float("nan")
    tensors[f"{K}.lora_down.weight"] = tensors[f"{K}.lora_down.weight"].half()
    save_file(tensors, path)
    assert "1 of its modules hold NaN" in refusal(path, base)


def test_a_bias_where_a_layer_can_have_none_is_counted_as_unused(tmp_path: Path) -> None:
    base = load_base(make_family(tmp_path / "flux", "flux"), choose_device("cpu"))
    path, norm = tmp_path / "norms.safetensors", "transformer.transformer_blocks.0.attn.norm_q"
    save_file({f"{norm}.w_norm": torch.ones(16), f"{norm}.b_norm": torch.ones(16)}, path)
    adapter = load_adapter(use_of(path), base)
    assert adapter.unused == (f"{norm}.b_norm",)
    Patcher(base.modules).apply([Strength(adapter, te=1.0, unet=1.0)])
    assert float(base.modules["transformer", "transformer_blocks.0.attn.norm_q"].weight.mean()) == 2.0


def test_a_transformer_goes_by_the_names_of_its_pipeline_whatever_the_base_is_called(tmp_path: Path) -> None:
    """A family that has no table of its own would leave every fused layer without a place."""
    ref = replace(make_family(tmp_path / "kontext", "flux"), family="kontext")
    base, path = load_base(ref, choose_device("cpu")), tmp_path / "ink.safetensors"
    make_adapter(path, {"lora_unet_double_blocks_0_img_attn_qkv": Part((96, 32))})
    (change,) = load_adapter(use_of(path), base).changes
    assert [one.module for one in change.places] == [f"transformer_blocks.0.attn.to_{name}" for name in "qkv"]
