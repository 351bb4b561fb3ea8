"""The same rows in the same layers as diffusers' own converters, of checkpoints and of adapters.

Every row of every layer carries a number of its own through the conversion. The converters of checkpoints are the
truth: with a row in a wrong place no model would draw.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from loravault.formats.normal import BaseNames, Place, base_names
from tests.formats.derive import MODELS
from tests.formats.normal import bases
from tests.formats.normal.derive import BASES
from tests.formats.normal.originals import originals

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


@cache
def names_of(base: str) -> BaseNames:
    return base_names(bases.layers(base), bases.family(base))


def numbered(base: str) -> dict[str, Any]:
    """Original name → a column of numbers that no other row of the base has."""
    import torch

    result, begin = {}, 1
    for name, places in originals(base).items():
        rows = sum(map(names_of(base).rows, places))
        result[name] = torch.arange(begin, begin + rows, dtype=torch.float64).reshape(-1, 1)
        begin += rows
    return result


def placed(base: str, columns: dict[str, Any]) -> dict[str, Any]:
    """Module → its rows, as our places of these original names distribute them; -1 where nothing comes."""
    import torch

    names, component = names_of(base), bases.denoiser(base)
    result: dict[str, Any] = {}
    for name, column in columns.items():
        begin = 0
        for one in names.find(component, name.replace(".", "_")):
            size = names.layers[component, one.module][0]
            whole = result.setdefault(one.module, torch.full((size, 1), -1.0, dtype=torch.float64))
            first, last = one.rows or (0, size)
            whole[first:last] = column[begin : begin + last - first]
            begin += last - first
        assert begin == len(column), name
    return result


class Checkpoint(dict[str, Any]):
    """A checkpoint that has whatever a converter asks for beside the layers in question."""

    def __init__(self, tensors: dict[str, Any]) -> None:
        super().__init__(tensors)
        self.rows = {name: len(tensor) for name, tensor in tensors.items()}

    def pop(self, key: str, *default: Any) -> Any:
        import torch

        weight = key.removesuffix(".bias") + ".weight"
        return super().pop(key, torch.zeros(self.rows.get(weight, 2), dtype=torch.float64))


_CHECKPOINTS = {
    "sd3 medium": "convert_sd3_transformer_checkpoint_to_diffusers",
    "sd3 3.5-medium": "convert_sd3_transformer_checkpoint_to_diffusers",
    "sd3 3.5-large": "convert_sd3_transformer_checkpoint_to_diffusers",
    "flux": "convert_flux_transformer_checkpoint_to_diffusers",
    "chroma": "convert_chroma_transformer_checkpoint_to_diffusers",
    "flux2 klein-4b": "convert_flux2_transformer_checkpoint_to_diffusers",
    "z-image": "convert_z_image_transformer_checkpoint_to_diffusers",
    "anima 2b": "convert_cosmos_transformer_checkpoint_to_diffusers",
}


@pytest.mark.parametrize("base", _CHECKPOINTS)
def test_transformers_have_their_rows_where_the_converter_puts_them(base: str) -> None:
    from diffusers.loaders import single_file_utils

    columns = numbered(base)
    ours = placed(base, columns)
    convert = getattr(single_file_utils, _CHECKPOINTS[base])
    theirs = convert(Checkpoint({f"{name}.weight": column for name, column in columns.items()}))
    _same(ours, {name.removesuffix(".weight"): value for name, value in theirs.items() if name.endswith(".weight")})
    assert set(ours) == set(bases.trainable(base, "transformer"))


@pytest.mark.parametrize("base", ["sd15", "sd2", "sdxl"])
def test_unets_have_their_rows_where_the_converter_puts_them(base: str) -> None:
    import diffusers
    import torch
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    family, _, variant = base.partition(" ")
    with torch.device("meta"):
        config = dict(diffusers.UNet2DConditionModel(**MODELS[family, variant or None][1]).config)
    columns = numbered(base)
    checkpoint = {f"{name}.weight": column for name, column in columns.items()} | {"out.0.weight": torch.zeros(2)}
    checkpoint |= {name.replace(".weight", ".bias"): torch.zeros(2) for name in checkpoint}
    checkpoint = {f"model.diffusion_model.{name}": tensor for name, tensor in checkpoint.items()}
    theirs = convert_ldm_unet_checkpoint(checkpoint, config)
    ours = placed(base, columns)
    _same(ours, {name.removesuffix(".weight"): value for name, value in theirs.items() if name.endswith(".weight")})
    assert set(ours) == set(bases.trainable(base, "unet"))


def _same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    import torch

    wrong = [module for module, rows in ours.items() if module not in theirs or not torch.equal(rows, theirs[module])]
    assert wrong == []


def _kohya(columns: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Names → tensors of an adapter of rank 1 whose second matrix has the numbers."""
    import torch

    tensors = {}
    for name, column in columns.items():
        module = prefix + (name if prefix.endswith(".") else name.replace(".", "_"))
        tensors[f"{module}.lora_down.weight"] = torch.ones(1, 1, dtype=torch.float64)
        tensors[f"{module}.lora_up.weight"] = column
        tensors[f"{module}.alpha"] = torch.tensor(1.0, dtype=torch.float64)
    return tensors


