"""What a safetensors file is if it is not an adapter, in words that fit after its name and a colon."""

from __future__ import annotations

from collections.abc import Callable, Collection

_Test = Callable[[Collection[str]], bool]


def _some(*beginnings: str) -> _Test:
    return lambda names: any(name.startswith(beginnings) for name in names)


def _both(first: str, second: str) -> _Test:
    return lambda names: _some(first)(names) and _some(second)(names)


def _embedding(names: Collection[str]) -> bool:
    return len(names) <= 8 and any(
        name in ("emb_params", "clip_l", "clip_g", "string_to_param", "t5xxl") or name.startswith(("<", "bundle_emb."))
        for name in names
    )


#: In this order: what it is, and what becomes of it.
_KINDS: tuple[tuple[_Test, str], ...] = (
    (_embedding, "it is an embedding (textual inversion), not a LoRA: it belongs into the folder of embeddings"),
    (_some("lora_controlnet"), "it is a ControlNet in the form of a LoRA (Control-LoRA), which guides a picture by "
     "another one; it is not applied to a base like a LoRA"),
    (_some("control_model.", "controlnet_", "controlnet_blocks."), "it is a ControlNet, not a LoRA"),
    (_some("ip_adapter.", "image_proj.", "image_proj_model."), "it is an IP-Adapter, not a LoRA"),
    (_some("adapter.body.", "t2i_adapter"), "it is a T2I-Adapter, not a LoRA"),
    (_some("model.diffusion_model.", "cond_stage_model.", "conditioner.embedders."),
     "it is not a LoRA but a whole checkpoint: it belongs into the folder of checkpoints"),
    (_both("encoder.", "decoder."), "it is not a LoRA but a VAE: it belongs into the folder of VAEs"),
    (_some("first_stage_model."), "it is not a LoRA but a VAE: it belongs into the folder of VAEs"),
    (_some("text_model.", "encoder.block.", "model.embed_tokens", "model.layers."),
     "it is not a LoRA but a text encoder or language model"),
    (_some("double_blocks.", "transformer_blocks.", "single_blocks.", "joint_blocks.", "blocks.", "layers.",
           "down_blocks.", "diffusion_model.", "single_transformer_blocks.", "input_blocks."),
     "it is not a LoRA but the diffusion model of a checkpoint: it belongs into the folder of checkpoints"),
    (_some("model.0.", "body.0.", "conv_first."), "it is not a LoRA but an upscaler"),
)  # fmt: skip


def what_else(names: Collection[str]) -> str:
    """The reason why a file with these tensors is no adapter."""
    for test, words in _KINDS:
        if test(names):
            return words
    return "it is not a LoRA: its tensors are those of a whole model or of something else"
