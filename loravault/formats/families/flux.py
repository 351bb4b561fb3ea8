"""Flux.1, Flux.2, Flux 3 and Chroma.

Chroma is Flux.1 with one layer in place of all modulations: an adapter of attention and feed-forward fits both. dev,
schnell, Krea and Kontext are one and the same in their shapes.
"""

from __future__ import annotations

from loravault.formats.families.table import Family, Model

# Names of Black Forest Labs, as kohya, ai-toolkit and ComfyUI keep them. `img_in` reads 128 in control adapters and 384
# in Flux Fill.
_BLOCKS = """
    txt_in                                    4096  d
    double_blocks.[0-18].{img,txt}_attn.qkv   d     3d
    double_blocks.[0-18].{img,txt}_attn.proj  d     d
    double_blocks.[0-18].{img,txt}_mlp.0      d     4d
    double_blocks.[0-18].{img,txt}_mlp.2      4d    d
    single_blocks.[0-37].linear1              d     7d
    single_blocks.[0-37].linear2              5d    d
    final_layer.linear                        d     64
"""
_MODULATION = """
    img_in                                    64|128|384  d
    {time,guidance}_in.in_layer               256   d
    {time,guidance}_in.out_layer              d     d
    vector_in.in_layer                        768   d
    vector_in.out_layer                       d     d
    double_blocks.[0-18].{img,txt}_mod.lin    d     6d
    single_blocks.[0-37].modulation.lin       d     3d
    final_layer.adaLN_modulation.1            d     2d
"""
# XLabs' trainer puts its adapters into attention processors: first of the image stream, then of the text stream.
_XLABS = """
    double_blocks.[0-18].processor.{qkv,qkv_2}    d  3d
    double_blocks.[0-18].processor.{proj,proj_2}  d  d
    single_blocks.[0-37].processor.qkv            d  3d
    single_blocks.[0-37].processor.proj           d  d
"""
_DIFFUSERS_BLOCKS = """
    context_embedder                                                     4096  d
    transformer_blocks.[0-18].attn.{to_q,to_k,to_v,to_out.0,to_add_out}  d     d
    transformer_blocks.[0-18].attn.add_{q,k,v}_proj                      d     d
    transformer_blocks.[0-18].{ff,ff_context}.net.0.proj                 d     4d
    transformer_blocks.[0-18].{ff,ff_context}.net.2                      4d    d
    single_transformer_blocks.[0-37].attn.to_{q,k,v}                     d     d
    single_transformer_blocks.[0-37].proj_mlp                            d     4d
    single_transformer_blocks.[0-37].proj_out                            5d    d
    proj_out                                                             d     64
"""
_DIFFUSERS_MODULATION = """
    x_embedder                                                  64|128|384  d
    time_text_embed.{timestep,guidance}_embedder.linear_1       256   d
    time_text_embed.text_embedder.linear_1                      768   d
    time_text_embed.{timestep,guidance,text}_embedder.linear_2  d     d
    transformer_blocks.[0-18].{norm1,norm1_context}.linear      d     6d
    single_transformer_blocks.[0-37].norm.linear                d     3d
    norm_out.linear                                             d     2d
"""
_APPROXIMATOR = """
    img_in                                                   64    d
    x_embedder                                               64    d
    distilled_guidance_layer.in_proj                         64    5120
    distilled_guidance_layer.layers.[0-4].{linear_1,linear_2,in_layer,out_layer}  5120  5120
    distilled_guidance_layer.out_proj                        5120  d
"""

