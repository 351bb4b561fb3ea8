"""Strengths per block: what people write, what it means, and that what we write is read back."""

from __future__ import annotations

import contextlib
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.formats.block_weights import (
    as_vector,
    as_words,
    canonical,
    problem_of_preset,
    read_blocks,
)
from loravault.formats.blocks import NAMES, VECTORS
from loravault.formats.prompt_tags import parse_tags

#: As A1111's extension comes with them.
PUBLISHED = {
    "INS": "1,1,1,1,0,0,0,0,0,0,0,0,0,0,0,0,0",
    "IND": "1,0,0,0,1,1,1,0,0,0,0,0,0,0,0,0,0",
    "INALL": "1,1,1,1,1,1,1,0,0,0,0,0,0,0,0,0,0",
    "MIDD": "1,0,0,0,1,1,1,1,1,1,1,1,0,0,0,0,0",
    "OUTD": "1,0,0,0,0,0,0,0,1,1,1,1,0,0,0,0,0",
    "OUTS": "1,0,0,0,0,0,0,0,0,0,0,0,1,1,1,1,1",
    "OUTALL": "1,0,0,0,0,0,0,0,1,1,1,1,1,1,1,1,1",
}

weights = st.floats(-3, 3, allow_nan=False) | st.sampled_from([0.0, 1.0, 0.5])


@st.composite
def factors(draw: st.DrawFn) -> tuple[str, tuple[tuple[str, float], ...]]:
    """A family with factors for any of its blocks, often equal ones side by side."""
    family = draw(st.sampled_from(sorted(NAMES)))
    few = draw(st.lists(weights, min_size=1, max_size=3))
    return family, canonical({block: draw(st.sampled_from([1.0, *few])) for block in NAMES[family]})


@given(factors())
def test_what_is_written_in_words_is_read_back(made: tuple[str, tuple[tuple[str, float], ...]]) -> None:
    family, wanted = made
    text = as_words(wanted, family)
    assert (read_blocks(text, family) if text else ()) == wanted
    (tag,) = parse_tags(f"<lora:x:1:{text.replace(' ', ':')}>")[1] if text else (None,)
    if tag is not None:
        assert read_blocks(tag.blocks or "", family) == wanted


@given(factors())
def test_what_is_written_as_a_vector_is_read_back(made: tuple[str, tuple[tuple[str, float], ...]]) -> None:
    family, wanted = made
    vector = as_vector(wanted, family)
    if vector is not None:
        assert read_blocks(vector, family) == wanted
        assert vector.count(",") + 1 in {len(names) for names in VECTORS[family]}
    elif family in VECTORS:
        assert {block for block, _ in wanted} & set(NAMES[family]) - set(VECTORS[family][0])


@given(st.sampled_from(["sd15", "sd2", "sdxl", "demo"]), st.data())
def test_every_pasted_vector_can_be_written_again(family: str, data: st.DataObject) -> None:
    names = data.draw(st.sampled_from(VECTORS[family]))
    numbers = data.draw(st.lists(weights, min_size=len(names), max_size=len(names)))
    read = read_blocks(",".join(map(str, numbers)), family)
    again = as_vector(read, family)
    assert again is not None
    assert read_blocks(again, family) == read


@pytest.mark.parametrize(("name", "vector"), PUBLISHED.items())
def test_names_mean_what_they_mean_to_users_of_a1111(name: str, vector: str) -> None:
    assert read_blocks(name, "sd15") == read_blocks(name.lower(), "sd2") == read_blocks(vector, "sd15")


@pytest.mark.parametrize(
    ("text", "family", "same"),
    [
        ("ALL", "sd15", ""),
        ("NONE", "flux", "base=0 in=0 double=0 single=0 out=0"),
        ("FLUXALL", "flux", ""),
        ("ALL0.5", "sdxl", "base=0.5 in=0.5 mid=0.5 out=0.5"),
        ("INALL", "demo", "mid=0 out=0"),
        ("OUTALL", "sdxl", "1,0,0,0,0,0,1,1,1,1,1,1"),
        ("INALL out=0.2", "demo", "mid=0 out=0.2"),
        ("INALL OUT01=1", "demo", "mid=0 OUT00=0 OUT02-OUT03=0"),
        ("in=0.5, MID = 1; Out=0.2", "demo", "in=0.5 out=0.2"),
        ("all=0 in4=1", "sdxl", "base=0 IN00-IN03=0 IN05-IN08=0 mid=0 out=0"),
        ("IN00-01=0 in02-in03=-1", "demo", "IN00-IN01=0 IN02-IN03=-1"),
        ("in=0.5 IN01=1", "demo", "IN00=0.5 IN02-IN03=0.5"),
        ("IN01=1 in=0.5", "demo", "in=0.5"),
        ("1 0 0 0 0 1 1 1 1 1", "demo", "in=0"),
        ('"1,.5,-.5,+1,1e-1,1,1,1,1,1"', "demo", "IN00=0.5 IN01=-0.5 IN03=0.1"),
        ("d=0 S00-S10=0.5", "flux", "double=0 S00-S10=0.5"),
        ("layers=0.3", "z-image", "layers=0.3"),
    ],
)
def test_what_people_write(text: str, family: str, same: str) -> None:
    found = read_blocks(text, family)
    assert found == (read_blocks(same, family) if same else ())
    assert as_words(found, family) == ("" if not same else as_words(read_blocks(same, family), family))


