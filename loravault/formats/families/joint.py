"""Qwen-Image, Stable Diffusion 3, AuraFlow and HiDream: image and text go through the same attention."""

from __future__ import annotations

from loravault.formats.families.table import Family, Model

_ATTENTION = """
    transformer_blocks.[0-N].attn.{to_q,to_k,to_v,to_out.0,to_add_out}  d   d
    transformer_blocks.[0-N].attn.add_{q,k,v}_proj                      d   d
"""
_QWEN = """
    img_in                                                64    d
    txt_in                                                3584  d
    time_text_embed.timestep_embedder.linear_1            256   d
    time_text_embed.timestep_embedder.linear_2            d     d
    transformer_blocks.[0-N].{img,txt}_mod.1              d     6d
    transformer_blocks.[0-N].{img,txt}_mlp.net.0.proj     d     4d
    transformer_blocks.[0-N].{img,txt}_mlp.net.2          4d    d
    norm_out.linear                                       d     2d
    proj_out                                              d     64
"""
_SD3 = """
    pos_embed.proj                                        16    d  2
    context_embedder                                      4096  d
    time_text_embed.timestep_embedder.linear_1            256   d
    time_text_embed.text_embedder.linear_1                2048  d
    time_text_embed.{timestep,text}_embedder.linear_2     d     d
    transformer_blocks.[0-N].norm1.linear                 d     6d|9d
    transformer_blocks.[0-N].norm1_context.linear         d     6d|2d
    transformer_blocks.[0-N].{ff,ff_context}.net.0.proj   d     4d
    transformer_blocks.[0-N].{ff,ff_context}.net.2        4d    d
    norm_out.linear                                       d     2d
    proj_out                                              d     64
    x_embedder.proj                                       16    d  2
    t_embedder.mlp.0                                      256   d
    y_embedder.mlp.0                                      2048  d
    {t_embedder,y_embedder}.mlp.2                         d     d
    joint_blocks.[0-N].{x_block,context_block}.attn.qkv   d     3d
    joint_blocks.[0-N].{x_block,context_block}.attn.proj  d     d
    joint_blocks.[0-N].{x_block,context_block}.mlp.fc1    d     4d
    joint_blocks.[0-N].{x_block,context_block}.mlp.fc2    4d    d
    joint_blocks.[0-N].x_block.adaLN_modulation.1         d     6d|9d
    joint_blocks.[0-N].context_block.adaLN_modulation.1   d     6d|2d
    final_layer.linear                                    d     64
    final_layer.adaLN_modulation.1                        d     2d
"""
# 3.5 medium has a second attention of the image alone in its first half.
_SD35_MEDIUM = """
    transformer_blocks.[0-12].attn2.{to_q,to_k,to_v,to_out.0}  d  d
    joint_blocks.[0-12].x_block.attn2.qkv                      d  3d
    joint_blocks.[0-12].x_block.attn2.proj                     d  d
"""
_AURAFLOW = """
    pos_embed.proj                                        16    d  *
    {context_embedder,cond_seq_linear}                    2048  d
    init_x_linear                                         16    d
    {time_step_proj.linear_1,t_embedder.mlp.0}            256   d
    {time_step_proj.linear_2,t_embedder.mlp.2}            d     d
    joint_transformer_blocks.[0-3].{norm1,norm1_context}.linear                     d  6d
    joint_transformer_blocks.[0-3].attn.{to_q,to_k,to_v,to_out.0,to_add_out}        d  d
    joint_transformer_blocks.[0-3].attn.add_{q,k,v}_proj                            d  d
    joint_transformer_blocks.[0-3].{ff,ff_context}.{linear_1,linear_2}              d  8192
    joint_transformer_blocks.[0-3].{ff,ff_context}.out_projection                   8192  d
    single_transformer_blocks.[0-31].norm1.linear                                   d  6d
    single_transformer_blocks.[0-31].attn.{to_q,to_k,to_v,to_out.0}                 d  d
    single_transformer_blocks.[0-31].ff.{linear_1,linear_2}                         d  8192
    single_transformer_blocks.[0-31].ff.out_projection                              8192  d
    double_layers.[0-3].attn.{w1q,w1k,w1v,w1o,w2q,w2k,w2v,w2o}                      d  d
    double_layers.[0-3].{mlpX,mlpC}.{c_fc1,c_fc2}                                   d  8192
    double_layers.[0-3].{mlpX,mlpC}.c_proj                                          8192  d
    double_layers.[0-3].{modX,modC}.1                                               d  6d
    single_layers.[0-31].attn.{w1q,w1k,w1v,w1o}                                     d  d
    single_layers.[0-31].mlp.{c_fc1,c_fc2}                                          d  8192
    single_layers.[0-31].mlp.c_proj                                                 8192  d
    single_layers.[0-31].modCX.1                                                    d  6d
    {norm_out.linear,modF.1}                              d     2d
    {proj_out,final_linear}                               d     16
"""
_HIDREAM = """
    {t_embedder.timestep_embedder,p_embedder.pooled_embedder}.linear_{1,2}          *  d
    x_embedder.proj                                                                 64 d
    {double,single}_stream_blocks.[0-31].block.adaLN_modulation.1                   d  *
    {double,single}_stream_blocks.[0-31].block.attn1.{to_q,to_k,to_v,to_out}        d  d
    double_stream_blocks.[0-15].block.attn1.{to_q_t,to_k_t,to_v_t,to_out_t}         d  d
    {double,single}_stream_blocks.[0-31].block.attn.{to_q,to_k,to_v,to_out}         d  d
    {double,single}_stream_blocks.[0-31].block.ff_i.shared_experts.{w1,w3}          d  3584
    {double,single}_stream_blocks.[0-31].block.ff_i.shared_experts.w2               3584  d
    {double,single}_stream_blocks.[0-31].block.ff_i.experts.[0-3].{w1,w3}           d  6912
    {double,single}_stream_blocks.[0-31].block.ff_i.experts.[0-3].w2                6912  d
    {double,single}_stream_blocks.[0-31].block.ff_i.gate                            d  4
    double_stream_blocks.[0-15].block.ff_t.{w1,w3}                                  d  6912
    double_stream_blocks.[0-15].block.ff_t.w2                                       6912  d
    caption_projection.[0-48].linear                                                4096  d
    final_layer.linear                                                              d  64
    final_layer.adaLN_modulation.1                                                  d  2d
"""
# A language model that draws: Qwen3-VL with a head for pixels.
_HIDREAM_O1 = """
    language_model.layers.[0-63].self_attn.{q,k,v,o}_proj          *  *
    language_model.layers.[0-63].mlp.{gate,up,down}_proj           *  *
    {final_layer2,x_embedder2,t_embedder2}.linear                  *  *
"""


