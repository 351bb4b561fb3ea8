"""The sentences of an answer."""

from __future__ import annotations

import pytest

from loravault.formats.generation import AdapterUse, BaseRef, GenerationSpec, VaeRef
from loravault.jobs import words
from loravault.jobs.words import Ended, Made


def spec(**changes: object) -> GenerationSpec:
    values: dict[str, object] = {
        "base": BaseRef(name="demo", path="somewhere", family="demo"),
        "prompt": "a red cat",
        "seeds": (42, 43, 44, 45),
        "width": 512,
        "height": 768,
        "steps": 20,
        "cfg": 7.0,
        "sampler": "DPM++ 2M Karras",
        "adapters": (AdapterUse(name="ink_outline", path="somewhere", weight_id="w1-0", te=0.8, unet=0.8),),
        **changes,
    }
    return GenerationSpec(**values)  # type: ignore[arg-type]


def test_a_result_reads_as_the_contract_shows_it() -> None:
    images = ("LoraVault/Images/2026-11/lv-1.webp", "LoraVault/Images/2026-11/lv-2.webp")
    made = Made(
        spec(), images, 12.34, ('Added from the card: "sks style".',), {"ink_outline": "LoraVault/LoRAs/ink_outline.md"}
    )

    lines = words.result_lines(made)

    assert lines == [
        "[!lora-result]+ 2 images · seed 42–45 · 12.3 s",
        "![[LoraVault/Images/2026-11/lv-1.webp|256]] ![[LoraVault/Images/2026-11/lv-2.webp|256]]",
        "[[LoraVault/LoRAs/ink_outline|ink_outline]] 0.8 · demo · DPM++ 2M Karras · 20 steps · cfg 7 · 512×768",
        'Added from the card: "sks style".',
    ]


def test_an_adapter_without_a_card_is_named_and_never_a_dead_link() -> None:
    line = words.settings_line(Made(spec(), (), 1.0))
    assert line.startswith("ink_outline 0.8 · demo")
    assert "[[" not in line


def test_strengths_that_differ_are_both_named() -> None:
    use = AdapterUse(name="x", path="p", weight_id="w", te=0.5, unet=-1.0)
    assert words.settings_line(Made(spec(adapters=(use,)), (), 1.0)).startswith("x te 0.5 unet -1 · ")


def test_strengths_per_block_are_named_as_they_are_written() -> None:
    use = AdapterUse(name="x", path="p", weight_id="w", te=0.5, unet=0.5, blocks=(("IN01", 0.0), ("M00", -0.25)))
    assert words.settings_line(Made(spec(adapters=(use,)), (), 1.0)).startswith("x 0.5 IN01=0 mid=-0.25 · demo")


def test_a_vae_that_was_asked_for_is_named() -> None:
    vae = VaeRef(name="ft-mse", path="somewhere")
    assert words.numbers_line(spec(vae=vae)).endswith("· 512×768 · VAE ft-mse")


def test_text_of_strangers_is_inert_in_a_result() -> None:
    use = AdapterUse(name="<% tp.evil() %>", path="p", weight_id="w", te=1, unet=1)
    assert "<%" not in words.settings_line(Made(spec(adapters=(use,)), (), 1.0))


@pytest.mark.parametrize(
    ("seeds", "phrase"),
    [((7,), "seed 7"), ((1, 2, 3), "seed 1–3"), ((5, 9), "seeds 5, 9")],
)
def test_seeds(seeds: tuple[int, ...], phrase: str) -> None:
    assert words.seeds_phrase(seeds) == phrase


@pytest.mark.parametrize(
    ("seconds", "phrase"),
    [(0.04, "0.0 s"), (12.34, "12.3 s"), (125, "2 min 5 s"), (180, "3 min"), (3840, "1 h 4 min")],
)
def test_durations(seconds: float, phrase: str) -> None:
    assert words.duration(seconds) == phrase


@pytest.mark.parametrize(
    ("states", "status"),
    [
        ([], "done"),
        (["done", "done"], "done"),
        (["failed"], "failed"),
        (["done", "failed"], "partial"),
        (["cancelled", "done"], "partial"),
        (["cancelled"], "cancelled"),
    ],
)
def test_the_word_for_a_run(states: list[str], status: str) -> None:
    assert words.run_status(states) == status


def test_a_run_tells_what_was_made_and_what_was_not() -> None:
    ended = [Ended("done", 4, 10.0), Ended("failed", trouble='There is no LoRA "x".'), Ended("cancelled")]
    assert words.run_message(ended) == '4 images in 10.0 s; There is no LoRA "x".; 1 of 3 blocks cancelled'
    assert len(words.run_message([Ended("failed", trouble="a long story " * 100)])) <= words.MESSAGE_LIMIT


def test_our_own_code_spans_stay_and_those_that_a_plugin_would_run_do_not() -> None:
    assert words.sentence("Add a ```prompt block, tick `run`.") == "Add a ```prompt block, tick `run`."
    assert words.sentence("change it or add `#| again: 2`") == "change it or add `#| again: 2`"
    assert words.sentence("write `<lora:name:0.8>` instead") == "write `<lora:name:0.8>` instead"
    for active in ("`= this.file`", "`$= dv.pages()`", "<% tp.evil() %>", "`<% tp.evil() %>`", "![[secret]]", "%%x%%"):
        assert active not in words.sentence(f"the file {active} is broken")
