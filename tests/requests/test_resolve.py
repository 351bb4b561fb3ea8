"""What a block comes to: effective options by priority, adapters, base, fingerprint and seeds."""

from __future__ import annotations

import pytest

from loravault.formats.generation import BaseRef
from loravault.requests.model import MAX_SEED, Refusal
from loravault.requests.resolve import with_seeds
from tests.requests.catalog import DEMO, SD, Library, entry, outcome, refused, resolved

DESIGN = """#| count: 4
a portrait of an astronaut, in sks style <lora:ink_outline:0.8>
Negative prompt: blurry
Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 42, Size: 512x768"""


def test_the_example_of_the_contract() -> None:
    found = resolved(DESIGN)
    assert (found.count, found.steps, found.sampler, found.cfg, found.seed) == (4, 20, "DPM++ 2M Karras", 7.0, 42)
    assert (found.width, found.height, found.negative, found.base) == (512, 768, "blurry", DEMO)
    assert found.prompt == "a portrait of an astronaut, in sks style"
    assert found.written_prompt.endswith("<lora:ink_outline:0.8>")
    (use,) = found.adapters
    assert (use.name, use.te, use.unet, use.path) == ("ink_outline", 0.8, 0.8, "/loras/Styles/ink_outline.safetensors")


def test_defaults_are_those_of_the_family() -> None:
    demo, sd = resolved("a cat"), resolved("a cat", "base: dreamshaper_8")
    assert (demo.width, demo.height, demo.steps, demo.count, demo.seed) == (128, 128, 25, 1, None)
    assert (sd.width, sd.cfg, sd.sampler, sd.clip_skip, sd.image_format) == (512, 7.0, "DPM++ 2M Karras", 1, "webp")


# ---- priority


def test_each_place_of_an_option_overrules_the_weaker_ones() -> None:
    """config < properties < pasted < `#|` line."""
    pasted = "a cat\nSteps: 13, Sampler: Euler, Seed: 1"
    config = Library(config={"steps": 11})
    assert resolved("a cat", catalog=config).steps == 11
    assert resolved("a cat", "steps: 12", config).steps == 12
    assert resolved(pasted, "steps: 12", config).steps == 13
    assert resolved(f"#| steps: 14\n{pasted}", "steps: 12", config).steps == 14


def test_an_empty_property_of_a_template_says_nothing() -> None:
    assert resolved("a cat", 'steps:\nnegative: ""\nloras: []').steps == 25


def test_a_negative_prompt_that_says_none_overrules_the_notes() -> None:
    assert resolved("a cat", "negative: blurry").negative == "blurry"
    assert resolved("a cat\nNegative prompt:", "negative: blurry").negative == ""
    assert resolved("#| negative:\na cat", "negative: blurry").negative == ""
    assert resolved("a cat\nNegative prompt: dark", "negative: blurry").negative == "dark"


def test_the_card_of_an_adapter_gives_weight_negative_and_base_unless_told_otherwise() -> None:
    found = resolved("a cat <lora:carded>")
    assert (found.adapters[0].te, found.adapters[0].unet, found.negative, found.base) == (0.6, 0.6, "blurry", SD)
    found = resolved("a cat <lora:carded:1>\nNegative prompt: dark")
    assert (found.adapters[0].te, found.negative) == (1.0, "dark, blurry")
    assert "another LoRA" in refused("a cat <lora:carded>", "base: demo")[0]


def test_a_seed_of_minus_one_in_the_block_frees_the_seed_of_the_note() -> None:
    assert resolved("a cat", "seed: 42").seed == 42
    assert resolved("#| seed: -1\na cat", "seed: 42").seed is None
    assert resolved("#| seed: random\na cat", "seed: 42").seed is None


# ---- adapters


