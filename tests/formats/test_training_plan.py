"""What a training's numbers are, and that every number says where it is from."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loravault.formats.generation import BaseRef
from loravault.formats.training import LookedAt, Survey, TrainingPicture, TrainingPlan, TrainingSpec, TrainingWishes
from loravault.formats.training_families import COSTS, RECIPES
from loravault.formats.training_plan import (
    DeviceFacts,
    band,
    decide,
    forecast,
    learned_from,
    needed_bytes,
    rate_key,
    rate_of,
    why_not,
)

CPU = DeviceFacts(kind="cpu", name="cpu (2 threads)", bytes=8 << 30)


def card(gigabytes: float, **more: Any) -> DeviceFacts:
    return DeviceFacts(kind="cuda", name="card", bytes=int(gigabytes * 1e9), bf16=True, **more)


def spec(count: int = 20, family: str = "sd15", subject: Any = "character", **more: Any) -> TrainingSpec:
    caption = more.pop("caption", "a cat on a sofa")
    pictures = tuple(TrainingPicture(path=f"/p/{n}.png", name=f"{n}.png", caption=caption) for n in range(count))
    values: dict[str, Any] = {"trigger": "sks cat", "wishes": TrainingWishes(), **more}
    return TrainingSpec(
        base=BaseRef(name=family, path="/b", family=family),
        name="my-cat",
        subject=subject,
        pictures=pictures,
        state_dir="/s",
        cache_dir="/c",
        **values,
    )


def survey(wanted: TrainingSpec, diversity: float = 0.3, **more: Any) -> Survey:
    looked = {"width": 1024, "height": 1024, "flat": 0.5, **more}
    return Survey(
        pictures=tuple(LookedAt(name=p.name, sha256=p.name, **looked) for p in wanted.pictures), diversity=diversity
    )


def plan(wanted: TrainingSpec, diversity: float = 0.3, device: DeviceFacts = CPU) -> TrainingPlan:
    return decide(wanted, survey(wanted, diversity), device=device)


@pytest.mark.parametrize(
    ("diversity", "count", "seen"),
    [
        (0.1, 10, 500),
        (0.1, 20, 750),
        (0.1, 30, 1000),
        (0.1, 60, 1000),
        (0.1, 3, 500),
        (0.3, 10, 1000),
        (0.3, 20, 1500),
        (0.3, 30, 2000),
        (0.2, 20, 1125),
    ],
)
def test_as_many_pictures_are_seen_as_the_formula_says(diversity: float, count: int, seen: int) -> None:
    wanted = spec(count, wishes=TrainingWishes(batch=1))
    assert plan(wanted, diversity).steps == seen


def test_far_fewer_steps_than_are_usual_are_told() -> None:
    """Sixty steps made an adapter that showed nothing, and nobody said why."""
    told = plan(spec(wishes=TrainingWishes(batch=1, steps=60))).warnings
    sentence = (
        "60 steps are few: `steps: auto` would take 1,500. A LoRA that is trained so briefly hardly shows what it was "
        "trained on."
    )
    assert sentence in told
    assert plan(spec(wishes=TrainingWishes(batch=1, steps=1))).warnings[0].startswith("1 step is few: ")
    assert not any("few:" in one for one in plan(spec(wishes=TrainingWishes(batch=1, steps=501))).warnings)
    assert not any("few:" in one for one in plan(spec(wishes=TrainingWishes(batch=4, steps=126))).warnings)


def test_a_larger_batch_takes_fewer_steps_and_sees_as_many_pictures() -> None:
    once = plan(spec(wishes=TrainingWishes(batch=1)))
    four = plan(spec(wishes=TrainingWishes(batch=2, accumulation=2)))
    assert four.steps * 4 == once.steps
    assert four.images_seen == once.images_seen


def test_cards_share_the_steps_and_the_time() -> None:
    """Four cards look at as many pictures altogether in a quarter of the time."""
    cards = card(24, cards=4)
    wishes = TrainingWishes(batch=1, accumulation=1)
    once = plan(spec(wishes=wishes), device=cards)
    four = plan(spec(wishes=replace(wishes, gpus=0)), device=cards)
    assert (once.gpus, four.gpus) == (1, 4), "the others may be drawing: all of them only if that is said"
    assert four.steps * 4 == once.steps
    assert four.images_seen == once.images_seen
    ahead = [forecast(one, family="sd15", device=cards).seconds for one in (once, four)]
    assert ahead[1] == pytest.approx(ahead[0] / 4)


def test_more_cards_than_there_are_are_said_and_not_waited_for() -> None:
    few = plan(spec(wishes=TrainingWishes(gpus=3)), device=card(24, cards=2))
    one = plan(spec(wishes=TrainingWishes(gpus=3)))
    assert (few.gpus, one.gpus) == (2, 1)
    assert "3 cards were asked for (`gpus`), and 2 can be used: it is trained on 2." in few.warnings
    assert any("trained on one" in said for said in one.warnings)


@given(st.floats(0, 1), st.booleans())
def test_bands_rise_with_diversity_and_stay_in_order(diversity: float, long: bool) -> None:
    low, high = band(diversity, long=long)
    assert 500 <= low <= 1000 <= high <= 2000
    assert high == pytest.approx(2 * low)


@pytest.mark.parametrize("family", RECIPES)
@pytest.mark.parametrize("subject", ["character", "style", "object", "concept"])
def test_every_family_and_subject_has_a_plan_that_tells_itself(family: str, subject: str) -> None:
    found = plan(spec(family=family, subject=subject))
    assert found.steps > 0
    assert found.batch >= 1
    assert 0 < found.learning_rate <= 1e-2
    assert any("steps" in reason and "clamp((20 - 10) / 20, 0, 1)" in reason for reason in found.reasons)
    assert any("rank" in reason for reason in found.reasons)
    assert any("learning rate" in reason.lower() for reason in found.reasons)
    assert family in COSTS


def test_a_style_learns_its_convolutions_too_and_leaves_the_text_encoder_alone() -> None:
    found = plan(spec(subject="style"))
    assert (found.algorithm, found.rank, found.alpha, found.conv_rank, found.conv_alpha) == ("locon", 32, 16, 16, 8)
    assert found.te_rate == 0
    assert found.caption_dropout == 0.1


def test_every_wish_is_fulfilled() -> None:
    wishes = TrainingWishes(
        steps=321, algorithm="loha", rank=5, alpha=3.0, conv_rank=2, conv_alpha=1.5, attention_only=True,
        rslora=True, dora=True, factor=4,
        learning_rate=3e-4, te_rate=1e-6, pivotal=2, resolutions=(384, 512), batch=3, accumulation=2,
        optimizer="adafactor", schedule="constant", warmup=7, min_snr=1.0, noise_offset=0.05, prior_weight=0.5,
        preserve=0.2,
        clip=0.5, ema=0.9, precision="bf16", quantised="int8", checkpointing=True, flip=True, crops=True, checkpoints=9,
        validation=3, caption_dropout=0.2, shuffle=True,
        keep_tokens=2, tag_dropout=0.1, clip_skip=2, caption_prefix="x, ", seed=9,
        naming="diffusers", gpus=2,
    )  # fmt: skip
    found = plan(spec(wishes=wishes), device=card(2, cards=2))
    for one in fields(TrainingWishes):
        assert getattr(found, one.name) == getattr(wishes, one.name), one.name


def test_zero_is_a_wish_too() -> None:
    wishes = TrainingWishes(
        te_rate=0.0, min_snr=0.0, validation=0, warmup=0, clip=0.0, caption_dropout=0.0, conv_rank=0
    )
    found = plan(spec(subject="style", wishes=wishes))
    assert (found.te_rate, found.min_snr, found.validation, found.warmup, found.clip) == (0, 0, 0, 0, 0)
    assert (found.caption_dropout, found.conv_rank, found.algorithm) == (0, 0, "lora")


@given(st.floats(1, 200), st.sampled_from(sorted(RECIPES)), st.integers(1, 60))
def test_a_plan_fits_or_says_that_it_may_not(gigabytes: float, family: str, count: int) -> None:
    wanted = spec(count, family=family)
    found = plan(wanted, device=card(gigabytes))
    fits = needed_bytes(found, family) <= 0.9 * gigabytes * 1e9 + 1
    assert fits != any("may not fit" in warning for warning in found.warnings)


def test_memory_is_saved_in_order_first_the_batch_then_checkpointing_then_bits() -> None:
    wanted = spec(family="sdxl")
    roomy, tight, tiny = plan(wanted, device=card(80)), plan(wanted, device=card(13)), plan(wanted, device=card(5))
    assert (roomy.batch, roomy.checkpointing) == (4, False)
    assert tight.checkpointing
    assert any("fits into 13.0 GB" in reason for reason in tight.reasons)
    assert any("may not fit" in warning for warning in tiny.warnings)
    assert plan(wanted, device=card(5, has_nf4=True)).quantised == "nf4"


def test_flux_gives_up_its_large_pictures_before_it_gives_up() -> None:
    assert plan(spec(family="flux"), device=card(141)).resolutions == (512, 768, 1024)
    assert len(plan(spec(family="flux"), device=card(12, has_nf4=True)).resolutions) < 3


def test_eight_bit_and_bfloat16_are_for_cards_that_have_them() -> None:
    assert plan(spec()).optimizer == "adamw"
    assert plan(spec()).precision == "fp32"
    assert plan(spec(), device=card(24, has_8bit=True)).optimizer == "adamw8bit"
    assert plan(spec(), device=replace(card(24), bf16=False)).precision == "fp16"


def test_rslora_keeps_the_strength_of_a_step() -> None:
    """alpha/√rank there is what alpha/rank is here."""
    plain, root = plan(spec()), plan(spec(wishes=TrainingWishes(rslora=True)))
    assert root.alpha / root.rank**0.5 == pytest.approx(plain.alpha / plain.rank)


def test_prodigy_gets_a_rate_of_one() -> None:
    found = plan(spec(wishes=TrainingWishes(optimizer="prodigy")))
    assert (found.learning_rate, found.te_rate, found.schedule, found.warmup) == (1.0, 1.0, "constant", 0)


def test_pictures_are_held_back_only_where_they_can_be_spared() -> None:
    assert [plan(spec(n)).validation for n in (3, 14, 15, 29, 30)] == [0, 0, 1, 1, 2]
    assert plan(spec(3, wishes=TrainingWishes(validation=8))).validation == 2


def test_the_same_note_always_comes_to_the_same_plan() -> None:
    assert plan(spec()) == plan(spec())
    assert plan(spec()).seed != plan(replace(spec(), name="other")).seed


def test_regularisation_pictures_do_not_count() -> None:
    wanted = spec(20)
    mixed = replace(
        wanted, pictures=tuple(replace(p, regularisation=n >= 12) for n, p in enumerate(wanted.pictures))
    )  # fmt: skip
    assert learned_from(mixed, survey(mixed)) == 12


def told(wanted: TrainingSpec, looked: Survey | None = None) -> str:
    return " ".join(decide(wanted, looked or survey(wanted), device=CPU).warnings)


def test_weak_sets_are_told() -> None:
    assert "3 pictures are few" in told(spec(3))
    assert "60 pictures are many" in told(spec(60))
    assert "No picture has a caption" in told(spec(caption=None))
    assert "There is no `trigger`" in told(spec(trigger=""))
    assert "teach blur: 0.png (200×300)" in told(spec(), survey(spec(), width=200, height=300))
    assert told(spec()) == ""


def test_equal_and_nearly_equal_pictures_are_named() -> None:
    looked = survey(spec())
    twins = (looked.pictures[0], replace(looked.pictures[1], sha256="0.png"), *looked.pictures[2:])
    words = told(spec(), replace(looked, pictures=twins, alike=(("0.png", "1.png"), ("3.png", "4.png"))))
    assert "0.png = 1.png" in words
    assert "Nearly the same: 3.png and 4.png." in words


def test_pictures_that_cannot_be_read_are_named_and_left_out() -> None:
    wanted = spec(12)
    looked = survey(wanted)
    torn = (replace(looked.pictures[0], problem="it ends in the middle"), *looked.pictures[1:])
    found = decide(wanted, replace(looked, pictures=torn), device=CPU)
    assert "0.png is left out: it ends in the middle." in found.warnings
    assert any("for 11 pictures" in reason for reason in found.reasons)


def test_photographs_are_refused_on_the_demo_base_only() -> None:
    wanted = spec(family="demo")
    refusal = why_not(wanted, survey(wanted, flat=0.01))
    assert refusal is not None
    assert "small cartoons; photos need SD 1.5 or better" in refusal
    with pytest.raises(ValueError, match="small cartoons"):
        decide(wanted, survey(wanted, flat=0.01), device=CPU)
    assert why_not(wanted, survey(wanted, flat=0.3)) is None
    assert why_not(spec(), survey(spec(), flat=0.01)) is None


def test_what_cannot_be_trained_is_refused_in_words() -> None:
    nothing = why_not(spec(0), Survey(pictures=()))
    assert nothing is not None
    assert "no picture" in nothing
    other = why_not(spec(family="wan"), survey(spec()))
    assert other is not None
    assert '"wan" (wan)' in other
    broken = why_not(spec(1), survey(spec(1), problem="it is no picture"))
    assert broken is not None
    assert "0.png: it is no picture" in broken


@given(st.integers(1, 8), st.integers(1, 4), st.booleans())
def test_a_learned_rate_gives_back_the_seconds_that_were_measured(batch: int, accumulation: int, twice: bool) -> None:
    wishes = TrainingWishes(batch=batch, accumulation=accumulation, checkpointing=twice)
    found = plan(spec(wishes=wishes), device=CPU)
    key = rate_key(found, family="sd15", device=CPU)
    ahead = forecast(found, family="sd15", device=CPU, learned={key: rate_of(found, 0.5)})
    assert ahead.measured
    assert ahead.seconds == pytest.approx(0.5 * found.steps)


def test_a_forecast_grows_with_what_is_asked_for() -> None:
    small, large = (
        plan(spec(wishes=TrainingWishes(rank=4, batch=1))),
        plan(spec(wishes=TrainingWishes(rank=64, batch=4))),
    )
    assert needed_bytes(small, "sd15") < needed_bytes(large, "sd15")
    guessed = forecast(small, family="sd15", device=card(24))
    assert not guessed.measured
    assert 0 < guessed.seconds < forecast(small, family="sd15", device=card(24), samples=3).seconds
    faster = forecast(small, family="sd15", device=replace(card(24), speed=1e15))
    assert faster.seconds < guessed.seconds


@pytest.mark.parametrize(("family", "low", "high"), [("sd15", 3e9, 8e9), ("sdxl", 6e9, 14e9), ("flux", 20e9, 45e9)])
def test_forecasts_of_memory_are_those_that_people_meet(family: str, low: float, high: float) -> None:
    """With checkpointing and batch 1: about 4 GB, 9 GB and 26 GB are reported."""
    wishes = TrainingWishes(batch=1, checkpointing=True, resolutions=(COSTS[family].side,))
    found = plan(spec(family=family, wishes=wishes), device=card(141))
    assert low < forecast(found, family=family, device=card(141)).bytes < high
