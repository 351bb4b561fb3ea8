"""Sidecars of other tools: what each one says, and that no bytes at all can do more than be told as broken."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.formats.claims import Rank, clean_hash, nsfw_level, web_address
from loravault.formats.hashes import POISON
from loravault.formats.sidecars import (
    MAX_BYTES,
    NOTE_ENDING,
    READERS,
    TEXT_ENDINGS,
    Context,
    Sidecar,
    read_note,
    read_sidecar,
    split_note,
)
from tests.formats import samples
from tests.formats.samples import AUTOV3, BLAKE3, SHA256, encoded

INK = Context("ink.safetensors", 4096)


def read(ending: str, value: Any, context: Context = INK) -> Sidecar:
    data = value if isinstance(value, bytes) else encoded(value)
    return read_sidecar(f"ink{ending}", ending, data, context)


def told(sidecar: Sidecar, rank: Rank | None = None) -> dict[str, Any]:
    """Field → its first value; hashes of all claims together."""
    found: dict[str, Any] = {}
    for claim in sorted(sidecar.claims, key=lambda claim: claim.rank):
        if rank is None or claim.rank == rank:
            if claim.field == "hashes":
                found.setdefault("hashes", {}).update(dict(claim.value))
            else:
                found.setdefault(claim.field, claim.value)
    return found


def test_civitai_info() -> None:
    assert told(read(".civitai.info", samples.version())) == {
        "title": "Ink & Outline",
        "version": "v2 sharp",
        "topics": ("style", "ink"),
        "description": "Makes ink drawings.\n\n- lines\n- no colour\n\nTrained longer.\nUse 0.8.",
        "trigger_words": ("red dress: sks woman, red dress, hat", "school uniform: sks woman, school uniform"),
        "base_model": "Pony",
        "civitai_model": 12345,
        "civitai_version": 67890,
        "urls": ("https://civitai.com/models/12345?modelVersionId=67890",),
        "sample_prompts": ("sks woman, red dress, <lora:ink:0.8>", "a harbour"),
        "nsfw": 2,
        "hashes": {
            "sha256": SHA256, "autov1": "31d18fc0", "autov2": SHA256[:10], "autov3": AUTOV3, "blake3": BLAKE3,
            "crc32": "0a7c2d29",
        },
    }  # fmt: skip


def test_the_hashes_are_those_of_the_file_of_this_name() -> None:
    """A version holds several files; the primary one's hashes would name the wrong file for a pruned copy."""
    pruned = told(read(".civitai.info", samples.version(), Context("INK_pruned.safetensors")))
    assert pruned["hashes"] == {"sha256": "a" * 63 + "b", "autov3": "aaaaaaaaaaab"}
    renamed = told(read(".civitai.info", samples.version(), Context("my ink.safetensors")))
    assert renamed["hashes"]["sha256"] == SHA256


@pytest.mark.parametrize("place", ["extension", "top"])
def test_a_skeleton_says_nothing(place: str) -> None:
    """Civitai Helper writes a skeleton for models that Civitai does not know: `id` is then an empty text."""
    skeleton: dict[str, Any] = {"id": "", "modelId": "", "name": "ink", "trainedWords": [], "model": {"name": "ink"}}
    if place == "top":
        skeleton["skeleton_file"] = True
    else:
        skeleton["extensions"] = {"sd_civitai_helper": {"version": "1.8", "skeleton_file": True}}
    assert read(".civitai.info", skeleton) == Sidecar()


def test_a1111_is_the_users() -> None:
    sidecar = read(".json", samples.a1111())
    assert told(sidecar, Rank.USER) == {
        "description": "my ink style",
        "trigger_words": ("sks woman", "ink outline"),
        "weight": 0.75,
        "negative": "colour, photo",
        "notes": "best at dusk",
    }
    assert told(sidecar, Rank.HINT) == {"base_model": "SDXL"}


def test_empty_fields_of_a1111_say_nothing() -> None:
    empty = {"description": "", "sd version": "Unknown", "activation text": "", "preferred weight": 0.0,
             "negative text": "", "notes": ""}  # fmt: skip
    assert read(".json", empty) == Sidecar()


