"""What a safetensors file in a checkpoint folder is, from its header alone: a base, its denoiser, a VAE, an encoder.

Every loader has a default for what it does not know, and makes noise of it. Here what is not known is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from loravault.formats.families import UNET_WIDTHS
from loravault.formats.safetensors_header import Header
from loravault.formats.tensor_table import TensorInfo

#: In front of the denoiser's tensors in files that hold more.
DENOISER_PREFIX = "model.diffusion_model."
_NO_SHAPE: tuple[int, ...] = ()


@dataclass(frozen=True)
class Checkpoint:
    """A file that a base is made of, or a part of one."""

    #: `checkpoint` (denoiser and more), `denoiser` (nothing else), `vae`, `encoder`, `other`.
    kind: str
    #: As adapters are told apart; None if it cannot be told (a VAE serves several).
    family: str | None = None
    #: `dev`, `schnell`, `medium`, `3.5-large`, `v-prediction`, …
    variant: str | None = None
    #: Which of the shipped configurations describes it.
    config: str | None = None
    #: The parts of a pipeline that it holds, as diffusers names them.
    parts: frozenset[str] = frozenset()
    #: What it can serve other bases as: `clip-l`, `clip-g`, `t5-xxl`, `vae-4`, `vae-16`.
    role: str | None = None
    #: `v_prediction` or `epsilon` if the file says so.
    prediction: str | None = None
    #: Trained with a last step that is noise alone.
    zero_snr: bool = False
    #: Why it cannot be used, in words that fit after its name and a colon; None if it can.
    problem: str | None = None


@dataclass(frozen=True)
class _Names:
    """The tensors of a file, by name."""

    tensors: Mapping[str, TensorInfo]
    #: What stands in front of the denoiser's.
    prefix: str = field(default="")

    def has(self, name: str) -> bool:
        """Whether the denoiser has this tensor."""
        return self.prefix + name in self.tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor of the denoiser; empty if it is not there."""
        info = self.tensors.get(self.prefix + name)
        return tuple(info.shape) if info else _NO_SHAPE

    def starts(self, *beginnings: str) -> bool:
        """Whether any tensor of the file begins so."""
        return any(name.startswith(beginnings) for name in self.tensors)

    def count(self, pattern: str) -> int:
        """How many different numbers stand where `pattern` has its group."""
        found = (re.match(re.escape(self.prefix) + pattern, name) for name in self.tensors)
        return len({match[1] for match in found if match})


def classify(header: Header) -> Checkpoint:
    """What this file is."""
    names = _Names(header.tensors)
    if words := _packed(header.tensors):
        return Checkpoint("other", problem=words)
    if names.starts(DENOISER_PREFIX):
        names = _Names(header.tensors, DENOISER_PREFIX)
    for look in (_unet, _sd3, _flux, _flux_in_diffusers_names, _refused):
        found = look(names, header)
        if found is not None:
            return found
    return _part(names) or Checkpoint(
        "other", problem="it is neither a checkpoint nor a part of one that is known here"
    )


# ---- denoisers


def _unet(names: _Names, header: Header) -> Checkpoint | None:
    """Stable Diffusion 1, 2 and XL in the names of the original code."""
    first = names.shape("input_blocks.0.0.weight")
    if len(first) != 4:
        return None
    ends = ".attn2.to_k.weight"
    widths = {info.shape[1] for name, info in names.tensors.items() if name.endswith(ends) and len(info.shape) == 2}
    width = widths.pop() if len(widths) == 1 else None
    family = UNET_WIDTHS.get(width) if width else None
    prefixes = {
        "sd15": {"text_encoder": ("cond_stage_model.transformer.",)},
        "sd2": {"text_encoder": ("cond_stage_model.model.",)},
        "sdxl": {
            "text_encoder": ("conditioner.embedders.0.transformer.",),
            "text_encoder_2": ("conditioner.embedders.1.model.",),
        },
    }.get(family or "")
    if prefixes is None or family is None:
        if names.starts("conditioner.embedders.0.model."):
            return Checkpoint("other", problem="it is the SDXL refiner, which improves pictures and cannot begin one")
        return Checkpoint("other", problem="its UNet is of no family that is known here")
    if first[1] != 4:
        return Checkpoint(
            "other", family, problem=f"its UNet reads {first[1]} channels: it is for inpainting or editing"
        )
    if names.starts("edm_"):
        return Checkpoint("other", family, problem="it was trained with EDM, which is not built yet")
    prediction, zero_snr = _markers(header)
    return _whole(
        names, family, prefixes, denoiser="unet", config=family, prediction=prediction, zero_snr=zero_snr,
        variant="v-prediction" if prediction == "v_prediction" else None,
    )  # fmt: skip