def _peft(columns: dict[str, Any], prefix: str) -> dict[str, Any]:
    tensors = {}
    for name, tensor in _kohya(columns, prefix + ".").items():
        if not name.endswith(".alpha"):
            renamed = name.removeprefix(".").replace("lora_down", "lora_A").replace("lora_up", "lora_B")
            tensors[renamed] = tensor
    return tensors


def _dotted_peft(columns: dict[str, Any]) -> dict[str, Any]:
    return {name.lstrip("."): tensor for name, tensor in _peft(columns, "").items()}


_ADAPTERS: dict[str, tuple[str, str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "kohya flux": ("flux", "_convert_kohya_flux_lora_to_diffusers", lambda rows: _kohya(rows, "lora_unet_")),
    "bfl control": ("flux", "_convert_bfl_flux_control_lora_to_diffusers", _dotted_peft),
    "kohya flux2": ("flux2 klein-4b", "_convert_kohya_flux2_lora_to_diffusers",
                    lambda rows: _kohya(rows, "lora_unet_")),
    "ai-toolkit flux2": ("flux2 klein-4b", "_convert_non_diffusers_flux2_lora_to_diffusers",
                         lambda rows: _peft(rows, "diffusion_model")),
    "kohya z-image": ("z-image", "_convert_non_diffusers_z_image_lora_to_diffusers",
                      lambda rows: _kohya(rows, "lora_unet_")),
    "kohya qwen": ("qwen-image", "_convert_non_diffusers_qwen_lora_to_diffusers",
                   lambda rows: _kohya(rows, "lora_unet_")),
    "comfyui anima": ("anima 2b", "_convert_non_diffusers_anima_lora_to_diffusers",
                      lambda rows: _peft(rows, "diffusion_model")),
}  # fmt: skip


@pytest.mark.parametrize("case", _ADAPTERS)
def test_adapters_have_their_rows_where_the_converter_puts_them(case: str) -> None:
    from diffusers.loaders import lora_conversion_utils

    base, function, spell = _ADAPTERS[case]
    columns = numbered(base)
    tensors = spell(columns)
    if case == "bfl control":  # it swaps halves of the first matrix too, and asks for norms
        first = "final_layer.adaLN_modulation.1.lora_A.weight"
        tensors = Checkpoint(tensors | {first: tensors[first].repeat(2, 1)})
    theirs = {
        re.sub(r"^transformer\.", "", name).removesuffix(".lora_B.weight"): tensor
        for name, tensor in getattr(lora_conversion_utils, function)(tensors).items()
        if name.endswith(".lora_B.weight")
    }
    ours = placed(base, columns)
    for module in _known_faults(case):
        del ours[module]
    assert set(ours) <= set(theirs), set(ours) - set(theirs)
    _same(ours, theirs)


def _known_faults(case: str) -> tuple[str, ...]:
    """Where the converter of adapters contradicts the converter of the checkpoint they were trained on."""
    if case == "ai-toolkit flux2":
        return ("norm_out.linear",)  # not swapped
    if case == "kohya z-image":  # keeps the names that the model in diffusers does not have
        final = "all_final_layer.2-1"
        return ("all_x_embedder.2-1", f"{final}.linear", f"{final}.adaLN_modulation.1")
    if case == "kohya flux2":  # lost, with a warning
        return ("norm_out.linear", *_flux2_lost())
    return ()


def _flux2_lost() -> tuple[str, ...]:
    guidance = [f"time_guidance_embed.guidance_embedder.linear_{number}" for number in (1, 2)]
    streams = ["double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation"]
    return (*guidance, *(f"{stream}.linear" for stream in streams))


def test_diffusers_forgets_to_swap_an_adapter_of_flux2s_last_modulation() -> None:
    """diffusers 0.42: its weights are swapped when the checkpoint is read, an adapter's rows for them are not."""
    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_flux2_lora_to_diffusers as convert

    base, name = "flux2 klein-4b", "final_layer.adaLN_modulation.1"
    columns = {name: numbered(base)[name]}
    theirs = convert(_peft(columns, "diffusion_model"))["transformer.norm_out.linear.lora_B.weight"]
    ours = placed(base, columns)["norm_out.linear"]
    assert theirs.tolist() == columns[name].tolist()
    assert ours.tolist() == [*columns[name][3072:].tolist(), *columns[name][:3072].tolist()]


def test_xlabs_adapters_have_their_rows_where_the_converter_puts_them() -> None:
    import torch
    from diffusers.loaders.lora_conversion_utils import _convert_xlabs_flux_lora_to_diffusers

    sizes = {
        f"double_blocks.{block}.processor.{name}": rows
        for block in (0, 18)
        for name, rows in (("qkv_lora1", 9216), ("qkv_lora2", 9216), ("proj_lora1", 3072), ("proj_lora2", 3072))
    }
    sizes |= {"single_blocks.37.processor.qkv_lora": 9216, "single_blocks.37.processor.proj_lora": 3072}
    columns = {
        name: torch.arange(rows, dtype=torch.float64).reshape(-1, 1) + 10_000 * number
        for number, (name, rows) in enumerate(sizes.items())
    }
    tensors = {f"{name}.up.weight": column for name, column in columns.items()}
    tensors |= {f"{name}.down.weight": torch.ones(1, 1) for name in columns}
    theirs = _convert_xlabs_flux_lora_to_diffusers(tensors)
    renamed = {re.sub(r"_lora1?$", "", name.replace("_lora2", "_2")): column for name, column in columns.items()}
    _same(placed("flux", renamed), {
        name.removeprefix("transformer.").removesuffix(".lora_B.weight"): tensor
        for name, tensor in theirs.items() if name.endswith(".lora_B.weight")
    })  # fmt: skip


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_kohya_adapters_of_unets_go_to_the_modules_the_converter_names(base: str) -> None:
    from types import SimpleNamespace

    from diffusers.loaders.lora_conversion_utils import (
        _convert_non_diffusers_lora_to_diffusers,
        _maybe_map_sgm_blocks_to_diffusers,
    )

    columns = numbered(base) if base == "sdxl" else _diffusers_columns(base)
    tensors = _kohya(columns, "lora_unet_")
    if base == "sdxl":
        tensors = _maybe_map_sgm_blocks_to_diffusers(tensors, SimpleNamespace(layers_per_block=2))
    converted, _ = _convert_non_diffusers_lora_to_diffusers(tensors)
    theirs = {_plain(name): tensor for name, tensor in converted.items() if ".up." in name}
    ours = placed(base, columns)
    assert set(ours) == set(theirs)
    _same(ours, theirs)


def _diffusers_columns(base: str) -> dict[str, Any]:
    import torch

    modules = bases.trainable(base, bases.denoiser(base))
    return {
        module: torch.arange(shape[0], dtype=torch.float64).reshape(-1, 1) + 100_000 * number
        for number, (module, shape) in enumerate(modules.items())
    }


def _plain(name: str) -> str:
    """`unet.….attn1.processor.to_out_lora.up.weight` → `….attn1.to_out.0`."""
    path = re.sub(r"_?\.?lora\.up\.weight$", "", name.removeprefix("unet."))
    return re.sub(r"\.to_out$", ".to_out.0", path.replace(".processor", ""))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_layers_the_tests_are_made_of_are_those_of_the_installed_diffusers() -> None:
    """`bases.json` is written by a script; a newer diffusers with other layers must not go unseen."""
    from tests.formats.normal.derive import models

    installed = models()
    for base, (_, encoders) in BASES.items():
        for component, name in zip(("unet", "transformer"), (base, base), strict=True):
            mine = {module: shape for (where, module), shape in bases.layers(base).items() if where == component}
            assert mine in ({}, installed[name])
        for component, name in zip(("text_encoder", "text_encoder_2", "text_encoder_3"), encoders, strict=False):
            mine = {module: shape for (where, module), shape in bases.layers(base).items() if where == component}
            assert mine == installed[name]


def test_a_place_is_told_by_component_module_and_rows() -> None:
    assert names_of("flux").find("transformer", "double_blocks_0_img_attn_proj") == (
        Place("transformer", "transformer_blocks.0.attn.to_out.0"),
    )
