"""What the models' own code, and trainers after it, call the layers that diffusers has.

One line is one layer: its name there, then the module of diffusers that it is, or those that it is made of, in the
order of their rows. `#` stands for any number. `{q,k,v}` writes three modules in one word. In brackets stands which
rows of a module are meant, as multiples of the width it reads (`[1:2]`, `[3:]`), or `[swap]`: its two halves change
places, as diffusers keeps scale before shift where the original has shift before scale. Of several lines with one name,
the first counts whose modules the base has.

Names that a model has itself need no line. Sources: the converters for checkpoints in diffusers (the weights themselves
show which rows are which); its converters for adapters agree, but for Flux.2, where they forget the swap.
"""

from __future__ import annotations

from collections.abc import Mapping

# How Black Forest Labs call the double blocks; the single blocks differ between their models.
_DOUBLE_BLOCKS = """
    double_blocks.#.img_attn.qkv              transformer_blocks.#.attn.to_{q,k,v}
    double_blocks.#.txt_attn.qkv              transformer_blocks.#.attn.add_{q,k,v}_proj
    double_blocks.#.img_attn.qkv              transformer_blocks.#.attn.to_qkv
    double_blocks.#.txt_attn.qkv              transformer_blocks.#.attn.to_added_qkv
    double_blocks.#.img_attn.proj             transformer_blocks.#.attn.to_out.0
    double_blocks.#.txt_attn.proj             transformer_blocks.#.attn.to_add_out
    double_blocks.#.img_attn.norm.query_norm  transformer_blocks.#.attn.norm_q
    double_blocks.#.img_attn.norm.key_norm    transformer_blocks.#.attn.norm_k
    double_blocks.#.txt_attn.norm.query_norm  transformer_blocks.#.attn.norm_added_q
    double_blocks.#.txt_attn.norm.key_norm    transformer_blocks.#.attn.norm_added_k
    img_in                                    x_embedder
    img_in.proj                               x_embedder
    txt_in                                    context_embedder
    final_layer.linear                        proj_out
    final_layer.adaLN_modulation.1            norm_out.linear[swap]
"""
_FLUX = """
    double_blocks.#.img_mlp.0                 transformer_blocks.#.ff.net.0.proj
    double_blocks.#.img_mlp.2                 transformer_blocks.#.ff.net.2
    double_blocks.#.txt_mlp.0                 transformer_blocks.#.ff_context.net.0.proj
    double_blocks.#.txt_mlp.2                 transformer_blocks.#.ff_context.net.2
    single_blocks.#.linear1      single_transformer_blocks.#.attn.to_{q,k,v} single_transformer_blocks.#.proj_mlp
    single_blocks.#.linear2                   single_transformer_blocks.#.proj_out
    single_blocks.#.norm.query_norm           single_transformer_blocks.#.attn.norm_q
    single_blocks.#.norm.key_norm             single_transformer_blocks.#.attn.norm_k
"""
# Chroma has one layer in place of all these.
_FLUX_MODULATION = """
    double_blocks.#.img_mod.lin               transformer_blocks.#.norm1.linear
    double_blocks.#.txt_mod.lin               transformer_blocks.#.norm1_context.linear
    single_blocks.#.modulation.lin            single_transformer_blocks.#.norm.linear
    time_in.in_layer                          time_text_embed.timestep_embedder.linear_1
    time_in.out_layer                         time_text_embed.timestep_embedder.linear_2
    guidance_in.in_layer                      time_text_embed.guidance_embedder.linear_1
    guidance_in.out_layer                     time_text_embed.guidance_embedder.linear_2
    vector_in.in_layer                        time_text_embed.text_embedder.linear_1
    vector_in.out_layer                       time_text_embed.text_embedder.linear_2
"""
_CHROMA = """
    distilled_guidance_layer.layers.#.in_layer   distilled_guidance_layer.layers.#.linear_1
    distilled_guidance_layer.layers.#.out_layer  distilled_guidance_layer.layers.#.linear_2
"""
# XLabs' trainer keeps its adapters in attention processors; `_2` is what it calls `lora2`, for the text stream.
_XLABS = """
    double_blocks.#.processor.qkv             transformer_blocks.#.attn.to_{q,k,v}
    double_blocks.#.processor.qkv_2           transformer_blocks.#.attn.add_{q,k,v}_proj
    double_blocks.#.processor.proj            transformer_blocks.#.attn.to_out.0
    double_blocks.#.processor.proj_2          transformer_blocks.#.attn.to_add_out
    single_blocks.#.processor.qkv             single_transformer_blocks.#.attn.to_{q,k,v}
    single_blocks.#.processor.proj            single_transformer_blocks.#.proj_out
"""
_FLUX2 = """
    double_blocks.#.img_mlp.0                 transformer_blocks.#.ff.linear_in
    double_blocks.#.img_mlp.2                 transformer_blocks.#.ff.linear_out
    double_blocks.#.txt_mlp.0                 transformer_blocks.#.ff_context.linear_in
    double_blocks.#.txt_mlp.2                 transformer_blocks.#.ff_context.linear_out
    single_blocks.#.linear1                   single_transformer_blocks.#.attn.to_qkv_mlp_proj
    single_blocks.#.linear2                   single_transformer_blocks.#.attn.to_out
    single_blocks.#.norm.query_norm           single_transformer_blocks.#.attn.norm_q
    single_blocks.#.norm.key_norm             single_transformer_blocks.#.attn.norm_k
    single_blocks.#.linear1.0                 single_transformer_blocks.#.attn.to_qkv_mlp_proj[0:1]
    single_blocks.#.linear1.1                 single_transformer_blocks.#.attn.to_qkv_mlp_proj[1:2]
    single_blocks.#.linear1.2                 single_transformer_blocks.#.attn.to_qkv_mlp_proj[2:3]
    single_blocks.#.linear1.3                 single_transformer_blocks.#.attn.to_qkv_mlp_proj[3:]
    single_transformer_blocks.#.attn.to_q     single_transformer_blocks.#.attn.to_qkv_mlp_proj[0:1]
    single_transformer_blocks.#.attn.to_k     single_transformer_blocks.#.attn.to_qkv_mlp_proj[1:2]
    single_transformer_blocks.#.attn.to_v     single_transformer_blocks.#.attn.to_qkv_mlp_proj[2:3]
    single_transformer_blocks.#.proj_mlp      single_transformer_blocks.#.attn.to_qkv_mlp_proj[3:]
    single_transformer_blocks.#.proj_out      single_transformer_blocks.#.attn.to_out
    time_in.in_layer                          time_guidance_embed.timestep_embedder.linear_1
    time_in.out_layer                         time_guidance_embed.timestep_embedder.linear_2
    guidance_in.in_layer                      time_guidance_embed.guidance_embedder.linear_1
    guidance_in.out_layer                     time_guidance_embed.guidance_embedder.linear_2
    double_stream_modulation_img.lin          double_stream_modulation_img.linear
    double_stream_modulation_txt.lin          double_stream_modulation_txt.linear
    single_stream_modulation.lin              single_stream_modulation.linear
"""
# In the last block the text has no gates, and what is left of them is swapped as in the final layer; `[swap]` fits no
# other block.
_SD3 = """
    joint_blocks.#.x_block.attn.qkv           transformer_blocks.#.attn.to_{q,k,v}
    joint_blocks.#.x_block.attn2.qkv          transformer_blocks.#.attn2.to_{q,k,v}
    joint_blocks.#.context_block.attn.qkv     transformer_blocks.#.attn.add_{q,k,v}_proj
    joint_blocks.#.x_block.attn.proj          transformer_blocks.#.attn.to_out.0
    joint_blocks.#.x_block.attn2.proj         transformer_blocks.#.attn2.to_out.0
    joint_blocks.#.context_block.attn.proj    transformer_blocks.#.attn.to_add_out
    joint_blocks.#.x_block.attn.ln_q          transformer_blocks.#.attn.norm_q
    joint_blocks.#.x_block.attn.ln_k          transformer_blocks.#.attn.norm_k
    joint_blocks.#.x_block.attn2.ln_q         transformer_blocks.#.attn2.norm_q
    joint_blocks.#.x_block.attn2.ln_k         transformer_blocks.#.attn2.norm_k
    joint_blocks.#.context_block.attn.ln_q    transformer_blocks.#.attn.norm_added_q
    joint_blocks.#.context_block.attn.ln_k    transformer_blocks.#.attn.norm_added_k
    joint_blocks.#.x_block.mlp.fc1            transformer_blocks.#.ff.net.0.proj
    joint_blocks.#.x_block.mlp.fc2            transformer_blocks.#.ff.net.2
    joint_blocks.#.context_block.mlp.fc1      transformer_blocks.#.ff_context.net.0.proj
    joint_blocks.#.context_block.mlp.fc2      transformer_blocks.#.ff_context.net.2
    joint_blocks.#.x_block.adaLN_modulation.1        transformer_blocks.#.norm1.linear
    joint_blocks.#.context_block.adaLN_modulation.1  transformer_blocks.#.norm1_context.linear[swap]
    joint_blocks.#.context_block.adaLN_modulation.1  transformer_blocks.#.norm1_context.linear
    x_embedder.proj                           pos_embed.proj
    t_embedder.mlp.0                          time_text_embed.timestep_embedder.linear_1
    t_embedder.mlp.2                          time_text_embed.timestep_embedder.linear_2
    y_embedder.mlp.0                          time_text_embed.text_embedder.linear_1
    y_embedder.mlp.2                          time_text_embed.text_embedder.linear_2
    final_layer.linear                        proj_out
    final_layer.adaLN_modulation.1            norm_out.linear[swap]
"""
_Z_IMAGE = """
    layers.#.attention.qkv                    layers.#.attention.to_{q,k,v}
    layers.#.attention.out                    layers.#.attention.to_out.0
    layers.#.attention.q_norm                 layers.#.attention.norm_q
    layers.#.attention.k_norm                 layers.#.attention.norm_k
    noise_refiner.#.attention.qkv             noise_refiner.#.attention.to_{q,k,v}
    noise_refiner.#.attention.out             noise_refiner.#.attention.to_out.0
    noise_refiner.#.attention.q_norm          noise_refiner.#.attention.norm_q
    noise_refiner.#.attention.k_norm          noise_refiner.#.attention.norm_k
    context_refiner.#.attention.qkv           context_refiner.#.attention.to_{q,k,v}
    context_refiner.#.attention.out           context_refiner.#.attention.to_out.0
    context_refiner.#.attention.q_norm        context_refiner.#.attention.norm_q
    context_refiner.#.attention.k_norm        context_refiner.#.attention.norm_k
    x_embedder                                all_x_embedder.2-1
    final_layer.linear                        all_final_layer.2-1.linear
    final_layer.adaLN_modulation.1            all_final_layer.2-1.adaLN_modulation.1
"""
_COSMOS = """
    blocks.#.self_attn.q_proj                 transformer_blocks.#.attn1.to_q
    blocks.#.self_attn.k_proj                 transformer_blocks.#.attn1.to_k
    blocks.#.self_attn.v_proj                 transformer_blocks.#.attn1.to_v
    blocks.#.self_attn.output_proj            transformer_blocks.#.attn1.to_out.0
    blocks.#.self_attn.q_norm                 transformer_blocks.#.attn1.norm_q
    blocks.#.self_attn.k_norm                 transformer_blocks.#.attn1.norm_k
    blocks.#.cross_attn.q_proj                transformer_blocks.#.attn2.to_q
    blocks.#.cross_attn.k_proj                transformer_blocks.#.attn2.to_k
    blocks.#.cross_attn.v_proj                transformer_blocks.#.attn2.to_v
    blocks.#.cross_attn.output_proj           transformer_blocks.#.attn2.to_out.0
    blocks.#.cross_attn.q_norm                transformer_blocks.#.attn2.norm_q
    blocks.#.cross_attn.k_norm                transformer_blocks.#.attn2.norm_k
    blocks.#.mlp.layer1                       transformer_blocks.#.ff.net.0.proj
    blocks.#.mlp.layer2                       transformer_blocks.#.ff.net.2
    blocks.#.adaln_modulation_self_attn.1     transformer_blocks.#.norm1.linear_1
    blocks.#.adaln_modulation_self_attn.2     transformer_blocks.#.norm1.linear_2
    blocks.#.adaln_modulation_cross_attn.1    transformer_blocks.#.norm2.linear_1
    blocks.#.adaln_modulation_cross_attn.2    transformer_blocks.#.norm2.linear_2
    blocks.#.adaln_modulation_mlp.1           transformer_blocks.#.norm3.linear_1
    blocks.#.adaln_modulation_mlp.2           transformer_blocks.#.norm3.linear_2
    x_embedder.proj.1                         patch_embed.proj
    t_embedder.1.linear_1                     time_embed.t_embedder.linear_1
    t_embedder.1.linear_2                     time_embed.t_embedder.linear_2
    t_embedding_norm                          time_embed.norm
    final_layer.linear                        proj_out
    final_layer.adaln_modulation.1            norm_out.linear_1
    final_layer.adaln_modulation.2            norm_out.linear_2
"""
# Layers that diffusers' `fuse_qkv_projections` makes, in an adapter trained with or without it.
_FUSED = """
    transformer_blocks.#.attn.to_qkv          transformer_blocks.#.attn.to_{q,k,v}
    transformer_blocks.#.attn.to_added_qkv    transformer_blocks.#.attn.add_{q,k,v}_proj
    transformer_blocks.#.attn.to_q            transformer_blocks.#.attn.to_qkv[0:1]
    transformer_blocks.#.attn.to_k            transformer_blocks.#.attn.to_qkv[1:2]
    transformer_blocks.#.attn.to_v            transformer_blocks.#.attn.to_qkv[2:3]
    transformer_blocks.#.attn.add_q_proj      transformer_blocks.#.attn.to_added_qkv[0:1]
    transformer_blocks.#.attn.add_k_proj      transformer_blocks.#.attn.to_added_qkv[1:2]
    transformer_blocks.#.attn.add_v_proj      transformer_blocks.#.attn.to_added_qkv[2:3]
"""
#: Family → texts of names for its transformer. What is not listed is found under its own names only.
TRANSFORMERS: Mapping[str, tuple[str, ...]] = {
    "flux": (_DOUBLE_BLOCKS, _FLUX, _FLUX_MODULATION, _XLABS, _FUSED),
    "chroma": (_DOUBLE_BLOCKS, _FLUX, _CHROMA, _XLABS, _FUSED),
    "flux2": (_DOUBLE_BLOCKS, _FLUX2, _FUSED),
    "sd3": (_SD3, _FUSED),
    "z-image": (_Z_IMAGE,),
    "qwen-image": (_FUSED,),
    "anima": (_COSMOS,),
}

