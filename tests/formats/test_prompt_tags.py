"""Tags by A1111's grammar; what cannot be used says why."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.formats.prompt_tags import LoraTag, foreign_tags, parse_tags, weighting_example


@pytest.mark.parametrize(
    ("tag", "name", "te", "unet"),
    [
        ("<lora:ink>", "ink", None, None),
        ("<lora:ink:0.8>", "ink", 0.8, 0.8),
        ("<lora:ink:-1>", "ink", -1.0, -1.0),
        ("<lora:ink:1e-1>", "ink", 0.1, 0.1),
        ("<lora:ink:0.8:0.5>", "ink", 0.8, 0.5),
        ("<lora:ink:te=0.3>", "ink", 0.3, 0.3),
        ("<lora:ink:unet=0.3>", "ink", None, 0.3),
        ("<lora:ink:0.8:unet=0.3>", "ink", 0.8, 0.3),
        ("<lora:ink:te=0.3:unet=-0.2>", "ink", 0.3, -0.2),
        ("<lora:ink:0.8:0.5:te=0>", "ink", 0.0, 0.5),
        ("<LORA: my style v2 : 0.8 >", "my style v2", 0.8, 0.8),
        ("<lyco:Styles/ink.v2:1>", "Styles/ink.v2", 1.0, 1.0),
    ],
)
def test_tags(tag: str, name: str, te: float | None, unet: float | None) -> None:
    assert parse_tags(f"a {tag} b") == ("a  b", (LoraTag(name, te, unet, tag),))


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("<lora:>", "names no LoRA"),
        ("<lora::0.8>", "names no LoRA"),
        ("<lora:ink:strong>", 'not a number: "strong"'),
        ("<lora:ink:>", 'not a number: ""'),
        ("<lora:ink:0,8>", "(write 0.8)"),
        ("<lora:ink:nan>", "not a number"),
        ("<lora:ink:inf>", "not a number"),
        ("<lora:ink:1_0>", "not a number"),
        ("<lora:ink:0.5@0.2,1@0.8>", "not a number"),
        ("<lora:ink:1:1:8>", "more than two weights"),
        ("<lora:ink:dyn=8>", '"dyn" that is not known'),
        ("<lora:ink:1:stop=10>", '"stop" that is not known; there are te=, unet= and, for strengths per block, lbw='),
        ("<lora:ink:INAL>", 'not a number: "INAL"'),
        ("<lora:a=b:0.8>", '"=" in the name'),
        ("<lora:ink:0.8", 'no closing ">"'),
    ],
)
def test_a_tag_that_cannot_be_used_says_why(tag: str, words: str) -> None:
    _, (found,) = parse_tags(f"a cat {tag}")
    assert found.problem
    assert words in found.problem
    assert "<lora:" in found.problem


@pytest.mark.parametrize(
    ("items", "te", "unet", "blocks"),
    [
        ("1:lbw=INALL", 1.0, 1.0, "INALL"),
        ("1:1:lbw=IN02", 1.0, 1.0, "IN02"),
        ("lbw=FACE", None, None, "FACE"),
        ("0.8:OUTALL", 0.8, 0.8, "OUTALL"),
        ("1:0.5:0,0,1,0,0,0,0,0,0,0,0,0", 1.0, 0.5, "0,0,1,0,0,0,0,0,0,0,0,0"),
        ("lbw=1,0,-0.5,1,1,1,1,1,1,1,1,1:te=0.2:unet=-1", 0.2, -1.0, "1,0,-0.5,1,1,1,1,1,1,1,1,1"),
        ("0.8:in=0.5:mid=1:out=0.2", 0.8, 0.8, "in=0.5 mid=1 out=0.2"),
        ("0.8:IN04=0.5:OUT03-OUT05=0", 0.8, 0.8, "in04=0.5 out03-out05=0"),
        ("OUT01=0:0.8:lbw=INALL", 0.8, 0.8, "INALL out01=0"),
        ("0.8:lbw = in=0.5 mid=0", 0.8, 0.8, "in=0.5 mid=0"),
    ],
)
def test_strengths_per_block_are_kept_as_written(items: str, te: float | None, unet: float | None, blocks: str) -> None:
    stripped, (tag,) = parse_tags(f"a <lora:ink:{items}>")
    assert (stripped, tag.problem) == ("a ", None)
    assert (tag.te, tag.unet, tag.blocks) == (te, unet, blocks)


def test_an_unclosed_tag_before_a_good_one_does_not_swallow_it() -> None:
    stripped, found = parse_tags("<lora:a:0.5 and <lora:b:0.5>")
    assert [tag.name for tag in found if not tag.problem] == ["b"]
    assert len([tag for tag in found if tag.problem]) == 1
    assert stripped == "<lora:a:0.5 and "


def test_several_tags_keep_their_order_and_the_same_one_twice_stays_twice() -> None:
    stripped, found = parse_tags("<lora:b:1>x<lora:a:1>\n<lora:b:0.5>")
    assert [tag.name for tag in found] == ["b", "a", "b"]
    assert stripped == "x\n"


def test_tags_of_other_programs_are_left_and_named() -> None:
    text = "a <hypernet:x:1> b <embed:y>"
    assert parse_tags(text) == (text, ())
    assert foreign_tags(text) == ["<hypernet:x:1>", "<embed:y>"]


@given(st.text(st.sampled_from("<>:=lora tyc0.5-\n") | st.characters(), max_size=80))
def test_any_text_gives_tags_with_finite_weights_or_problems(text: str) -> None:
    stripped, tags = parse_tags(text)
    for tag in tags:
        assert tag.raw in text
        assert tag.problem or (tag.name and tag.name == tag.name.strip())
        assert all(value is None or math.isfinite(value) for value in (tag.te, tag.unet))
    if "<" not in text:
        assert (stripped, tags) == (text, ())


@given(
    st.text(st.characters(exclude_characters="<>:=\n", exclude_categories=("Cs",)), min_size=1)
    .map(str.strip)
    .filter(bool),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_a_tag_that_is_written_is_read_back(name: str, te: float, unet: float) -> None:
    assert parse_tags(f"<lora:{name}:{te}:{unet}>")[1][0] == LoraTag(name, te, unet, f"<lora:{name}:{te}:{unet}>")


@pytest.mark.parametrize(
    ("text", "example"),
    [
        ("a (red:1.3) cat", "(red:1.3)"),
        ("a ((big)) cat", "(big)"),
        ("a [dog:cat:0.5]", "[dog:cat:0.5]"),
        ("a [dog|cat]", "[dog|cat]"),
        ("a [blurry] cat", "[blurry]"),
        ("a cat BREAK a dog", "BREAK"),
        ("a {red|blue} cat", "{red|blue}"),
        ("a __colour__ cat", "__colour__"),
        ("embedding:easyneg", "embedding:easyneg"),
        (r"ganyu \(genshin impact\)", None),
        ("a cat and a dog, break of dawn", None),
        ("a cat :) at 10:30", None),
    ],
)
def test_prompt_syntax_that_is_not_interpreted_is_seen(text: str, example: str | None) -> None:
    assert weighting_example(text) == example


@pytest.mark.parametrize(
    "text", ["(" * 10**5, "((a" * 10**5, "[a:" * 10**5, "<lora:" * 10**5, "<" + " " * 10**6, "{a|" * 10**5]
)
def test_much_of_anything_takes_time_in_proportion(text: str) -> None:
    before = time.perf_counter()
    parse_tags(text)
    weighting_example(text)
    foreign_tags(text)
    assert time.perf_counter() - before < 3
