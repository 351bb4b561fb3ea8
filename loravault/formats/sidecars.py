"""The files that other tools keep beside an adapter: from a name's ending and the bytes to what they say.

Pure, and made for files of strangers: whatever the bytes are, the answer is claims, a problem in words, or nothing.
Formats as the tools write them; docs of the formats are few, so tolerance is the rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from loravault.formats import civitai, plain
from loravault.formats.claims import Claim, Claims, Rank, nsfw_level, positive_id
from loravault.formats.header_claims import declared
from loravault.formats.trigger_words import from_texts

#: Larger sidecars are not read.
MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Context:
    """What is known of the adapter beside which a sidecar lies."""

    #: `ink.safetensors`.
    file_name: str
    #: Bytes; None if not known.
    size: int | None = None

    @property
    def stem(self) -> str:
        """`ink`."""
        return self.file_name.rpartition(".")[0]


@dataclass(frozen=True)
class Sidecar:
    """What one sidecar says."""

    claims: tuple[Claim, ...] = ()
    #: Why it could not be read, in words that fit after its name.
    problem: str | None = None


def read_sidecar(name: str, ending: str, data: bytes, context: Context) -> Sidecar:
    """What the sidecar `name` says. `ending` is one of `READERS`, or a text ending; never raises."""
    if len(data) > MAX_BYTES:
        return Sidecar(problem=f"is larger than {MAX_BYTES // 2**20} MiB and was not read")
    text = plain.decode(data)
    if not text.strip().strip("\0"):
        return Sidecar(problem="is empty") if ending in READERS else Sidecar()
    if ending in TEXT_ENDINGS:
        claims = Claims(name, Rank.HINT)
        claims.text("description", text)
        return Sidecar(tuple(claims.found))
    try:
        value = plain.load_json(text)
    except ValueError:
        return Sidecar(problem="cannot be read: it is not valid JSON")
    if not isinstance(value, dict):
        return Sidecar(problem="cannot be read: it holds no JSON object")
    claims = Claims(name, Rank.FETCHED)
    READERS[ending](claims, value, context)
    return Sidecar(tuple(claims.found))


def _civitai_info(claims: Claims, info: Mapping[str, Any], context: Context) -> None:
    """`.civitai.info` of Civitai Helper and its forks: a model version, verbatim. A skeleton says nothing."""
    helper = plain.table(plain.table(info.get("extensions")).get("sd_civitai_helper"))
    if helper.get("skeleton_file") is True or info.get("skeleton_file") is True:
        return
    if "modelVersions" in info:
        _model_answer(claims, info, context)
    else:
        civitai.claim_version(claims, info, context.file_name)


def _model_answer(claims: Claims, model: Mapping[str, Any], context: Context) -> None:
    """A whole model with all its versions: `.api_info.json` of Civitai Browser+."""
    version = civitai.version_of(model, context.file_name, {})
    if version is not None:
        civitai.claim_version(claims, {**version, "model": model, "modelId": model.get("id")}, context.file_name)
        return
    civitai.claim_model(claims, model)
    civitai.claim_descriptions(claims, model.get("description"), None)
    civitai.claim_page(claims, model.get("id"), None)
    claims.add("nsfw", nsfw_level(model.get("nsfw")))


_A1111_KEYS = frozenset({"description", "sd version", "activation text", "preferred weight", "negative text", "notes"})


def _plain_json(claims: Claims, info: Mapping[str, Any], context: Context) -> None:
    """`ink.json`: A1111's user metadata, or whatever a tool keeps under the plainest of names."""
    if "modelVersions" in info:
        _model_answer(claims, info, context)
    elif "trainedWords" in info and ("modelId" in info or "files" in info) and not _A1111_KEYS & info.keys():
        civitai.claim_version(claims, info, context.file_name)
    elif any(key.startswith("modelspec.") for key in info):
        _swarm(claims, info, context)
    elif _A1111_KEYS & info.keys() or "sha256" in info:
        _a1111(claims, info)


def _a1111(claims: Claims, info: Mapping[str, Any]) -> None:
    claims.rank = Rank.USER
    claims.text("description", info.get("description"))
    claims.add("trigger_words", from_texts(info.get("activation text")))
    claims.weight("weight", info.get("preferred weight"))
    claims.text("negative", info.get("negative text"))
    claims.text("notes", info.get("notes"))
    # "SDXL" also where the page said "Pony": a coarse label.
    claims.base(info.get("sd version"), rank=Rank.HINT)
    claims.rank = Rank.FETCHED
    claims.base(info.get("base model"))
    claims.hash("sha256", info.get("sha256"))
    civitai.claim_page(claims, info.get("modelId"), info.get("modelVersionId"))
    claims.add("civitai_version", positive_id(info.get("modelVersionId")))
    claims.urls([info.get("modelPageURL")])


