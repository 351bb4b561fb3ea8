"""Which adapter a person means: exact, by place, by its trainer's name, then in any case, else the nearest."""

from __future__ import annotations

import difflib
import unicodedata
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.formats.cuts import long_words
from loravault.formats.hashes import names_file
from loravault.library.names import (
    CLOSEST,
    WORD_NEAR,
    Ambiguous,
    GivenNames,
    HashIndex,
    Missing,
    find,
    with_a_word_like,
)
from loravault.vault.inert import inert_value


@dataclass(frozen=True)
class Record:
    rel: str
    weight_id: str | None = None
    alias: str | None = None
    state: str = "ok"
    root: str = "main"

    @property
    def name(self) -> str:
        return self.rel.rpartition("/")[2].removesuffix(".safetensors")


INK = Record("Styles/ink_outline.safetensors", "w1-1")
WASH = Record("Styles/ink_wash.safetensors", "w1-2", alias="Wash by Anna")
OLD = Record("Old/cat.safetensors", "w1-3")
NEW = Record("New/cat.safetensors", "w1-4")
COPY = Record("Copies/ink_wash.safetensors", "w1-2")
BROKEN = Record("Broken/ink_outline.safetensors", None, state="broken")
ALL = [INK, WASH, OLD, NEW, COPY, BROKEN]


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("ink_outline", INK),
        ("ink_outline.safetensors", INK),
        (" ink_outline ", INK),
        ("INK_Outline", INK),
        ("Styles/ink_outline", INK),
        ("styles\\ink_outline", INK),
        ("main/Styles/ink_outline", INK),
        ("Broken/ink_outline", BROKEN),
        ("Wash by Anna", WASH),
        ("wash by anna", WASH),
        ("ink_wash", COPY),  # a copy is the same adapter
        ("New/cat", NEW),
    ],
)
def test_names_people_write(name: str, record: Record) -> None:
    assert find(name, ALL) == record


def test_a_name_copied_from_a_card_finds_its_file() -> None:
    """On a card active signs are broken, and what was copied from there named nothing."""
    strange = Record("Cat [[x]] #1/a [[b]] $.safetensors", "w1-9")
    assert find(inert_value("Cat [[x]] #1/a [[b]] $.safetensors"), [*ALL, strange]) == strange


def test_two_different_adapters_of_one_name_are_ambiguous_and_listed_by_place() -> None:
    found = find("cat", ALL)
    assert isinstance(found, Ambiguous)
    assert found.paths == ("New/cat", "Old/cat")
    assert all(find(path, ALL) in (OLD, NEW) for path in found.paths)


def test_the_roots_name_is_added_only_where_it_is_needed() -> None:
    here, there = Record("cat.safetensors", "w1-1"), Record("cat.safetensors", "w1-2", root="nas")
    found = find("cat", [here, there])
    assert isinstance(found, Ambiguous)
    assert found.paths == ("main/cat", "nas/cat")
    assert find("nas/cat", [here, there]) == there


def test_an_exact_name_beats_an_alias_and_another_case() -> None:
    lower, upper = Record("ink.safetensors", "w1-1"), Record("Ink.safetensors", "w1-2")
    other = Record("x.safetensors", "w1-3", alias="ink")
    assert find("ink", [upper, other, lower]) == lower
    assert find("Ink", [upper, other, lower]) == upper
    assert isinstance(find("INK", [upper, other, lower]), Ambiguous)


def test_a_broken_file_is_found_only_where_no_good_one_has_the_name() -> None:
    assert find("ink_outline", [BROKEN]) == BROKEN
    assert find("ink_outline", [BROKEN, INK]) == INK


def test_what_is_missing_names_the_nearest() -> None:
    assert find("ink_outlin", ALL) == Missing(("ink_outline",)), "what shares three letters is not near"
    assert find("wash", [INK, WASH]) == Missing(("ink_wash",))
    assert find("zzz", ALL) == Missing(())
    assert find("anything", []) == Missing(())


