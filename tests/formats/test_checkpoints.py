"""What a file in a checkpoint folder is, is told from its tensors; what is not known is refused, not called SD 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.formats.checkpoints import Checkpoint, classify
from loravault.formats.safetensors_header import Header, read_header
from loravault.formats.tensor_table import TensorInfo
from tests import checkpoint_files as files
from tests.checkpoint_files import Shapes, write

UNET = {"unet", "vae", "text_encoder"}
CLIPS = {"transformer", "text_encoder", "text_encoder_2"}


def told(shapes: Shapes, folder: Path, metadata: dict[str, str] | None = None) -> Checkpoint:
    return classify(read_header(write(folder / "x.safetensors", shapes, metadata)))


@pytest.mark.parametrize(
    ("shapes", "kind", "family", "variant", "config", "parts"),
    [
        (files.SD15, "checkpoint", "sd15", None, "sd15", UNET),
        (files.SD2, "checkpoint", "sd2", None, "sd2", UNET),
        (files.SDXL, "checkpoint", "sdxl", None, "sdxl", {*UNET, "text_encoder_2"}),
        (files.unet(2048, prefix=""), "denoiser", "sdxl", None, "sdxl", {"unet"}),
        (files.SD3, "checkpoint", "sd3", "medium", "sd3-medium", {*CLIPS, "vae"}),
        (files.sd3(24, dual=True), "denoiser", "sd3", "3.5-medium", "sd3.5-medium", {"transformer"}),
        (files.sd3(38), "denoiser", "sd3", "3.5-large", "sd3.5-large", {"transformer"}),
        (files.flux(), "denoiser", "flux", "dev", "flux-dev", {"transformer"}),
        (files.flux(dev=False), "denoiser", "flux", "schnell", "flux-schnell", {"transformer"}),
        (
            {**files.flux(prefix="model.diffusion_model."), "text_encoders.t5xxl.transformer.x": (1,), "vae.x": (1,)},
            "checkpoint", "flux", "dev", "flux-dev", {"transformer", "vae", "text_encoder_2"},
        ),
        (files.flux(dev=False, chroma=True), "denoiser", "chroma", None, "chroma", {"transformer"}),
        (
            {"single_transformer_blocks.0.attn.to_q.weight": (8, 8), "x_embedder.weight": (8, 64)},
            "denoiser", "flux", "schnell", "flux-schnell", {"transformer"},
        ),
    ],
)  # fmt: skip
def test_bases(  # noqa: PLR0917
    shapes: Shapes, kind: str, family: str, variant: str | None, config: str, parts: set[str], tmp_path: Path
) -> None:
    found = told(shapes, tmp_path)
    assert (found.kind, found.family, found.variant, found.config) == (kind, family, variant, config)
    assert found.parts == parts
    assert found.problem is None


@pytest.mark.parametrize(
    ("shapes", "kind", "role"),
    [
        (files.VAE, "vae", "vae-4"),
        ({f"first_stage_model.{name}": shape for name, shape in files.VAE_16.items()}, "vae", "vae-16"),
        (files.CLIP_L, "encoder", "clip-l"),
        (files.CLIP_G, "encoder", "clip-g"),
        (files.T5_XXL, "encoder", "t5-xxl"),
    ],
)
def test_parts(shapes: Shapes, kind: str, role: str, tmp_path: Path) -> None:
    found = told(shapes, tmp_path)
    assert (found.kind, found.role, found.problem) == (kind, role, None)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (files.unet(768, into=9), "it is for inpainting or editing"),
        (files.unet(777), "of no family that is known here"),
        ({**files.unet(1280), "conditioner.embedders.0.model.x": (1,)}, "it is the SDXL refiner"),
        ({**files.unet(2048), "edm_mean": (1,)}, "trained with EDM"),
        (files.flux(into=384), "it is Flux.1 Fill"),
        (files.flux(into=128), "it is Flux.1 Depth or Canny"),
        ({"single_stream_modulation.lin.weight": (8, 8)}, "it is Flux.2 as a single file"),
        ({"cap_embedder.0.weight": (8,)}, "it is Z-Image or Lumina 2 as a single file"),
        ({"transformer_blocks.0.img_mod.1.weight": (8, 8)}, "it is Qwen-Image as a single file"),
        ({"head.modulation": (8, 8)}, "it is Wan, which is not drawn with yet"),
        ({**files.flux(), "scaled_fp8": (1,)}, "fp8 with scales beside them"),
        ({**files.flux(), "x.quant_state.bitsandbytes__nf4": (1,)}, "packed into 4 bits"),
        ({**files.flux(), "x.qweight": (8, 8)}, "Nunchaku or GPTQ"),
        ({"model.diffusion_model.what.weight": (8, 8)}, "a checkpoint of a model that is not known here"),
        ({"decoder.conv_in.weight": (8, 32, 3, 3), "decoder.conv_out.weight": (3, 8, 3, 3)}, "a VAE of 32 channels"),
        ({"lora_unet_x.lora_up.weight": (8, 8)}, "neither a checkpoint nor a part of one"),
        ({}, "neither a checkpoint nor a part of one"),
    ],
)
def test_what_cannot_be_used_is_named(shapes: Shapes, words: str, tmp_path: Path) -> None:
    found = told(shapes or {"x": (1,)}, tmp_path)
    assert found.problem is not None
    assert words in found.problem


@pytest.mark.parametrize(
    ("more", "metadata", "prediction", "zero_snr"),
    [
        ({}, {}, None, False),
        ({"v_pred": (0,), "ztsnr": (0,)}, {}, "v_prediction", True),
        ({}, {"modelspec.prediction_type": "v"}, "v_prediction", False),
        ({}, {"modelspec.prediction_type": "epsilon"}, "epsilon", False),
        ({"v_pred": (0,)}, {"modelspec.prediction_type": "epsilon"}, "v_prediction", False),
        ({}, {"ss_zero_terminal_snr": "True"}, None, True),
    ],
)
def test_how_it_predicts(
    more: Shapes, metadata: dict[str, str], prediction: str | None, zero_snr: bool, tmp_path: Path
) -> None:
    found = told({**files.SDXL, **more}, tmp_path, metadata)
    assert (found.prediction, found.zero_snr) == (prediction, zero_snr)
    assert found.variant == ("v-prediction" if prediction == "v_prediction" else None)


_NAMES = st.sampled_from(sorted({**files.SD15, **files.SDXL, **files.SD3, **files.flux(), **files.T5_XXL, **files.VAE}))


@given(st.dictionaries(_NAMES | st.text(max_size=20), st.lists(st.integers(0, 5000), max_size=5)))
def test_any_table_gets_an_answer(shapes: dict[str, list[int]]) -> None:
    """Whatever names and shapes a stranger's file has: a kind, and words if it cannot be used."""
    tensors: dict[str, Any] = {name: TensorInfo("F16", tuple(shape), (0, 0)) for name, shape in shapes.items()}
    found = classify(Header(tensors=tensors, metadata={}, header_length=0, file_length=0))
    assert found.problem or found.config or found.role