def _lora_manager(claims: Claims, info: Mapping[str, Any], context: Context) -> None:
    """`.metadata.json` of ComfyUI-Lora-Manager. Its `file_path` is where the file once was: not looked at."""
    fetched = plain.table(info.get("civitai"))
    _lora_manager_user(claims, info, fetched)
    claims.rank = Rank.FETCHED
    name = plain.one_line(info.get("model_name"))
    if name not in (None, context.stem, info.get("file_name")):
        claims.line("title", name)
    civitai.claim_version(claims, fetched, context.file_name)
    claims.many("topics", info.get("tags"))
    claims.text("description", info.get("modelDescription"))
    claims.base(info.get("base_model"))
    claims.add("trigger_words", from_texts(info.get("trainedWords")))
    size = plain.whole(info.get("size"), 1)
    if size is None or context.size is None or size == context.size:  # else they are of an earlier file of this name
        claims.hash("sha256", info.get("sha256"))
        claims.hash("autov3", info.get("autov3"))


def _lora_manager_user(claims: Claims, info: Mapping[str, Any], fetched: Mapping[str, Any]) -> None:
    claims.rank = Rank.USER
    claims.text("notes", info.get("notes"))
    claims.add("favourite", True if info.get("favorite") is True else None)
    claims.add("nsfw", nsfw_level(info.get("preview_nsfw_level")))
    own = from_texts(info.get("trainedWords"))
    if own and own != from_texts(fetched.get("trainedWords")):
        claims.add("trigger_words", own)
    tips = info.get("usage_tips")
    tips = plain.table(plain.json_in(tips) if isinstance(tips, str) else tips)
    claims.weight("weight", tips.get("strength"))
    low, high = _range(tips.get("strength_range"))
    claims.weight("weight_min", tips.get("strength_min") if low is None else low, zero=True)
    claims.weight("weight_max", tips.get("strength_max") if high is None else high, zero=True)
    skip = plain.whole(tips.get("clip_skip"), -12, 12)  # ComfyUI counts from the end: -2
    claims.add("clip_skip", abs(skip) if skip else None)
    civitai.claim_images(claims, fetched.get("customImages"))


_RANGE = re.compile(r"\s*(-?[0-9]*\.?[0-9]+)\s*(?:-|–|to)\s*(-?[0-9]*\.?[0-9]+)\s*")


def _range(text: Any) -> tuple[str | None, str | None]:
    match = _RANGE.fullmatch(text) if isinstance(text, str) and len(text) < 40 else None
    return (match[1], match[2]) if match else (None, None)


def _swarm(claims: Claims, info: Mapping[str, Any], context: Context) -> None:
    """`.swarm.json` of SwarmUI: edits of the user in ModelSpec's keys."""
    texts: dict[str, str] = {}
    for key, value in info.items():
        if not isinstance(key, str) or not key.startswith("modelspec."):
            continue
        if isinstance(value, list):
            value = ",".join(item for item in value if isinstance(item, str))  # noqa: PLW2901
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            texts[key] = str(value)
    # SwarmUI gives a model without a title the name of its file.
    if plain.one_line(texts.get("modelspec.title")) in (context.stem, context.file_name):
        del texts["modelspec.title"]
    for claim in declared(texts):
        claims.add(claim.field, claim.value, rank=Rank.USER)


def _stability_matrix(claims: Claims, info: Mapping[str, Any], _: Context) -> None:
    """`.cm-info.json` of Stability Matrix."""
    claims.line("title", info.get("UserTitle"), rank=Rank.USER)
    claims.line("title", info.get("ModelName"))
    claims.line("version", info.get("VersionName"))
    claims.line("author", info.get("AuthorUsername"))
    civitai.claim_descriptions(claims, info.get("ModelDescription"), info.get("VersionDescription"))
    claims.add("trigger_words", from_texts(info.get("TrainedWords")))
    claims.many("topics", info.get("Tags"))
    claims.base(info.get("BaseModel"))
    claims.add("nsfw", nsfw_level(info.get("Nsfw")))
    if info.get("Source") in (None, "Civitai", 0):
        civitai.claim_page(claims, info.get("ModelId"), info.get("VersionId"))
        claims.add("civitai_version", positive_id(info.get("VersionId")))
    claims.urls([info.get("SourceUrl")])
    hashes = plain.table(info.get("Hashes"))
    for name, kind in (("SHA256", "sha256"), ("CRC32", "crc32"), ("BLAKE3", "blake3")):
        claims.hash(kind, hashes.get(name))


