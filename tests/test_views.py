"""What `show` knows of an adapter: its rows, its card, its cover and its pictures put together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from loravault.index import library
from loravault.index.database import Index
from loravault.index.tables import AdapterRow, CardRow, CoverRow, ImageRow, MadeRow
from loravault.pages.cards import CardNames, fresh_fields
from loravault.views import adapter_view

ID = "w1-0123456789abcdef"
FACTS = {
    "weight": 0.5,
    "version": "v2",
    "civitai_model": 7,
    "nsfw": 4,
    "warnings": ["ink.json is not valid JSON."],
    "hashes": {"sha256": "ab" * 32, "blake3": "cd" * 32},
}


def index_with(tmp_path: Path, *rows: object) -> Index:
    index = Index(tmp_path / "index.sqlite")
    with index.session() as session:
        for row in rows:
            session.add(row)
    return index


def file(rel: str, **fields: Any) -> AdapterRow:
    return AdapterRow(
        **{"root": "main", "rel": rel, "weight_id": ID, "name": "ink", "facts": json.dumps(FACTS), **fields}
    )


def test_card_cover_pictures_and_copies_are_told(tmp_path: Path) -> None:
    fields = {"weight": 0.8, "rating": 4.0, "tags": ["lora/sd15"], "trigger_words": ["sks"]}
    index = index_with(
        tmp_path,
        file("a/ink.safetensors", sources=json.dumps({"weight": "ink.json"})),
        file("b/ink.safetensors", state="duplicate", reason="the same weights as main/a/ink.safetensors"),
        CardRow(path="LoRAs/ink.md", weight_id=ID, fields=json.dumps(fields)),
        CoverRow(weight_id=ID, path="Covers/ink.webp", problem="ink.mp4: it is a video"),
        ImageRow(path="Images/lv-1.webp", job="j", n=1, fingerprint="f"),
        MadeRow(weight_id=ID, image="Images/lv-1.webp"),
    )
    with index.session() as session:
        row = session.get(AdapterRow, ("main", "b/ink.safetensors"))
        assert row is not None
        view = adapter_view(session, row)
    assert (view.rel, view.state) == ("b/ink.safetensors", "duplicate")
    assert view.places == {"main/a/ink.safetensors": "ok", "main/b/ink.safetensors": "duplicate"}
    assert (view.weight, view.source["weight"], view.rating, view.trigger_words) == (0.8, "card", 4.0, ("sks",))
    assert (view.card, view.cover, view.cover_problem) == ("LoRAs/ink.md", "Covers/ink.webp", "ink.mp4: it is a video")
    assert (view.version, view.civitai_model, view.nsfw) == ("v2", 7, 4)
    assert view.warnings == ("ink.json is not valid JSON.",)
    assert view.images == ("Images/lv-1.webp",)
    assert (view.hashed, view.hashes) == (False, {"sha256": "ab" * 32, "blake3": "cd" * 32})


def test_what_a_card_only_repeats_is_not_from_the_card(tmp_path: Path) -> None:
    """A new card holds what is known, so that all of it was said to be from a card that nobody had touched."""
    facts = {"weight": 1.0, "negative": "blurry", "topics": ["a [[b]]"], "training": {"steps": 9}, "description": "x"}
    told = dict.fromkeys(("weight", "negative", "topics"), "ink.json") | {"trigger_words": "ss_tag_frequency"}
    row = {"family": "sdxl", "title": "Ink it", "trigger_words": '["sks"]', "sources": json.dumps(told)}
    index = index_with(tmp_path, file("ink.safetensors", **row | {"facts": json.dumps(facts)}))
    with index.session() as session:
        fields = fresh_fields(library.entries(session)[0], CardNames("LoraVault", "v", "LoRAs/ink.md", "ink"))
        assert fields["topics"] == ["a [ [b] ]"], "as it is made inert"
        session.add(CardRow(path="LoRAs/ink.md", weight_id=ID, fields=json.dumps(fields)))
    with index.session() as session:
        view = adapter_view(session, session.get_one(AdapterRow, ("main", "ink.safetensors")))
        assert view.source == told
        assert (view.training, view.description) == ({"steps": 9}, "x")
        card = session.get_one(CardRow, "LoRAs/ink.md")
        changed = {"weight": 0.5, "trigger_words": [], "tags": [*fields["tags"], "mine"]}
        card.fields = json.dumps({**fields, **changed, "negative": "blurry"})
    with index.session() as session:
        view = adapter_view(session, session.get_one(AdapterRow, ("main", "ink.safetensors")))
    assert view.source == {**told, **dict.fromkeys(changed, "card")}


def test_measured_hashes_are_never_mixed_with_claims(tmp_path: Path) -> None:
    index = index_with(tmp_path, file("ink.safetensors"), file("copy.safetensors", hashed=True, sha256="ef" * 32))
    with index.session() as session:
        row = session.get(AdapterRow, ("main", "ink.safetensors"))
        assert row is not None
        view = adapter_view(session, row)
    assert (view.hashed, view.hashes) == (True, {"sha256": "ef" * 32})


def test_a_file_that_never_could_be_read_is_known_by_its_place(tmp_path: Path) -> None:
    broken = file("x.safetensors", weight_id=None, state="broken", reason="it is empty", facts="{}")
    index = index_with(tmp_path, broken)
    with index.session() as session:
        row = session.get(AdapterRow, ("main", "x.safetensors"))
        assert row is not None
        view = adapter_view(session, row)
    assert (view.state, view.reason, view.places, view.images) == ("broken", "it is empty", {}, ())