def test_outfits_of_an_activation_text_are_groups() -> None:
    words = told(read(".json", {"activation text": "<lora:ink:1> sks, red dress || sks, coat"}))["trigger_words"]
    assert words == ("red dress: sks, red dress", "coat: sks, coat")


def test_civitai_browser_adds_ids_and_a_hash() -> None:
    more = {"sha256": SHA256.upper(), "modelId": 12345, "modelVersionId": 67890, "base model": "Pony",
            "modelPageURL": "https://civitai.com/models/12345"}  # fmt: skip
    found = told(read(".json", {**samples.a1111(), **more}))
    assert (found["base_model"], found["civitai_model"], found["civitai_version"]) == ("Pony", 12345, 67890)
    assert found["hashes"] == {"sha256": SHA256}


@pytest.mark.parametrize(
    "foreign", [{"nodes": [], "links": []}, {"r": 16, "lora_alpha": 8}, {}, {"last_node_id": 3, "version": 0.4}]
)
def test_a_json_of_somebody_else_says_nothing_and_is_no_problem(foreign: dict[str, Any]) -> None:
    """A workflow saved under the adapter's name is nobody's fault."""
    assert read(".json", foreign) == Sidecar()


def test_lora_manager() -> None:
    sidecar = read(".metadata.json", samples.lora_manager())
    assert told(sidecar, Rank.USER) == {
        "notes": "keep the weight low",
        "favourite": True,
        "nsfw": 4,
        "weight": 0.6,
        "weight_min": 0.4,
        "weight_max": 0.9,
        "clip_skip": 2,
        "sample_prompts": ("my own picture of sks woman",),
    }
    found = told(sidecar, Rank.FETCHED)
    assert (found["title"], found["author"], found["base_model"]) == ("Ink & Outline", "inkmaker", "Pony")
    assert found["license"] == "credit the author; commercial use: Image, Rent; merges allowed; same licence"
    assert found["hashes"]["sha256"] == SHA256


def test_trigger_words_that_the_user_changed_in_lora_manager_are_the_users() -> None:
    own = told(read(".metadata.json", samples.lora_manager(trainedWords=["ink, brush"])), Rank.USER)
    assert own["trigger_words"] == ("ink", "brush")
    same = samples.lora_manager(trainedWords=samples.version()["trainedWords"])
    assert "trigger_words" not in told(read(".metadata.json", same), Rank.USER)


def test_the_hash_of_an_earlier_file_is_not_believed() -> None:
    """Lora Manager notes the size beside the hash; a replaced file has another one."""
    bare = {"file_name": "ink", "size": 4097, "sha256": SHA256, "autov3": AUTOV3}
    assert "hashes" not in told(read(".metadata.json", bare))
    assert told(read(".metadata.json", bare, Context("ink.safetensors")))["hashes"] == {
        "sha256": SHA256, "autov3": AUTOV3,
    }  # fmt: skip


def test_a_name_that_is_the_files_is_no_title() -> None:
    assert "title" not in told(read(".metadata.json", {"file_name": "ink", "model_name": "ink"}))
    assert "title" not in told(read(".swarm.json", {"modelspec.title": "ink"}))


def test_swarm_is_the_users() -> None:
    found = told(read(".swarm.json", samples.swarm()), Rank.USER)
    assert found == {
        "title": "Ink, by hand",
        "author": "me",
        "description": "Weights below one.",
        "trigger_words": ("sks woman",),
        "weight": 0.7,
        "topics": ("ink", "mono"),
        "hashes": {"autov3": "c0ffee01" * 8},
    }


def test_stability_matrix() -> None:
    found = told(read(".cm-info.json", samples.stability_matrix()))
    assert found["title"] == "Ink for covers"
    assert (found["nsfw"], found["base_model"], found["author"]) == (8, "Pony", "inkmaker")
    assert found["trigger_words"] == ("sks woman", "ink outline")
    assert found["hashes"] == {"sha256": SHA256, "blake3": BLAKE3}
    elsewhere = told(read(".cm-info.json", {**samples.stability_matrix(), "Source": "OpenModelDb"}))
    assert "civitai_model" not in elsewhere