def _rgthree(claims: Claims, info: Mapping[str, Any], context: Context) -> None:
    """`.rgthree-info.json` of rgthree-comfy, whose words say who gave them."""
    words = plain.objects(info.get("trainedWords"))
    user = [word.get("word") for word in words if word.get("user") is True]
    fetched = [word.get("word") for word in words if word.get("civitai") is True]
    claims.rank = Rank.USER
    claims.add("trigger_words", from_texts([*user, *(word for word in fetched if user)]))
    claims.weight("weight_min", info.get("strengthMin"), zero=True)
    claims.weight("weight_max", info.get("strengthMax"), zero=True)
    claims.text("notes", info.get("userNote"))
    claims.many("topics", info.get("userTags"))
    claims.rank = Rank.FETCHED
    name = plain.one_line(info.get("name"))
    if name not in (None, context.stem, context.file_name):
        claims.line("title", name)
    claims.add("trigger_words", from_texts(fetched))
    claims.base(info.get("baseModel"))
    claims.text("description", info.get("description"))
    claims.urls(plain.items(info.get("links")))
    claims.hash("sha256", info.get("sha256"))
    raw = plain.table(plain.table(info.get("raw")).get("civitai"))
    if raw:
        civitai.claim_version(claims, raw, context.file_name)


READERS: Mapping[str, Callable[[Claims, Mapping[str, Any], Context], None]] = {
    ".civitai.info": _civitai_info,
    ".metadata.json": _lora_manager,
    ".cm-info.json": _stability_matrix,
    ".safetensors.rgthree-info.json": _rgthree,
    ".swarm.json": _swarm,
    ".api_info.json": _model_answer,
    ".json": _plain_json,
}
#: Descriptions in plain text, the better one first.
TEXT_ENDINGS = (".txt", ".description.txt")
#: Notes of ComfyUI-Model-Manager: properties, then headings.
NOTE_ENDING = ".md"


def split_note(data: bytes) -> tuple[str, str]:
    """The YAML block of a note (empty if it has none) and the text below it."""
    text = plain.decode(data[:MAX_BYTES]).replace("\r\n", "\n")
    if not text.startswith("---\n"):
        return "", text
    end = text.find("\n---", 3)
    if end < 0:
        return "", text
    return text[4 : end + 1], text[end + 4 :].partition("\n")[2]


_HEADING = re.compile(r"^# +(.+?) *$", re.MULTILINE)
_EMPTY_SECTION = re.compile(r"no (?:trigger words|description about this \w+)\.?", re.IGNORECASE)
_NOTE_KEYS = frozenset({"website", "modelPage", "author", "baseModel", "hashes", "preview"})


def read_note(name: str, properties: Mapping[str, Any], body: str) -> Sidecar:
    """What a `.md` beside an adapter says. A note of a vault (a card, a request) says nothing here."""
    claims = Claims(name, Rank.FETCHED)
    if "loravault" in properties:
        return Sidecar()
    if not _NOTE_KEYS & properties.keys():
        claims.text("description", body, rank=Rank.HINT)
        return Sidecar(tuple(claims.found))
    claims.line("author", properties.get("author"))
    claims.base(properties.get("baseModel"))
    claims.urls([properties.get("modelPage"), properties.get("website")])
    hashes = {str(key).casefold(): value for key, value in plain.table(properties.get("hashes")).items()}
    for kind in ("sha256", "autov1", "autov2", "autov3", "blake3", "crc32"):
        claims.hash(kind, hashes.get(kind))
    _note_sections(claims, body)
    return Sidecar(tuple(claims.found))


def _note_sections(claims: Claims, body: str) -> None:
    parts = _HEADING.split(body[: 64 * 1024])
    version = model = None
    for heading, content in zip(parts[1::2], parts[2::2], strict=True):
        text = content.strip()
        if _EMPTY_SECTION.fullmatch(text):
            text = ""
        if heading.casefold() == "trigger words":
            claims.add("trigger_words", from_texts([line.strip("-* `") for line in text.split("\n")]))
        elif heading.casefold() == "about this version":
            version = text
        elif model is None:
            claims.line("title", heading)
            model = text
    civitai.claim_descriptions(claims, model, version)
