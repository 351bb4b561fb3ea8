"""LTX-Video, LTX-2, PixArt, Sana, CogVideoX, CogView 4 and Mochi: all call their attentions `attn1` (and `attn2`).

Widths tell them apart. PixArt and the small Sana are equally wide: attention alone does not say which of the two it is.
"""

from __future__ import annotations

from loravault.formats.families.table import Family, Model

_SELF_AND_CROSS = """
    transformer_blocks.[0-N].attn{1,2}.{to_q,to_k,to_v,to_out.0}  d   d
"""
_FORWARD = """
    transformer_blocks.[0-N].ff.net.0.proj                        d   4d
    transformer_blocks.[0-N].ff.net.2                             4d  d
"""
_LTX = """
    {proj_in,patchify_proj}                                       128   d
    {time_embed,adaln_single}.emb.timestep_embedder.linear_1      256   d
    {time_embed,adaln_single}.emb.timestep_embedder.linear_2      d     d
    {time_embed,adaln_single}.linear                              d     6d
    caption_projection.linear_1                                   c     d
    caption_projection.linear_2                                   d     d
    proj_out                                                      d     128
"""
_LTX2 = """
    {audio_proj_in,audio_patchify_proj}                           128   a
    audio_caption_projection.linear_1                             c     a
    audio_caption_projection.linear_2                             a     a
    {audio_time_embed,audio_adaln_single}.emb.timestep_embedder.linear_1  256  a
    {audio_time_embed,audio_adaln_single}.emb.timestep_embedder.linear_2  a    a
    {audio_time_embed,audio_adaln_single}.linear                  a     6a
    {prompt_adaln,audio_prompt_adaln,prompt_adaln_single,audio_prompt_adaln_single}.linear  *  *
    {av_cross_attn_video_scale_shift,av_cross_attn_video_a2v_gate}.emb.timestep_embedder.linear_{1,2}  256|d  d
    {av_cross_attn_audio_scale_shift,av_cross_attn_audio_v2a_gate}.emb.timestep_embedder.linear_{1,2}  256|a  a
    {av_ca_video_scale_shift,av_ca_a2v_gate}_adaln_single.emb.timestep_embedder.linear_{1,2}  256|d  d
    {av_ca_audio_scale_shift,av_ca_v2a_gate}_adaln_single.emb.timestep_embedder.linear_{1,2}  256|a  a
    {av_cross_attn_video_scale_shift,av_ca_video_scale_shift_adaln_single}.linear  d  4d
    {av_cross_attn_audio_scale_shift,av_ca_audio_scale_shift_adaln_single}.linear  a  4a
    {av_cross_attn_video_a2v_gate,av_ca_a2v_gate_adaln_single}.linear              d  d
    {av_cross_attn_audio_v2a_gate,av_ca_v2a_gate_adaln_single}.linear              a  a
    transformer_blocks.[0-N].audio_attn{1,2}.{to_q,to_k,to_v,to_out.0}  a  a
    transformer_blocks.[0-N].audio_to_video_attn.to_q             d     a
    transformer_blocks.[0-N].audio_to_video_attn.to_{k,v}         a     a
    transformer_blocks.[0-N].audio_to_video_attn.to_out.0         a     d
    transformer_blocks.[0-N].video_to_audio_attn.to_q             a     a
    transformer_blocks.[0-N].video_to_audio_attn.to_{k,v}         d     a
    transformer_blocks.[0-N].video_to_audio_attn.to_out.0         a     a
    transformer_blocks.[0-N].{attn1,attn2,audio_attn1,audio_attn2}.to_gate_logits  d|a  *
    transformer_blocks.[0-N].{audio_to_video_attn,video_to_audio_attn}.to_gate_logits  d|a  *
    transformer_blocks.[0-N].audio_ff.net.0.proj                  a     4a
    transformer_blocks.[0-N].audio_ff.net.2                       4a    a
    audio_proj_out                                                a     128
"""
_PIXART = """
    pos_embed.proj                                                4     d   2
    adaln_single.emb.timestep_embedder.linear_1                   256   d
    adaln_single.emb.timestep_embedder.linear_2                   d     d
    adaln_single.emb.{resolution,aspect_ratio}_embedder.linear_1  256   384
    adaln_single.emb.{resolution,aspect_ratio}_embedder.linear_2  384   384
    adaln_single.linear                                           d     6d
    caption_projection.linear_1                                   4096  d
    caption_projection.linear_2                                   d     d
    proj_out                                                      d     32
    blocks.[0-N].attn.qkv                                         d     3d
    blocks.[0-N].{attn.proj,cross_attn.proj,cross_attn.q_linear}  d     d
    blocks.[0-N].cross_attn.kv_linear                             d     2d
    blocks.[0-N].mlp.fc1                                          d     4d
    blocks.[0-N].mlp.fc2                                          4d    d
"""
_SANA = """
    patch_embed.proj                                              *     d   *
    patch_embedding                                               16    d   *
    time_embed.emb.timestep_embedder.linear_1                     256   d
    time_embed.emb.timestep_embedder.linear_2                     d     d
    time_embed.linear                                             d     6d
    caption_projection.linear_1                                   2304  d
    caption_projection.linear_2                                   d     d
    transformer_blocks.[0-N].ff.conv_inverted                     d     5d  1
    transformer_blocks.[0-N].ff.conv_depth                        *     5d  3
    transformer_blocks.[0-N].ff.conv_point                        h     d   1
    transformer_blocks.[0-N].ff.conv_temp                         d     d   *
    proj_out                                                      d     *
"""
_COG = """
    transformer_blocks.[0-N].attn1.{to_q,to_k,to_v,to_out.0}      d     d
    transformer_blocks.[0-N].{norm1,norm2}.linear                 512   *
    patch_embed.text_proj                                         4096  d
    patch_embed.proj                                              *     d   *
    {time_embedding,time_condition_embed.timestep_embedder}.linear_1  d|512  512
    {time_embedding,time_condition_embed.timestep_embedder}.linear_2  512    512
    norm_out.linear                                               512   2d
    proj_out                                                      d     *
"""
_MOCHI = """
    patch_embed.proj                                              12    d   2
    transformer_blocks.[0-47].norm1.linear                        d     4d
    transformer_blocks.[0-47].norm1_context.{linear,linear_1}     d     *
    transformer_blocks.[0-47].attn1.{to_q,to_k,to_v,to_out.0}     d     d
    transformer_blocks.[0-47].attn1.add_{q,k,v}_proj              1536  d
    transformer_blocks.[0-47].attn1.to_add_out                    d     1536
    transformer_blocks.[0-47].ff.net.0.proj                       d     16384
    transformer_blocks.[0-47].ff.net.2                            8192  d
    transformer_blocks.[0-47].ff_context.net.0.proj               1536  8192
    transformer_blocks.[0-47].ff_context.net.2                    4096  1536
    time_embed.timestep_embedder.linear_{1,2}                     256|d d
    time_embed.pooler.{to_q,to_kv,to_out}                         4096  *
    time_embed.caption_proj                                       4096  1536
    norm_out.linear                                               d     2d
    blocks.[0-47].attn.qkv_x                                      d     3d
    blocks.[0-47].attn.qkv_y                                      1536  3d
    blocks.[0-47].attn.proj_x                                     d     d
    blocks.[0-47].attn.proj_y                                     d     1536
    blocks.[0-47].mlp_x.w1                                        d     *
    blocks.[0-47].mlp_x.w2                                        *     d
    blocks.[0-47].mlp_y.w1                                        1536  *
    blocks.[0-47].mlp_y.w2                                        *     1536
    blocks.[0-47].mod_{x,y}                                       d     *
"""