def test_rgthree_puts_the_users_words_first() -> None:
    sidecar = read(".safetensors.rgthree-info.json", samples.rgthree())
    user = told(sidecar, Rank.USER)
    assert user["trigger_words"] == ("sks woman", "ink outline")
    assert (user["weight_min"], user["weight_max"]) == (0.3, 1.1)
    assert (user["notes"], user["topics"]) == ("from rgthree", ("mine",))
    fetched = told(sidecar, Rank.FETCHED)
    assert fetched["trigger_words"] == ("ink outline",)
    assert fetched["urls"] == ("https://civitai.com/models/12345?modelVersionId=67890",)


def test_a_whole_model_is_read_for_the_version_of_this_file() -> None:
    """Civitai Browser+ keeps the answer for a model with all its versions."""
    other = {**samples.version(), "id": 1, "name": "v1", "baseModel": "SD 1.5", "files": []}
    model = {"id": 12345, "name": "Ink & Outline", "nsfw": True, "tags": ["ink"], "description": "<p>Model.</p>",
             "creator": {"username": "inkmaker"}, "modelVersions": [other, samples.version()]}  # fmt: skip
    found = told(read(".api_info.json", model))
    assert (found["version"], found["base_model"], found["civitai_version"]) == ("v2 sharp", "Pony", 67890)
    assert (found["author"], found["civitai_model"]) == ("inkmaker", 12345)
    unknown = told(read(".api_info.json", model, Context("else.safetensors")))
    assert (unknown["title"], unknown["nsfw"], "version" in unknown) == ("Ink & Outline", 8, False)
    assert told(read(".json", model))["version"] == "v2 sharp"


def test_a_note_of_comfyui_model_manager() -> None:
    front, body = split_note(samples.NOTE.encode())
    assert front.startswith("website: Civitai\n")
    properties = {"modelPage": "https://civitai.com/models/12345", "author": "inkmaker", "baseModel": "Pony",
                  "hashes": {"SHA256": SHA256.upper()}}  # fmt: skip
    assert told(read_note("ink.md", properties, body)) == {
        "author": "inkmaker",
        "base_model": "Pony",
        "urls": ("https://civitai.com/models/12345",),
        "hashes": {"sha256": SHA256},
        "trigger_words": ("sks woman", "ink outline"),
        "title": "Ink & Outline",
        "description": "Makes ink drawings.",
    }


def test_a_note_of_a_person_is_a_description_and_one_of_the_vault_nothing() -> None:
    assert told(read_note("ink.md", {"tags": ["x"]}, "about ink"), Rank.HINT) == {"description": "about ink"}
    assert read_note("ink.md", {"loravault": "card"}, "about ink") == Sidecar()
    assert split_note(b"no properties") == ("", "no properties")
    assert split_note(b"---\nnever closed") == ("", "---\nnever closed")


@pytest.mark.parametrize("ending", TEXT_ENDINGS)
def test_a_text_is_a_description(ending: str) -> None:
    assert told(read(ending, "Ink.\r\nUse it.".encode("utf-16")), Rank.HINT) == {"description": "Ink.\nUse it."}
    assert read(ending, b"") == Sidecar()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings(encoding: str) -> None:
    text = json.dumps({"notes": "naïve café"}, ensure_ascii=False)
    assert told(read(".json", text.encode(encoding))) == {"notes": "naïve café"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\0" * 64, "empty"),
        (b"{", "not valid JSON"),
        (b"[1]", "no JSON object"),
        (b"null", "no JSON object"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a":' * 50_000, "not valid JSON"),
        (b" " * (MAX_BYTES + 1), "larger than 4 MiB"),
        (b"<html>404</html>", "not valid JSON"),
    ],
)
@pytest.mark.parametrize("ending", list(READERS))
def test_a_broken_sidecar_is_told_in_words(ending: str, data: bytes, words: str) -> None:
    sidecar = read(ending, data)
    assert sidecar.problem is not None
    assert words in sidecar.problem
    assert sidecar.claims == ()


