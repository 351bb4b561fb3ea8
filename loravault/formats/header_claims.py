"""What the metadata in an adapter's own header says: ModelSpec, additional-networks' editor, and the trainers.

All values are texts: numbers `"0.0001"`, absent ones `"None"`, structures as JSON in a text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from loravault.formats import plain
from loravault.formats.captions import CaptionSet, caption_sets, top_captions
from loravault.formats.claims import Claim, Claims, Rank
from loravault.formats.pictures import holds_picture
from loravault.formats.trigger_words import from_captions, from_texts

# What sd-scripts calls a file nobody gave a title: `LoRA@1700000000.5`.
_NO_TITLE = re.compile(r"(?:LoRA|Checkpoint|TextualInversion)@[0-9.]+", re.IGNORECASE)
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def header_claims(metadata: Mapping[str, str]) -> tuple[Claim, ...]:
    """Everything the header says, the declared before what follows from the training."""
    return (*declared(metadata), *trained(metadata, caption_sets(metadata)))


def declared(metadata: Mapping[str, str]) -> tuple[Claim, ...]:
    """`modelspec.*` (ModelSpec 1.0.1 with SwarmUI's additions), then `ssmd_*`."""
    claims = Claims("modelspec", Rank.DECLARED)
    _modelspec(claims, metadata)
    _ssmd(claims, metadata)
    return tuple(claims.found)


def _modelspec(claims: Claims, metadata: Mapping[str, str]) -> None:
    def get(key: str) -> str | None:
        claims.source = f"modelspec.{key}"
        return metadata.get(claims.source)

    title = plain.one_line(get("title"))
    claims.add("title", title if title and not _NO_TITLE.fullmatch(title) else None)
    claims.line("author", get("author"))
    hint, text = plain.paragraphs(metadata.get("modelspec.usage_hint")), plain.paragraphs(get("description"))
    if text is None:
        get("usage_hint")
    claims.text("description", "\n\n".join(part for part in (text, hint) if part))
    claims.add("trigger_words", from_texts(get("trigger_phrase")))
    claims.weight("weight", get("lora_default_weight"))
    claims.many("topics", get("tags"))
    claims.line("license", get("license"))
    # For an adapter of a Stable Diffusion model the layer of the text encoder it was trained on.
    claims.number("clip_skip", get("encoder_layer"), 1, 12)
    if "ot_branch" not in metadata and "ot_revision" not in metadata:  # OneTrainer hashes in another order
        claims.hash("autov3", get("hash_sha256"))
    for key in ("thumbnail", "preview_image"):
        if holds_picture(get(key)):
            claims.add("embedded_preview", claims.source)


def _ssmd(claims: Claims, metadata: Mapping[str, str]) -> None:
    def get(key: str) -> str | None:
        claims.source = f"ssmd_{key}"
        return metadata.get(claims.source)

    claims.line("title", get("display_name"))
    claims.line("version", get("version"))
    claims.line("author", get("author"))
    claims.text("description", get("description"))
    claims.add("trigger_words", from_texts(get("keywords")))
    claims.many("topics", get("tags"))
    claims.number("rating", get("rating"), 1, 5)
    claims.urls([get("source")])
    if holds_picture(get("cover_images")):
        claims.add("embedded_preview", claims.source)


def trained(metadata: Mapping[str, str], sets: tuple[CaptionSet, ...]) -> tuple[Claim, ...]:
    """What the training left behind: captions, the base's name, hashes."""
    claims = Claims("ss_tag_frequency" if any(one.tags for one in sets) else "ss_dataset_dirs", Rank.TRAINED)
    claims.add("trigger_words", from_captions(sets))
    claims.add("captions", top_captions(sets))
    claims.line("title", _ai_toolkit_name(metadata), source="name")
    claims.line("base_name", base_name(metadata.get("ss_sd_model_name")), source="ss_sd_model_name")
    claims.number("clip_skip", metadata.get("ss_clip_skip"), 1, 12, source="ss_clip_skip")
    claims.hash("autov3", metadata.get("sshs_model_hash"), source="sshs_model_hash")
    return tuple(claims.found)


def _ai_toolkit_name(metadata: Mapping[str, str]) -> str | None:
    """ai-toolkit's `name` is that of its job; other writers use the key for anything."""
    return metadata.get("name") if "ai-toolkit" in metadata.get("software", "") else None


def base_name(value: str | None) -> str | None:
    """The name of a base model without the folders of somebody's machine; a repository's id keeps its owner."""
    text = plain.one_line(value)
    if text is None or _REPOSITORY.fullmatch(text):
        return text
    return re.split(r"[/\\]", text.rstrip("/\\"))[-1] or None
