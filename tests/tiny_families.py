"""Makes small diffusers folders of every family, with random weights and tokenizers that know letters only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from loravault.engine.families import FAMILIES
from loravault.formats.generation import BaseRef
from tests.tiny import clip_tokenizer

#: Width of the pictures the folders are made for.
SIDE = 64


def make_family(folder: Path, family: str, *, seed: int = 0, **options: Any) -> BaseRef:
    """A folder of this family; `options` are those of its maker below."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    pipeline, extra = MAKERS[family](folder, **options)
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())["_class_name"]
    parts = {
        name: ["diffusers" if part.library == "diffusers" else "transformers", part.kind]
        if (folder / name).is_dir()
        else [None, None]
        for name, part in FAMILIES[pipeline].parts.items()
    }
    index = {"_class_name": pipeline, "_diffusers_version": diffusers.__version__, **extra, **parts}
    index["scheduler"] = ["diffusers", scheduler]
    (folder / "model_index.json").write_text(json.dumps(index))
    return BaseRef(name=folder.name, path=str(folder), family=family)


def clip(folder: Path, width: int, words: int, *, projected: bool = False, act: str = "quick_gelu") -> Any:
    """A CLIP text encoder; saves it and returns it."""
    config = transformers.CLIPTextConfig(
        vocab_size=words, hidden_size=width, intermediate_size=min(2 * width, 128),
        num_hidden_layers=3 if width < 200 else 1,  # wide ones are for what is told by their width
        num_attention_heads=4, max_position_embeddings=77, projection_dim=width, hidden_act=act,
        bos_token_id=words - 2, eos_token_id=words - 1, pad_token_id=words - 1,
    )  # fmt: skip
    kind = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    model = kind(config)
    model.save_pretrained(folder)
    return model


def t5(folder: Path, width: int, words: int) -> Any:
    """A T5 encoder."""
    config = transformers.T5Config(
        vocab_size=words, d_model=width, d_ff=2 * width, d_kv=8, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu", relative_attention_num_buckets=8, relative_attention_max_distance=32,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = transformers.T5EncoderModel(config)
    model.save_pretrained(folder)
    return model


def letters_tokenizer(folder: Path, kind: str) -> int:
    """`T5TokenizerFast` or `Qwen2TokenizerFast` with one token per letter. Returns the size of its vocabulary."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    folder.mkdir(parents=True)
    if kind == "T5TokenizerFast":
        pieces = [
            ("<pad>", 0.0),
            ("</s>", 0.0),
            ("<unk>", -9.0),
            ("▁", -2.0),
            *((chr(c), -3.0) for c in range(33, 127)),
        ]
        tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
        )
        config = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "model_max_length": 512}
    else:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
        words = {word: number for number, word in enumerate([*alphabet, *special])}
        tokenizer = Tokenizer(models.BPE(words, []))
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(r"\s+|\S+"), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens(special)
        config = {
            "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "model_max_length": 1024,
            "chat_template": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
                             "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        }  # fmt: skip
        (folder / "vocab.json").write_text(json.dumps(words))
        (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind, **config}))
    return tokenizer.get_vocab_size()


def kl_vae(folder: Path, channels: int, scaling: float = 0.18215, shift: float | None = None) -> Any:
    """An AutoencoderKL that makes 8×8 pixels of a latent."""
    bare = channels > 4
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=channels, layers_per_block=1, norm_num_groups=4,
        sample_size=SIDE, scaling_factor=scaling, shift_factor=shift, use_quant_conv=not bare,
        use_post_quant_conv=not bare,
    )  # fmt: skip
    vae.save_pretrained(folder)
    return vae


def sdxl_unet(folder: Path, cross: int, pooled: int) -> Any:
    """A UNet that also reads the summary of the prompt and the sizes of the picture."""
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), layers_per_block=1, attention_head_dim=(2, 4),
        cross_attention_dim=cross, norm_num_groups=8, use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + pooled,
        transformer_layers_per_block=(1, 2),
    )  # fmt: skip
    unet.save_pretrained(folder)
    return unet


def flow_scheduler(folder: Path, *, dynamic: bool, shift: float = 3.0) -> None:
    """A flow scheduler as the family's own folders have it."""
    diffusers.FlowMatchEulerDiscreteScheduler(shift=shift, use_dynamic_shifting=dynamic).save_pretrained(folder)


def _sd2(folder: Path, **options: Any) -> tuple[str, dict[str, Any]]:
    from tests.tiny import make_base

    make_base(folder, linear_projection=True, **options)
    return "StableDiffusionPipeline", {}


def _sd15(folder: Path, **options: Any) -> tuple[str, dict[str, Any]]:
    from tests.tiny import make_base

    make_base(folder, **options)
    return "StableDiffusionPipeline", {}


def _sdxl(folder: Path, *, widths: tuple[int, int] = (32, 40)) -> tuple[str, dict[str, Any]]:
    words = clip_tokenizer(folder / "tokenizer")
    clip_tokenizer(folder / "tokenizer_2")
    clip(folder / "text_encoder", widths[0], words)
    clip(folder / "text_encoder_2", widths[1], words, projected=True, act="gelu")
    sdxl_unet(folder / "unet", sum(widths), widths[1])
    kl_vae(folder / "vae", 4, 0.13025)
    diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
    ).save_pretrained(folder / "scheduler")
    return "StableDiffusionXLPipeline", {"force_zeros_for_empty_prompt": True}