@pytest.mark.parametrize(
    ("value", "name", "te", "unet"),
    [
        ("loras: ink_outline 0.8", "ink_outline", 0.8, 0.8),
        ("loras: ink_outline", "ink_outline", 1, 1),
        ("loras: [Styles/ink_outline -0.5]", "ink_outline", -0.5, -0.5),
        ("loras:\n  - ink 2", "ink 2", 1, 1),  # a file of that name is there
        ("loras:\n  - ink 2 0.5", "ink 2", 0.5, 0.5),
        ('loras: "[[LoraVault/LoRAs/Styles/ink_outline|ink_outline 0.8]]"', "ink_outline", 0.8, 0.8),
        ('loras: ["[[LoraVault/LoRAs/Styles/ink_outline]]"]', "ink_outline", 1, 1),
        ('loras: ["[[LoraVault/LoRAs/New/cat (LoRA).md|cat 0.4]]"]', "cat", 0.4, 0.4),
        ('loras: ["[[ink_outline]] 0.3"]', "ink_outline", 0.3, 0.3),
        ("loras: [[ink_outline|ink_outline 0.8]]", "ink_outline", 0.8, 0.8),  # unquoted: YAML sees a list in a list
        ("loras:\n  - [[ink_outline|ink_outline 0.8]]", "ink_outline", 0.8, 0.8),
        ('loras: ["<lora:ink_outline:0.8:0.5>"]', "ink_outline", 0.8, 0.5),
    ],
)
def test_adapters_in_properties(value: str, name: str, te: float, unet: float) -> None:
    (use,) = resolved("a cat", f"{value}\ntriggers: off").adapters
    assert (use.name, use.te, use.unet) == (name, te, unet)


def test_several_adapters_in_one_text() -> None:
    found = resolved("a cat", "loras: ink_outline 0.8, ink_wash 0.5,ink 2")
    assert [(use.name, use.te) for use in found.adapters] == [("ink_outline", 0.8), ("ink_wash", 0.5), ("ink 2", 1.0)]


def test_the_blocks_loras_replace_the_notes_and_none_means_none() -> None:
    assert [use.name for use in resolved("#| loras: ink_wash 0.5\na cat", "loras: ink_outline").adapters] == [
        "ink_wash"
    ]
    assert resolved("#| loras: none\na cat", "loras: ink_outline").adapters == ()
    assert resolved("#| loras:\na cat", "loras: ink_outline").adapters == ()


def test_a_tag_decides_the_weight_and_two_tags_add_up() -> None:
    (use,) = resolved("a cat <lora:ink_outline:0.3>", "loras: ink_outline 0.9").adapters
    assert (use.te, use.unet) == (0.3, 0.3)
    found = resolved("a cat <lora:ink_outline:0.3> <lora:ink_outline:0.5>")
    assert found.adapters[0].te == pytest.approx(0.8)
    assert any("named twice; its weights were added: 0.8" in text for text in found.warnings)


def test_weights_apart_for_text_encoder_and_unet() -> None:
    (use,) = resolved("a cat <lora:ink_outline:te=0:unet=0.7>").adapters
    assert (use.te, use.unet) == (0.0, 0.7)
    (use,) = resolved("a cat <lora:ink_outline:unet=0.7>").adapters
    assert (use.te, use.unet) == (1.0, 0.7)


DEMO_ENDS = (("IN00", 0.5), ("IN01", 0.5), ("IN02", 0.5), ("IN03", 0.5), ("M00", 0.0))


@pytest.mark.parametrize(
    "value",
    [
        "ink_outline 0.8 in=0.5 mid=0",
        "ink_outline in=0.5 0.8 mid=0",
        "ink_outline 0.8 lbw=1,.5,.5,.5,.5,0,1,1,1,1",
        "ink_outline 0.8 lbw=1, .5, .5, .5, .5, 0, 1, 1, 1, 1",
        "ink_outline 0.8 lbw=Half",
        "[[LoraVault/LoRAs/Styles/ink_outline|ink_outline 0.8 in=0.5 mid=0]]",
        "[[ink_outline]] 0.8 mid = 0 in = 0.5",
        "[[ink_outline|ink_outline 0.8 lbw=1,.5,.5,.5,.5,0,1,1,1,1]]",
        "<lora:ink_outline:0.8:lbw=1,.5,.5,.5,.5,-0,1,1,1,1>",
        "<lora:ink_outline:0.8:lbw=half>",
        "<lora:ink_outline:0.8:mid=0:in=0.5>",
    ],
)
def test_strengths_per_block_in_every_spelling(value: str) -> None:
    """In `loras:` as text, as list, in a link and in a tag: always the same request."""
    catalog = Library(presets={"Half": "in=0.5 mid=0"})
    plain = resolved("a cat <lora:ink_outline:0.8:in=0.5:mid=0>", "triggers: off", catalog)
    for properties in (f"loras: '{value}, ink 2'", f"loras:\n  - '{value}'\n  - ink 2"):
        first, second = resolved("a cat", f"{properties}\ntriggers: off", catalog).adapters
        assert (first.name, first.te, first.unet, first.blocks) == ("ink_outline", 0.8, 0.8, DEMO_ENDS)
        assert (second.name, second.te, second.blocks) == ("ink 2", 1.0, ())
    assert resolved("a cat", f"loras: '{value}'\ntriggers: off", catalog).fingerprint == plain.fingerprint


