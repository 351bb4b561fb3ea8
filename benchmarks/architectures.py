"""What the headers of real adapters are made of: the modules of each base model in the spelling of a trainer, and the
tensors that a network type keeps for one module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Module:
    """One layer that an adapter patches."""

    name: str
    inside: int
    outside: int
    #: A convolution with 1×1 kernel, whose matrices have four dimensions.
    conv: bool = False


def _text_encoder(prefix: str, layers: int, width: int) -> Iterator[Module]:
    """A CLIP text encoder as kohya names it: 6 modules a layer."""
    for layer in range(layers):
        at = f"{prefix}_text_model_encoder_layers_{layer}_"
        yield from (Module(f"{at}self_attn_{part}_proj", width, width) for part in ("q", "k", "v", "out"))
        yield Module(f"{at}mlp_fc1", width, 4 * width)
        yield Module(f"{at}mlp_fc2", 4 * width, width)


def _unet_attention(at: str, width: int, depth: int, context: int, conv: bool) -> Iterator[Module]:
    """One attention of a UNet with its `depth` transformer blocks."""
    yield Module(f"{at}_proj_in", width, width, conv)
    for block in range(depth):
        inner = f"{at}_transformer_blocks_{block}_"
        for name in ("attn1", "attn2"):
            keys = context if name == "attn2" else width
            yield Module(f"{inner}{name}_to_q", width, width)
            yield Module(f"{inner}{name}_to_k", keys, width)
            yield Module(f"{inner}{name}_to_v", keys, width)
            yield Module(f"{inner}{name}_to_out_0", width, width)
        yield Module(f"{inner}ff_net_0_proj", width, 8 * width)
        yield Module(f"{inner}ff_net_2", 4 * width, width)
    yield Module(f"{at}_proj_out", width, width, conv)


def _sd(context: int, text: int, layers: int) -> Iterator[Module]:
    """SD 1 and 2: 16 attentions with one block each."""
    yield from _text_encoder("lora_te", layers, text)
    places = [(f"down_blocks_{i}_attentions_{j}", 320 << i) for i in range(3) for j in range(2)]
    places += [("mid_block_attentions_0", 1280)]
    places += [(f"up_blocks_{i}_attentions_{j}", 1280 >> (i - 1)) for i in (1, 2, 3) for j in range(3)]
    for place, width in places:
        yield from _unet_attention(f"lora_unet_{place}", width, 1, context, True)


def _sdxl_unet() -> Iterator[Module]:
    """SDXL in the names that kohya keeps for it: 11 attentions, 70 blocks, 722 modules."""
    places = [(f"input_blocks_{n}_1", 640, 2) for n in (4, 5)] + [(f"input_blocks_{n}_1", 1280, 10) for n in (7, 8)]
    places += [("middle_block_1", 1280, 10)] + [(f"output_blocks_{n}_1", 1280, 10) for n in (0, 1, 2)]
    places += [(f"output_blocks_{n}_1", 640, 2) for n in (3, 4, 5)]
    for place, width, depth in places:
        yield from _unet_attention(f"lora_unet_{place}", width, depth, 2048, False)


def _sdxl() -> Iterator[Module]:
    yield from _text_encoder("lora_te1", 12, 768)
    yield from _text_encoder("lora_te2", 32, 1280)
    yield from _sdxl_unet()


def _flux(joint: str, layer: str, modulation: bool) -> Iterator[Module]:
    """Flux.1 in its own names; `joint` stands before, `layer` between the parts of a name."""
    for block in range(19):
        for stream in ("img", "txt"):
            at = f"{joint}double_blocks{layer}{block}{layer}{stream}_"
            yield Module(f"{at}attn{layer}proj", 3072, 3072)
            yield Module(f"{at}attn{layer}qkv", 3072, 9216)
            yield Module(f"{at}mlp{layer}0", 3072, 12288)
            yield Module(f"{at}mlp{layer}2", 12288, 3072)
            if modulation:
                yield Module(f"{at}mod{layer}lin", 3072, 18432)
    for block in range(38):
        at = f"{joint}single_blocks{layer}{block}{layer}"
        yield Module(f"{at}linear1", 3072, 21504)
        yield Module(f"{at}linear2", 15360, 3072)
        if modulation:
            yield Module(f"{at}modulation{layer}lin", 3072, 9216)


def _joint_attention(at: str, width: int) -> Iterator[Module]:
    """The attention of a block that has a picture's and a text's stream, in diffusers' names."""
    for part in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"):
        yield Module(f"{at}.attn.{part}", width, width)


