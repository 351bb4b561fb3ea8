"""Wan, Z-Image, Lumina 2, Ideogram 4, ERNIE-Image, Anima (Cosmos-Predict2), Krea 2, MiniMax H3, Kandinsky 5, Cascade.

All are one stack of equal blocks; the names inside a block and the width tell which.
"""

from __future__ import annotations

from loravault.formats.families.table import Family, Model

_WAN = """
    patch_embedding                                       *     d   *
    text_embedding.{0,2}                                  4096|d  d
    time_embedding.{0,2}                                  256|d d
    time_projection.1                                     d     6d
    blocks.[0-N].{self_attn,cross_attn}.{q,k,v,o}         d     d
    blocks.[0-N].ffn.0                                    d     f
    blocks.[0-N].ffn.2                                    f     d
    head.head                                             d     *
    condition_embedder.time_embedder.linear_{1,2}         256|d d
    condition_embedder.text_embedder.linear_{1,2}         4096|d  d
    condition_embedder.time_proj                          d     6d
    blocks.[0-N].{attn1,attn2}.{to_q,to_k,to_v,to_out.0}  d     d
    blocks.[0-N].ffn.net.0.proj                           d     f
    blocks.[0-N].ffn.net.2                                f     d
    proj_out                                              d     *
    {vace_patch_embedding,vace_blocks.[0-14].before_proj,vace_blocks.[0-14].after_proj}  *  d  *
    vace_blocks.[0-14].{self_attn,cross_attn}.{q,k,v,o}   d     d
    vace_blocks.[0-14].{attn1,attn2}.{to_q,to_k,to_v,to_out.0}  d  d
    vace_blocks.[0-14].{ffn.0,ffn.net.0.proj}             d     f
    vace_blocks.[0-14].{ffn.2,ffn.net.2}                  f     d
    vace_blocks.[0-14].{proj_in,proj_out}                 d     d
"""
# Attention to a picture's features: only the image-to-video models of Wan 2.1 have it.
_WAN_IMAGE = """
    blocks.[0-N].cross_attn.{k_img,v_img}                 d     d
    blocks.[0-N].attn2.add_{k,v}_proj                     d     d
    img_emb.proj.{1,3}                                    1280  1280|d
    condition_embedder.image_embedder.ff.net.0.proj       1280  *
    condition_embedder.image_embedder.ff.net.2            *     d
"""
_NEXT_DIT = """
    x_embedder                                            64    d
    {all_x_embedder.2-1}                                  64    d
    cap_embedder.1                                        c     d
    {time_caption_embed.caption_embedder,caption_embedder}.1  c  d
    t_embedder.mlp.0                                      256   1024
    t_embedder.mlp.2                                      1024  t
    {layers.[0-N],noise_refiner.[0-1],context_refiner.[0-1]}.attention.qkv               d   d+2k
    {layers.[0-N],noise_refiner.[0-1],context_refiner.[0-1]}.{attention,attn}.to_q       d   d
    {layers.[0-N],noise_refiner.[0-1],context_refiner.[0-1]}.{attention,attn}.to_{k,v}   d   k
    {layers.[0-N],noise_refiner.[0-1],context_refiner.[0-1]}.{attention,attn}.to_out.0   d   d
    {layers.[0-N],noise_refiner.[0-1],context_refiner.[0-1]}.attention.out               d   d
    {layers.[0-N],noise_refiner.[0-1],context_refiner.[0-1]}.feed_forward.{w1,w3,linear_1,linear_3}  d  f
    {layers.[0-N],noise_refiner.[0-1],context_refiner.[0-1]}.feed_forward.{w2,linear_2}  f   d
    {layers.[0-N],noise_refiner.[0-1]}.adaLN_modulation.{0,1}                            t   4d
    {layers.[0-N],noise_refiner.[0-1]}.norm1.linear       t     4d
    time_caption_embed.timestep_embedder.linear_{1,2}     256|1024  1024
    {final_layer.linear,all_final_layer.2-1.linear}       d     *
    {final_layer.adaLN_modulation.1,all_final_layer.2-1.adaLN_modulation.1}  t  d
    norm_out.linear_{1,2}                                 t|d   *
"""
_IDEOGRAM = """
    input_proj                                            128   d
    llm_cond_proj                                         53248 d
    t_embedding.{mlp_in,mlp_out}                          d     d
    adaln_proj                                            d     512
    layers.[0-33].attention.qkv                           d     3d
    layers.[0-33].attention.{o,to_q,to_k,to_v,to_out.0}   d     d
    layers.[0-33].feed_forward.{w1,w3}                    d     12288
    layers.[0-33].feed_forward.w2                         12288 d
    layers.[0-33].adaln_modulation                        512   4d
    final_layer.linear                                    d     128
    final_layer.adaln_modulation                          512   d
"""
_ERNIE = """
    text_proj                                             2560  d
    layers.[0-23].self_attention.{to_q,to_k,to_v,to_out.0,q_proj,k_proj,v_proj,o_proj}  d  d
    layers.[0-23].mlp.{gate_proj,up_proj}                 d     8192
    layers.[0-23].mlp.linear_fc2                          8192  d
    {adaLN_modulation.1,final_norm.linear}                d     *
    final_linear                                          d     128
"""
# The fixtures of other programs have the keys of the cross-attention at the width of the blocks; the real ones read the
# text, which is 1024 wide.
_COSMOS = """
    x_embedder.proj.1                                     *     d
    t_embedder.1.linear_1                                 d     d
    t_embedder.1.linear_2                                 d     3d
    blocks.[0-N].self_attn.{q,k,v,output}_proj            d     d
    blocks.[0-N].cross_attn.{q,output}_proj               d     d
    blocks.[0-N].cross_attn.{k,v}_proj                    1024|d  d
    blocks.[0-N].mlp.layer1                               d     4d
    blocks.[0-N].mlp.layer2                               4d    d
    blocks.[0-N].adaln_modulation_{self_attn,cross_attn,mlp}.1  d  256|d
    blocks.[0-N].adaln_modulation_{self_attn,cross_attn,mlp}.2  256  3d
    final_layer.linear                                    d     64
    final_layer.adaln_modulation.1                        d     256
    final_layer.adaln_modulation.2                        256   2d
    patch_embed.proj                                      *     d
    time_embed.t_embedder.linear_1                        d     d
    time_embed.t_embedder.linear_2                        d     3d
    transformer_blocks.[0-N].{norm1,norm2,norm3}.linear_1 d     256
    transformer_blocks.[0-N].{norm1,norm2,norm3}.linear_2 256   3d
    transformer_blocks.[0-N].attn1.{to_q,to_k,to_v,to_out.0}  d  d
    transformer_blocks.[0-N].attn2.{to_q,to_out.0}        d     d
    transformer_blocks.[0-N].attn2.to_{k,v}               1024  d
    transformer_blocks.[0-N].ff.net.0.proj                d     4d
    transformer_blocks.[0-N].ff.net.2                     4d    d
    norm_out.linear_1                                     d     256
    norm_out.linear_2                                     256   2d
    proj_out                                              d     64
"""
# What Anima adds to Cosmos-Predict2: it makes the words of Qwen3 look like those of T5.
_LLM_ADAPTER = """
    {llm_adapter,text_conditioner}.blocks.[0-5].{self_attn,cross_attn}.{q,k,v,o}_proj  1024  1024
    {llm_adapter,text_conditioner}.blocks.[0-5].mlp.{0,2}                              *     *
    {llm_adapter,text_conditioner}.{in_proj,out_proj,embed}                            *     *
"""
_KREA2 = """
    {img_in,first}                                        64    d
    {time_embed.linear_1,tmlp.0}                          256   d
    {time_embed.linear_2,tmlp.2}                          d     d
    {time_mod_proj,tproj.1}                               d     6d
    {txt_in.linear_1,txtmlp.1}                            2560  d
    {txt_in.linear_2,txtmlp.3}                            d     d
    {text_fusion,txtfusion}.projector                     *     *
    {text_fusion,txtfusion}.{layerwise_blocks,refiner_blocks}.[0-1].attn.{to_q,to_k,to_v,to_gate,to_out.0}  2560  2560
    {text_fusion,txtfusion}.{layerwise_blocks,refiner_blocks}.[0-1].attn.{wq,wk,wv,wo,gate}                 2560  2560
    {text_fusion,txtfusion}.{layerwise_blocks,refiner_blocks}.[0-1].{ff,mlp}.{gate,up}                      2560  6912
    {text_fusion,txtfusion}.{layerwise_blocks,refiner_blocks}.[0-1].{ff,mlp}.down                           6912  2560
    transformer_blocks.[0-27].attn.{to_q,to_gate,to_out.0}  d   d
    transformer_blocks.[0-27].attn.to_{k,v}               d     1536
    transformer_blocks.[0-27].ff.{gate,up}                d     16384
    transformer_blocks.[0-27].ff.down                     16384 d
    blocks.[0-27].attn.{wq,wo,gate}                       d     d
    blocks.[0-27].attn.{wk,wv}                            d     1536
    blocks.[0-27].mlp.{gate,up}                           d     16384
    blocks.[0-27].mlp.down                                16384 d
    {final_layer.linear,last.linear}                      d     64
"""
_MINIMAX = """
    {proj_in,video_patch_proj}                            96    d
    {audio_proj_in,audio_patch_proj}                      32    d
    {context_embedder,condition_proj}                     5120  d
    {time_embedder.linear_1,time_embedder.proj_in}        256   d
    {time_embedder.linear_2,time_embedder.proj_out}       d     2688
    {blocks.[0-49],token_refiner.blocks.[0-1]}.attn.qkv_proj   d  3h
    {blocks.[0-49],token_refiner.blocks.[0-1]}.attn.out_proj   h  d
    {blocks.[0-49],token_refiner.blocks.[0-1]}.mlp.fc1         d  28672
    {blocks.[0-49],token_refiner.blocks.[0-1]}.mlp.fc2         14336  d
    {blocks.[0-49],transformer_blocks.[0-49]}.adaln_proj.linear  2688  96768
    {transformer_blocks.[0-49],token_refiner.refiner_blocks.[0-1]}.attn.to_{q,k,v}  d  h
    {transformer_blocks.[0-49],token_refiner.refiner_blocks.[0-1]}.attn.to_out.0    h  d
    {transformer_blocks.[0-49],token_refiner.refiner_blocks.[0-1]}.ff.net.0.proj    d  28672
    {transformer_blocks.[0-49],token_refiner.refiner_blocks.[0-1]}.ff.net.2         14336  d
    {norm_out.linear,final_layer.adaln_proj.linear}       2688  10752
    {proj_out,final_layer.video_out}                      d     96
    {audio_proj_out,final_layer.audio_out}                d     32
"""
_KANDINSKY5 = """
    {time_embeddings,text_embeddings,pooled_text_embeddings,visual_embeddings}.{in_layer,out_layer}  *  *
    text_transformer_blocks.[0-5].text_modulation.out_layer                        *  6d
    visual_transformer_blocks.[0-59].visual_modulation.out_layer                   *  9d
    text_transformer_blocks.[0-5].self_attention.{to_query,to_key,to_value,out_layer}      d  d
    visual_transformer_blocks.[0-59].{self,cross}_attention.{to_query,to_key,to_value,out_layer}  d  d
    {text_transformer_blocks.[0-5],visual_transformer_blocks.[0-59]}.feed_forward.in_layer   d  f
    {text_transformer_blocks.[0-5],visual_transformer_blocks.[0-59]}.feed_forward.out_layer  f  d
    out_layer.{modulation.out_layer,out_layer}                                     *  *
"""
_CASCADE = """
    {down,up}_blocks.[0-1].[0-71].attention.{to_q,to_k,to_v,to_out.0}              *  *
    {down,up}_blocks.[0-1].[0-71].attention.attn.{in_proj,out_proj}                *  *
    {down,up}_blocks.[0-1].[0-71].kv_mapper.1                                      *  *
    {down,up}_blocks.[0-1].[0-71].{mapper,mapper_sca,mapper_crp,mapper_pixels}     *  *
    {down,up}_blocks.[0-1].[0-71].channelwise.{0,4}                                *  *
    {down,up}_blocks.[0-1].[0-71].depthwise                                        *  *  *
    {clip_txt_pooled_mapper,clip_txt_mapper,clip_img_mapper}                       *  *
"""


