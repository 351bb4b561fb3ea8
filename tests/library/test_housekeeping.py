"""Plans err on the side of leaving things where they are."""

from __future__ import annotations

import unicodedata
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.errors import UserError
from loravault.library.beside import beside_of
from loravault.library.entry import Entry, Place
from loravault.library.housekeeping import (
    AdapterFile,
    beside,
    lost_sidecars,
    new_place,
    plan_duplicates,
    plan_unused,
    rename_moves,
    sidecars_of_twin,
)
from loravault.vault.mentions import folded, names_in

COUNT = iter(range(1, 10_000))


def file(rel: str, weights: str = "w1", root: str = "loras", **more: Any) -> AdapterFile:
    name = rel.rpartition("/")[2].removesuffix(".safetensors")
    values = {"alias": None, "state": "ok", "size": 10, "mtime_ns": 0, "inode": (1, next(COUNT)), **more}
    return AdapterFile(root=root, rel=rel, weight_id=weights, name=name, **values)


def go(files: list[AdapterFile], mentions: dict[str, set[str]] | None = None, **more: Any) -> list[str]:
    return [one.rel for twins in plan_duplicates(files, mentions or {}, **more) for one in twins.go]


def test_the_copy_that_is_used_stays_and_the_others_go() -> None:
    files = [file("b.safetensors"), file("a.safetensors", state="duplicate"), file("c.safetensors", "w2")]
    assert go(files) == ["a.safetensors"]
    assert go([file("b.safetensors"), file("a.safetensors")]) == ["b.safetensors"]


def test_broken_and_missing_files_are_no_copies() -> None:
    states = ["missing", "broken", "incomplete"]
    assert go([file("a.safetensors"), *(file(f"{state}.safetensors", state=state) for state in states)]) == []


def test_one_file_under_two_names_is_no_duplicate_of_itself() -> None:
    """A root inside another root, or a hard link: throwing one away would throw away both, or free nothing."""
    files = [file("Styles/ink.safetensors", inode=(1, 7)), file("ink.safetensors", root="styles", inode=(1, 7))]
    assert plan_duplicates(files, {}) == ()


@pytest.mark.parametrize("form", ["copy", "new/copy", "loras/new/copy"])
def test_a_copy_that_a_note_names_stays(form: str) -> None:
    files = [file("ink.safetensors"), file("new/copy.safetensors"), file("other.safetensors")]
    (twins,) = plan_duplicates(files, {form: {"Cat.md"}})
    assert [one.rel for one in twins.go] == ["other.safetensors"]
    assert twins.stay == ((files[1], "Cat.md names it"),)


def test_a_copy_whose_name_begins_with_a_quote_and_that_a_note_names_stays() -> None:
    """The quote was taken off in the note and not off the file: the note meant the other copy, and this one went."""
    twins = [file("A/ink.safetensors"), file("B/'ink.safetensors")]
    assert go(twins) == ["B/'ink.safetensors"]
    assert go(twins, {name: {"a.md"} for name in names_in("a cat <lora:'ink:1>")}) == []


def test_a_name_that_means_both_keeps_neither() -> None:
    files = [file("A/ink.safetensors"), file("B/ink.safetensors")]
    assert go(files, {"ink": {"Cat.md"}}) == ["B/ink.safetensors"]
    assert go(files, {"b/ink": {"Cat.md"}}) == []


def test_a_copy_that_a_request_uses_stays() -> None:
    assert go([file("a.safetensors"), file("b.safetensors")], busy={("loras", "b.safetensors")}) == []


def entry(name: str, **more: Any) -> Entry:
    values: dict[str, Any] = {"state": "ok", "family": "sd15", "variant": None, "network": None, "rank": None}
    values |= {"alpha": None, "title": None, "trigger_words": (), "pictures": 0}
    place = Place("loras", f"Styles/{name}.safetensors", "ok", 10, more.pop("mtime_ns", 100))
    return Entry(weight_id=f"w1-{name}", name=name, places=(place,), **(values | more))


def unused(*entries: Entry, mentions: dict[str, set[str]] | None = None) -> list[str]:
    return [one.name for one in plan_unused(entries, mentions or {}, 1000)]