def _two_layers(at: str, width: int) -> Iterator[Module]:
    """The feed-forward part of a block, in diffusers' names."""
    yield Module(f"{at}.net.0.proj", width, 4 * width)
    yield Module(f"{at}.net.2", 4 * width, width)


def _two_streams(at: str, width: int) -> Iterator[Module]:
    """What a picture's and a text's stream have in one block of SD 3 and Flux."""
    yield from _joint_attention(at, width)
    for name in ("ff", "ff_context"):
        yield from _two_layers(f"{at}.{name}", width)
    yield Module(f"{at}.norm1_context.linear", width, 6 * width)


def _flux_diffusers() -> Iterator[Module]:
    for block in range(19):
        at = f"transformer.transformer_blocks.{block}"
        yield from _two_streams(at, 3072)
        yield Module(f"{at}.norm1.linear", 3072, 18432)
    for block in range(38):
        at = f"transformer.single_transformer_blocks.{block}"
        yield from (Module(f"{at}.attn.{part}", 3072, 3072) for part in ("to_q", "to_k", "to_v"))
        yield Module(f"{at}.proj_mlp", 3072, 12288)
        yield Module(f"{at}.proj_out", 15360, 3072)
        yield Module(f"{at}.norm.linear", 3072, 9216)


def _wan(prefix: str, layer: str, blocks: int, width: int, inner: int) -> Iterator[Module]:
    for block in range(blocks):
        at = f"{prefix}blocks{layer}{block}{layer}"
        for attention in ("self_attn", "cross_attn"):
            yield from (Module(f"{at}{attention}{layer}{part}", width, width) for part in "qkvo")
        yield Module(f"{at}ffn{layer}0", width, inner)
        yield Module(f"{at}ffn{layer}2", inner, width)


def _qwen() -> Iterator[Module]:
    for block in range(60):
        at = f"transformer_blocks.{block}"
        yield from _joint_attention(at, 3072)
        for stream in ("img", "txt"):
            yield from _two_layers(f"{at}.{stream}_mlp", 3072)
            yield Module(f"{at}.{stream}_mod.1", 3072, 18432)


def _z_image() -> Iterator[Module]:
    for block in range(30):
        at = f"diffusion_model.layers.{block}"
        yield from (Module(f"{at}.attention.{part}", 3840, 3840) for part in ("to_q", "to_k", "to_v", "to_out.0"))
        yield Module(f"{at}.feed_forward.w1", 3840, 10240)
        yield Module(f"{at}.feed_forward.w2", 10240, 3840)
        yield Module(f"{at}.feed_forward.w3", 3840, 10240)
        yield Module(f"{at}.adaLN_modulation.0", 256, 15360)


def _sd3() -> Iterator[Module]:
    for block in range(24):
        yield from _two_streams(f"transformer.transformer_blocks.{block}", 1536)


def _hunyuan() -> Iterator[Module]:
    for block in range(20):
        for stream in ("img", "txt"):
            at = f"lora_unet_double_blocks_{block}_{stream}_"
            yield Module(f"{at}attn_qkv", 3072, 9216)
            yield Module(f"{at}attn_proj", 3072, 3072)
            yield Module(f"{at}mlp_fc1", 3072, 12288)
            yield Module(f"{at}mlp_fc2", 12288, 3072)
    for block in range(40):
        yield Module(f"lora_unet_single_blocks_{block}_linear1", 3072, 21504)
        yield Module(f"lora_unet_single_blocks_{block}_linear2", 15360, 3072)


