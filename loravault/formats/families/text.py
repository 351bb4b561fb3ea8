"""The text encoders that adapters patch too; several families share one."""

from __future__ import annotations

from collections.abc import Mapping

_CLIP = """
    {text_model.encoder,encoder}.layers.[0-N].self_attn.{q,k,v,out}_proj   d   d
    {text_model.encoder,encoder}.layers.[0-N].mlp.fc1                      d   4d
    {text_model.encoder,encoder}.layers.[0-N].mlp.fc2                      4d  d
"""
_T5 = """
    encoder.block.[0-23].layer.[0].SelfAttention.{q,k,v,o}                 d   d
    encoder.block.[0-23].layer.[1].DenseReluDense.{wi_0,wi_1}              d   10240
    encoder.block.[0-23].layer.[1].DenseReluDense.wo                       10240  d
"""
_LANGUAGE_MODEL = """
    {model.layers,layers}.[0-N].self_attn.{q,k,v,o}_proj                   d|q  *
    {model.layers,layers}.[0-N].mlp.{gate,up,down}_proj                    d|f  d|f
"""

#: Name → text of layers and the numbers in it.
ENCODERS: Mapping[str, tuple[str, Mapping[str, int]]] = {
    "clip-demo": (_CLIP, {"d": 160, "N": 1}),
    "clip-l": (_CLIP, {"d": 768, "N": 11}),
    "clip-h": (_CLIP, {"d": 1024, "N": 23}),
    "clip-g": (_CLIP, {"d": 1280, "N": 31}),
    "t5-xxl": (_T5, {"d": 4096}),
    "gemma-2b": (_LANGUAGE_MODEL, {"d": 2304, "q": 2048, "f": 9216, "N": 25}),
    "qwen3-0.6b": (_LANGUAGE_MODEL, {"d": 1024, "q": 2048, "f": 3072, "N": 27}),
}
