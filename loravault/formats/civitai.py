"""What an answer of Civitai's API says, as many tools keep it beside an adapter, whole or in part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from loravault.formats import plain
from loravault.formats.claims import Claims, clean_hash, nsfw_level, positive_id
from loravault.formats.trigger_words import from_texts

#: Prompts of example pictures that are kept.
MAX_PROMPTS = 4
_MAX_PROMPT = 1500
_HASH_NAMES = {
    "SHA256": "sha256", "AutoV1": "autov1", "AutoV2": "autov2", "AutoV3": "autov3", "BLAKE3": "blake3",
    "CRC32": "crc32",
}  # fmt: skip


def claim_version(claims: Claims, version: Mapping[str, Any], file_name: str) -> None:
    """Everything a model version says: `GET /model-versions/…`, or one of `modelVersions` of a model.

    `file_name` is the adapter's own, because a version may hold several files with different hashes.
    """
    model = plain.table(version.get("model"))
    claim_model(claims, model)
    claims.line("version", version.get("name"))
    claim_descriptions(claims, model.get("description"), version.get("description"))
    claims.add("trigger_words", from_texts(version.get("trainedWords")))
    claims.base(version.get("baseModel"))
    claims.add("civitai_version", positive_id(version.get("id")))
    claim_page(claims, version.get("modelId"), version.get("id"))
    claim_author(claims, version.get("creator"))
    claim_images(claims, version.get("images"))
    claims.add("nsfw", nsfw_level(model.get("nsfw")) or nsfw_level(version.get("nsfwLevel")))
    claim_files(claims, version.get("files"), file_name)


def claim_model(claims: Claims, model: Mapping[str, Any]) -> None:
    """What is said of the model as a whole: its name, tags and licence."""
    claims.line("title", model.get("name"))
    claims.many("topics", model.get("tags"))
    claim_author(claims, model.get("creator"))
    claims.add("license", license_words(model))


def claim_descriptions(claims: Claims, model: Any, version: Any) -> None:
    """The description of the model, then that of the version, if it says something else."""
    both = [text for text in (plain.paragraphs(model), plain.paragraphs(version)) if text]
    claims.add("description", plain.paragraphs("\n\n".join(dict.fromkeys(both))) if both else None)


def claim_page(claims: Claims, model: Any, version: Any) -> None:
    """The ids of model and version, and the address they make."""
    number = positive_id(model)
    if number is None:
        return
    claims.add("civitai_model", number)
    tail = f"?modelVersionId={found}" if (found := positive_id(version)) else ""
    claims.urls([f"https://civitai.com/models/{number}{tail}"])


def claim_author(claims: Claims, creator: Any) -> None:
    """Who published it."""
    claims.line("author", creator if isinstance(creator, str) else plain.table(creator).get("username"))


def claim_images(claims: Claims, images: Any) -> None:
    """Prompts of the example pictures, and the level of the first, which tools download as the preview."""
    found = plain.objects(images)
    claims.add("sample_prompts", tuple(dict.fromkeys(_prompts(found)))[:MAX_PROMPTS])
    for image in found[:1]:
        claims.add("nsfw", nsfw_level(image.get("nsfwLevel")) or nsfw_level(image.get("nsfw")))


def _prompts(images: list[Mapping[str, Any]]) -> Iterator[str]:
    for image in images:
        meta = plain.table(image.get("meta"))
        # An API answer may wrap it once more: {"meta": {"id": 1, "meta": {…}}}.
        prompt = meta.get("prompt") or plain.table(meta.get("meta")).get("prompt")
        if isinstance(prompt, str) and len(prompt) <= _MAX_PROMPT and (text := plain.one_line(prompt, _MAX_PROMPT)):
            yield text


def claim_files(claims: Claims, files: Any, file_name: str) -> None:
    """The hashes of the file that this adapter is a copy of: the one of its name, else the primary, else the first."""
    models = [one for one in plain.objects(files) if one.get("type") in ("Model", "Pruned Model", None)]
    named = [one for one in models if str(one.get("name", "")).casefold() == file_name.casefold()]
    chosen = named or [one for one in models if one.get("primary") is True] or models
    for one in chosen[:1]:
        hashes = plain.table(one.get("hashes"))
        for name, kind in _HASH_NAMES.items():
            claims.hash(kind, hashes.get(name))


def license_words(model: Mapping[str, Any]) -> str | None:
    """The four permissions of Civitai as one line; None where they are not told."""
    credit, uses = model.get("allowNoCredit"), model.get("allowCommercialUse")
    derivatives, other = model.get("allowDerivatives"), model.get("allowDifferentLicense")
    said = []
    if isinstance(credit, bool):
        said.append("no credit needed" if credit else "credit the author")
    if isinstance(uses, str):  # older answers, and a database's own notation: {Image,Rent}
        uses = uses.strip("{}")
    allowed = plain.strings(uses, 40) if uses is not None else None
    if allowed is not None:
        sold = [use for use in allowed if use.casefold() != "none"]
        said.append(f"commercial use: {', '.join(sold)}" if sold else "no commercial use")
    if isinstance(derivatives, bool):
        said.append("merges allowed" if derivatives else "no merges")
    if isinstance(other, bool):
        said.append("other licence allowed" if other else "same licence")
    return plain.cut_line("; ".join(said))


def version_of(model: Mapping[str, Any], file_name: str, known: Mapping[str, str]) -> Mapping[str, Any] | None:
    """The version of a whole model's answer that this file is: by hash, by file name, or the only one there is."""
    versions = plain.objects(model.get("modelVersions"))
    for version in versions:
        for one in plain.objects(version.get("files")):
            hashes = plain.table(one.get("hashes"))
            told = {kind: clean_hash(kind, hashes.get(name)) for name, kind in _HASH_NAMES.items()}
            same_hash = any(value and value == told.get(kind) for kind, value in known.items())
            if same_hash or str(one.get("name", "")).casefold() == file_name.casefold():
                return version
    return versions[0] if len(versions) == 1 else None
