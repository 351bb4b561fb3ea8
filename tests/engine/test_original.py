"""The configurations that come with loravault and the conversion fit each other at full size, without a weight."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
import transformers
from accelerate import init_empty_weights
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

from loravault.engine.bases import original as ours
from loravault.engine.families import FAMILIES
from loravault.resources import base_parts
from tests import original

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]

Tensors = dict[str, torch.Tensor]


def model_of(config: str, name: str) -> Any:
    folder = base_parts() / "configs" / config
    part = FAMILIES[json.loads((folder / "model_index.json").read_text())["_class_name"]].parts[name]
    kind = getattr(diffusers if part.library == "diffusers" else transformers, part.kind)
    with init_empty_weights():
        if part.library == "diffusers":
            return kind.from_config(kind.load_config(str(folder / name)))
        return kind(kind.config_class.from_pretrained(str(folder / name)))


def unet(model: Any, tensors: Tensors) -> Tensors:
    named = {f"model.diffusion_model.{name}": tensor for name, tensor in original.unet(tensors).items()}
    return dict(convert_ldm_unet_checkpoint(named, config=dict(model.config)))


def vae(model: Any, tensors: Tensors) -> Tensors:
    named = {f"first_stage_model.{name}": tensor for name, tensor in original.vae(tensors).items()}
    return dict(convert_ldm_vae_checkpoint(named, config=dict(model.config)))


def flux(_model: Any, tensors: Tensors) -> Tensors:
    return ours.flux(original.flux(tensors))


def t5(_model: Any, tensors: Tensors) -> Tensors:
    return ours.t5(original.t5(tensors))


def clip(model: Any, tensors: Tensors) -> Tensors:
    return ours.clip(original.clip(tensors), wrapped=hasattr(model, "text_model"))


def open_clip(model: Any, tensors: Tensors) -> Tensors:
    return ours.clip(original.open_clip(tensors), wrapped=hasattr(model, "text_model"))


@pytest.mark.parametrize(
    ("config", "name", "convert"),
    [
        ("sd15", "unet", unet), ("sd15", "vae", vae), ("sd15", "text_encoder", clip),
        ("sd2", "unet", unet), ("sd2", "text_encoder", open_clip),
        ("sdxl", "unet", unet), ("sdxl", "text_encoder", clip), ("sdxl", "text_encoder_2", open_clip),
        ("sd3-medium", "vae", vae), ("sd3.5-large", "text_encoder_2", clip),
        ("flux-dev", "transformer", flux), ("flux-schnell", "transformer", flux), ("flux-dev", "text_encoder_2", t5),
        ("chroma", "transformer", flux),
    ],
)  # fmt: skip
def test_every_tensor_of_the_published_size_has_its_place(
    config: str, name: str, convert: Callable[[Any, Tensors], Tensors]
) -> None:
    """A model of this configuration, written as its authors do, comes back whole and in the same shapes."""
    model = model_of(config, name)
    tensors = {key: torch.empty(tensor.shape, device="meta") for key, tensor in model.state_dict().items()}
    found = convert(model, tensors)
    assert {key: tuple(found[key].shape) for key in tensors} == {key: tuple(one.shape) for key, one in tensors.items()}


def test_a_clip_is_understood_in_all_its_spellings() -> None:
    """Old checkpoints leave `text_model` out, and so does transformers since 5.6 in one of two models."""
    tensor = torch.zeros(2, 2)
    for name in ("text_model.encoder.x.weight", "encoder.x.weight"):
        assert set(ours.clip({name: tensor}, wrapped=True)) == {"text_model.encoder.x.weight"}
        assert set(ours.clip({name: tensor}, wrapped=False)) == {"encoder.x.weight"}
    assert set(ours.clip({"text_projection.weight": tensor}, wrapped=True)) == {"text_projection.weight"}


def test_a_flux_in_the_names_of_diffusers_stays_as_it_is() -> None:
    tensors = {"x_embedder.weight": torch.zeros(1), "proj_out.weight": torch.zeros(1)}
    assert ours.flux(tensors) == tensors