def test_unused_is_what_nothing_speaks_for() -> None:
    assert unused(
        entry("never"),
        entry("pictured", pictures=1),
        entry("new", mtime_ns=2000),
        entry("loved", favourite=True),
        entry("rated", rating=5.0),
        entry("gone", state="missing"),
        entry("named"),
        entry("linked", card="LoraVault/LoRAs/linked (LoRA).md"),
        mentions={"styles/named": {"Cat.md"}, "loravault/loras/linked (lora)": {"Cat.md"}},
    ) == ["never"]


def test_its_own_card_does_not_speak_for_an_adapter() -> None:
    card = "LoraVault/LoRAs/ink.md"
    assert unused(entry("ink", card=card), mentions={"ink": {card}}) == ["ink"]
    assert unused(entry("ink", card=card), mentions={"ink": {card, "Cat.md"}}) == []


LISTING = [
    "ink.safetensors",
    "ink.civitai.info",
    "ink.json",
    "ink.metadata.json",
    "ink.preview.png",
    "ink.safetensors.rgthree-info.json",
    "ink.v2.safetensors",
    "ink.v2.preview.png",
    "ink.v2.json",
    "inkling.json",
    "notes.txt",
]


def test_each_sidecar_goes_with_the_longest_name_it_fits() -> None:
    assert beside("ink.safetensors", LISTING).own == (
        "ink.civitai.info",
        "ink.json",
        "ink.metadata.json",
        "ink.preview.png",
        "ink.safetensors.rgthree-info.json",
    )
    assert beside("ink.v2.safetensors", LISTING).own == ("ink.v2.json", "ink.v2.preview.png")


@pytest.mark.parametrize("other", ["ink.ckpt", "INK.pt", "ink.gguf"])
def test_what_two_models_may_need_stays(other: str) -> None:
    found = beside("ink.safetensors", ["ink.safetensors", "ink.json", other])
    assert (found.own, found.shared) == ((), ("ink.json",))


def test_orphans_are_what_only_tools_write_and_what_has_its_name() -> None:
    listing = ["ink.civitai.info", "ink.json", "ink.png", "photo.png", "readme.txt", "here.safetensors", "here.json"]
    assert lost_sidecars(listing) == ("ink.civitai.info", "ink.json", "ink.png")
    assert lost_sidecars([*listing, "ink.safetensors.part"]) == ()
    assert lost_sidecars([*listing, "INK.ckpt"]) == ()


def test_a_text_goes_only_with_facts_about_its_model() -> None:
    """`recipe.example.1.png` beside `recipe.md` made an orphaned sidecar of the recipe."""
    texts = ["cat.md", "cat.txt", "cat.html"]
    for picture in ("cat.preview.png", "cat.thumb.jpg", "cat.example.1.png"):
        assert lost_sidecars([picture, *texts]) == (picture,)
    for facts in ("cat.civitai.info", "cat.metadata.json", "cat.safetensors.rgthree-info.json"):
        assert lost_sidecars([facts, *texts]) == tuple(sorted([facts, *texts]))


def test_in_a_vault_only_facts_about_a_model_are_lost() -> None:
    """A note is nobody's sidecar where notes live, and a picture is an attachment."""
    listing = ["x.civitai.info", "x.metadata.json", "x.preview.png", "x.example.1.png", "x.json", "x.md", "x.txt"]
    assert lost_sidecars(listing, in_vault=True) == ("x.civitai.info", "x.metadata.json")


@pytest.mark.parametrize(
    ("new", "target"),
    [
        ("Art/", "Art/ink.safetensors"),
        ("Art/Deep/", "Art/Deep/ink.safetensors"),
        ("feather", "Styles/feather.safetensors"),
        ("feather.safetensors", "Styles/feather.safetensors"),
        ("./feather", "feather.safetensors"),
        ("/feather", "feather.safetensors"),
        ("Ready", "Ready/ink.safetensors"),
        ("./Ready", "Ready/ink.safetensors"),
        ("Ready/Deep", "Ready/Deep/ink.safetensors"),
        ("Ready/new", "Ready/new.safetensors"),
        ("Art/feather", "Art/feather.safetensors"),
        ("Art/feather.safetensors", "Art/feather.safetensors"),
        ("Art/feather v1.5", "Art/feather v1.5.safetensors"),
        ("./", "ink.safetensors"),
        ("/", "ink.safetensors"),
    ],
)
def test_where_a_name_leads(new: str, target: str) -> None:
    """A bare new name once took the file out of its folder; a folder that is there is one, as in a shell."""
    assert new_place("Styles/ink.safetensors", new, {"Ready", "Ready/Deep"}.__contains__) == target


