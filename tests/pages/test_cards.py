"""A card is pretty, harmless, written as Obsidian would write it, and afterwards changed in our keys and line only."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loravault import resources
from loravault.formats.prompt_block import parse_block
from loravault.library.entry import USER_FIELDS, Entry, Place
from loravault.pages.cardfields import fields_of_card, is_card, weight_id_of
from loravault.pages.cardpages import claim, default_pictures_page, pictures_pages
from loravault.pages.cards import (
    CardNames,
    card_update,
    our_properties,
    plan_digest,
    render_card,
    text_of_card,
    user_properties,
)
from loravault.pages.examples import lora_tag
from loravault.vault.note import parse_note
from loravault.vault.ownline import find_own_lines, own_line
from loravault.vault.properties import EditRefused, strip_properties
from tests.pages.card_entries import COVER, DAY_NS, NAMES, entries, entry, full_entry
from tests.synth_vault import make_note

TEMPLATES = resources.templates()
GOLDEN = Path(__file__).parent / "golden"
OTHER_COVER = COVER.replace("aaaabbbb", "ccccdddd")


@pytest.mark.parametrize(
    ("name", "made", "names"),
    [("card_full.md", full_entry(), NAMES), ("card_bare.md", entry(), replace(NAMES, cover=None))],
)
def test_a_new_card_is_this_byte_for_byte(name, made, names):
    """To accept a change on purpose: write `render_card(…).data` over the golden file, and look at it in Obsidian."""
    assert render_card(made, names, TEMPLATES).data.decode() == (GOLDEN / name).read_bytes().decode()


def test_the_users_keys_are_those_that_flow_back():
    assert list(user_properties(full_entry(), NAMES)) == [
        "cover", "trigger_words", "weight", "negative", "base", "variant", "rating", "favourite", "tags", "topics",
        "aliases",
    ]  # fmt: skip
    assert set(user_properties(full_entry(), NAMES)) == set(USER_FIELDS)


@given(made=entries(), covered=st.booleans())
@settings(max_examples=150)
def test_whatever_strangers_wrote_a_card_is_harmless_and_reads_back_as_it_was_meant(made, covered):
    names = replace(NAMES, cover=COVER if covered else None, call=made.name)
    card = render_card(made, names, TEMPLATES)
    note = parse_note(card.data)
    assert note.frontmatter is not None
    assert note.frontmatter.problem is None
    assert is_card(note)
    assert weight_id_of(note) == made.weight_id
    read = fields_of_card(note)
    assert dict(read.values) == dict(card.fields), "what we remember of a new card is what it says"
    assert text_of_card(note) == card.body
    text = card.data.decode()
    assert not re.search(r"<%|%>|\{\{", text)
    assert [f.language for f in note.fences] == ["prompt"]
    assert note.open_tail is None
    fence = note.fences[0]
    around = (note.data[note.body_start : fence.start] + note.data[fence.end :]).decode()
    assert not re.search(r"^\^lv-|^# |^\s*- \[|^```|^~~~", around, re.MULTILINE)
    links = [link for link in re.findall(r"\[\[([^\]]*)\]\]", text) if not link.startswith("LoraVault/")]
    assert not links
    block = parse_block(note.fences[0].body)
    assert not block.problems
    assert not block.options
    assert not block.parameters
    assert block.negative is None
    assert [tag.name for tag in block.tags] == ([made.name] if lora_tag(made.name, 1) else [])
    update = card_update(card.data, made, names.cover)
    assert (update.data, dict(update.refused)) == (None, {})


@given(
    seed=st.integers(0, 3),
    number=st.integers(0, 600),
    made=entries(),
    covers=st.tuples(st.booleans(), st.booleans()),
    filled=st.booleans(),
)
@settings(max_examples=150)
def test_an_update_never_changes_a_byte_outside_our_keys_and_our_line(seed, number, made, covers, filled):
    """On any note of the world, with a cover line of ours somewhere in it."""
    data = make_note(random.Random(seed), number)
    if covers[0]:
        data += b"\n" + own_line("*No cover yet.*", "cover").encode() + b"\nafter it\n"
    try:
        update = card_update(data, made, COVER if covers[1] else None, cover_was_filled=filled)
    except EditRefused:
        assert parse_note(data).text_problem
        return
    if update.data is None:
        return
    assert _without_ours(update.data, made) == _without_ours(data, made)
    after = card_update(
        update.data,
        made,
        COVER if covers[1] else None,
        cover_was_filled=filled or update.cover_filled,
        theirs=update.theirs,
    )
    assert after.data is None, "what was written once is not written again"


def _without_ours(data: bytes, made: Entry) -> bytes:
    ours = {*our_properties(made), "cover"}
    stripped = strip_properties(data, lambda key: key.casefold() in ours, lists=True)
    note = parse_note(stripped)
    lines = find_own_lines(note, "cover")
    return stripped if not lines else stripped[: lines[0].start] + b"@" + stripped[lines[0].end :]


@given(made=entries(), eol=st.sampled_from([b"\n", b"\r\n"]), bom=st.booleans(), rating=st.integers(0, 5))
@settings(max_examples=60)
def test_a_card_that_was_edited_keeps_every_edit(made, eol, bom, rating):
    card = render_card(made, NAMES, TEMPLATES).data
    edited = re.sub(rb"rating:[^\n]*\n", b"rating: %d # mine\n" % rating, card, count=1) + b"\nmy text\n"
    edited = b"\xef\xbb\xbf" * bom + edited.replace(b"\n", eol)
    newer = replace(made, sha256="2" * 64, rank=777, state="missing")
    update = card_update(edited, newer, OTHER_COVER)
    assert update.data is not None
    assert not update.refused
    properties = parse_note(update.data).frontmatter.properties
    assert (properties["rank"], properties["state"], properties["cover"]) == (777, "missing", f"[[{OTHER_COVER}]]")
    back = card_update(update.data, made, COVER)
    assert back.data == edited


@pytest.mark.parametrize(
    ("front", "words"),
    [
        ('{"loravault": "card", "lora": "w1-0123456789abcdef", "state": "missing"}', "JSON"),
        ("{loravault: card, lora: w1-0123456789abcdef, state: missing}", "JSON"),
        ("loravault: card\nlora: w1-0123456789abcdef\nstate: [a, b]", "holds a list"),
        ("loravault: card\nlora: w1-0123456789abcdef\ncopies:\n  - a # mine\n", "comment"),
        ("loravault: card\nlora: w1-0123456789abcdef\nrank: |\n  16", "several lines"),
    ],
)
def test_what_cannot_be_set_is_refused_in_words_and_the_rest_is_set(front, words):
    data = f"---\n{front}\n---\nbody\n".encode()
    update = card_update(data, full_entry(), None)
    assert any(words in reason for reason in update.refused.values())
    if "JSON" in words:
        assert update.data is None
    else:
        assert b"\nsha256: " in update.data


def test_a_card_that_is_no_text_is_refused():
    with pytest.raises(EditRefused, match="UTF-8"):
        card_update(b"---\nloravault: card\n---\n\xff", entry(), None)


@pytest.mark.parametrize(
    ("cover", "filled", "after"),
    [
        ("", False, f"[[{COVER}]]"),
        ("", True, None),
        ("cover:\n", False, None),
        ('cover: ""\n', False, ""),
        (f'cover: "[[{OTHER_COVER}]]"\n', True, f"[[{COVER}]]"),
        (f'cover: "[[{OTHER_COVER}|mine]]"\n', True, f"[[{COVER}]]"),
        (f'cover: "[[{OTHER_COVER.replace("0123", "9999")}]]"\n', False, f"[[{OTHER_COVER.replace('0123', '9999')}]]"),
        ("cover: https://example.org/x.png\n", False, "https://example.org/x.png"),
        ("cover: [a, b]\n", False, ["a", "b"]),
    ],
)
def test_the_cover_is_ours_only_as_long_as_it_is_our_link_to_this_adapter(cover, filled, after):
    data = f"---\nloravault: card\n{cover}---\n".encode()
    update = card_update(data, entry(), COVER, cover_was_filled=filled)
    front = parse_note(update.data).frontmatter
    assert front.get("cover") == after
    assert update.cover_filled == (cover == "" and not filled)


def test_the_cover_line_is_ours_while_its_sum_fits_and_stays_when_there_is_no_cover():
    line = own_line("*No cover yet.*", "cover")
    data = f"---\nloravault: card\n---\nabove\n{line}\nbelow\n```\n{line}\n```\n".encode()
    update = card_update(data, entry(), COVER)
    assert f"above\n![[{COVER}|320]] ^lv-cover-".encode() in update.data
    assert f"```\n{line}\n```".encode() in update.data, "a line in a code block is text"
    gone = card_update(update.data, entry(), None)
    assert gone.data is None
    resized = update.data.replace(b"|320]]", b"|500]]")
    assert card_update(resized, entry(), OTHER_COVER).data.count(b"|500]]") == 1


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("samurai-captain", "samurai-captain"),
        ("[a, b]", "a, b"),
        ("{ a: b }", "nested properties"),
        ("0", "0"),
        ("false", "False"),
        ("|\n  one\n  two", "one two"),
        ("x" * 80, "x" * 39 + "…"),
    ],
)
def test_a_key_of_ours_that_holds_something_when_a_note_is_adopted_stays_as_it_is(value, told):
    """A note about a samurai had a `rank`; adopted as a card, it said `rank: 4`, and the captain was gone."""
    data = f"---\nloravault: card\nlora_file: ink_outline\nrank: {value}\nfamily:\n---\nbody\n".encode()
    update = card_update(data, full_entry(), None)
    assert f"\nrank: {value}\nfamily: ".encode() in update.data
    assert b"lora: w1-0123456789abcdef\n" in update.data
    assert b"lora_file: loras/Styles/ink_outline.safetensors\n" in update.data
    assert (update.theirs, update.adopted) == ({"rank": told}, ("family", "rank", "lora_file"))
    later = card_update(update.data, replace(full_entry(), rank=8), None, theirs={"rank"})
    assert (later.data, later.theirs, later.adopted) == (None, {"rank": told}, None)
    assert (
        b"\nrank: 8\n"
        in card_update(data.replace(f" {value}".encode(), b"", 1), replace(full_entry(), rank=8), None).data
    )


def test_a_tag_in_what_others_say_about_it_can_be_copied():
    """It stood there as `< lora:add_detail:0.3 >`."""
    made = entry(facts={"notes": "with <lora:add_detail:0.3> <b>", "description": "<lora:x:1>"})
    text = render_card(made, NAMES, TEMPLATES).data.decode()
    assert "with `<lora:add_detail:0.3>` < b" in text
    assert "`<lora:x:1>`" in text


def test_a_lora_of_the_users_own_stays_and_the_note_is_adopted_only_once():
    """What we added to such a note would otherwise look like the user's each time it is to be changed."""
    data = b"---\nloravault: card\nlora_file: ink_outline\nlora: my favourite\n---\n"
    update = card_update(data, full_entry(), None)
    assert b"\nlora: my favourite\n" in update.data
    assert dict(update.theirs) == {"lora": "my favourite"}
    later = card_update(update.data, replace(full_entry(), state="missing"), None, theirs=update.theirs)
    assert b"\nstate: missing\n" in later.data
    assert dict(later.theirs) == {"lora": "my favourite"}