def _ltx() -> Iterator[Module]:
    for block in range(28):
        at = f"transformer.transformer_blocks.{block}"
        for attention in ("attn1", "attn2"):
            yield from (Module(f"{at}.{attention}.{part}", 2048, 2048) for part in ("to_q", "to_k", "to_v", "to_out.0"))


#: Name → its modules.
ARCHITECTURES: Mapping[str, Callable[[], Iterator[Module]]] = {
    "sd1": lambda: _sd(768, 768, 12),
    "sd2": lambda: _sd(1024, 1024, 23),
    "sdxl": _sdxl,
    "sdxl-unet": _sdxl_unet,
    "flux-kohya": lambda: _flux("lora_unet_", "_", True),
    "flux-attention": lambda: _flux("diffusion_model.", ".", False),
    "flux-diffusers": _flux_diffusers,
    "wan-14b": lambda: _wan("diffusion_model.", ".", 40, 5120, 13824),
    "wan-14b-musubi": lambda: _wan("lora_unet_", "_", 40, 5120, 13824),
    "wan-1.3b": lambda: _wan("diffusion_model.", ".", 30, 1536, 8960),
    "qwen": _qwen,
    "z-image": _z_image,
    "sd3": _sd3,
    "hunyuan-video": _hunyuan,
    "ltx": _ltx,
}

#: Bytes of one element.
WIDTHS: Mapping[str, int] = {"F32": 4, "F16": 2, "BF16": 2}


def _tensors(module: Module, network: str, rank: int) -> list[tuple[str, tuple[int, ...]]]:
    """`(name, shape)` of what a network keeps for one module, by name."""
    name, tail = module.name, (1, 1) if module.conv else ()
    down, up = (rank, module.inside, *tail), (module.outside, rank, *tail)
    if network == "peft":
        return [(f"{name}.lora_A.weight", down), (f"{name}.lora_B.weight", up)]
    alpha: list[tuple[str, tuple[int, ...]]] = [(f"{name}.alpha", ())]
    if network == "loha":
        pairs = [(f"{name}.hada_w{n}_a", (module.outside, rank)) for n in (1, 2)]
        return sorted(alpha + pairs + [(f"{name}.hada_w{n}_b", (rank, module.inside)) for n in (1, 2)])
    if network == "lokr":
        factor = 8
        left, right = (module.outside // factor, rank), (rank, module.inside // factor)
        first = [(f"{name}.lokr_w1", (factor, factor))]
        return [*alpha, *first, (f"{name}.lokr_w2_a", left), (f"{name}.lokr_w2_b", right)]
    scale = [(f"{name}.dora_scale", (module.outside, 1, *tail))] if network == "dora" else []
    return [*alpha, *scale, (f"{name}.lora_down.weight", down), (f"{name}.lora_up.weight", up)]


@lru_cache(maxsize=256)
def tensor_table(architecture: str, network: str, rank: int, dtype: str) -> tuple[bytes, int]:
    """`(JSON of the table without its braces, bytes of the tensor area)`, in the order of the safetensors library.

    `network` is `lora`, `dora`, `loha`, `lokr`, or `peft` for the names of PEFT. With all but the last the first tensor
    is the alpha of the first module.
    """
    modules = sorted(ARCHITECTURES[architecture](), key=lambda module: f"{module.name}.")
    position, entries = 0, []
    for module in modules:
        for name, shape in _tensors(module, network, rank):
            size = WIDTHS[dtype]
            for dimension in shape:
                size *= dimension
            sizes = ",".join(map(str, shape))
            entries.append(
                f'"{name}":{{"dtype":"{dtype}","shape":[{sizes}],"data_offsets":[{position},{position + size}]}}'
            )
            position += size
    return ",".join(entries).encode(), position