_VIDEO = (_SELF_AND_CROSS, _FORWARD, _LTX)

FAMILIES = (
    Family(
        "ltx",
        "LTX-Video",
        (
            Model("2b", _VIDEO, {"d": 2048, "N": 27, "c": 4096}),
            Model("13b", _VIDEO, {"d": 4096, "N": 47, "c": 4096}),
            Model("ltx2", (*_VIDEO, _LTX2), {"d": 4096, "a": 2048, "N": 47, "c": 3840}),
        ),
        claims=("ltx",),
        variants={"ltx2": "ltx2", "ltxv2": "ltx2", "ltxvideo2": "ltx2", "13b": "13b", "2b": "2b"},
        words=("ltx", "ltxv", "ltxvideo", "ltx2"),
    ),
    Family(
        "pixart",
        "PixArt",
        (Model(None, (_SELF_AND_CROSS, _FORWARD, _PIXART), {"d": 1152, "N": 27}),),
        claims=("pixart",),
        variants={"sigma": "sigma", "alpha": "alpha"},
        words=("pixart",),
    ),
    Family(
        "sana",
        "Sana",
        (
            Model("0.6b", (_SELF_AND_CROSS, _SANA), {"d": 1152, "h": 2880, "N": 27}),
            Model("1.6b", (_SELF_AND_CROSS, _SANA), {"d": 2240, "h": 5600, "N": 19}),
            Model("4.8b", (_SELF_AND_CROSS, _SANA), {"d": 2240, "h": 5600, "N": 59}),
        ),
        rarer_than=("pixart",),
        merged={frozenset({"1.6b", "4.8b"}): "1.6b"},  # 4.8B has the blocks of 1.6B and forty more
        text={"te": "gemma-2b"},
        claims=("sana",),
        variants={"06b": "0.6b", "16b": "1.6b", "48b": "4.8b"},
        words=("sana",),
    ),
    Family(
        "cogvideox",
        "CogVideoX",
        (
            Model("2b", (_COG, _FORWARD), {"d": 1920, "N": 29}),
            Model("5b", (_COG, _FORWARD), {"d": 3072, "N": 41}),
        ),
        claims=("cogvideo",),
        variants={"2b": "2b", "5b": "5b"},
        words=("cogvideo", "cogvideox"),
    ),
    Family(
        "cogview4", "CogView 4", (Model(None, (_COG, _FORWARD), {"d": 2560, "N": 29}),), claims=("cogview4",),
        words=("cogview", "cogview4"),
    ),
    Family(
        "mochi", "Mochi", (Model(None, (_MOCHI,), {"d": 3072}),), rarer_than=("cogvideox",), claims=("mochi",),
        words=("mochi",),
    ),
)  # fmt: skip
