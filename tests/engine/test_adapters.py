"""Files that cannot be applied are refused in words, before a weight is touched."""

from __future__ import annotations

import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from loravault.engine.adapters import describe_unused, load_adapter
from loravault.engine.bases import Base, load_base
from loravault.engine.devices import choose_device
from loravault.errors import UserError
from loravault.formats.generation import AdapterUse, BaseRef
from tests.tiny import PARTS, WIDTH, Part, make_adapter, use_of

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
    assert "1 of its 1 modules have other shapes (first: down_blocks_0" in refusal(path, base)


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


def test_other_algorithms_are_named_and_refused(base: Base, tmp_path: Path) -> None:
    """Applied as plain LoRA a DoRA gives a wrong picture without a word."""
    loha = tmp_path / "loha.safetensors"
    save_file({f"{K}.hada_w{n}_{ab}": torch.ones(4, 4) for n in (1, 2) for ab in "ab"}, loha)
    assert "of the kind loha, which this version cannot apply yet" in refusal(loha, base)
    dora = tmp_path / "dora.safetensors"
    make_adapter(dora, {K: Part((32, WIDTH))}, extra={f"{K}.dora_scale": torch.ones(32, 1)})
    assert "of the kind dora" in refusal(dora, base)


def test_peft_names_are_refused_in_words(base: Base, tmp_path: Path) -> None:
    path = tmp_path / "peft.safetensors"
    stem = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    save_file({f"{stem}.lora_A.weight": torch.ones(4, WIDTH), f"{stem}.lora_B.weight": torch.ones(32, 4)}, path)
    assert "names its tensors as PEFT or diffusers does" in refusal(path, base)


def test_a_whole_model_is_no_adapter(base: Base, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.ones(4, 4)}, path)
    assert "it is not an adapter" in refusal(path, base)


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
@pytest.mark.parametrize("part", ["lora_up.weight", "lora_down.weight", "alpha"])
def test_nan_and_infinity_are_told_and_never_merged(base: Base, tmp_path: Path, value: float, part: str) -> None:
    path = tmp_path / "burnt.safetensors"
    tensors = make_adapter(path, PARTS)
    tensors[f"{K}.{part}"].view(-1)[0] = value
    save_file(tensors, path)
    text = refusal(path, base)
    assert "“burnt” is damaged: 1 of its modules hold NaN or infinite numbers" in text
    assert "Get the file again" in text


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
    ((key, factors),) = load_adapter(use_of(path), base).factors.items()
    assert factors.delta(base.modules[key].weight).shape == (64, 64, 1, 1)  # type: ignore[arg-type]
