"""What is written into a picture says everything: pasted into a note, the same picture is asked for."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from loravault.engine.inscription import chunk_of, infotext_of
from loravault.formats.block_weights import canonical
from loravault.formats.blocks import NAMES
from loravault.formats.generation import AdapterUse, GenerationSpec
from loravault.formats.outcome import Provenance
from loravault.requests.model import Resolved
from loravault.requests.resolve import with_seeds
from tests.requests.catalog import Library, resolved

LIBRARY = Library(presets={"Half": "in=0.5 mid=0"})


def spec_of(block: str, properties: str = "") -> tuple[GenerationSpec, Resolved]:
    found = resolved(block, properties, LIBRARY)
    return with_seeds(found, lambda: 5), found


def prompt_of(block: str, properties: str = "") -> str:
    return infotext_of(spec_of(block, properties)[0], 0, ()).partition("\n")[0]


strengths = st.floats(-2, 2).map(lambda value: value + 0.0)
factors = st.dictionaries(st.sampled_from(NAMES["demo"]), strengths).map(canonical)


@given(st.dictionaries(st.sampled_from(["ink_outline", "ink_wash", "ink 2"]), st.tuples(strengths, strengths, factors)))
def test_a_pasted_infotext_asks_for_the_same_picture(
    uses: dict[str, tuple[float, float, tuple[tuple[str, float], ...]]],
) -> None:
    spec, _ = spec_of("#| seed: 5\na red cat")
    spec = replace(spec, adapters=tuple(
        AdapterUse(name=name, path="/x", weight_id="w1-0", te=te, unet=unet, blocks=blocks)
        for name, (te, unet, blocks) in uses.items()
    ))  # fmt: skip
    again, _ = spec_of(infotext_of(spec, 0, ()))
    assert [(use.name, use.te, use.unet, use.blocks) for use in again.adapters] == [
        (use.name, use.te, use.unet, use.blocks) for use in spec.adapters
    ]
    assert (again.prompt, again.seeds, again.steps, again.sampler) == (
        spec.prompt,
        spec.seeds,
        spec.steps,
        spec.sampler,
    )


def test_what_the_user_wrote_is_kept_where_it_says_everything() -> None:
    for written in ("a <lora:ink 2:0.8> cat", "a cat <lora:ink 2:0.8:0.5>", "a cat <lora:ink 2:1:lbw=INALL>"):
        assert prompt_of(written) == written
    twice = "a cat <lora:ink 2:0.5> <lora:ink 2:0.25> <lora:ink 2:1:in=0>"
    assert prompt_of(twice) == twice


def test_what_only_this_user_knows_is_written_out() -> None:
    """A weight of the card, a preset of the configuration, an adapter of the properties."""
    assert prompt_of("a cat <lora:carded>") == "a cat <lora:carded:0.6>"
    assert prompt_of("a cat <lora:ink 2:1:lbw=Half>") == "a cat <lora:ink 2:1:lbw=1,0.5,0.5,0.5,0.5,0,1,1,1,1>"
    assert prompt_of("a cat", "loras: ink 2 te=0.123456789 unet=1") == "a cat <lora:ink 2:0.123456789:1>"
    both = prompt_of("a cat <lora:ink 2:1:in=0>", "loras: ink_wash 0.5\ntriggers: off")
    assert both == "a cat <lora:ink_wash:0.5> <lora:ink 2:1:lbw=1,0,0,0,0,1,1,1,1,1>"


def test_our_own_record_has_the_blocks_and_nothing_where_there_are_none() -> None:
    def recorded(block: str) -> dict[str, object]:
        (one,) = chunk_of(spec_of(block)[0], 0, Provenance(job="j"), {})["adapters"]
        return dict(one)

    assert recorded("a <lora:ink 2:1:mid=0.5>")["blocks"] == {"M00": 0.5}
    assert recorded("a <lora:ink 2:1>").keys() == {"id", "name", "te", "unet"}
