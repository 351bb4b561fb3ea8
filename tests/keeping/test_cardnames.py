"""Cards have names that no other note of the vault has, and prompts call adapters by names that mean one only."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from loravault.keeping.cardnames import CallNames, plan_paths
from loravault.keeping.notenames import NoteNames, TakenNames
from loravault.library.entry import Place
from loravault.library.names import Ambiguous, Missing, find
from loravault.vault.ignore import IgnoreRules, conflict_original
from loravault.vault.names import name_key
from tests.keeping.cardworld import DAY_NS
from tests.pages.card_entries import entry

RULES = IgnoreRules()


def adapter(number: int, path: str, root: str = "loras"):
    rel = f"{path}.safetensors"
    name = rel.rpartition("/")[2].removesuffix(".safetensors")
    return entry(weight_id=f"w1-{number:016x}", name=name, places=(Place(root, rel, "ok", 1, DAY_NS),))


def paths(*names: str, taken: tuple[str, ...] = ()) -> list[str]:
    notes = NoteNames(lambda: taken, "F")
    notes.look()
    planned = plan_paths([adapter(i, name) for i, name in enumerate(names)], "F", TakenNames(notes, list), RULES)
    return [planned[f"w1-{i:016x}"] for i in range(len(names))]


def test_folders_are_categories_and_a_hidden_one_can_be_seen():
    assert paths("a/b c/x", ".hidden/y", "CON/z", "w") == [
        "F/LoRAs/a/b c/x.md", "F/LoRAs/_hidden/y.md", "F/LoRAs/_CON/z.md", "F/LoRAs/w.md",
    ]  # fmt: skip


def test_of_two_of_one_name_the_first_by_path_gets_it():
    assert paths("b/ink", "a/Ink", "c/ink (LoRA)") == [
        "F/LoRAs/b/ink (LoRA).md", "F/LoRAs/a/Ink.md", "F/LoRAs/c/ink (LoRA) (LoRA).md",
    ]  # fmt: skip


def test_a_page_of_pictures_and_a_card_never_share_a_name():
    assert paths("ink pictures", "ink") == ["F/LoRAs/ink pictures.md", "F/LoRAs/ink (LoRA).md"]
    assert paths("ink", taken=("x/INK pictures.md",)) == ["F/LoRAs/ink (LoRA).md"]


def test_a_name_that_looks_like_a_copy_of_a_sync_tool_is_not_given():
    """Such a card would be ignored for ever."""
    made = paths("ink (Conflicted copy)", "~$ink", "x.sync-conflict-20261120-101010-ABCDEFG", "x-conflict-2026-11-20")
    assert made[1] == "F/LoRAs/LoRA 0000000000000001.md"
    assert all(conflict_original(path) is None and RULES.reason(path) is None for path in made)


_NAME = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="/\0"), min_size=1, max_size=20)


@given(st.lists(_NAME | st.sampled_from(["a", "A", "a ", "a (LoRA)", "a pictures", "e\u0301", "\xe9"]), max_size=12))
@settings(max_examples=150)
def test_whatever_the_files_are_called_no_two_notes_have_one_name(names):
    made = paths(*names, taken=("x/a.md",))
    keys = [name_key(path.rpartition("/")[2].removesuffix(".md")) for path in made]
    assert len(set(keys)) == len(names)
    assert "a" not in keys
    assert not {f"{key} pictures" for key in keys} & set(keys)


class Record:
    def __init__(self, one):
        self.name, self.alias, self.state = one.name, None, "ok"
        self.root, self.rel, self.weight_id = one.place.root, one.place.rel, one.weight_id


@given(
    st.lists(st.sampled_from(["ink", "a/ink", "b/ink", "x/a/ink", "a/pen", "Ink", "pen.v2"]), unique=True, min_size=1)
)
def test_the_name_in_a_prompt_means_this_adapter_and_no_other(names):
    made = [adapter(number, name, root=f"r{number % 2}") for number, name in enumerate(names)]
    records = [Record(one) for one in made]
    calls = CallNames(records)
    for one in made:
        found = find(calls.of(one), records)
        if not isinstance(found, Ambiguous | Missing):
            assert found.weight_id == one.weight_id
        else:  # `ink` at the top beside `a/ink`: only the root's name tells it apart
            assert "/" in calls.of(one)


def test_copies_do_not_make_a_name_ambiguous():
    one = adapter(1, "a/ink")
    copy = replace(one, places=(Place("other", "b/ink.safetensors", "ok", 1, DAY_NS),))
    assert CallNames([Record(one), Record(copy)]).of(one) == "ink"