@pytest.mark.parametrize(
    "new", ["", "../x", "a/../b", "/etc/x", ".x", "a/.b/", "a//b", "x.", "a:b", 'a"b', "a\\b", "x" * 300]
)
def test_what_is_no_place_is_refused(new: str) -> None:
    with pytest.raises(UserError):
        new_place("Styles/ink.safetensors", new)


def test_sidecars_keep_what_follows_the_name() -> None:
    moves = rename_moves(
        "Styles/ink.safetensors",
        "Art/feather.safetensors",
        ["ink.preview.png", "INK.json", "ink.safetensors.rgthree-info.json"],
    )
    assert moves == [
        ("Styles/ink.safetensors", "Art/feather.safetensors"),
        ("Styles/ink.preview.png", "Art/feather.preview.png"),
        ("Styles/INK.json", "Art/feather.json"),
        ("Styles/ink.safetensors.rgthree-info.json", "Art/feather.safetensors.rgthree-info.json"),
    ]
    assert rename_moves("ink.safetensors", "ink.safetensors", ["ink.json"]) == []


FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
CASES = (str, str.upper, str.lower, str.casefold)


@given(
    st.text("aéßİΐﬁ한.-1", min_size=1, max_size=9).filter(lambda stem: stem.strip(". ") == stem),
    st.tuples(st.sampled_from(FORMS), st.sampled_from(CASES), st.sampled_from(FORMS)),
    st.sampled_from([".json", ".preview.PNG", ".civitai.info", ".safetensors.rgthree-info.json", ".example.1.jpeg"]),
)
def test_a_sidecar_keeps_its_ending_however_its_name_is_spelled(stem: str, spelling: tuple[Any, ...], end: str) -> None:
    """`café.json` in NFD became `neẃ.json`, and `STRASSE.json` of `Straße.safetensors` became `newE.json`."""
    form, case, other_form = spelling
    adapter = unicodedata.normalize(form, stem) + ".safetensors"
    other = unicodedata.normalize(other_form, case(stem)) + end
    if beside_of(adapter, [adapter, other]) != (other,):  # the case of İ has no way back: another name, then
        return
    moves = rename_moves(f"a/{adapter}", "b/new.v2.safetensors", [other])
    assert moves == [(f"a/{adapter}", "b/new.v2.safetensors"), (f"a/{other}", f"b/new.v2{end}")]
    keep, gone = file("kept.safetensors"), file(adapter)
    assert sidecars_of_twin(keep, gone, [], [other], lambda _: True) == [(other, f"kept{end}")]
    assert sidecars_of_twin(gone, keep, [other], [f"kept{end}"], lambda _: True) == []


@pytest.mark.parametrize(
    ("adapter", "other"),
    [("cafe\u0301", "caf\u00e9"), ("caf\u00e9", "cafe\u0301"), ("Straße", "STRASSE"), ("STRASSE", "straße")],
)
def test_two_spellings_of_one_name_belong_together_and_stay_together(adapter: str, other: str) -> None:
    """The case above must not pass because nothing belongs to anything."""
    found = beside_of(f"{adapter}.safetensors", [f"{adapter}.safetensors", f"{other}.json"])
    assert rename_moves(f"{adapter}.safetensors", "new.safetensors", found)[1:] == [(f"{other}.json", "new.json")]


def test_what_a_kept_copy_lacks_moves_over_to_it() -> None:
    keep, gone = file("A/ink.safetensors"), file("B/copy.safetensors")
    going = ["copy.civitai.info", "copy.preview.png"]
    assert sidecars_of_twin(keep, gone, ["ink.preview.png"], going, lambda _: True) == [
        ("B/copy.civitai.info", "A/ink.civitai.info")
    ]
    assert sidecars_of_twin(keep, gone, [], going, lambda _: False) == []
    assert sidecars_of_twin(keep, file("x.safetensors", root="two"), [], going, lambda _: True) == []


def test_names_are_compared_in_one_form() -> None:
    assert folded(" Styles\\Ink.SafeTensors ".replace("SafeTensors", "safetensors")) == "styles/ink"
    assert folded("E\u0301tude") == folded("\u00e9tude")
