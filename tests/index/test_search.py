"""The search: every text is answered, words are found as people mean them, and the tables follow the library."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loravault.index import cards, library, search
from loravault.index.database import Index
from loravault.index.search import Found, Hit, Sort
from loravault.index.search_documents import FORM, SearchDocument, document_of, document_of_file
from loravault.index.search_words import Flag, make_filter
from loravault.index.tables import AdapterRow, MadeRow
from loravault.library.entry import Entry, Place


def entry(name: str, **fields: Any) -> Entry:
    folder = fields.pop("folder", "")
    rel = f"{folder}/{name}.safetensors".lstrip("/")
    place = Place("loras", rel, "ok", fields.pop("size", 1000), fields.pop("ns", 10**18))
    defaults: dict[str, Any] = {
        "weight_id": f"w1-{name}", "places": (place,), "state": "ok", "family": "sdxl", "variant": None,
        "network": "lora", "rank": 8, "alpha": 4.0, "title": None, "trigger_words": ("word",), "preview": "x.png",
    }  # fmt: skip
    return Entry(name=name, **{**defaults, **fields})


LIBRARY = (
    entry("ghibliStyleV2", trigger_words=("ghibli style",), rating=5.0, folder="styles/anime", size=30),
    entry("red_dress", tags=("lora/clothes",), topics=("Red_Dress", "anime"), rating=3.0, folder="clothes", size=20),
    entry("dress red velvet", family="flux", variant="dev", network="lokr", size=10, ns=3 * 10**18),
    entry("broken_mirror", trigger_words=(), preview=None, favourite=True, folder="styles"),
    entry("水墨画风格", card_body="Ink on paper, as in 動漫の世界. Café au lait.", family="demo"),
    entry("pony_thing", variant="pony", facts={"description": "a horse", "captions": [["saddle", 20], ["reins", 3]]}),
    entry("gone", state="missing", places=(Place("loras", "gone.safetensors", "missing", 5, 10**18),)),
    entry(
        "twice",
        places=(Place("loras", "twice.safetensors", "ok", 5, 1), Place("more", "a/copy_of_it.safetensors", "ok", 5, 1)),
    ),
)


def index_in(folder: Path, documents: Sequence[SearchDocument]) -> Index:
    index = Index(folder / "index.sqlite")
    with index.session() as session:
        search.store(session, documents)
        session.add(MadeRow(weight_id="w1-red_dress", image="a.webp"))
        session.add(MadeRow(weight_id="w1-red_dress", image="b.webp"))
        session.add(MadeRow(weight_id="w1-twice", image="a.webp"))
    return index


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    broken = AdapterRow(root="loras", rel="bad/cut.safetensors", name="cut", state="broken", reason="it is cut short")
    return index_in(tmp_path_factory.mktemp("index"), [*map(document_of, LIBRARY), document_of_file(broken)])


def find(index: Index, text: str, **options: Any) -> Found:
    with index.session() as session:
        return search.search(session, text, **options)


def names(index: Index, text: str, **options: Any) -> list[str]:
    return [hit.name for hit in find(index, text, **options).hits]


@pytest.mark.parametrize(
    "text",
    [
        *("ghibli", "style", "GHIBLI", "ghibliStyleV2", "ghiblistylev2", "ghiblistyle"),
        *("style v2", "gHi", "V2 ghibli", '"ghibli style"'),
    ],
)
def test_a_name_is_found_by_its_parts_its_whole_and_its_beginning(index: Index, text: str) -> None:
    assert names(index, text)[0] == "ghibliStyleV2"


def test_the_last_word_may_be_a_beginning_and_the_others_if_nothing_else_is_found(index: Index) -> None:
    assert names(index, "dress re") == ["red_dress", "dress red velvet"]
    assert names(index, "re dress") == ["red_dress", "dress red velvet"]
    assert names(index, "reins pony") == names(index, "rei pony") == ["pony_thing"]


def test_if_nothing_has_all_words_any_will_do_and_that_is_said(index: Index) -> None:
    found = find(index, "velvet saddle")
    assert {hit.name for hit in found.hits} == {"dress red velvet", "pony_thing"}
    assert found.remarks == ("Nothing has all of these words; this has some of them.",)


def test_all_words_must_be_there(index: Index) -> None:
    assert names(index, "red velvet") == ["dress red velvet"]


def test_a_phrase_keeps_its_order(index: Index) -> None:
    assert names(index, '"red dress"') == ["red_dress"]
    assert names(index, '"dress red"') == ["dress red velvet"]
    assert names(index, '"dress re"') == []


def test_excluded_words_phrases_and_filters(index: Index) -> None:
    assert names(index, "dress -velvet") == ["red_dress"]
    assert names(index, 'dress -"dress red"') == ["red_dress"]
    assert names(index, "dress -family:flux") == ["red_dress"]
    assert "red_dress" not in names(index, "-dress")
    assert len(names(index, "-dress")) == len(LIBRARY) - 1


def test_diacritics_and_scripts_without_blanks(index: Index) -> None:
    assert names(index, "cafe") == names(index, "CAFÉ") == ["水墨画风格"]
    for part in ("水墨", "墨画", "风格", "動漫", "世界", "画"):
        assert names(index, part) == ["水墨画风格"], part
    assert names(index, "墨水") == []


def test_the_name_counts_more_than_a_mention(index: Index) -> None:
    assert names(index, "anime")[0] != "red_dress"
    assert names(index, "red dress")[0] == "red_dress", "exactly what was asked for comes first"


def test_descriptions_captions_and_names_of_copies_are_searched(index: Index) -> None:
    assert names(index, "horse saddle") == ["pony_thing"]
    assert names(index, "copy_of_it") == ["twice"]
    assert names(index, "cut short") == ["cut"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("family:flux", {"dress red velvet"}),
        ("family:FLUX,demo", {"dress red velvet", "水墨画风格"}),
        ("family:flux family:demo", {"dress red velvet", "水墨画风格"}),
        ("family:pony", {"pony_thing"}),
        ("variant:dev", {"dress red velvet"}),
        ("network:lokr", {"dress red velvet"}),
        ("folder:styles", {"ghibliStyleV2", "broken_mirror"}),
        ("folder:styles/anime", {"ghibliStyleV2"}),
        ("folder:anime", {"ghibliStyleV2"}),
        ("folder:style", set()),
        ("tag:clothes", {"red_dress"}),
        ("tag:lora", {"red_dress"}),
        ('tag:"red dress"', {"red_dress"}),
        ("tag:anime tag:clothes", {"red_dress"}),
        ("rating:>=4", {"ghibliStyleV2"}),
        ("rating:<4", {"red_dress"}),
        ("rating:3", {"red_dress"}),
        ("favourite", {"broken_mirror"}),
        ("missing", {"gone"}),
        ("duplicate", {"twice"}),
        ("is:broken", {"cut"}),
        ("untriggered", {"broken_mirror"}),
        ("nopreview", {"broken_mirror"}),
        ("used", {"red_dress", "twice"}),
        ("used -duplicate", {"red_dress"}),
        ("is:favourite is:used", set()),
    ],
)
def test_filters(index: Index, text: str, found: set[str]) -> None:
    assert set(names(index, text)) == found


def test_unused_and_unrated(index: Index) -> None:
    assert set(names(index, "unused")) == {one.name for one in LIBRARY} - {"red_dress", "twice"} | {"cut"}
    assert not {"red_dress", "ghibliStyleV2"} & set(names(index, "rating:0"))


def test_filters_as_options_are_the_same_filters(index: Index) -> None:
    family, rating = make_filter("family", "sdxl"), make_filter("rating", "3")
    assert family is not None
    assert rating is not None
    assert names(index, "dress", filters=[family, rating]) == ["red_dress"]


def test_a_flag_that_leaves_nothing_is_taken_as_a_word_and_that_is_said(index: Index) -> None:
    found = find(index, "broken mirror")
    assert [hit.name for hit in found.hits] == ["broken_mirror"]
    assert found.remarks == ("“broken” was taken as a word, because as a filter it leaves nothing.",)


def test_nothing_found_is_an_answer_with_close_names(index: Index) -> None:
    assert find(index, "gibhliStyleV2") == Found((), 0, ("Close names: ghibliStyleV2.",))
    assert find(index, "zzzzzz") == Found()


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("gibli", "ghibliStyleV2"),
        ("ghilbi", "ghibliStyleV2"),
        ("velvat", "dress red velvet"),
        ("Mirorr", "broken_mirror"),
    ],
)
def test_a_slip_in_one_word_of_a_name_finds_the_name(index: Index, text: str, near: str) -> None:
    """Names were compared as wholes only, so that most typos found nothing."""
    assert find(index, text) == Found((), 0, (f"Close names: {near}.",))


@pytest.mark.parametrize(
    ("sort", "first"),
    [("name", "broken_mirror"), ("newest", "dress red velvet"), ("rating", "ghibliStyleV2"), ("used", "red_dress")],
)
def test_orders(index: Index, sort: search.Sort, first: str) -> None:
    assert names(index, "", sort=sort)[0] == first
    assert names(index, "family:sdxl,flux", sort=sort)[0] == first


def test_a_limit_shows_less_and_counts_all(index: Index) -> None:
    found = find(index, "", limit=2)
    assert (len(found.hits), found.total) == (2, len(LIBRARY) + 1)
    assert len(find(index, "", limit=None).hits) == len(LIBRARY) + 1


def test_a_hit_says_what_a_table_shows(index: Index) -> None:
    assert find(index, "red_dress").hits[0] == Hit(
        key="w1-red_dress", name="red_dress", family="sdxl", variant=None, network="lora", trigger_words=("word",),
        weight=None, folder="clothes", rating=3.0, favourite=False, pictures=2, size=20, state="ok",
        files=("loras/clothes/red_dress.safetensors",),
    )  # fmt: skip
    assert find(index, "is:broken").hits[0].reason == "it is cut short"


STARS = "`rating:` takes a number from 0 to 5, as in `rating:>=4`."


@pytest.mark.parametrize(
    ("text", "remark"),
    [
        ("famly:sdxl", "`famly` is no filter; did you mean `family`?"),
        ("-Famliy:flux dress", "`famliy` is no filter; did you mean `family`?"),
        ('tags:"red dress"', "`tags` is no filter; did you mean `tag`?"),
        ("stars:4", "`stars` is no filter; did you mean `rating`?"),
        ("rating:abc", STARS),
        ("rating:6", STARS),
        ("rating:>=10 dress", STARS),
        ("is:lovely", f"`is:` takes one of these: {', '.join(get_args(Flag))}."),
        ("size:>1", "`size` is no filter; there are `family`, `variant`, `network`, `folder`, `tag`, `rating`."),
        ("in:card", "`in` is no filter; there are `family`, `variant`, `network`, `folder`, `tag`, `rating`."),
        ("family:sdxll", "No LoRA here is of the family sdxll; there are: sdxl, demo, flux, unknown."),
        ("family:sd1.5,sdxl", "No LoRA here is of the family sd1.5; there are: demo, flux, sdxl, unknown."),
        ("-family:ponny", "No LoRA here is of the family ponny; there are: pony, demo, flux, sdxl, unknown."),
        ("network:lokrr", "No LoRA here is of the network lokrr; there are: lokr, lora."),
        ("variant:schnell", "No LoRA here is of the variant schnell; there are: dev, pony."),
        ("folder:style", "No LoRA here lies in a folder style; there are: styles, styles/anime, a, bad, clothes."),
        ("folder:anmie", "No LoRA here lies in a folder anmie; there are: styles/anime, a, bad, clothes, styles."),
    ],
)  # fmt: skip
def test_a_filter_that_is_misspelt_or_finds_nothing_by_itself_is_told(index: Index, text: str, remark: str) -> None:
    """Misspelt filters listed what has nothing to do with them, or found nothing, without a word about why."""
    assert find(index, text).remarks[0] == remark


@pytest.mark.parametrize(
    "text",
    [
        *("family:pony,SDXL", "folder:anime", "network:lokr", "rating:5", "rating:<=5", "dress", "https://x.y/dress"),
        *("<lora:red_dress:0.8>", "copy:of", "zzzzzz", "is:favourite is:used", "12:30"),
    ],
)
def test_what_is_no_slip_is_not_told_of(index: Index, text: str) -> None:
    """Any text is a query: `copy:of` is found as two words, and nobody meant a filter."""
    assert not [one for one in find(index, text).remarks if "filter" in one or "No LoRA" in one or "takes" in one]


def test_a_long_list_of_folders_is_told_in_part(tmp_path: Path) -> None:
    documents = [document_of(entry(f"a{n}", folder=f"f{n:02}/x")) for n in range(20)]
    (remark,) = find(index_in(tmp_path, documents), "folder:f190").remarks
    assert remark.startswith("No LoRA here lies in a folder f190; there are: f19, ")
    assert remark.endswith(" and 28 more.")


SIGNS = st.text(alphabet=st.sampled_from("aé動🐱2 \"'*:^()+-~{}[]<>=\\/|&%;\0\n,._ANDORNEAR"))


FILTERS = st.builds("{}:{}".format, st.sampled_from(["family", "tag", "folder", "rating", "is", "famly"]), SIGNS)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(SIGNS, st.text(), FILTERS), sort=st.sampled_from(get_args(Sort)))
def test_every_text_is_answered(index: Index, text: str, sort: search.Sort) -> None:
    found = find(index, text, sort=sort)
    assert len(found.hits) == found.total


@pytest.mark.parametrize(
    "text", ["a " * 5000, "-a " * 5000, "family:a,b," + "c," * 5000, "動" * 9000, "is:used " * 900]
)
def test_a_text_of_any_length_is_answered(index: Index, text: str) -> None:
    find(index, text)


def test_the_tables_follow_the_library(tmp_path: Path) -> None:
    index = index_in(tmp_path, [document_of(entry("one")), document_of(entry("two"))])
    with index.session() as session:
        assert search.store(session, [document_of(entry("one")), document_of(entry("two"))]) == 0, "nothing is written"
        assert search.store(session, [document_of(entry("one", card_body="about whales"))]) == 1
    assert names(index, "whales") == ["one"]
    with index.session() as session:
        search.store(session, [document_of(entry("one"))])
    assert names(index, "whales") == []
    assert set(names(index, "")) == {"one", "two"}
    with index.session() as session:
        search.forget(session, ["w1-one", "w1-unknown"])
    assert names(index, "") == ["two"]
    with index.session() as session:
        assert search.known_keys(session) == {"w1-two"}


def test_more_adapters_than_one_statement_takes_and_one_that_comes_twice(tmp_path: Path) -> None:
    documents = [document_of(entry(f"a{n}")) for n in range(2000)]
    index = index_in(tmp_path, [documents[0], *documents, documents[0]])
    assert find(index, "", limit=1).total == 2000
    with index.session() as session:
        search.forget(session, [document.key for document in documents[:1500]])
    assert find(index, "", limit=1).total == 500


def test_an_index_that_is_opened_again_still_has_its_search(tmp_path: Path) -> None:
    index = index_in(tmp_path, [document_of(entry("one"))])
    index.close()
    again = Index(tmp_path / "index.sqlite")
    assert again.rebuilt_because is None
    assert names(again, "one") == ["one"]


def test_many_words_that_most_adapters_have_are_ranked_by_what_adapters_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranking ten thousand by nine words took 34 ms. Whose name says it comes first all the same, then the others."""
    said = "soft light on a red house"
    library = [
        entry("aaa", card_body=said), entry("soft light on a red house and more"), entry("zzz", card_body=said),
        entry("redhouse", trigger_words=("soft light on a red house",)), entry("soft_light_onARed_house"),
    ]  # fmt: skip
    index = index_in(tmp_path, list(map(document_of, library)))
    usual = find(index, said)
    monkeypatch.setattr(search, "_BROAD", 2)
    found = find(index, said)
    assert [hit.name for hit in found.hits] == [
        "soft_light_onARed_house", "soft light on a red house and more", "redhouse", "aaa", "zzz",
    ]  # fmt: skip
    assert {hit.key for hit in usual.hits} == {hit.key for hit in found.hits}
    assert [hit.key for hit in find(index, said, limit=3).hits] == [hit.key for hit in found.hits[:3]]
    assert find(index, said, limit=1).total == 5
    assert find(index, f"{said} -and").total == 4
    assert names(index, said, sort="name")[0] == "aaa"
    index.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["w", "wo", "style", "red", "-red", '"red dress"', "sdxl", "family:sdxl"]), max_size=5))