def _wan(variant: str, *more: str, **numbers: int) -> Model:
    return Model(variant, (_WAN, *more), numbers)


def _kandinsky(variant: str, width: int) -> Model:
    return Model(variant, (_KANDINSKY5,), {"d": width, "f": 4 * width})


FAMILIES = (
    Family(
        "wan",
        "Wan",
        (
            _wan("1.3b", _WAN_IMAGE, d=1536, f=8960, N=29),
            _wan("14b", d=5120, f=13824, N=39),
            _wan("14b-i2v", _WAN_IMAGE, d=5120, f=13824, N=39),
            _wan("5b", d=3072, f=14336, N=29),
        ),
        merged={frozenset({"14b", "14b-i2v"}): "14b"},
        claims=("wan",),
        variants={"i2v": "14b-i2v", "14b": "14b", "5b": "5b", "13b": "1.3b"},
        words=("wan", "wan21", "wan22"),
    ),
    Family(
        "z-image",
        "Z-Image",
        (Model(None, (_NEXT_DIT,), {"d": 3840, "k": 3840, "f": 10240, "t": 256, "c": 2560, "N": 29}),),
        claims=("zimage",),
        variants={"turbo": "turbo", "base": "base"},
        words=("zimage", "zit"),
    ),
    Family(
        "lumina2",
        "Lumina 2",
        (Model(None, (_NEXT_DIT,), {"d": 2304, "k": 768, "f": 9216, "t": 1024, "c": 2304, "N": 25}),),
        text={"te": "gemma-2b"},
        claims=("lumina2", "lumina"),
        words=("lumina", "lumina2", "neta"),
    ),
    Family("ideogram4", "Ideogram 4", (Model(None, (_IDEOGRAM,), {"d": 4608}),), claims=("ideogram",),
           words=("ideogram", "ideogram4")),
    Family("ernie-image", "ERNIE-Image", (Model(None, (_ERNIE,), {"d": 3072}),), claims=("ernie",),
           words=("ernie",)),
    Family(
        "anima",
        "Anima (Cosmos-Predict2)",
        (
            Model("2b", (_COSMOS, _LLM_ADAPTER), {"d": 2048, "N": 27}),
            Model("14b", (_COSMOS,), {"d": 5120, "N": 35}),
        ),
        text={"te": "qwen3-0.6b"},
        claims=("anima", "cosmos"),
        variants={"14b": "14b", "2b": "2b"},
        words=("anima", "cosmos"),
    ),
    Family("krea2", "Krea 2", (Model(None, (_KREA2,), {"d": 6144}),), claims=("krea2",), words=("krea2",)),
    Family("minimax-h3", "MiniMax H3", (Model(None, (_MINIMAX,), {"d": 5376, "h": 7168}),), claims=("minimaxh3",),
           words=("minimax", "minimaxh3")),
    Family(
        "kandinsky5",
        "Kandinsky 5",
        (_kandinsky("lite", 1792), _kandinsky("image-lite", 2560), _kandinsky("pro", 4096)),
        claims=("kandinsky5",),
        variants={"pro": "pro", "lite": "lite"},
        words=("kandinsky", "kandinsky5"),
    ),
    Family("cascade", "Stable Cascade", (Model(None, (_CASCADE,)),), claims=("stablecascade", "wuerstchen"),
           words=("cascade",)),
)  # fmt: skip
