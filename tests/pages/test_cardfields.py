"""What people write on a card is read as they mean it; what cannot be understood is told and counts as not said."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loravault.pages.cardfields import fields_of_card, is_card, said, weight_id_of
from loravault.vault.note import parse_note
from loravault.vault.yamlwrite import format_value


def read(yaml: str):
    return fields_of_card(parse_note(f"---\nloravault: card\n{yaml}\n---\n".encode()))


@pytest.mark.parametrize(
    ("yaml", "values"),
    [
        ("trigger_words: sks style", {"trigger_words": ["sks style"]}),
        ("trigger_words: sks style, ink; wash", {"trigger_words": ["sks style", "ink", "wash"]}),
        ('trigger_words: "red dress: sks, red dress"', {"trigger_words": ["red dress: sks, red dress"]}),
        ("trigger_words:\n  - 'a, b'\n  - 12\n  -\n  - a, b", {"trigger_words": ["a, b", "12"]}),
        ("trigger_words:", {"trigger_words": []}),
        ("weight: 0.8", {"weight": 0.8}),
        ('weight: "0,8"', {"weight": 0.8}),
        ("weight: [1]", {"weight": 1.0}),
        ("weight:", {"weight": None}),
        ('weight: ""', {"weight": None}),
        ("rating: 4/5", {"rating": 4.0}),
        ("rating: 8/10", {"rating": 4.0}),
        ("rating: ★★★☆☆", {"rating": 3.0}),
        ("rating: ⭐⭐⭐⭐⭐", {"rating": 5.0}),
        ('rating: "3"', {"rating": 3.0}),
        ("rating: 4.5", {"rating": 4.5}),
        ("tags: '#a #b/c, d'", {"tags": ["a", "b/c", "d"]}),
        ('tags: ["#x", y]', {"tags": ["x", "y"]}),
        ("topics: ink, line art", {"topics": ["ink", "line art"]}),
        ("aliases: Ink", {"aliases": ["Ink"]}),
        ("favourite: yes", {"favourite": True}),
        ("favourite: off", {"favourite": False}),
        ("favourite: 1", {"favourite": True}),
        ("favourite:", {"favourite": None}),
        ("base: dreamshaper", {"base": "dreamshaper"}),
        ('base: "[[Models/Dream Shaper|ds]]"', {"base": "ds"}),
        ('base: "[[Models/Dream Shaper.md]]"', {"base": "Dream Shaper"}),
        ("base: [a, b]", {"base": "a"}),
        ("negative: [blurry, low quality]", {"negative": "blurry, low quality"}),
        ("Variant: pony", {"variant": "pony"}),
        ('cover: "[[x.webp|200]]"', {"cover": "[[x.webp|200]]"}),
        ("cover: https://e.org/x.png", {"cover": "https://e.org/x.png"}),
        ("other: 1", {}),
    ],
)
def test_people_write_what_they_mean(yaml, values):
    found = read(yaml)
    assert dict(found.values) == values
    assert found.doubts == ()


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("weight: strong", '`weight` is no number: "strong"'),
        ("weight: true", "`weight` is no number"),
        ("weight: .inf", "`weight` is no number"),
        ("weight: 500", "`weight` is beyond ±100"),
        ("rating: 8", "write `8/10`"),
        ("rating: -1", "not between"),
        ("rating: good", "is no number"),
        ("favourite: perhaps", "neither true nor false"),
        ("favourite: {a: 1}", "neither true nor false"),
        ("trigger_words: {a: 1}", "nested"),
        ("base: {a: 1}", "nested"),
        ("cover: [[x.webp]]", "put `[[…]]` in quotes"),
    ],
)
def test_what_is_not_understood_is_told_and_not_used(yaml, words):
    found = read(yaml)
    assert words in found.doubts[0]
    assert dict(found.values) == {}


@pytest.mark.parametrize(
    ("data", "yes"),
    [
        (b"---\nloravault: card\n---\n", True),
        (b"---\nLoraVault: Card \n---\n", True),
        (b"---\nloravault: card\nbroken: [\n---\n", True),
        (b"---\nloravault: cardinal\nbroken: [\n---\n", False),
        (b"---\nloravault: generate\n---\n", False),
        (b"loravault: card\n", False),
        (b"---\nloravault: [card]\n---\n", False),
        (b"---\nloravault: card\n---\n\xff", False),
        (b"", False),
    ],
)
def test_a_card_is_known_by_what_it_says_even_when_it_is_broken(data, yes):
    assert is_card(parse_note(data)) is yes


@pytest.mark.parametrize(
    ("lora", "found"),
    [
        ("w1-0123456789abcdef", "w1-0123456789abcdef"),
        ('"W1-0123456789ABCDEF "', "w1-0123456789abcdef"),
        ("w1-0123", None),
        ("[w1-0123456789abcdef]", None),
        ("w1-0123456789abcdef\nbroken: [", "w1-0123456789abcdef"),
        ("x\nbroken: [", None),
    ],
)
def test_the_adapter_is_found_by_its_weight_id(lora, found):
    assert weight_id_of(parse_note(f"---\nloravault: card\nlora: {lora}\n---\n".encode())) == found


def test_what_we_left_empty_says_nothing_until_somebody_fills_it():
    values = {"weight": None, "trigger_words": [], "favourite": False, "rating": None, "base": "x"}
    assert said(values, ("weight", "favourite", "base")) == {"trigger_words": [], "rating": None, "base": "x"}


_SCALAR = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
_VALUE = _SCALAR | st.text(st.characters(blacklist_categories=("Cs",)), max_size=20)


@given(
    key=st.sampled_from(["weight", "rating", "favourite", "trigger_words", "tags", "base", "negative", "cover"]),
    value=_VALUE | st.lists(_VALUE, max_size=3),
)
@settings(max_examples=300)
def test_no_value_is_too_odd_to_be_read(key, value):
    """Whatever stands there: a value of the right kind, or a doubt in words."""
    items = value if isinstance(value, list) else [value]
    written = ["" if item is None else format_value(item) for item in items]
    yaml = f"{key}: {written[0]}" if not isinstance(value, list) else f"{key}:" + "".join(f"\n  - {w}" for w in written)
    found = read(yaml)
    assert (key in found.values) != bool(found.doubts)
    assert isinstance(found.values.get(key), str | list | float | bool | None)


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("Wieght: 0.7", "weight"),
        ("weigth: 1", "weight"),
        ("trigger_word: sks", "trigger_words"),
        ("trigger words: sks", "trigger_words"),
        ("tigger_words: [sks]", "trigger_words"),
        ("negativ: blurry", "negative"),
        ("raitng: 4", "rating"),
        ("ratings: ★★★", "rating"),
        ("favorite: true", "favourite"),
        ("topcis: [a]", "topics"),
        ("alises: [a]", "aliases"),
        ("varient: pony", "variant"),
        ("bsae: dream.safetensors", "base"),
        ('covr: "[[a.png]]"', "cover"),
    ],
)
def test_a_field_with_a_slip_in_its_name_is_told(line, meant):
    """`Wieght: 0.7` on a card was passed over without a word, while a request tells the same slip."""
    read = fields_of_card(parse_note(f"---\nloravault: card\n{line}\n---\n".encode()))
    key = line.partition(":")[0]
    assert read.doubts == (f"`{key}` means nothing here (did you mean `{meant}`?)",)
    assert read.values == {}


@pytest.mark.parametrize(
    "line",
    [
        "height: 1.8", "weigth:", "weigth: heavy", "wieght: 180", "alias: a", "tag: a", "topic: a", "case: closed",
        'lover: "[[Anna]]"', "raitng: 8", "favorites: [a, b]", "dating: Anna", "base: x.safetensors", "bass: loud",
        "rank: 4", "families: 3", "speed: 30 ft.", "status: ok", "stat: missing", "valiant: yes", "cssclasses: [wide]",
    ],
)  # fmt: skip
def test_a_property_of_the_users_own_raises_no_alarm(line):
    assert fields_of_card(parse_note(f"---\nloravault: card\n{line}\n---\n".encode())).doubts == ()
