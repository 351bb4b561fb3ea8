"""Every base model that diffusers has, in the spellings, parts and algorithms that trainers write: recognised, or open.

The layers come from diffusers' own classes (`derive.py`), the tables that are tested were written by hand.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from loravault.formats.families import identify
from loravault.formats.families.index import FAMILIES, MODELS, entries_of
from loravault.formats.families.table import Model, layers_of
from tests.formats import confusions, derived

PAGE = Path(__file__).parents[2] / "docs" / "families.md"


@cache
def answers() -> list[confusions.Answer]:
    return list(confusions.answers())


def test_the_true_family_is_always_among_the_possible_ones() -> None:
    assert [one for one in answers() if one.family != "unknown" and one.family not in one.possible] == []


def test_a_family_is_never_called_by_the_name_of_another_unless_both_have_the_very_same_layers() -> None:
    wrong = {(one.family, one.said, one.trained) for one in answers() if one.said not in (one.family, "unknown")}
    assert {(made, said) for made, said, _ in wrong} == {("kolors", "sdxl"), ("chroma", "flux"), ("sana", "pixart")}
    assert {trained for made, _, trained in wrong if made == "sana"} == {"attention"}


def test_a_variant_that_is_told_is_right() -> None:
    """`medium` of SD 3 and `14b` of Wan stand for two where the layers that differ were not trained."""
    wrong = {
        (one.family, one.variant, one.said_variant)
        for one in answers()
        if one.said == one.family and one.said_variant not in (None, one.variant)
    }
    assert wrong == {("sd3", "3.5-medium", "medium"), ("wan", "14b-i2v", "14b")}


def test_an_unknown_model_with_known_names_stays_unknown() -> None:
    assert {one.said for one in answers() if one.family == "unknown"} == {"unknown"}


def test_everything_in_the_repeated_blocks_settles_family_and_variant_but_for_three() -> None:
    open_ones = {(one.family, one.variant) for one in answers() if one.trained == "blocks" and not one.right} - {
        ("unknown", "sdxl-refiner")
    }
    assert open_ones == {("kolors", None), ("ltx", "13b")}


def test_the_algorithm_is_told() -> None:
    for one in answers():
        if one.trained in derived.ALGORITHMS:
            assert one.network == one.trained, one


def test_the_published_list_is_what_is_true() -> None:
    text = PAGE.read_text("utf-8")
    listed = text.split("<!-- confusions -->")[1].split("<!-- /confusions -->")[0]
    assert _cases(confusions.published(answers())) == _cases(listed), "run `python -m benchmarks.headers --write`"


def _cases(table: str) -> set[tuple[str, str, str]]:
    """(made for, trained, answered). Here only some blocks of each model are asked, and more families are possible."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]
    return {(made, one, said) for made, trained, said, _ in rows for one in trained.split(", ")}


def test_every_family_that_diffusers_has_is_derived() -> None:
    """What has a table and no derived header: only models that diffusers does not have, or that are ours."""
    asked = {family for family, _ in derived.architectures()}
    assert FAMILIES.keys() - asked == {"demo"}


@pytest.mark.parametrize("spelling", derived.SPELLINGS)
def test_every_spelling_of_the_keys_is_read(spelling: str) -> None:
    spell, parts = derived.SPELLINGS[spelling]
    for family in ("flux", "wan", "sdxl", "z-image"):
        variant = "14b" if family == "wan" else None
        rows = derived.subset("blocks", derived.thinned(derived.architectures()[family, variant]))
        found = identify(derived.header(derived.tensors(rows, spell, parts)))
        assert (found.family, found.modules) == (family, len(rows))


def test_the_demo_base_knows_its_own_adapters() -> None:
    name = "up_blocks_1_attentions_1_transformer_blocks_0_attn2_to_v"
    assert {
        MODELS[bit][0].name for entry in entries_of("unet", name) for bit in range(99) if entry.models >> bit & 1
    } >= {"demo"}


@pytest.mark.parametrize("line", ["a b", "a 1 2 3 4", "a x 1", "a 1 3+", "a 1 -"])
def test_a_line_of_a_table_that_cannot_be_read_is_an_error_and_not_left_out(line: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        list(layers_of(Model(None, (line,), {})))


def test_how_layers_are_written_down() -> None:
    text = "blocks.[0-last].{img,txt}_mlp.0   d  2d|7+d   # a comment"
    rows = list(layers_of(Model(None, (text,), {"d": 10, "last": 4})))
    assert [row.pattern for row in rows] == ["blocks_#_img_mlp_#", "blocks_#_txt_mlp_#"]
    assert rows[0].numbers == ((0, 4), (0, 0))
    assert (rows[0].into, rows[0].out, rows[0].kernel) == (frozenset({10}), frozenset({20, 17}), 0)