def test_a_vector_with_negative_numbers_is_one_thing_among_commas() -> None:
    vector = "1,-1,0,-.5,1,1,1,1,1,1"
    first, second = resolved("a cat", f"loras: ink_outline lbw={vector}, ink_wash -0.5 lbw={vector} te=0").adapters
    assert first.blocks == second.blocks == (("IN00", -1.0), ("IN01", 0.0), ("IN02", -0.5))
    assert (second.te, second.unet) == (0.0, -0.5)


@pytest.mark.parametrize(
    ("written", "te", "unet"),
    [
        ("ink_outline te=0.5", 0.5, 1.0),
        ("ink_outline 0.8 te=0", 0.0, 0.8),
        ("ink_outline te=0.2 unet=-0.7", 0.2, -0.7),
        ("ink_outline unet=0.3 0.8", 0.8, 0.3),
        ("[[ink_outline|ink_outline 0.8 te=0.1]]", 0.1, 0.8),
        ("carded unet=0.3", 0.6, 0.3),
    ],
)
def test_strengths_apart_in_loras(written: str, te: float, unet: float) -> None:
    (use,) = resolved("a cat", f"loras: '{written}'").adapters
    assert (use.te, use.unet) == (te, unet)


def test_a_file_whose_name_looks_like_an_option_is_found() -> None:
    library = Library(entries=(entry("cat in=1"), entry("cat"), entry("x=y")))
    assert resolved("a dog", "loras: cat in=1", library).adapters[0].name == "cat in=1"
    assert resolved("a dog", "loras: cat in=0", library).adapters[0].name == "cat"
    assert resolved("a dog", "loras: x=y 0.5", library).adapters[0].name == "x=y"


def test_blocks_count_for_the_fingerprint_and_those_at_one_do_not() -> None:
    plain = resolved("a cat <lora:ink_outline:0.8>").fingerprint
    assert resolved("a cat <lora:ink_outline:0.8:in=1:lbw=ALL>").fingerprint == plain
    assert resolved("a cat <lora:ink_outline:0.8:in=0.9>").fingerprint != plain


def test_the_same_adapter_twice_adds_up_block_by_block() -> None:
    found = resolved("a cat <lora:ink_outline:0.3:in=0> <lora:ink_outline:0.5> <lora:ink_outline:0.4:in=0>")
    assert [(round(use.te, 6), use.blocks[:1]) for use in found.adapters] == [(0.7, (("IN00", 0.0),)), (0.5, ())]
    assert any("named more than once, with other block weights" in text for text in found.warnings)


def test_tags_overrule_what_loras_says_of_the_same_adapter_blocks_included() -> None:
    """Two tags used to overrule each other when `loras:` named the adapter as well, instead of adding up."""
    (use,) = resolved("a cat <lora:ink_outline:0.3> <lora:ink_outline:0.5>", "loras: ink_outline 1 in=0").adapters
    assert (use.te, use.blocks) == (pytest.approx(0.8), ())


def test_pasted_adapters_are_found_by_hash_before_name() -> None:
    block = 'a cat <lora:My Ink!:0.8>\nSteps: 20, Sampler: Euler, Seed: 1, Lora hashes: "My Ink!: AAAAAAAAAAAA"'
    found = resolved(block)
    assert found.adapters[0].name == "ink_outline"
    assert '"My Ink!" is called "ink_outline" here (found by its hash).' in found.warnings
    decoy = 'a cat <lora:ink_wash:0.8>\nSteps: 20, Sampler: Euler, Seed: 1, Lora hashes: "ink_wash: aaaaaaaaaaaa"'
    assert resolved(decoy).adapters[0].name == "ink_outline"


def test_a_pasted_adapter_whose_hash_is_unknown_is_found_by_name() -> None:
    block = 'a cat <lora:ink_wash:0.8>\nSteps: 20, Sampler: Euler, Seed: 1, Lora hashes: "ink_wash: dddddddddddd"'
    assert resolved(block).adapters[0].name == "ink_wash"


def test_a_pasted_hash_without_a_tag_is_said() -> None:
    found = resolved('a cat\nSteps: 20, Sampler: Euler, Seed: 1, Hashes: {"lora:Foo":"0123456789"}')
    assert 'The pasted parameters name the LoRA "foo", but the prompt has no tag for it.' in found.warnings


def test_missing_adapters_can_be_skipped() -> None:
    found = resolved("a cat <lora:nope:1> <lora:away:1>", "missing_loras: skip")
    assert found.adapters == ()
    assert sum("left out" in text for text in found.warnings) == 2