def _sd3(variant: str, width: int, last: int, *more: str) -> Model:
    return Model(variant, (_ATTENTION, _SD3, *more), {"d": width, "N": last})


FAMILIES = (
    Family(
        "qwen-image",
        "Qwen-Image",
        (Model(None, (_ATTENTION, _QWEN), {"d": 3072, "N": 59}),),
        claims=("qwen",),
        variants={
            "editplus": "edit-plus", "edit2509": "edit-plus", "edit2511": "edit-2511", "edit": "edit",
            "layered": "layered", "2512": "2512",
        },
        words=("qwen", "qwenimage"),
    ),
    Family(
        "sd3",
        "Stable Diffusion 3",
        (
            _sd3("medium", 1536, 23),
            _sd3("3.5-medium", 1536, 23, _SD35_MEDIUM),
            _sd3("3.5-large", 2432, 37),
        ),
        merged={frozenset({"medium", "3.5-medium"}): "medium"},
        text={"te1": "clip-l", "te2": "clip-g", "te3": "t5-xxl"},
        claims=("sd3", "stablediffusion3", "stablediffusionv3", "sd35", "5large", "5medium", "medium"),
        variants={
            "35largeturbo": "3.5-large", "35large": "3.5-large", "5large": "3.5-large", "35medium": "3.5-medium",
            "5medium": "3.5-medium", "3medium": "medium", "medium": "medium", "large": "3.5-large",
        },
        words=("sd3", "sd35", "sd3m"),
    ),
    Family(
        "auraflow",
        "AuraFlow",
        (Model(None, (_AURAFLOW,), {"d": 3072}),),
        rarer_than=("flux", "qwen-image"),
        claims=("auraflow",),
        variants={"pony": "pony-v7"},
        words=("auraflow", "ponyv7"),
    ),
    Family(
        "hidream",
        "HiDream",
        (Model("i1", (_HIDREAM,), {"d": 2560}), Model("o1", (_HIDREAM_O1,))),
        claims=("hidream",),
        variants={"o1": "o1", "i1": "i1"},
        words=("hidream",),
    ),
)  # fmt: skip