def _markers(header: Header) -> tuple[str | None, bool]:
    """How it was trained to predict, if the file says so: by empty tensors or by its metadata."""
    said = header.metadata.get("modelspec.prediction_type", header.metadata.get("modelspec.predict_key", "")).lower()
    prediction = "v_prediction" if said.startswith("v") else "epsilon" if said.startswith("eps") else None
    if "v_pred" in header.tensors:
        prediction = "v_prediction"
    zero_snr = "ztsnr" in header.tensors or header.metadata.get("ss_zero_terminal_snr", "").lower() == "true"
    return prediction, zero_snr


def _sd3(names: _Names, _header: Header) -> Checkpoint | None:
    if not names.has("joint_blocks.0.context_block.adaLN_modulation.1.bias"):
        return None
    blocks = names.count(r"joint_blocks\.(\d+)\.")
    if names.has("joint_blocks.0.x_block.attn2.qkv.weight"):
        variant = "3.5-medium"
    else:
        variant = "3.5-large" if blocks > 24 else "medium"
    prefixes = {
        "text_encoder": ("text_encoders.clip_l.",),
        "text_encoder_2": ("text_encoders.clip_g.",),
        "text_encoder_3": ("text_encoders.t5xxl.",),
    }
    config = "sd3-medium" if variant == "medium" else f"sd{variant}"
    return _whole(names, "sd3", prefixes, denoiser="transformer", config=config, variant=variant)


def _flux(names: _Names, _header: Header) -> Checkpoint | None:
    """Flux.1 and Chroma in the names of the original code."""
    if not names.has("double_blocks.0.img_attn.norm.key_norm.scale"):
        return None
    if names.has("single_stream_modulation.lin.weight"):
        return _unbuilt("Flux.2", "flux2")
    reads = names.shape("img_in.weight")[-1:]
    if reads != (64,):
        told = "Flux.1 Fill" if reads == (384,) else "Flux.1 Depth or Canny" if reads == (128,) else "another Flux.1"
        return Checkpoint("other", "flux", problem=f"it is {told}, which begins with a picture")
    prefixes = {
        "text_encoder": ("text_encoders.clip_l.",),
        "text_encoder_2": ("text_encoders.t5xxl.",),
    }
    if names.has("distilled_guidance_layer.in_proj.bias"):
        chroma = {"text_encoder": ("text_encoders.t5xxl.",)}
        return _whole(names, "chroma", chroma, denoiser="transformer", config="chroma")
    variant = "dev" if names.has("guidance_in.in_layer.bias") else "schnell"
    return _whole(names, "flux", prefixes, denoiser="transformer", config=f"flux-{variant}", variant=variant)


def _flux_in_diffusers_names(names: _Names, _header: Header) -> Checkpoint | None:
    """The transformer of a diffusers folder that is kept alone."""
    if not names.has("single_transformer_blocks.0.attn.to_q.weight") or names.shape("x_embedder.weight")[-1:] != (64,):
        return None
    if names.has("distilled_guidance_layer.in_proj.bias"):
        return _whole(names, "chroma", {}, denoiser="transformer", config="chroma")
    variant = "dev" if names.has("time_text_embed.guidance_embedder.linear_1.bias") else "schnell"
    return _whole(names, "flux", {}, denoiser="transformer", config=f"flux-{variant}", variant=variant)