def test_what_people_call_it_is_asked_for_last_and_a_link_to_a_card_first() -> None:
    """A card that was renamed broke each note that links it: Obsidian had rewritten the links, no file is called so."""
    given = GivenNames(
        [
            ("w1-1", "card", "LoraVault/LoRAs/Styles/Ink pretty.md"),
            ("w1-1", "alias", "Inky"),
            ("w1-2", "card", "LoraVault/LoRAs/ink_outline.md"),
            ("w1-2", "title", "Wet Wash"),
            ("w1-3", "title", "Wet Wash"),
        ]
    )
    ink, wash = Record("Styles/ink_outline.safetensors", "w1-1"), Record("ink_wash.safetensors", "w1-2")
    known = [ink, wash, Record("other.safetensors", "w1-3")]

    def means(name: str) -> object:
        return find(name, known, given)

    assert means("LoraVault/LoRAs/Styles/Ink pretty.md") == means("Styles/Ink pretty.md") == ink
    assert means("ink pretty.md") == means("Ink pretty") == means("inky") == ink
    assert means("ink_outline") == ink, "a file of that name comes before a card of that name"
    assert means("ink_outline.md") == wash, "but a link means the card"
    assert isinstance(means("Wet Wash"), Ambiguous)
    assert means("Styles/ink_wash.md") == Missing(("ink_wash",))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("gibli", "ghibli_style_v3"),
        ("gihbli", "ghibli_style_v3"),
        ("Gibli Style", "ghibli_style_v3"),
        ("muhca", "mucha_style"),
        ("detial", "detail_tweaker_xl"),
        ("tweakr", "detail_tweaker_xl"),
        ("samuray", "XLSamuraiStyle"),
        ("style ghilbi", "ghibli_style_v3"),
    ],
)
def test_a_slip_in_one_word_of_a_long_name_is_near(typed: str, meant: str) -> None:
    there = ("ghibli_style_v3", "mucha_style", "detail_tweaker_xl", "XLSamuraiStyle", "another_style")
    names = [Record(f"{name}.safetensors", name) for name in there]
    found = find(typed, names)
    assert isinstance(found, Missing)
    assert found.closest[0] == meant


_WORDS = st.sampled_from(
    ["ghibli", "Ghibli", "gibli", "styleV2", "style", "steel", "Ärger", "wash_ink", "ink", "水墨画风格", "2024"]
)
_NAMES = st.lists(_WORDS, min_size=1, max_size=3).map("_".join) | st.text(max_size=8)


@given(st.lists(_WORDS, max_size=3), st.lists(_NAMES, max_size=8))
def test_names_cut_in_one_go_share_the_words_that_each_by_itself_would(typed: list[str], names: list[str]) -> None:
    """Cutting ten thousand names one by one took most of a search that finds nothing."""
    words = list(dict.fromkeys(word for one in typed for word in long_words(one)))
    cut = {name: long_words(name) for name in names}
    all_words = list(dict.fromkeys(word for some in cut.values() for word in some))
    near = [difflib.get_close_matches(word, all_words, n=CLOSEST, cutoff=WORD_NEAR) for word in words]
    shared = {name: sum(not set(some).isdisjoint(one) for one in near) for name, some in cut.items()}
    wanted = sorted((name for name in shared if shared[name]), key=lambda n: (-shared[n], n.casefold(), n))
    assert with_a_word_like(words, names) == wanted


def test_nfd_names_on_disk_are_found_by_nfc_names_in_notes() -> None:
    record = Record(unicodedata.normalize("NFD", "Stile/Töne.safetensors"), "w1-1")
    assert find("Töne", [record]) == record
    assert find("Stile/Töne", [record]) == record


def test_hashes_find_files_whatever_they_are_called() -> None:
    known = {"w1-1": ("aaaaaaaaaaaa",), "w1-2": ("bbbbbbbbbb", "cccccccccccc")}

    def hashes(record: Record) -> tuple[str, ...]:
        return known.get(record.weight_id or "", ())

    index = HashIndex(ALL, hashes)
    assert index.find("BBBBBBBBBB") == COPY
    assert index.find("cccccccccccc") == COPY
    assert index.find("dddddddddd") is None
    assert index.find("not a hash") is None


_HASH = st.text("abAB", min_size=7, max_size=10)


@given(st.lists(st.tuples(st.sampled_from(["w1-1", "w1-2", None]), st.lists(_HASH, max_size=3)), max_size=5), _HASH)
def test_looking_up_a_hash_in_the_index_finds_what_asking_every_file_finds(
    files: list[tuple[str | None, list[str]]], text: str
) -> None:
    """Every lookup walked over every file: 0.15 s with ten thousand, for each hash that was pasted."""
    known = {Record(f"{n}.safetensors", weight_id): tuple(texts) for n, (weight_id, texts) in enumerate(files)}
    matching = [record for record, texts in known.items() if names_file(text, texts)]
    found = HashIndex(known, lambda record: known[record]).find(text)
    if found is None:
        assert not matching
    elif isinstance(found, Ambiguous):
        assert len({record.weight_id or record.rel for record in matching}) > 1
    else:
        assert found == matching[0]
        assert len(matching) == 1 or {record.weight_id for record in matching} == {found.weight_id}


@given(st.text(max_size=20))
def test_any_text_finds_something_or_says_what_is_near(name: str) -> None:
    found = find(name, ALL)
    assert isinstance(found, Record | Ambiguous | Missing)
    if isinstance(found, Missing):
        assert len(found.closest) <= 3


@given(
    st.lists(
        st.from_regex(r"\A[A-Za-z0-9 ._-]{1,8}\Z"),
        min_size=1,
        max_size=6,
        unique_by=lambda text: text.strip().casefold(),
    )
)
def test_every_adapter_is_found_by_its_place(names: list[str]) -> None:
    records = [Record(f"f{n}/{name.strip()}x.safetensors", f"w1-{n}") for n, name in enumerate(names)]
    for record in records:
        assert find(record.rel, records) == record
