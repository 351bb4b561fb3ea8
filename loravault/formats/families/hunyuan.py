"""HunyuanVideo (and FramePack), HunyuanVideo 1.5, HunyuanImage 2.1.

HunyuanVideo is as wide as Flux.1 and partly named alike: `img_attn_qkv`, `linear1` and `linear2` are the same in both.
It is told by `mlp_fc1`, `mod_linear`, its refiner of the text, and by one more double and two more single blocks.
"""

from __future__ import annotations

from loravault.formats.families.table import Family, Model

# Tencent's names; ComfyUI and tools that follow it say `mlp.0` and `mod.lin` as for Flux.
_NATIVE = """
    img_in.proj                                       *      d  *
    txt_in.input_embedder                             c      d
    txt_in.t_embedder.mlp.0                           256    d
    txt_in.t_embedder.mlp.2                           d      d
    txt_in.c_embedder.linear_1                        c      d
    txt_in.c_embedder.linear_2                        d      d
    txt_in.individual_token_refiner.blocks.[0-1].self_attn_qkv       d   3d
    txt_in.individual_token_refiner.blocks.[0-1].self_attn_proj      d   d
    txt_in.individual_token_refiner.blocks.[0-1].self_attn.qkv       d   3d
    txt_in.individual_token_refiner.blocks.[0-1].self_attn.proj      d   d
    txt_in.individual_token_refiner.blocks.[0-1].mlp.{fc1,0}         d   4d
    txt_in.individual_token_refiner.blocks.[0-1].mlp.{fc2,2}         4d  d
    txt_in.individual_token_refiner.blocks.[0-1].adaLN_modulation.1  d   2d
    {time,guidance,time_r}_in.mlp.0                   256    d
    {time,guidance,time_r}_in.mlp.2                   d      d
    {time,guidance}_in.in_layer                       256    d
    {time,guidance}_in.out_layer                      d      d
    vector_in.in_layer                                768    d
    vector_in.out_layer                               d      d
    double_blocks.[0-D].{img,txt}_attn_qkv            d      3d
    double_blocks.[0-D].{img,txt}_attn_{q,k,v,proj}   d      d
    double_blocks.[0-D].{img,txt}_mlp.{fc1,0}         d      4d
    double_blocks.[0-D].{img,txt}_mlp.{fc2,2}         4d     d
    double_blocks.[0-D].{img,txt}_mod.{linear,lin}    d      6d
    final_layer.linear                                d      *
    final_layer.adaLN_modulation.1                    d      2d
"""
_SINGLE = """
    single_blocks.[0-39].linear1                      d      7d
    single_blocks.[0-39].linear2                      5d     d
    single_blocks.[0-39].modulation.{linear,lin}      d      3d
"""
_BYT5 = """
    byt5_in.fc1                                       *      *
    byt5_in.{fc2,fc3}                                 *      *
    vision_in.proj.[0-4]                              *      *
"""
_DIFFUSERS = """
    x_embedder.proj                                                     *    d  *
    context_embedder.time_text_embed.timestep_embedder.linear_1         256  d
    context_embedder.time_text_embed.text_embedder.linear_1             c    d
    context_embedder.time_text_embed.{timestep,text}_embedder.linear_2  d    d
    context_embedder.proj_in                                            c    d
    context_embedder.token_refiner.refiner_blocks.[0-1].attn.{to_q,to_k,to_v,to_out.0}  d  d
    context_embedder.token_refiner.refiner_blocks.[0-1].ff.net.0.proj   d    4d
    context_embedder.token_refiner.refiner_blocks.[0-1].ff.net.2        4d   d
    context_embedder.token_refiner.refiner_blocks.[0-1].norm_out.linear d    2d
    {time_text_embed,time_guidance_embed,time_embed}.{timestep,guidance}_embedder.linear_1  256  d
    time_text_embed.text_embedder.linear_1                              768  d
    {time_text_embed,time_guidance_embed,time_embed}.{timestep,guidance,text}_embedder.linear_2  d  d
    transformer_blocks.[0-D].{norm1,norm1_context}.linear               d    6d
    transformer_blocks.[0-D].attn.{to_q,to_k,to_v,to_out.0,to_add_out}  d    d
    transformer_blocks.[0-D].attn.add_{q,k,v}_proj                      d    d
    transformer_blocks.[0-D].{ff,ff_context}.net.0.proj                 d    4d
    transformer_blocks.[0-D].{ff,ff_context}.net.2                      4d   d
    norm_out.linear                                                     d    2d
    proj_out                                                            d    *
"""
_DIFFUSERS_SINGLE = """
    single_transformer_blocks.[0-39].attn.to_{q,k,v}                    d    d
    single_transformer_blocks.[0-39].norm.linear                        d    3d
    single_transformer_blocks.[0-39].proj_mlp                           d    4d
    single_transformer_blocks.[0-39].proj_out                           5d   d
"""
_DIFFUSERS_BYT5 = """
    image_embedder.linear_1                                             1152 1152
    image_embedder.linear_2                                             1152 d
    context_embedder_2.linear_1                                         1472 d
    context_embedder_2.linear_{2,3}                                     d    d
"""
_FRAMEPACK = """
    clean_x_embedder.{proj,proj_2x,proj_4x}                             16   d  *
    image_projection.{up,down}                                          *    *
"""

FAMILIES = (
    Family(
        "hunyuan-video",
        "HunyuanVideo",
        (
            Model(None, (_NATIVE, _SINGLE, _DIFFUSERS, _DIFFUSERS_SINGLE, _FRAMEPACK),
                  {"d": 3072, "c": 4096, "D": 19}),
            Model("1.5", (_NATIVE, _BYT5, _DIFFUSERS, _DIFFUSERS_BYT5), {"d": 2048, "c": 3584, "D": 53}),
        ),
        rarer_than=("flux", "qwen-image"),
        text={"te1": "clip-l"},
        claims=("hunyuanvideo", "framepack"),
        variants={"hunyuanvideo15": "1.5", "framepack": "framepack"},
        words=("hunyuan", "hunyuanvideo", "hyvid", "hyvideo", "hunyuanvid", "framepack"),
    ),
    Family(
        "hunyuan-image",
        "HunyuanImage 2.1",
        (Model(None, (_NATIVE, _SINGLE, _BYT5, _DIFFUSERS, _DIFFUSERS_SINGLE, _DIFFUSERS_BYT5),
               {"d": 3584, "c": 3584, "D": 19}),),
        claims=("hunyuanimage",),
        words=("hunyuanimage",),
    ),
)  # fmt: skip