def _sd3(folder: Path, *, with_t5: bool = True) -> tuple[str, dict[str, Any]]:
    words = clip_tokenizer(folder / "tokenizer")
    clip_tokenizer(folder / "tokenizer_2")
    clip(folder / "text_encoder", 32, words, projected=True)
    clip(folder / "text_encoder_2", 40, words, projected=True, act="gelu")
    if with_t5:
        t5(folder / "text_encoder_3", 96, letters_tokenizer(folder / "tokenizer_3", "T5TokenizerFast"))
    diffusers.SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=16, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=96, caption_projection_dim=32, pooled_projection_dim=72, out_channels=16,
        pos_embed_max_size=16,
    ).save_pretrained(folder / "transformer")  # fmt: skip
    kl_vae(folder / "vae", 16, 1.5305, 0.0609)
    flow_scheduler(folder / "scheduler", dynamic=False)
    return "StableDiffusion3Pipeline", {}


def _flux(folder: Path, *, guidance: bool = True) -> tuple[str, dict[str, Any]]:
    clip(folder / "text_encoder", 32, clip_tokenizer(folder / "tokenizer"))
    t5(folder / "text_encoder_2", 48, letters_tokenizer(folder / "tokenizer_2", "T5TokenizerFast"))
    diffusers.FluxTransformer2DModel(
        in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=48, pooled_projection_dim=32, guidance_embeds=guidance, axes_dims_rope=(4, 6, 6),
    ).save_pretrained(folder / "transformer")  # fmt: skip
    kl_vae(folder / "vae", 16, 0.3611, 0.1159)
    flow_scheduler(folder / "scheduler", dynamic=guidance, shift=3.0 if guidance else 1.0)
    return "FluxPipeline", {}


def _chroma(folder: Path) -> tuple[str, dict[str, Any]]:
    t5(folder / "text_encoder", 48, letters_tokenizer(folder / "tokenizer", "T5TokenizerFast"))
    diffusers.ChromaTransformer2DModel(
        in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=48, axes_dims_rope=(4, 6, 6), approximator_num_channels=8, approximator_hidden_dim=16,
        approximator_layers=1,
    ).save_pretrained(folder / "transformer")  # fmt: skip
    kl_vae(folder / "vae", 16, 0.3611, 0.1159)
    flow_scheduler(folder / "scheduler", dynamic=False, shift=1.0)
    return "ChromaPipeline", {}


def _qwen3(folder: Path, words: int, width: int, layers: int, *, headed: bool) -> None:
    config = transformers.Qwen3Config(
        vocab_size=words, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=2048,
    )  # fmt: skip
    kind = transformers.Qwen3ForCausalLM if headed else transformers.Qwen3Model
    kind(config).save_pretrained(folder)


def _flux2(folder: Path, *, distilled: bool = False) -> tuple[str, dict[str, Any]]:
    words = letters_tokenizer(folder / "tokenizer", "Qwen2TokenizerFast")
    _qwen3(folder / "text_encoder", words, 16, 28, headed=True)  # layers 9, 18 and 27 are read
    diffusers.Flux2Transformer2DModel(
        in_channels=128, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=48, timestep_guidance_channels=32, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
    ).save_pretrained(folder / "transformer")  # fmt: skip
    diffusers.AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=32, layers_per_block=1, norm_num_groups=4,
    ).save_pretrained(folder / "vae")  # fmt: skip
    flow_scheduler(folder / "scheduler", dynamic=True)
    return "Flux2KleinPipeline", {"is_distilled": distilled}


def _z_image(folder: Path) -> tuple[str, dict[str, Any]]:
    _qwen3(folder / "text_encoder", letters_tokenizer(folder / "tokenizer", "Qwen2TokenizerFast"), 32, 2, headed=False)
    diffusers.ZImageTransformer2DModel(
        in_channels=16, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=32,
        axes_dims=[4, 6, 6], axes_lens=[1024, 64, 64],
    ).save_pretrained(folder / "transformer")  # fmt: skip
    kl_vae(folder / "vae", 16, 0.3611, 0.1159)
    flow_scheduler(folder / "scheduler", dynamic=False)
    return "ZImagePipeline", {}


def _qwen_image(folder: Path) -> tuple[str, dict[str, Any]]:
    words = letters_tokenizer(folder / "tokenizer", "Qwen2TokenizerFast")
    config = transformers.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": words, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        },
        vision_config={
            "depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32,
            "patch_size": 14, "fullatt_block_indexes": [0],
        },
    )  # fmt: skip
    transformers.Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder / "text_encoder")
    diffusers.QwenImageTransformer2DModel(
        in_channels=64, out_channels=16, num_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, axes_dims_rope=(4, 6, 6),
    ).save_pretrained(folder / "transformer")  # fmt: skip
    diffusers.AutoencoderKLQwenImage(
        base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    ).save_pretrained(folder / "vae")
    flow_scheduler(folder / "scheduler", dynamic=True)
    return "QwenImagePipeline", {}


#: Family → what makes its folder and returns pipeline class and settings.
MAKERS: Mapping[str, Callable[..., tuple[str, dict[str, Any]]]] = {
    "sd15": _sd15,
    "sd2": _sd2,
    "sdxl": _sdxl,
    "sd3": _sd3,
    "flux": _flux,
    "chroma": _chroma,
    "flux2": _flux2,
    "z-image": _z_image,
    "qwen-image": _qwen_image,
}