#: A tensor → the model whose denoiser has it, and its family.
_UNBUILT: tuple[tuple[str, str, str | None], ...] = (
    ("single_stream_modulation.lin.weight", "Flux.2", "flux2"),
    ("cap_embedder.0.weight", "Z-Image or Lumina 2", None),
    ("transformer_blocks.0.img_mod.1.weight", "Qwen-Image", "qwen-image"),
    ("txtfusion.projector.weight", "Krea 2", "krea2"),
    ("double_layers.0.attn.w1q.weight", "AuraFlow", "auraflow"),
    ("head.modulation", "Wan", "wan"),
    ("double_stream_blocks.0.block.adaLN_modulation.1.bias", "HiDream", "hidream"),
    ("patchify_proj.weight", "LTX-Video", "ltx"),
)


def _refused(names: _Names, _header: Header) -> Checkpoint | None:
    for name, title, family in _UNBUILT:
        if names.has(name):
            return _unbuilt(title, family)
    if names.prefix:
        return Checkpoint("other", problem="it is a checkpoint of a model that is not known here")
    return None


def _unbuilt(title: str, family: str | None) -> Checkpoint:
    words = f"it is {title} as a single file, which is not read yet; its diffusers folder is"
    if family not in ("flux2", "qwen-image", None):
        words = f"it is {title}, which is not drawn with yet"
    return Checkpoint("other", family, problem=words)


def _whole(
    names: _Names,
    family: str,
    prefixes: Mapping[str, tuple[str, ...]],
    *,
    denoiser: str,
    config: str,
    variant: str | None = None,
    prediction: str | None = None,
    zero_snr: bool = False,
) -> Checkpoint:
    parts = {denoiser, *(part for part, beginnings in prefixes.items() if names.starts(*beginnings))}
    if names.starts("first_stage_model.", "vae."):
        parts.add("vae")
    return Checkpoint(
        "checkpoint" if len(parts) > 1 else "denoiser", family, variant, config, frozenset(parts),
        prediction=prediction, zero_snr=zero_snr,
    )  # fmt: skip


# ---- parts


def _part(names: _Names) -> Checkpoint | None:
    """A VAE or a text encoder that is kept alone."""
    for prefix in ("", "first_stage_model.", "vae."):
        tensors = names.tensors
        latent = tensors.get(f"{prefix}decoder.conv_in.weight")
        if latent is not None and f"{prefix}decoder.conv_out.weight" in tensors and len(latent.shape) == 4:
            channels = latent.shape[1]
            if channels not in (4, 16):
                return Checkpoint("vae", problem=f"it is a VAE of {channels} channels, which no base here uses")
            return Checkpoint("vae", parts=frozenset({"vae"}), role=f"vae-{channels}")
    clip = names.shape("text_model.embeddings.token_embedding.weight")
    if clip:
        role = {768: "clip-l", 1280: "clip-g"}.get(clip[-1])
        return Checkpoint("encoder", role=role, problem=None if role else "it is a text encoder that no base here uses")
    if names.has("encoder.block.0.layer.0.SelfAttention.q.weight"):
        role = "t5-xxl" if names.shape("shared.weight")[-1:] == (4096,) else None
        return Checkpoint("encoder", role=role, problem=None if role else "it is a T5 that no base here uses")
    return None


# ---- what is packed in a way that is not read


def _packed(names: Iterable[str]) -> str | None:
    for name in names:
        if ".quant_state." in name or name.endswith((".absmax", ".quant_map")):
            return "its weights are packed into 4 bits (bitsandbytes), which is not read yet"
        if name.endswith((".scale_weight", ".weight_scale", ".scale_input")) or name == "scaled_fp8":
            return "its weights are fp8 with scales beside them, which is not read yet; the plain fp8 or fp16 file is"
        if name.endswith((".qweight", ".wscales")):
            return "its weights are packed for Nunchaku or GPTQ, which is not read yet"
    return None