def test_the_day_it_was_added_never_gets_later():
    data = render_card(entry(), NAMES, TEMPLATES).data
    touched = entry(places=(Place("loras", "Styles/ink_outline.safetensors", "ok", 217_940_000, DAY_NS + 10**16),))
    assert card_update(data, touched, COVER).data is None
    older = entry(places=(Place("loras", "Styles/ink_outline.safetensors", "ok", 217_940_000, DAY_NS - 10**16),))
    assert b"added: 2025-07-" in card_update(data, older, COVER).data


def test_equal_plans_say_the_same_and_others_do_not():
    assert plan_digest(full_entry(), COVER) == plan_digest(full_entry(), COVER)
    others = [
        plan_digest(full_entry(), OTHER_COVER),
        plan_digest(replace(full_entry(), rank=8), COVER),
        plan_digest(replace(full_entry(), state="missing"), COVER),
        plan_digest(replace(full_entry(), sha256=None), COVER),
    ]
    assert len({plan_digest(full_entry(), COVER), *others}) == 5
    assert plan_digest(replace(full_entry(), rating=1, title="x"), COVER) == plan_digest(full_entry(), COVER)


def test_a_name_that_no_tag_can_hold_is_named_in_the_request_instead():
    made = replace(entry(), name="a=b")
    text = render_card(made, replace(NAMES, call="a=b"), TEMPLATES).data.decode()
    assert "<lora:" not in text
    assert "loras%3A%0A%20%20-%20a%3Db%201%0A" in text


