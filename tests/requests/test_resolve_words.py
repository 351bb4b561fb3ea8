"""What is wrong with a block, and what about it is weak: refusals and warnings, in words."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.formats.prompt_block import parse_block
from loravault.requests.model import MAX_SEED, OPTIONS, Block, Refusal, Request
from loravault.requests.parse import parse_request
from loravault.requests.resolve import resolve_block, with_seeds
from loravault.requests.wanted import from_option
from loravault.vault.note import parse_note
from tests.requests.catalog import Library, outcome, refused, resolved


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("a <lora:ink_outlin:1>", 'There is no LoRA "ink_outlin". Nearest: ink_outline.'),
        ("a <lora:zzzzzz:1>", 'There is no LoRA "zzzzzz". No name comes close to it.'),
        ("a <lora:cat:1>", '"cat" could be several LoRAs; write one of: New/cat, Old/cat.'),
        ("a <lora:torn:1>", 'The LoRA "torn" cannot be used: it ends inside its header.'),
        ("a <lora:away:1>", 'The LoRA "away" is known, but its file is not there now'),
        ("a <lora:ghibli:1>", '"ghibli" needs a base of the family sdxl, and there is none. Bases here: dreamshaper_8'),
        ("#| base: demo\na <lora:photo:1>", '"photo" is a LoRA for sd15, and the base "demo" is demo'),
        ("a <lora:photo:1> <lora:ink_outline:1>", "take a base of"),
        ("a <lora:ink_outline:200>", "out of range"),
        ("a <lora:ink_outline:nan>", "not a number"),
        ("a <lora:ink_outline:90:in=2>", 'The weight in "ink_outline 180" is out of range'),
        ("a <lora:ink_outline:1:lbw=1,0,1>", 'The block weights of "ink_outline" do not fit: demo has 10 '),
        ("a <lora:ink_outline:lbw=FACE>", 'The block weights of "ink_outline" name "FACE", which is unknown; possible'),
        ("#| loras: ink_outline te=high\na", 'The weight "high" in "ink_outline te=high" is not a number.'),
        ("#| loras: ink_outline unet=0,8\na", "is written with a comma: write 0.8."),
        ("#| base: deamo\na", 'There is no base "deamo". Nearest: demo.'),
        ("#| sampler: DPM++ SDE\na", "there is no such sampler here. Nearest: DPM++ 2M, Euler a."),
        ("a\nSteps: 9, Sampler: Euler, Schedule type: Karras", '"Euler with schedule Karras": there is no such'),
        ("#| size: 500x300\na", 'both sides must be multiples of 8; nearest: 496x304'),
        ("#| size: 100000x100000\na", "each side must be from 64 to 4096"),
        ("#| size: 4096x4096\na", "million pixels"),
        ("#| size: big\na", 'In the block, "size" is "big": it must be of the form 512x768'),
        ("#| size: nanxnan\na", "must be of the form"),
        ("#| size: 0x0\na", "each side"),
        ("#| size: -512x512\na", "each side"),
        ("#| count: 1000000\na", 'In the block, "count" is "1000000": it must be a whole number from 1 to 64'),
        ("#| count: 0\na", "from 1 to 64"),
        ("#| count: 1.5\na", "whole number"),
        ("#| steps: 1e9\na", "from 1 to 1000"),
        ("#| cfg: nan\na", 'In the block, "cfg" is "nan": it must be a number from 0 to 100.'),
        ("#| cfg: inf\na", "number from 0 to 100"),
        ("#| cfg: 7,5\na", "number from 0 to 100"),
        ("#| seed: 9007199254740992\na", f"from 0 to {MAX_SEED}"),
        (f"#| seed: {MAX_SEED}\n#| count: 2\na", "The last of 2 seeds"),
        ("#| seed: -5\na", "-1 for a new one"),
        ("#| clip_skip: 3\na", "the text encoder of demo has 2 layers"),
        ("#| format: gif\na", "one of webp, png, jpeg"),
        ("#| triggers: perhaps\na", "one of auto, on, off"),
        ("#| x: ink_outline 0.4, 0.6\na", "Grids"),
        ("", "The block has no prompt"),
        ("<lora:ink_outline:1>", "The block has no prompt"),
        ("Seed: 42", "The block has no prompt"),
        ("a" * 20_001, "The prompt is 20,001 characters long; at most 20,000 are read."),
    ],
)  # fmt: skip
def test_bad_input_gets_a_clear_word(block: str, message: str) -> None:
    assert any(message in text for text in refused(block)), refused(block)


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ("steps: .nan", "whole number"),
        ("cfg: .inf", "number from 0 to 100"),
        ("steps: true", 'In the properties, "steps" is "true": it must be a whole number'),
        ("count: [1, 2]", "whole number"),
        ("size: {width: 5}", "512x768"),
        ("size: true", "512x768"),
        ("loras: ['ink_outline 0,8']", "written with a comma: write 0.8"),
        ("loras: ink_outline 999", "out of range"),
        ("loras: {ink_outlin: 0.8}", 'There is no LoRA "ink_outlin"'),
        ("loras:\n  - ink_outline: strong", 'There is no LoRA "ink_outline strong"'),
        ("base: {a: b}", "must be a text"),
        ("missing_loras: perhaps", "one of fail, skip"),
        ("seed: 1.5", "whole number"),
        ("seed: " + "9" * 400, "whole number"),
    ],
)
def test_bad_properties_get_a_clear_word(properties: str, message: str) -> None:
    messages = refused("a cat", properties)
    assert any(message in text for text in messages), messages


def test_all_problems_are_said_at_once() -> None:
    messages = refused(
        "#| steps: many\n#| size: 7x7\n#| sampler: foo\n#| base: nope\n<lora:zzz:1> <lora:cat:1> <lora:x:y>"
    )
    assert len(messages) == 8
    assert all(text.endswith(".") for text in messages)


def test_a_problem_of_the_note_is_the_only_answer() -> None:
    note = parse_note(b"---\nloravault: merge\n---\n```prompt\n#| steps: many\n\n```\n")
    request = parse_request(note)
    assert request
    found = resolve_block(request, request.blocks[0], Library())
    assert isinstance(found, Refusal)
    assert found.messages == request.problems


def test_there_is_no_base_at_all() -> None:
    assert "There is no base to make pictures with." in refused("a cat", catalog=Library(bases=()))[0]


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("a (red:1.3) cat", 'Prompt syntax such as "(red:1.3)" is not interpreted yet'),
        ("#| cuont: 4\na cat", 'There is no option "cuont"; did you mean "count"? It was ignored.'),
        ("#| zzz: 4\na cat", 'There is no option "zzz". It was ignored.'),
        ("a <lora:ink_outline:5>", 'The weight 5 of "ink_outline" is very high'),
        ("a <lora:ink_outline:2> <lora:ink_wash:2>", "add up to 4"),
        ("a <lora:ink_outline:2:mid=2>", 'The weight 4 of "ink_outline" in one of its blocks is very high; above 3'),
        (
            "a <lora:ink_outline:.5> <lora:ink_wash:.5> <lora:ink 2:.5> <lora:doll:.5>",
            "4 LoRAs are used together; above 3 they usually disturb each other.",
        ),
        ("a cat <lora:ink_outline:1>", '"ink_outline" has trigger words that are not in the prompt: "ink outline".'),
        ("a cat <lora:riddle:1>", 'The family of "riddle" could not be told'),
        ("#| size: 512x512\na cat", "made for 128×128"),
        ("a cat\nSteps: 9, Seed: 1, VAE: x.pt, Hires upscale: 2", "pasted parameters: Hires upscale."),
    ],
)  # fmt: skip
def test_a_weak_result_is_told_not_hidden(block: str, words: str) -> None:
    assert any(words in text for text in resolved(block).warnings), resolved(block).warnings


def test_unknown_properties_are_the_users_own() -> None:
    theirs = (
        "rating: 5\ncountry: France\ncounty: Kent\nsite: here\ncase: 7\ndate: 2026-11-21\nmodel: T-800\ntags: [a]\n"
        "lv_sted: 1\nspeed: 30 ft.\nheight: 180\nsee: '[[Ink]]'\nsamples: 3 pages\ngain: 7\nstops: many\ncourt: Kent\n"
        "formal: yes\nvase: blue\nguidance: by a friend\nwidth: broad"
    )
    assert resolved("a cat", theirs).warnings == ()


def test_width_and_height_are_one_thing_here() -> None:
    (told,) = resolved("a cat", "width: 512\nheight: 768").warnings
    assert told == "The properties `width` and `height` mean nothing here; write `size: 512x768` instead."


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("coutn: 3", "count"),
        ("cont: 3", "count"),
        ("counts: 3", "count"),
        ("coumt: 3", "count"),
        ("Step: 8", "steps"),
        ("smapler: euler", "sampler"),
        ("negativ: red", "negative"),
        ("cfg scale: 4", "cfg"),
        ("negative_prompt: red", "negative"),
        ("sizes: 512x768", "size"),
        ("fromat: png", "format"),
    ],
)
def test_a_property_that_is_nearly_an_option_is_told(typed: str, meant: str) -> None:
    """`coutn: 3` gave one picture and no word; its writer looked for the fault in the daemon."""
    key = typed.partition(":")[0].lower().replace(" ", "_")
    said = f"The property `{key}` means nothing here; did you mean `{meant}`?"
    assert resolved("a cat", typed).warnings == (said,)
    assert said in outcome("#| steps: many\na cat", typed).warnings, "also where nothing is made"


def test_an_option_in_a_block_by_the_name_that_another_program_gives_it() -> None:
    (told,) = resolved("#| cfg scale: 4\na cat").warnings
    assert told == 'There is no option "cfg_scale"; did you mean "cfg"? It was ignored.'


def test_trigger_words_of_loras_are_inserted_and_of_tags_only_reported() -> None:
    found = resolved("a cat", "loras: ink_wash 0.5")
    assert found.prompt == "a cat, ink wash, sepia"
    assert found.warnings == ('Added the trigger words of "ink_wash": "ink wash", "sepia".',)
    assert resolved("a cat, Ink_Wash", "loras: ink_wash").prompt == "a cat, Ink_Wash, sepia"
    assert resolved("a cat, sepia <lora:ink_wash:1>").warnings == ()  # one of several was chosen
    assert resolved("#| triggers: on\na cat <lora:ink_wash:1>").prompt == "a cat, ink wash, sepia"
    assert resolved("#| triggers: off\na cat <lora:ink_wash:1>").warnings == ()


def test_a_named_group_of_trigger_words_is_chosen_by_its_name() -> None:
    asked = resolved("#| triggers: Red Dress\na cat <lora:doll:1>")
    assert asked.prompt == "a cat, sks doll, red dress, lace"
    assert resolved("#| triggers: on\na cat <lora:doll:1>").prompt == "a cat, sks doll"
    assert resolved("a cat", "loras: wardrobe").prompt == "a cat, sks, summer hat", (
        "without other words the first group"
    )
    assert resolved("sks, winter coat <lora:wardrobe:1>").warnings == (), "the prompt has made the choice"
    (message,) = refused("#| triggers: blue dress\na cat <lora:doll:1>")
    assert "'blue dress'" in message
    assert "red dress" in message


def test_a_trigger_word_inside_another_word_does_not_count() -> None:
    assert resolved("pink outlines", "loras: ink_outline").prompt == "pink outlines, ink outline"


def test_words_the_demo_base_does_not_know_are_named() -> None:
    demo = Library(words=frozenset({"a", "cat", "on", "the"}))
    assert resolved("a cat on the moon, Moon", catalog=demo).warnings == ("The demo base does not know: moon.",)
    assert resolved("a Cat", catalog=demo).warnings == ()
    assert "knows none of the words" in resolved("Кот на пляже", catalog=demo).warnings[0]
    many = "a " + " ".join(f"{'b' * (n + 1)}" for n in range(10))
    assert "and 2 more." in resolved(many, catalog=demo).warnings[0]
    assert resolved("a cat on the moon", "base: dreamshaper_8", demo).warnings == ()


def test_a_trigger_word_is_known_by_its_adapter_if_not_by_the_base() -> None:
    """`sks style` is what the adapter was taught: to call it unknown would be wrong, and hide what really is."""
    demo = Library(words=frozenset({"a", "cat"}))
    assert resolved("a cat, ink outline <lora:ink_outline:1>", catalog=demo).warnings == ()
    assert resolved("a cat, ink outline", catalog=demo).warnings == ("The demo base does not know: ink, outline.",)


yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=6,
)


blocks = st.text(st.sampled_from("#|: \nab<lora:ink>1") | st.characters(), max_size=60)


@given(st.dictionaries(st.sampled_from(OPTIONS), yaml_values, max_size=6), blocks)
def test_any_properties_and_any_block_come_to_pictures_within_the_limits_or_to_words(
    options: dict[str, object], body: str
) -> None:
    """Whatever a note holds: no exception, and nothing beyond a limit gets to the engine."""
    block = Block(0, "0" * 16, 0, parse_block(body))
    request = Request("generate", True, False, False, None, None, (block,), options)
    found = resolve_block(request, block, Library())
    assert len(found.fingerprint) == 16
    if isinstance(found, Refusal):
        assert found.messages
        return
    assert 1 <= found.count <= 64
    assert 64 <= min(found.width, found.height) <= max(found.width, found.height) <= 4096
    assert found.width % 8 == found.height % 8 == 0
    assert 1 <= found.steps <= 1000
    assert 0 <= found.cfg <= 100
    assert all(math.isfinite(use.te) and abs(use.unet) <= 200 for use in found.adapters)
    spec = with_seeds(found, lambda: MAX_SEED)
    assert 0 <= spec.seeds[0] <= spec.seeds[-1] <= MAX_SEED
    assert all(text.endswith(".") for text in found.warnings)


def test_three_adapters_and_one_that_is_off_are_not_many() -> None:
    found = resolved("a <lora:ink_outline:.5> <lora:ink_wash:.5> <lora:ink 2:.5> <lora:doll:0>")
    assert not any("used together" in text for text in found.warnings)


@pytest.mark.parametrize(
    "text", ["ink lbw=" + "1," * 50_000, "x " + "in=1 " * 20_000, "a" + " " * 10**5 + "=b", "," * 10**4]
)
def test_a_long_line_of_adapters_is_answered_in_time(text: str) -> None:
    before = time.perf_counter()
    wanted: list[str] = []
    from_option(text, wanted)
    assert time.perf_counter() - before < 2
