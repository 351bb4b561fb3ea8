"""The text of a block: options, prompt, pasted data; everything wrong is said at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loravault.formats.prompt_block import parse_block

DESIGN = """#| count: 4
a portrait of an astronaut, in sks style <lora:ink_outline:0.8>
Negative prompt: blurry
Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 42, Size: 512x768
"""


def test_the_example_of_the_contract() -> None:
    block = parse_block(DESIGN)
    assert block.options == {"count": "4"}
    assert block.prompt == "a portrait of an astronaut, in sks style"
    assert block.written_prompt == "a portrait of an astronaut, in sks style <lora:ink_outline:0.8>"
    assert block.negative == "blurry"
    assert block.parameters == {
        "Steps": "20", "Sampler": "DPM++ 2M Karras", "CFG scale": "7", "Seed": "42", "Size": "512x768",
    }  # fmt: skip
    assert [(tag.name, tag.te, tag.unet) for tag in block.tags] == [("ink_outline", 0.8, 0.8)]
    assert (block.problems, block.warnings) == ((), ())


def test_a_plain_prompt_is_a_block() -> None:
    block = parse_block("a cat\nin a meadow\n")
    assert (block.prompt, block.negative, block.options, block.parameters) == ("a cat\nin a meadow", None, {}, {})


def test_no_negative_is_something_else_than_an_empty_one_by_hand() -> None:
    assert parse_block("a cat").negative is None
    assert parse_block("a cat\nNegative prompt:").negative == ""


def test_option_keys_may_be_written_as_people_do() -> None:
    block = parse_block('\n #| Clip skip: 2\n#|cfg: "7"\n#|\n#| missing-loras:  skip \n\na cat')
    assert block.options == {"clip_skip": "2", "cfg": "7", "missing_loras": "skip"}
    assert block.prompt == "a cat"


def test_an_options_value_may_hold_a_colon() -> None:
    assert parse_block("#| negative: a: b\nx").options == {"negative": "a: b"}


def test_all_problems_are_said_at_once() -> None:
    block = parse_block("#| count 4\n#| seed: 1\n#| seed: 2\na cat <lora:x:strong> <lora:y\n#| steps: 5")
    assert len(block.problems) == 5
    assert all(text.endswith(".") for text in block.problems)
    assert 'The option "seed" is given twice in this block.' in block.problems
    assert any("stands below the prompt" in text for text in block.problems)


def test_hashes_of_pasted_adapters_are_kept_by_name_autov3_first() -> None:
    block = parse_block(
        'a <lora:Ink:1>\nSteps: 20, Sampler: Euler, Seed: 1, Lora hashes: "Ink: aaaaaaaaaaaa", '
        'Hashes: {"model":"1234567890","lora:Ink":"bbbbbbbbbb","LORA:Wash":"CCCCCCCCCC"}'
    )
    assert block.pasted_hashes == {"ink": ("aaaaaaaaaaaa", "bbbbbbbbbb"), "wash": ("CCCCCCCCCC",)}


def test_tags_in_the_negative_are_taken_out_and_said() -> None:
    block = parse_block("a cat\nNegative prompt: blurry <lora:x:1>")
    assert (block.negative, block.tags) == ("blurry", ())
    assert "negative prompt" in block.warnings[0]


def test_text_below_the_parameters_is_said_not_dropped_in_silence() -> None:
    block = parse_block("a cat\nSteps: 20, Sampler: Euler, Seed: 1\nand a dog")
    assert '"and a dog"' in block.warnings[0]


def test_windows_line_ends_are_no_part_of_anything() -> None:
    assert parse_block(DESIGN.replace("\n", "\r\n")) == parse_block(DESIGN)


@given(st.text(st.sampled_from("#| :\n<lora>Nab") | st.characters(), max_size=120))
def test_any_text_is_a_block(text: str) -> None:
    block = parse_block(text)
    assert "\r" not in block.prompt
    assert all(problem.endswith(".") for problem in block.problems)