def test_the_page_of_the_pictures_is_the_one_that_the_card_embeds():
    one = replace(entry(), card="LoraVault/LoRAs/ink.md", card_body="![[LoraVault/Gallery/Adapters/ink pictures]]\n")
    renamed = replace(one, card="Art/My ink.md")
    bare = replace(one, weight_id="w1-1", card="LoraVault/LoRAs/bare.md", card_body="nothing")
    copy = replace(one, weight_id="w1-2", card="LoraVault/LoRAs/copy.md")
    outside = replace(one, weight_id="w1-3", card="out.md", card_body="![[LoraVault/Gallery/Adapters/../../x]]")
    page = "LoraVault/Gallery/Adapters/ink pictures.md"

    def pages(*entries: Entry) -> dict[str, str]:
        return pictures_pages(claim("LoraVault", e.weight_id, e.card, e.card_body) for e in entries if e.card)

    assert pages(one) == {one.weight_id: page}
    assert pages(renamed, bare, copy, outside) == {
        renamed.weight_id: page,
        "w1-1": default_pictures_page("LoraVault", "LoraVault/LoRAs/bare.md"),
        "w1-2": default_pictures_page("LoraVault", "LoraVault/LoRAs/copy.md"),
        "w1-3": default_pictures_page("LoraVault", "out.md"),
    }


def test_tags_hold_what_tags_can_hold():
    assert user_properties(entry(family="sd1.5", variant="a b/c"), NAMES)["tags"] == ("lora/sd1-5/a-b-c",)
    assert user_properties(entry(family="unknown"), NAMES)["tags"] == ("lora",)


def test_names_of_links_are_full_paths():
    names = CardNames("Mein Zeug/LV", "v", "Mein Zeug/LV/LoRAs/x.md", "x", None)
    text = render_card(entry(), names, TEMPLATES).data.decode()
    assert "![[Mein Zeug/LV/Gallery/Adapters/x pictures]]" in text


def test_teeth_a_checker_that_emits_yaml_would_be_caught():
    """The known-bad twin of `card_update`: if this passed as `nothing else changed`, the property would be empty."""
    data = render_card(full_entry(), NAMES, TEMPLATES).data.replace(b"rating: 4\n", b"rating: 4 # mine\n")
    bad = data.replace(b"rating: 4 # mine\n", b"rating: 4\n")
    assert bad != data
    assert _without_ours(bad, full_entry()) != _without_ours(data, full_entry())
