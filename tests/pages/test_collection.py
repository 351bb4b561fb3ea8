"""What a change concerns: never less than what looks different afterwards, and not much more."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from loravault.library.entry import Entry
from loravault.pages.collection import INDEX, Held, Key
from loravault.pages.galleries import Page
from tests.pages.shelves import VIEW, entry, picture, weight_id

names = st.sampled_from("abcdef")


def plans(held: Held) -> dict[Key, list[Page]]:
    return {key: held.plan(key) for key in held.all_keys()}


def one(name: str, **changes: Any) -> Entry:
    """The adapter of this name, in whatever folder it is now."""
    return entry(name, **{"weight_id": weight_id(name), **changes})


def put(held: Held, *entries: Entry, gone: tuple[str, ...] = ()) -> None:
    held.put_entries(entries, [weight_id(name) for name in gone], {})
    held.settle_pages()


changes = st.one_of(
    st.tuples(
        st.just("put"),
        names,
        st.fixed_dictionaries(
            {
                "category": st.sampled_from(["", "Styles", "styles", "A/B"]),
                "family": st.sampled_from(["sdxl", "flux"]),
                "title": st.sampled_from([None, "Ink", "Zebra"]),
                "card": st.sampled_from([None, "LoraVault/LoRAs/x.md", "Mine/y.md"]),
            }
        ),
    ),
    st.tuples(st.just("drop"), names, st.just({})),
    st.tuples(st.just("picture"), st.integers(0, 9).map(picture), st.sets(names, max_size=3)),
    st.tuples(st.just("unpicture"), st.integers(0, 9).map(picture), st.just(set())),
)


@given(st.lists(changes, max_size=25))
@settings(max_examples=60)
def test_what_looks_different_is_among_what_changed(steps: list[Any]) -> None:
    held = Held(VIEW)
    shown: dict[Key, list[Page]] = {}
    for kind, name, what in steps:
        if kind == "put":
            category = what.pop("category") if "category" in what else ""
            put(held, one(name, category=category, **what))
        elif kind == "drop":
            put(held, gone=(name,))
        else:
            used = {name: tuple(sorted(map(weight_id, what)))} if kind == "picture" else {}
            held.put_pictures(used, [name])
        now = plans(held)
        different = {key for key in {*shown, *now} if shown.get(key, []) != now.get(key, [])}
        changed = held.take_changed()
        assert different - {INDEX} <= changed
        assert INDEX in changed or shown.get(INDEX) in (None, now[INDEX])
        shown = now


@given(st.lists(st.tuples(names, st.sampled_from(["", "Styles", "styles"])), max_size=12), st.randoms())
@settings(max_examples=40)
def test_the_order_of_changes_does_not_show(some: list[tuple[str, str]], chance: Any) -> None:
    """Built up bit by bit or found at once: the same pages, as after a rebuild of the index."""
    last = dict(some)
    slowly = Held(VIEW)
    for name, category in some:
        put(slowly, one(name, category=category))
    slowly.put_pictures({picture(3): (weight_id("a"),)}, ())
    final = [one(name, category=category) for name, category in last.items()]
    chance.shuffle(final)
    at_once = Held(VIEW)
    at_once.put_pictures({picture(3): (weight_id("a"),)}, ())
    put(at_once, *final)
    assert plans(slowly) == plans(at_once)


embeds = st.sampled_from(
    [
        "",
        *(
            f"![[LoraVault/Gallery/Adapters/{name}]]"
            for name in ("a pictures", "A pictures", "b pictures", "b pictures 2")
        ),
    ]
)
cards = st.builds(
    lambda name, stem, body: one(name, card=f"LoraVault/LoRAs/{stem}.md", card_body=body),
    names, st.sampled_from(["a", "A", "b", "c"]), embeds,
)  # fmt: skip


@given(st.lists(st.lists(cards, min_size=1, max_size=3), max_size=8))
def test_pages_that_are_given_out_bit_by_bit_are_those_of_a_first_look(batches: list[list[Any]]) -> None:
    """A new card is given its page without a look at all others, unless it wants that of another one."""
    slowly = Held(VIEW)
    last: dict[str, Any] = {}
    for batch in batches:
        put(slowly, *batch)
        last.update((entry.weight_id, entry) for entry in batch)
        at_once = Held(VIEW)
        put(at_once, *last.values())
        assert plans(slowly) == plans(at_once)


def test_a_picture_concerns_its_month_its_adapters_and_the_index() -> None:
    """Catalogues stay as they are while pictures are made."""
    held = Held(VIEW)
    put(held, one("a"), one("b"))
    held.take_changed()
    held.put_pictures({picture(1): (weight_id("a"),)}, ())
    assert held.take_changed() == {("month", "2026-11"), ("adapter", weight_id("a")), INDEX}
    held.put_pictures({picture(1): (weight_id("a"),)}, ())
    assert held.take_changed() == set()


def test_the_page_of_an_adapter_stays_when_its_card_is_renamed() -> None:
    """The card embeds it by its path, and that text is the user's."""
    embed = "![[LoraVault/Gallery/Adapters/ink pictures]]\n"
    held = Held(VIEW)
    put(held, one("ink", card="LoraVault/LoRAs/ink.md", card_body=embed))
    put(held, one("ink", card="Mine/My best style.md", card_body=embed))
    (page,) = held.plan(("adapter", weight_id("ink")))
    assert page.path == "LoraVault/Gallery/Adapters/ink pictures.md"
    assert page.of is not None
    assert page.of.card == "Mine/My best style.md"


def test_a_name_that_two_adapters_have_is_not_offered_for_a_prompt() -> None:
    """It would be refused as ambiguous; the page of the first changes when the second comes."""
    held = Held(VIEW)
    put(held, entry("ink", "Styles"))
    held.take_changed()
    key = ("adapter", weight_id("Styles/ink"))
    assert held.plan(key)[0].call == "ink"
    put(held, entry("ink", "Old"))
    assert key in held.take_changed()
    assert held.plan(key)[0].call == "loras/Styles/ink"
    held.put_entries([], [weight_id("Old/ink")], {})
    held.settle_pages()
    assert held.plan(key)[0].call == "ink"


def test_an_adapter_without_a_card_is_shown_and_has_no_page() -> None:
    held = Held(VIEW)
    put(held, one("ink", card=None))
    assert [tile.name for page in held.plan(("family", "sdxl")) for tile in page.tiles] == ["ink"]
    assert ("adapter", weight_id("ink")) not in held.all_keys()
    assert held.plan(("adapter", weight_id("ink"))) == []