def test_skip_does_not_cover_broken_or_ambiguous_ones() -> None:
    messages = refused("#| missing_loras: skip\na cat <lora:torn:1> <lora:cat:1>")
    assert len(messages) == 2


# ---- bases


def test_the_adapters_family_decides_where_no_base_is_given() -> None:
    assert resolved("a cat").base == DEMO
    assert resolved("a cat <lora:photo:1>").base == SD
    assert resolved("a cat", catalog=Library(default="DreamShaper_8")).base == SD


@pytest.mark.parametrize(
    ("adapter", "base", "told"),
    [
        ("dev", "schnell", True),
        ("Dev", "dev", False),
        ("pony", None, False),
        (None, "schnell", False),
        ("pony", "v-prediction", False),
        ("", "dev", False),
    ],
)
def test_another_variant_of_the_family_is_told_and_not_refused(
    adapter: str | None, base: str | None, told: bool
) -> None:
    """A picture with an adapter of a sister model is worth trying; that it is one must not come as a surprise."""
    library = Library(
        entries=(entry("ink", family="flux", variant=adapter),),
        bases=(BaseRef(name="quick", path="/bases/quick", family="flux", variant=base),),
    )
    found = resolved("a cat <lora:ink:1>", catalog=library)
    sentence = f'"ink" was made for {adapter}, and the base "quick" is {base}: it fits, but may do less than it should'
    assert any(warning.startswith(sentence) for warning in found.warnings) == told


def test_a_pasted_model_is_a_wish() -> None:
    pasted = "a cat\nSteps: 20, Sampler: Euler, Seed: 1, Model: {}"
    assert resolved(pasted.format("dreamshaper_8")).base == SD
    found = resolved(pasted.format("epicrealism_v5"))
    assert found.base == DEMO
    assert 'The model "epicrealism_v5" of the pasted parameters is not here; "demo" was used instead.' in found.warnings
    assert resolved(pasted.format("nope"), "base: dreamshaper_8").base == SD
    found = resolved("#| base: demo\n" + pasted.format("dreamshaper_8"))
    assert found.base == DEMO
    assert found.warnings == ()


# ---- fingerprints and seeds


def test_equal_requests_have_equal_fingerprints_wherever_options_come_from() -> None:
    assert resolved("#| steps: 20\na cat").fingerprint == resolved("a cat", "steps: 20").fingerprint
    assert (
        resolved("a cat <lora:ink_outline:0.8>").fingerprint
        == resolved("a cat <lora:Styles/ink_outline:0.80>").fingerprint
    )


@pytest.mark.parametrize(
    "line",
    [
        "seed: 1",
        "count: 2",
        "size: 64x64",
        "steps: 9",
        "cfg: 3",
        "sampler: DDIM",
        "clip_skip: 2",
        "negative: x",
        "again: 2",
        "format: png",
        "base: dreamshaper_8",
        "loras: ink 2",
    ],
)
def test_every_option_changes_the_fingerprint(line: str) -> None:
    assert resolved(f"#| {line}\na cat").fingerprint != resolved("a cat").fingerprint


def test_a_refusal_is_the_same_until_something_about_it_changes() -> None:
    first, same = outcome("a <lora:zzz:1>"), outcome("a <lora:zzz:1>")
    other, later = outcome("b <lora:zzz:1>"), outcome("a <lora:zzz:1>", catalog=Library(entries=()))
    assert first.fingerprint == same.fingerprint
    assert first.fingerprint != other.fingerprint
    assert isinstance(later, Refusal)
    assert outcome("#| steps: x\na").fingerprint != outcome("#| steps: y\na").fingerprint


def test_pictures_have_successive_seeds_from_the_given_or_drawn_one() -> None:
    assert with_seeds(resolved("#| seed: 42\n#| count: 3\na"), lambda: 7).seeds == (42, 43, 44)
    assert with_seeds(resolved("#| count: 3\na"), lambda: 7).seeds == (7, 8, 9)
    assert with_seeds(resolved("#| count: 3\na"), lambda: MAX_SEED).seeds[-1] == MAX_SEED


def test_the_spec_holds_what_was_resolved() -> None:
    found = resolved(DESIGN)
    spec = with_seeds(found, lambda: 0)
    assert (spec.base, spec.prompt, spec.negative, spec.width, spec.height) == (
        found.base,
        found.prompt,
        "blurry",
        512,
        768,
    )
    assert (spec.adapters, spec.written_prompt, spec.sampler) == (found.adapters, found.written_prompt, found.sampler)