def test_factors_that_change_nothing_are_not_kept() -> None:
    assert read_blocks("in=1 out=1.0", "sd15") == ()
    assert read_blocks("mid=-0", "sd15") == (("M00", 0.0),)
    assert str(read_blocks("mid=-0", "sd15")[0][1]) == "0.0"


@pytest.mark.parametrize(
    ("text", "family", "words"),
    [
        (
            "INALLL",
            "sd15",
            'name "INALLL", which is unknown (did you mean INALL?); possible are ALL, ALL0.5, NONE, INS',
        ),
        (
            "INALL",
            "flux",
            'name "INALL", which is nothing that flux has; possible are ALL, ALL0.5, NONE, 61 or 57 numb',
        ),
        ("1,1,1", "sd15", "do not fit: sd15 has 26 or 17 strengths per block, not 3"),
        ("1,1,1", "qwen-image", "are a vector, and none is known for qwen-image; possible are ALL, ALL0.5, NONE, or "),
        ("ALL", "hunyuan-video", "blocks are not known for hunyuan-video, only for demo, sd15, "),
        ("IN12=1", "sd15", 'name "IN12", which sd15 does not have; possible are'),
        ("IN08-IN12=1", "sd15", 'name "IN08-IN12", which sd15 does not have'),
        ("IN08-IN04=1", "sd15", 'name "IN08-IN04", which'),
        ("IN04-OUT04=1", "sd15", 'name "IN04-OUT04", which'),
        ("double=1", "sd15", 'name "double", which sd15 does not have'),
        ("in=", "sd15", 'have "" where a number belongs'),
        ("in=nan", "sd15", 'have "nan" where a number belongs'),
        ("in=1e999", "sd15", 'have "1e999" where a number belongs'),
        ("in=0.5 INALL", "sd15", 'have "INALL" after in=0.5; a name or a vector comes first'),
        ("1,R,1,1,1,1,1,1,1,1", "demo", "are random numbers (R, U, X)"),
        ("1,x2,1,1,1,1,1,1,1,1", "demo", 'have "x2" where a number belongs'),
        (" ", "sd15", "say nothing; possible are"),
        ("FACE", "sd15", 'name "FACE", which is unknown; possible are'),
    ],
)
def test_what_cannot_be_used_says_why_and_what_can(text: str, family: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        read_blocks(text, family)


def test_names_of_the_users_own() -> None:
    own = {"Face": "1,0,0,0,0,1,1,1,1,1", "soft": "ALL0.5", "ring": "FACE"}
    assert read_blocks("FACE out=0", "demo", own) == read_blocks("in=0 out=0", "demo")
    assert read_blocks("soft", "demo", own) == read_blocks("ALL0.5", "demo")
    with pytest.raises(ValueError, match="unknown"):  # no names of names, so no circles
        read_blocks("ring", "demo", own)
    with pytest.raises(ValueError, match=r"possible are ALL, ALL0\.5, NONE, INS.*Face"):
        read_blocks("nose", "sd15", own)


@pytest.mark.parametrize(
    ("name", "text", "good"),
    [
        ("FACE", "1,0,0,1", True),
        ("my-style.v2", "in=0.5 out=1", True),
        ("soft", "ALL0.5 in=1", True),
        ("INALL", "in=1", False),
        ("in", "in=1", False),
        ("d04", "in=1", False),
        ("two words", "in=1", False),
        ("FACE", "", False),
        ("FACE", "nose", False),
    ],
)
def test_what_a_name_of_the_users_own_may_be(name: str, text: str, good: bool) -> None:
    assert (problem_of_preset(name, text) is None) == good


@given(st.text(st.sampled_from("INOUTMDSin=0.5,-; 1R:") | st.characters(), max_size=60), st.sampled_from(sorted(NAMES)))
def test_any_text_is_read_or_refused_in_words(text: str, family: str) -> None:
    with contextlib.suppress(ValueError):
        found = read_blocks(text, family)
        assert {block for block, _ in found} <= set(NAMES[family])
        assert found == canonical(dict(found))


@pytest.mark.parametrize("text", ["in=1 " * 20_000 + "x", "1," * 50_000, "=" * 100_000, " " * 10**6, "a-" * 10**5])
def test_much_of_anything_takes_time_in_proportion(text: str) -> None:
    before = time.perf_counter()
    with pytest.raises(ValueError, match=r"have|fit|say nothing|name"):
        read_blocks(text, "sd15")
    assert time.perf_counter() - before < 3