#: Family → the texts by which kohya's scripts write its adapters; of what is not listed, they write diffusers' names.
WRITTEN: Mapping[str, tuple[str, ...]] = {
    "flux": (_DOUBLE_BLOCKS, _FLUX, _FLUX_MODULATION),
    "chroma": (_DOUBLE_BLOCKS, _FLUX, _CHROMA),
    "flux2": (_DOUBLE_BLOCKS, _FLUX2),
    "sd3": (_SD3,),
}

#: CLIP as old versions of diffusers called its attention, and as OpenCLIP calls everything.
CLIP = """
    encoder.layers.#.self_attn.to_q           encoder.layers.#.self_attn.q_proj
    encoder.layers.#.self_attn.to_k           encoder.layers.#.self_attn.k_proj
    encoder.layers.#.self_attn.to_v           encoder.layers.#.self_attn.v_proj
    encoder.layers.#.self_attn.to_out         encoder.layers.#.self_attn.out_proj
    transformer.resblocks.#.attn.in_proj      encoder.layers.#.self_attn.{q,k,v}_proj
    transformer.resblocks.#.attn.out_proj     encoder.layers.#.self_attn.out_proj
    transformer.resblocks.#.mlp.c_fc          encoder.layers.#.mlp.fc1
    transformer.resblocks.#.mlp.c_proj        encoder.layers.#.mlp.fc2
    transformer.resblocks.#.ln_1              encoder.layers.#.layer_norm1
    transformer.resblocks.#.ln_2              encoder.layers.#.layer_norm2
    ln_final                                  final_layer_norm
"""