# Gate and value in one layer make its feed-forward six times as wide; modulations are shared by all blocks.
_FLUX2 = """
    img_in                                    128   d
    txt_in                                    c     d
    {time,guidance}_in.in_layer               256   d
    {time,guidance}_in.out_layer              d     d
    double_stream_modulation_{img,txt}.lin    d     6d
    single_stream_modulation.lin              d     3d
    double_blocks.[0-D].{img,txt}_attn.qkv    d     3d
    double_blocks.[0-D].{img,txt}_attn.proj   d     d
    double_blocks.[0-D].{img,txt}_mlp.0       d     6d
    double_blocks.[0-D].{img,txt}_mlp.2       3d    d
    single_blocks.[0-S].linear1               d     9d
    single_blocks.[0-S].linear2               4d    d
    final_layer.linear                        d     128
    final_layer.adaLN_modulation.1            d     2d
"""
_FLUX2_DIFFUSERS = """
    x_embedder                                                          128   d
    context_embedder                                                    c     d
    time_guidance_embed.{timestep,guidance}_embedder.linear_1           256   d
    time_guidance_embed.{timestep,guidance}_embedder.linear_2           d     d
    double_stream_modulation_{img,txt}.linear                           d     6d
    single_stream_modulation.linear                                     d     3d
    transformer_blocks.[0-D].attn.{to_q,to_k,to_v,to_out.0,to_add_out}  d     d
    transformer_blocks.[0-D].attn.add_{q,k,v}_proj                      d     d
    transformer_blocks.[0-D].{ff,ff_context}.linear_in                  d     6d
    transformer_blocks.[0-D].{ff,ff_context}.linear_out                 3d    d
    single_transformer_blocks.[0-S].attn.to_qkv_mlp_proj                d     9d
    single_transformer_blocks.[0-S].attn.to_out                         4d    d
    norm_out.linear                                                     d     2d
    proj_out                                                            d     128
"""
_FLUX3 = """
    mode_blocks.{image,image_cond,video,video_cond,audio}.[0-99].attn.{to_q,to_k,to_v,to_out.0}  *  *
    mode_blocks.{image,image_cond,video,video_cond,audio}.[0-99].ff.{linear_in,linear_out}       *  *
    txt_mode_blocks.[0-99].attn.{to_q,to_k,to_v,to_out.0}            *  *
    {txt_mode_blocks,single_transformer_blocks}.[0-99].ff.{linear_in,linear_out}  *  *
    single_transformer_blocks.[0-27].attn.{to_q,to_k,to_v,to_out.0}  3072  3072
    context_embedder                                                 20480 3072
"""


def _flux2(variant: str, **numbers: int) -> Model:
    return Model(variant, (_FLUX2, _FLUX2_DIFFUSERS), numbers)


FAMILIES = (
    Family(
        "flux",
        "Flux.1",
        (Model(None, (_BLOCKS, _MODULATION, _XLABS, _DIFFUSERS_BLOCKS, _DIFFUSERS_MODULATION), {"d": 3072}),),
        rarer_than=("qwen-image",),
        text={"te1": "clip-l", "te2": "t5-xxl", "te3": "t5-xxl"},
        claims=("flux1", "fluxkontext", "flux"),
        variants={"schnell": "schnell", "kontext": "kontext", "krea": "krea", "fill": "fill", "dev": "dev"},
        words=("flux", "flux1", "flux1d", "f1d", "fluxdev"),
    ),
    Family(
        "flux2",
        "Flux.2",
        (
            _flux2("klein-4b", d=3072, D=4, S=19, c=7680),
            _flux2("klein-9b", d=4096, D=7, S=23, c=12288),
            _flux2("dev", d=6144, D=7, S=47, c=15360),
        ),
        rarer_than=("flux", "qwen-image"),
        claims=("flux2",),
        variants={"klein4b": "klein-4b", "klein9b": "klein-9b", "dev": "dev"},
        words=("flux2", "klein"),
    ),
    Family(
        "flux3", "Flux 3", (Model(None, (_FLUX3,)),), rarer_than=("flux", "qwen-image"), claims=("flux3",),
        words=("flux3",),
    ),
    Family(
        "chroma",
        "Chroma",
        (Model(None, (_BLOCKS, _XLABS, _DIFFUSERS_BLOCKS, _APPROXIMATOR), {"d": 3072}),),
        rarer_than=("flux", "qwen-image"),
        text={"te3": "t5-xxl"},
        claims=("chroma", "zetachroma"),
        variants={"radiance": "radiance"},
        words=("chroma", "chroma1"),
    ),
)  # fmt: skip
