"""Claims that contradict each other become one value; the value survives the index."""

from __future__ import annotations

import json

from loravault.formats.claims import Claim, Rank
from loravault.formats.training_facts import TrainingFacts
from loravault.library.facts import AdapterFacts, decode, encode, put_together

SHA256 = "3f" * 32


def test_the_most_trusted_source_wins_and_is_named() -> None:
    facts = put_together([
        Claim("title", "trained", "name", Rank.TRAINED),
        Claim("title", "fetched", "ink.civitai.info", Rank.FETCHED),
        Claim("title", "fetched later", "ink.cm-info.json", Rank.FETCHED),
        Claim("weight", 0.5, "modelspec.lora_default_weight", Rank.DECLARED),
        Claim("base_model", "SDXL", "ink.json", Rank.HINT),
        Claim("base_model", "Pony", "ink.civitai.info", Rank.FETCHED),
    ])  # fmt: skip
    assert (facts.title, facts.weight, facts.base_model) == ("fetched", 0.5, "Pony")
    assert facts.sources == {
        "title": "ink.civitai.info", "weight": "modelspec.lora_default_weight", "base_model": "ink.civitai.info",
    }  # fmt: skip


def test_lists_and_notes_are_joined() -> None:
    facts = put_together([
        Claim("topics", ("b", "a"), "x", Rank.FETCHED),
        Claim("topics", ("A", "mine"), "y", Rank.USER),
        Claim("notes", "one", "ink.json", Rank.USER),
        Claim("notes", "two", "ink.metadata.json", Rank.USER),
        Claim("notes", "one", "z", Rank.USER),
    ])  # fmt: skip
    assert facts.topics == ("A", "mine", "b")
    assert facts.notes == "one\n\ntwo"
    assert facts.sources == {"topics": "y, x", "notes": "ink.json, ink.metadata.json, z"}


def test_a_header_knows_its_weights_better_than_a_sidecar() -> None:
    header = Claim("hashes", (("autov3", "ab" * 32),), "sshs_model_hash", Rank.TRAINED)
    same = Claim("hashes", (("autov3", "ab" * 6), ("sha256", SHA256)), "ink.civitai.info", Rank.FETCHED)
    facts = put_together([same, header])
    assert facts.hashes == {"autov3": "ab" * 32, "sha256": SHA256}
    assert facts.warnings == ()


def test_a_sidecar_of_other_weights_gives_no_hash_and_is_told() -> None:
    """Civitai Helper never asks again: the sidecar of a replaced file stays as it was."""
    header = Claim("hashes", (("autov3", "ab" * 32),), "sshs_model_hash", Rank.TRAINED)
    old = Claim("hashes", (("autov3", "cd" * 6), ("sha256", SHA256)), "ink.civitai.info", Rank.FETCHED)
    title = Claim("title", "Ink", "ink.civitai.info", Rank.FETCHED)
    facts = put_together([old, title, header])
    assert facts.hashes == {"autov3": "ab" * 32}
    assert facts.title == "Ink"
    assert facts.warnings == (
        "ink.civitai.info may be about another version of this file: its hash is not the one in the header.",
    )


def test_a_range_is_in_order() -> None:
    facts = put_together([Claim("weight_min", 1.2, "x", Rank.USER), Claim("weight_max", 0.4, "x", Rank.USER)])
    assert (facts.weight_min, facts.weight_max) == (0.4, 1.2)


def test_facts_survive_the_index_and_nothing_is_written_for_what_is_not_known() -> None:
    assert encode(AdapterFacts()) == "{}"
    facts = put_together(
        [Claim("captions", (("sks", 9), ("hat", 2)), "ss_tag_frequency", Rank.TRAINED),
         Claim("hashes", (("sha256", SHA256),), "x", Rank.FETCHED),
         Claim("rating", 4, "ssmd_rating", Rank.DECLARED)],
        training=TrainingFacts(trainer="sd-scripts", steps=5), stills=["a/ink.png"], warnings=["x.", "x."],
    )  # fmt: skip
    assert decode(encode(facts)) == facts
    assert facts.warnings == ("x.",)
    assert json.loads(encode(facts))["captions"] == [["sks", 9], ["hat", 2]]