def test_a_query_of_any_length_finds_the_same_however_it_is_ranked(index: Index, words: list[str]) -> None:
    usual = find(index, " ".join(words))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_LONG", 0)
        patch.setattr(search, "_BROAD", 0)
        broad = find(index, " ".join(words))
    assert (sorted(hit.key for hit in usual.hits), usual.total) == (sorted(hit.key for hit in broad.hits), broad.total)


def test_documents_are_of_the_form_that_is_written_down(tmp_path: Path) -> None:
    """From rows to documents: of another form they would stay as they are until their adapters change."""
    facts = {
        "description": "a <b>horse</b>",
        "captions": [["saddle", 20]],
        "topics": ["riding"],
        "weight": 0.5,
        "nsfw": 2,
    }
    more: dict[str, Any] = {"sources": "{}", "trigger_words": '["sks horse"]', "size": 9, "mtime_ns": 10**18, "rank": 8}
    known = {"state": "ok", "family": "sdxl", "variant": "pony", "network": "lora", "facts": json.dumps(facts), **more}
    index = Index(tmp_path / "index.sqlite")
    with index.session() as session:
        for root, name, weight_id in (("a", "horse", "w1-1"), ("b", "copy", "w1-1"), ("a", "mare", "w1-2")):
            session.add(AdapterRow(root=root, rel=f"x/{name}.safetensors", name=name, weight_id=weight_id, **known))
        fields = '{"aliases": ["Hoss"], "favourite": true, "rating": 4, "tags": ["t/u"], "trigger_words": ["mine"]}'
        said = '{"lora_file": "b/x/copy.safetensors"}'
        cards.put(session, [cards.CardRead("C.md", 1, 1, "", "w1-1", fields=fields, body="Some words.", said=said)])
    with index.session() as session:
        made = [document_of(one, {"w1-2"}) for one in library.entries(session)]
    assert [one.name for one in made] == ["copy", "mare"]
    found = hashlib.blake2b("".join(map(search._sum, made)).encode(), digest_size=8).hexdigest()
    assert (FORM, found) == (2, "e5824c5be28ef148"), "raise FORM in search_documents.py, and write both down here"
