"""Infotext: golden texts of real programs, and what is written is read back."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.formats.infotext import Infotext, hash_name, parse_infotext, split_negative, write_infotext

A1111 = """a photo of a cat, <lora:ink_outline:0.8>
second line
Negative prompt: blurry,
worst quality
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x768, Model hash: abcdef0123, \
Model: name, Clip skip: 2, Lora hashes: "ink_outline: 0123456789ab, b b: ba9876543210", TI hashes: "t: 0123456789ab", \
Version: v1.10.1"""


def test_a1111_one_to_one() -> None:
    info = parse_infotext(A1111)
    assert info == Infotext(
        prompt="a photo of a cat, <lora:ink_outline:0.8>\nsecond line",
        negative="blurry,\nworst quality",
        parameters={
            "Steps": "20", "Sampler": "DPM++ 2M", "Schedule type": "Karras", "CFG scale": "7", "Seed": "1",
            "Size": "512x768", "Model hash": "abcdef0123", "Model": "name", "Clip skip": "2",
            "TI hashes": "t: 0123456789ab", "Version": "v1.10.1",
        },
        lora_hashes={"ink_outline": "0123456789ab", "b b": "ba9876543210"},
    )  # fmt: skip


def test_what_we_write_is_what_a1111_writes() -> None:
    """Key order, quoting, `Lora hashes` before `Version`, Civitai's `Hashes` raw at the end."""
    info = Infotext(
        prompt="a cat",
        negative="",
        parameters={
            "Version": "loravault 0.1", "Seed": "42", "Steps": "20", "Sampler": "Euler a", "Model": "demo, v1",
            "CFG scale": "7", "Size": "128x128", "RNG": "CPU",
        },
        lora_hashes={"a:b,c": "0123456789ab"},
        hashes={"lora:abc": "0123456789"},
    )  # fmt: skip
    assert write_infotext(info) == (
        "a cat\n"
        'Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, Size: 128x128, Model: "demo, v1", RNG: CPU, '
        'Lora hashes: "abc: 0123456789ab", Version: loravault 0.1, Hashes: {"lora:abc":"0123456789"}'
    )


def test_civitais_raw_json_does_not_break_the_entries_around_it() -> None:
    info = parse_infotext(
        "x\nSteps: 25, Sampler: Euler a, CFG scale: 7.5, Seed: 5, Size: 832x1216, "
        'Created Date: 2024-11-02T0723:33.3350000Z, Hashes: {"model":"67ab2fd8ec","LORA:my style":"AABBCCDDEE"}, '
        'Civitai resources: [{"type":"lora","weight":0.8,"modelVersionId":128713,"modelVersionName":"v1, a:b"},'
        '{"type":"checkpoint","modelVersionId":290640}], Civitai metadata: {}, Version: x'
    )
    assert info is not None
    assert info.hashes == {"model": "67ab2fd8ec", "LORA:my style": "AABBCCDDEE"}
    assert info.parameters["Created Date"] == "2024-11-02T0723:33.3350000Z"
    assert info.parameters["Civitai resources"].startswith('[{"type": "lora"')
    assert info.parameters["Version"] == "x"
    assert info.parameters["CFG scale"] == "7.5"


def test_sdnexts_two_lists_are_joined() -> None:
    info = parse_infotext(
        "x\nSteps: 20, Size: 512x512, Sampler: UniPC, Seed: 1, "
        'LoRA networks: "a:0.8, b:1", LoRA hashes: "11111111, 22222222"'
    )
    assert info is not None
    assert info.lora_hashes == {"a": "11111111", "b": "22222222"}


def test_lines_that_extensions_add_below_are_not_the_prompt() -> None:
    info = parse_infotext("x\nSteps: 20, Sampler: Euler, Seed: 1\nTemplate: a {b|c}\nNegative Template: d")
    assert info is not None
    assert (info.prompt, info.parameters["Seed"], info.rest) == ("x", "1", "")
    info = parse_infotext("x\nSteps: 20, Sampler: Euler, Seed: 1\nsomething else")
    assert info is not None
    assert info.rest == "something else"


@pytest.mark.parametrize(
    "text",
    [
        "just a prompt",
        "a cat: black, a dog: white, a bird: blue",  # three entries, none of them known
        "style: anime, mood: dark, light: soft",
        "Steps: leading up to a temple",
        "Model: a woman on a runway",
        "Size: huge",
        "Negative prompt: a, b, c",
        "",
    ],
)
def test_prompts_are_not_taken_for_parameters(text: str) -> None:
    assert parse_infotext(text) is None


@pytest.mark.parametrize(
    "line", ["Steps: 20", "Seed: 42, CFG scale: 7", "Sampler: Euler a, Seed: 1", "Size: 512x768, "]
)
def test_a_short_line_written_by_hand_is_enough(line: str) -> None:
    info = parse_infotext(f"a cat\n{line}")
    assert info is not None
    assert info.prompt == "a cat"


def test_crlf_and_a_lone_word_entry() -> None:
    info = parse_infotext("a\r\nNegative prompt: b\r\nSteps: 20, Tiling, Seed: 1, Sampler: Euler\r\n")
    assert info is not None
    assert (info.prompt, info.negative, info.parameters["Tiling"], info.parameters["Seed"]) == ("a", "b", "Tiling", "1")


def test_the_negative_begins_at_its_line_and_goes_on_to_the_end() -> None:
    assert split_negative("a\n Negative prompt: b\nc") == ("a", "b\nc")
    assert split_negative("a") == ("a", None)
    assert split_negative("Negative prompt:") == ("", "")


texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r"), max_size=80).map(str.strip)
prompts = texts.filter(lambda text: not any(line.strip().startswith("Negative prompt:") for line in text.split("\n")))
taken = {"Hashes", "Lora hashes", "LoRA hashes", "LoRA networks"}
names = st.from_regex(r"\A\w[\w \-/]{1,12}\Z").map(str.strip).filter(lambda key: len(key) > 1 and key not in taken)
hexes = st.text("0123456789abcdef", min_size=8, max_size=12)
infos = st.builds(
    Infotext,
    prompt=prompts,
    negative=texts,
    parameters=st.dictionaries(names, st.text(st.characters(exclude_categories=("Cs",)), max_size=20), max_size=5).map(
        lambda more: more | {"Steps": "20", "Seed": "1"}
    ),
    lora_hashes=st.dictionaries(st.text(max_size=12).map(hash_name).filter(bool), hexes, max_size=3),
    hashes=st.dictionaries(st.text(st.characters(exclude_categories=("Cs",)), max_size=12), hexes, max_size=3),
)


@given(infos)
def test_what_is_written_is_read_back(info: Infotext) -> None:
    """Not generated: a line of the prompt that begins with `Negative prompt:`, the only text with no way back."""
    assert parse_infotext(write_infotext(info)) == info


@given(st.text(st.sampled_from('aN:,"\\{}[] \n\t1Steps') | st.characters(), max_size=200))
def test_any_text_is_read_or_left_alone_without_an_error(text: str) -> None:
    info = parse_infotext(text)
    assert info is None or isinstance(info.prompt, str)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 10**6,
        "a" + " " * 10**6,
        "a:" * 5 * 10**5,
        'a:"' * 3 * 10**5,
        "a:[" * 3 * 10**5,
        "Steps: 1," * 10**5,
        "[" * 10**6,
    ],
)
def test_a_megabyte_of_anything_is_read_in_proportion(text: str) -> None:
    before = time.perf_counter()
    parse_infotext(f"Steps: 20, x:{text}")
    parse_infotext(text)
    assert time.perf_counter() - before < 3
