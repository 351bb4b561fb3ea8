"""What an adapter is drawn with to show it."""

from __future__ import annotations

from typing import Any

import pytest

from loravault.requests.adapters import Chosen
from loravault.requests.model import KnownAdapter, Refusal, Resolved
from loravault.requests.parse import parse_request
from loravault.requests.previews import STANDARD, Subject, count_of, resolve, standard, standard_block, told_prompts
from loravault.vault.note import parse_note
from tests.requests.catalog import Library


def subject(
    name: str = "ink", *words: str, family: str = "demo", variant: str | None = None, te: float = 1.0
) -> Subject:
    adapter = KnownAdapter(name=name, path=f"/loras/{name}", weight_id=f"w1-{name}", family=family, trigger_words=words)
    return Subject(Chosen(adapter, te, te, False), variant)


def drawn(one: Subject, text: str = "---\nloravault: preview\n---\n", **library: Any) -> Resolved | Refusal:
    request = parse_request(parse_note(text.encode()))
    assert request is not None
    block = request.blocks[0] if request.blocks else standard_block(one)
    return resolve(request, block, one, Library(**library))


def resolved(one: Subject, text: str = "---\nloravault: preview\n---\n", **library: Any) -> Resolved:
    found = drawn(one, text, **library)
    assert isinstance(found, Resolved), found
    return found


def test_the_variant_counts_before_the_family() -> None:
    assert standard("sdxl", "pony") is STANDARD["pony"]
    assert standard("sdxl", "Illustrious") is STANDARD["illustrious"]
    assert standard("sdxl", "something") is STANDARD["sdxl"]
    assert standard("flux", "dev").prompt
    assert standard("unknown").prompt


def test_every_standard_prompt_is_plain_and_safe() -> None:
    """No syntax that a base would not understand, and nothing that names a sex or an age."""
    for one in STANDARD.values():
        assert not set("()[]{}<>|") & set(one.prompt)
        assert not {"1girl", "1boy", "girl", "boy", "nude", "woman", "man"} & set(one.prompt.replace(",", "").split())


@pytest.mark.parametrize(
    ("words", "prompt"),
    [
        ((), "a picture of a red house in a meadow"),
        (("sks style",), "sks style, a picture of a red house in a meadow"),
        (("gho",), "a picture of a gho in a meadow"),
        (("red dress: gho, red dress", "coat: gho, coat"), "a picture of a gho, red dress in a meadow"),
    ],
)
def test_trigger_words_stand_in_front_or_are_the_subject(words: tuple[str, ...], prompt: str) -> None:
    assert resolved(subject("ink", *words)).prompt == prompt


def test_the_defaults_are_one_picture_of_one_seed() -> None:
    found = resolved(subject(), config={"count": 4, "negative": "ugly"})
    assert (found.seed, found.count, found.negative) == (42, 1, "")


def test_the_note_decides_seed_negative_and_options() -> None:
    found = resolved(subject(), "---\nloravault: preview\nseed: 7\nnegative: dull\nsteps: 9\ncount: 30\n---\n")
    assert (found.seed, found.negative, found.steps, found.count) == (7, "dull", 9, 1)


def test_a_block_of_the_users_own_is_drawn_with_the_trigger_words_in_front() -> None:
    text = "---\nloravault: preview\n---\n\n```prompt\n#| cfg: 3\na boat\n```\n"
    found = resolved(subject("ink", "sks style"), text)
    assert (found.prompt, found.cfg) == ("sks style, a boat", 3.0)


def test_triggers_off_is_obeyed() -> None:
    text = "---\nloravault: preview\n---\n\n```prompt\n#| triggers: off\na boat\n```\n"
    assert resolved(subject("ink", "sks style"), text).prompt == "a boat"


def test_the_strength_is_that_of_the_subject_and_two_adapters_of_one_name_differ() -> None:
    one, other = subject("ink", te=0.6), subject("ink", te=0.6)
    twin = Subject(Chosen(KnownAdapter(name="ink", path="/x", weight_id="w1-twin", family="demo"), 0.6, 0.6, False))
    assert [use.unet for use in resolved(one).adapters] == [0.6]
    assert resolved(one).fingerprint == resolved(other).fingerprint != resolved(twin).fingerprint


def test_refusals_of_two_adapters_of_one_name_differ() -> None:
    twin = Subject(Chosen(KnownAdapter(name="ink", path="/x", weight_id="w1-twin", family="flux"), 1.0, 1.0, False))
    one, other = drawn(subject("ink", family="flux")), drawn(twin)
    assert isinstance(one, Refusal)
    assert isinstance(other, Refusal)
    assert one.messages == other.messages
    assert one.fingerprint != other.fingerprint


def test_count_is_of_adapters() -> None:
    def count(text: str) -> tuple[int, list[str]]:
        problems: list[str] = []
        request = parse_request(parse_note(f"---\nloravault: preview\ncount: {text}\n---\n".encode()))
        assert request is not None
        return count_of(request, problems), problems

    assert count("") == (12, [])
    assert count("100") == (100, [])
    assert "whole number from 1 to 1000" in count("0")[1][0]


def test_the_prompts_are_told_once() -> None:
    told = told_prompts([subject(), subject("b"), subject("c", family="sd15")])
    assert len(told) == 1
    assert told[0].count("red house") == 1
    assert told[0].startswith("The standard prompts")
    assert told_prompts([]) == ()