def test_numbers_that_are_none_say_nothing() -> None:
    for weight in ("NaN", "Infinity", "1e999", '"much"', "true", "99", "null", "9" * 400):
        assert read(".json", b'{"preferred weight": %s}' % weight.encode()) == Sidecar()
    assert told(read(".json", b'{"preferred weight": "0.5", "x": NaN}')) == {"weight": 0.5}


# The keys of all formats, each with any value: what a tool (or a hand) could get wrong.
KEYS = sorted(
    {
        *samples.version(), *samples.a1111(), *samples.lora_manager(), *samples.swarm(), *samples.stability_matrix(),
        *samples.rgthree(), "skeleton_file", "extensions", "modelVersions", "trainedWords", "meta", "hashes", "prompt",
        "word", "user", "name", "tags", "type", "username", "allowCommercialUse",
    }
)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
VALUES = st.recursive(
    SCALARS | st.sampled_from(["0.4-0.9", '{"strength": []}', "{", "https://a.b", "a, b || c"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=20,
)


@given(st.sampled_from([*READERS, *TEXT_ENDINGS]), st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), VALUES))
def test_no_json_raises_and_every_claim_is_bounded(ending: str, value: dict[str, Any]) -> None:
    sidecar = read(ending, json.dumps(value).encode("utf-8", "surrogatepass"))
    for claim in sidecar.claims:
        assert len(json.dumps(claim.value)) < 40_000
        json.dumps(claim.value, ensure_ascii=False).encode()  # no lone surrogates


@given(st.sampled_from([*READERS, *TEXT_ENDINGS]), st.binary(max_size=200))
def test_no_bytes_raise(ending: str, data: bytes) -> None:
    read(ending, data)
    read_note(f"ink{NOTE_ENDING}", {}, split_note(data)[1])


@given(st.dictionaries(st.sampled_from(["author", "baseModel", "hashes", "modelPage", "x"]), VALUES), st.text())
def test_no_note_raises(properties: dict[str, Any], body: str) -> None:
    read_note("ink.md", properties, body)


def test_hashes_that_name_no_file_are_no_claims() -> None:
    """`e3b0c442…` is the hash of nothing; ai-toolkit once gave it to every file."""
    for bad in (POISON, POISON[:12], "0" * 64, "", "None", None, 5, "zz" * 32, "ab"):
        assert clean_hash("autov3", bad) is None
        assert clean_hash("sha256", bad) is None
    assert clean_hash("sha256", "0x" + SHA256.upper()) == SHA256
    assert clean_hash("sha256", SHA256[:12]) is None


@pytest.mark.parametrize(
    ("value", "level"),
    [(0, None), (1, 1), (16, 16), (3, 2), (31, 16), (60, 32), ("Soft", 2), ("None", 1), ("X", 8), ("4", 4), (True, 8),
     (False, None), (None, None), (-1, None), (1e300, None), ("?", None), ([], None)],
)  # fmt: skip
def test_nsfw_levels_in_all_spellings(value: Any, level: int | None) -> None:
    assert nsfw_level(value) == level


def test_only_web_pages_are_addresses() -> None:
    assert web_address("https://civitai.com/models/1?modelVersionId=2#x") is not None
    for bad in ("javascript:alert(1)", "file:///etc/passwd", "https://a b", "https://a\nb", "obsidian://x", 5, ""):
        assert web_address(bad) is None


def test_hostile_text_takes_time_in_proportion_to_its_length() -> None:
    """Comments and tags that never end were looked for once for each beginning."""
    for text in ("<!--" * 500_000, "<script>" * 300_000, "<" * 2_000_000, "<a" * 1_000_000, "&" * 2_000_000):
        started = time.perf_counter()
        read(".json", {"description": text, "notes": text})
        assert time.perf_counter() - started < 2
