"""Jobs with different adapters through the real engine: each gets the picture it would get alone, and its own end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from loravault.engine import batch as batch_module
from loravault.engine.appliers import Applier
from loravault.engine.apply import Patcher
from loravault.engine.ends import OutOfMemory, Stopped
from loravault.engine.generate import Engine
from loravault.engine.modes import Mode, Pace
from loravault.errors import UserError
from loravault.formats.generation import AdapterUse, BaseRef, GenerationSpec
from tests.engine.test_batch import Asked, drawn, same
from tests.engine.test_generate import pixels, replaced, spec
from tests.engine.test_offload import NO_MEMORY, failing, offloading
from tests.tiny import PARTS, Part, make_adapter, use_of
from tests.tiny_families import MAKERS, make_family

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]
needs_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA card")

#: Merging is so dear that it is never expected to pay.
NEVER = Pace(forming=1e-3, copying=1e9, megapixel=20.0)


@contextmanager
def calls() -> Iterator[list[tuple[int, ...]]]:
    """The seeds of each call of the denoiser."""
    seen: list[tuple[int, ...]] = []
    real = batch_module.draw_latents

    def counted(*args: Any, seeds: Any, **more: Any) -> torch.Tensor:
        seen.append(tuple(seeds))
        return real(*args, seeds=seeds, **more)

    with replaced(batch_module, "draw_latents", counted):
        yield seen


@pytest.fixture
def uses(tmp_path: Path) -> list[AdapterUse]:
    for number in range(3):
        make_adapter(tmp_path / f"a{number}.safetensors", dict(list(PARTS.items())[number:]), seed=number)
    return [use_of(tmp_path / f"a{number}.safetensors", 0.7) for number in range(3)]


def modes(engine: Engine) -> list[Mode]:
    """How each call of the denoiser has its adapters, from now on."""
    found: list[Mode] = []
    assert engine._loaded is not None
    applier, real = engine._loaded.applier, engine._loaded.applier.for_pictures

    def told(*args: Any) -> None:
        real(*args)
        found.append(applier.mode)

    applier.for_pictures = told  # type: ignore[method-assign]
    return found


@pytest.mark.parametrize("adapters", ["slots", "auto", "merge"])
def test_jobs_with_different_adapters_get_the_pictures_they_would_get_alone(
    tiny: BaseRef, uses: list[AdapterUse], tmp_path: Path, adapters: str
) -> None:
    """With text encoders of their own, too; drawn together in slots, one after the other merged."""
    engine, merging = Engine("cpu", adapters=adapters), Engine("cpu", adapters="merge")
    a, b, c = uses
    specs = [
        spec(tiny, seeds=(1, 2), adapters=(a,)),
        spec(tiny, seeds=(3,), prompt="dogs"),
        spec(tiny, seeds=(4, 5), adapters=(b, replace(c, unet=-0.4)), negative=""),
        spec(tiny, seeds=(6,), adapters=(replace(a, te=0.0, unet=0.2),)),
    ]
    assert len({engine.mark_of(one) for one in specs}) == (4 if adapters == "merge" else 1)
    with calls() as seen:
        ends = Asked(tmp_path).together(engine, *specs)
    together = [(1, 2, 3, 4), (5, 6)]
    assert seen == (together if adapters == "slots" else [(1, 2), (3,), (4, 5), (6,)]), "a CPU gains nothing"
    for one, end in zip(specs, ends, strict=True):
        alone = pixels(merging.generate(one, tmp_path / "alone"))
        assert all(same(found, wanted) for found, wanted in zip(drawn(end), alone, strict=True))
    with calls() as seen:
        Asked(tmp_path).together(engine, specs[0], specs[0])
    assert seen == [(1, 2, 1, 2)]


@pytest.mark.parametrize("family", MAKERS)
def test_in_every_family(tmp_path: Path, family: str) -> None:
    """Prompts of other lengths and guidance as usual."""
    base = make_family(tmp_path / "base", family)
    from loravault.engine.bases import load_base
    from loravault.engine.devices import choose_device
    from tests.engine.slotted import file_for

    loaded, found = load_base(base, choose_device("cpu")), []
    for number in range(2):
        path = tmp_path / f"{number}.safetensors"
        file_for(loaded, path, seed=number, every=2 + number)
        found.append(use_of(path, 0.8))
    engine, merging = Engine("cpu", adapters="slots"), Engine("cpu", adapters="merge")
    specs = [
        GenerationSpec(
            base=base,
            prompt=prompt,
            negative="blur",
            width=64,
            height=48,
            steps=2,
            cfg=3.0,
            sampler="Euler",
            image_format="png",
            seeds=(number,),
            adapters=adapters,
        )
        for number, (prompt, adapters) in enumerate(
            [("a red cat", (found[0],)), ("dogs, and a lighthouse", ()), ("ships", tuple(found))]
        )
    ]
    with calls() as seen:
        ends = Asked(tmp_path).together(engine, *specs)
    apart = family == "z-image"  # its embedders see all pictures in a row, and these LoRAs change them
    assert len(seen) == (3 if apart else 1) or family in {"qwen-image", "flux2"}
    for one, end in zip(specs, ends, strict=True):
        assert same(drawn(end)[0], pixels(merging.generate(one, tmp_path / "alone"))[0])


def test_what_must_be_merged_is_drawn_by_itself(tiny: BaseRef, uses: list[AdapterUse], tmp_path: Path) -> None:
    save_file({"lora_unet_conv_norm_out.w_norm": torch.ones(32)}, tmp_path / "norm.safetensors")
    norm = use_of(tmp_path / "norm.safetensors")
    specs = [spec(tiny, seeds=(n,), adapters=adapters) for n, adapters in enumerate([(uses[0],), (norm,), (uses[1],)])]
    engine = Engine("cpu", adapters="slots")
    with calls() as seen:
        ends = Asked(tmp_path).together(engine, *specs)
    assert seen == [(0, 2), (1,)]
    for one, end in zip(specs, ends, strict=True):
        alone = pixels(Engine("cpu", adapters="merge").generate(one, tmp_path / "alone"))
        assert same(drawn(end)[0], alone[0])


def test_one_of_different_jobs_is_cancelled_or_cannot_be_read_and_the_others_go_on(
    tiny: BaseRef, uses: list[AdapterUse], tmp_path: Path
) -> None:
    gone = replace(uses[1], path=str(tmp_path / "gone.safetensors"))
    asked = Asked(tmp_path)
    asked.cancelled = lambda name: name == "c" and len(asked.steps) > 4
    specs = [spec(tiny, seeds=(n,), adapters=(use,)) for n, use in enumerate((uses[0], gone, uses[1], uses[2]))]
    first, second, third, fourth = asked.together(Engine("cpu", adapters="slots"), *specs)
    assert isinstance(second, UserError)
    assert isinstance(third, Stopped)
    for one, end in ((specs[0], first), (specs[3], fourth)):
        assert same(drawn(end)[0], pixels(Engine("cpu").generate(one, tmp_path / "alone"))[0])


def test_when_memory_runs_out_different_jobs_are_halved_and_then_offloaded_each_alone(
    tiny: BaseRef, uses: list[AdapterUse], tmp_path: Path
) -> None:
    """What waits in ordinary memory is not changed while it is attached, so that jobs are not mixed there."""
    engine = offloading()
    engine._adapters_wish = "slots"
    specs = [spec(tiny, seeds=(n,), adapters=(use,)) for n, use in enumerate(uses)]
    with replaced(batch_module, "draw_latents", failing(batch_module.draw_latents, 3)), calls() as seen:
        ends = Asked(tmp_path).together(engine, *specs)
    assert seen[0] == (0, 1, 2)
    assert seen[1] == (0, 1)
    assert seen[-3:] == [(0,), (1,), (2,)]
    for one, end in zip(specs, ends, strict=True):
        assert same(drawn(end)[0], pixels(Engine("cpu").generate(one, tmp_path / "alone"))[0])


def test_an_adapter_that_turns_out_not_to_fit_fails_its_own_job(
    tiny: BaseRef, uses: list[AdapterUse], tmp_path: Path
) -> None:
    """Drawn together at first; then each by itself."""
    real = Applier.for_pictures

    def fails(self: Applier, stacks: Any, asked: Any) -> None:
        if any(one.adapter.name == "a1" for stack in stacks for one in stack):
            raise UserError("The LoRA “a1” cannot be used.")
        real(self, stacks, asked)

    specs = [spec(tiny, seeds=(n,), adapters=(use,)) for n, use in enumerate(uses)]
    with replaced(Applier, "for_pictures", fails):
        first, second, third = Asked(tmp_path).together(Engine("cpu", adapters="slots"), *specs)
    assert isinstance(second, UserError)
    for one, end in ((specs[0], first), (specs[2], third)):
        assert same(drawn(end)[0], pixels(Engine("cpu").generate(one, tmp_path / "alone"))[0])


def test_too_little_memory_to_merge_means_slots(tiny: BaseRef, uses: list[AdapterUse], tmp_path: Path) -> None:
    """At once, and not by offloading; where merging was asked for, it is offloaded as before."""
    wanted = spec(tiny, adapters=(uses[0],))
    expected = pixels(Engine("cpu", adapters="merge").generate(wanted, tmp_path / "merged"))[0]
    engine = Engine("cpu")
    engine.generate(spec(tiny), tmp_path / "plain")
    seen = modes(engine)
    assert engine._loaded is not None
    denoiser = engine._loaded.applier.patchers[1]

    def full(*_args: Any) -> None:
        raise NO_MEMORY

    with replaced(Patcher, "_rebuild_plain", full), replaced(Patcher, "_rebuild", full):
        outcome = engine.generate(replace(wanted, adapters=(replace(uses[0], te=0.0),)), tmp_path / "tight")
        assert seen == [Mode.SLOTS]
        assert denoiser.held == 0
        with pytest.raises(OutOfMemory):
            Engine("cpu", adapters="merge").generate(wanted, tmp_path / "no")
    assert len(outcome.images) == 1
    assert same(pixels(engine.generate(wanted, tmp_path / "again"))[0], expected)


def test_many_combinations_one_after_the_other_and_back_to_none(
    tiny: BaseRef, uses: list[AdapterUse], tmp_path: Path
) -> None:
    """Whichever way each is drawn; a picture without adapters is bit by bit what it was."""
    engine, merging = Engine("cpu"), Engine("cpu", adapters="merge")
    plain = pixels(engine.generate(spec(tiny), tmp_path))[0]
    assert engine._loaded is not None
    seen = modes(engine)
    for turn, chosen in enumerate([uses[:1], uses[1:], uses, [], uses[:1], uses[2:], []]):
        engine._loaded.applier._pace = NEVER if turn % 2 else replace(NEVER, forming=1e12)
        wanted = spec(tiny, adapters=tuple(chosen))
        found = pixels(engine.generate(wanted, tmp_path / str(turn)))[0]
        assert same(found, pixels(merging.generate(wanted, tmp_path / "merged"))[0])
        assert chosen or np.array_equal(found, plain)
    merged, slots = Mode.MERGE, Mode.SLOTS
    assert seen == [merged, slots, merged, merged, merged, slots, merged]


@pytest.mark.parametrize("wish", ["none", "models", "layers"])
def test_slots_work_while_models_are_offloaded(
    tiny: BaseRef, uses: list[AdapterUse], tmp_path: Path, wish: str
) -> None:
    """And leave no trace in layers whose calls are hooked."""
    thrifty, usual = offloading(wish), Engine("cpu", adapters="slots")
    thrifty._adapters_wish = "slots"
    for adapters in ((), uses[:1], uses[:2], uses[1:2], ()):
        wanted = spec(tiny, adapters=tuple(adapters), seeds=(7, 8))
        found = pixels(thrifty.generate(wanted, tmp_path / "thrifty"))
        expected = pixels(usual.generate(wanted, tmp_path / "usual"))
        assert [one.tobytes() for one in found] == [one.tobytes() for one in expected]
    assert thrifty._loaded is not None
    assert thrifty._loaded.applier.bytes > 0


@pytest.mark.parametrize("wish", ["models", "layers"])
def test_the_way_is_not_changed_while_models_are_attached(
    tiny: BaseRef, uses: list[AdapterUse], tmp_path: Path, wish: str
) -> None:
    """What the first call loses to slots would speak for merging before the second; but weights are on the card."""
    engine = offloading(wish)
    engine.generate(spec(tiny), tmp_path)
    assert engine._loaded is not None
    applier, seen = engine._loaded.applier, modes(engine)
    applier._pace = Pace(forming=1e3, copying=1e9, megapixel=20.0)
    real = applier.drawn
    applier.drawn = lambda calls, _step, stacks: real(calls, 1e6, stacks)  # type: ignore[method-assign]
    wanted = spec(tiny, adapters=(uses[0],), seeds=tuple(range(9)))
    found = pixels(engine.generate(wanted, tmp_path / "thrifty"))
    assert seen == [Mode.SLOTS]
    usual = pixels(Engine("cpu", adapters="merge").generate(wanted, tmp_path / "usual"))
    assert all(same(one, other) for one, other in zip(found, usual, strict=True))
    engine.generate(wanted, tmp_path / "thrifty")
    assert seen == [Mode.SLOTS, Mode.MERGE]


def test_no_room_for_many_stacks_means_one_after_the_other(
    tiny: BaseRef, uses: list[AdapterUse], tmp_path: Path
) -> None:
    real = Applier.for_pictures

    def tight(self: Applier, stacks: Any, asked: Any) -> None:
        if any(stack != stacks[0] for stack in stacks):
            raise NO_MEMORY
        real(self, stacks, asked)

    specs = [spec(tiny, seeds=(n,), adapters=(use,)) for n, use in enumerate(uses)]
    with replaced(Applier, "for_pictures", tight), calls() as seen:
        ends = Asked(tmp_path).together(Engine("cpu", adapters="slots"), *specs)
    assert seen == [(0,), (1,), (2,)]
    assert all(len(drawn(end)) == 1 for end in ends)


def test_a_wish_for_slots_that_has_no_effect_is_told(tiny: BaseRef, tmp_path: Path) -> None:
    part = {"lora_unet_mid_block_attentions_0_proj_in": Part((64, 64, 1, 1), rank=200)}
    found = []
    for number in range(2):
        make_adapter(tmp_path / f"{number}.safetensors", part, seed=number)
        found.append(use_of(tmp_path / f"{number}.safetensors"))
    outcome = Engine("cpu", adapters="slots").generate(spec(tiny, adapters=tuple(found)), tmp_path)
    assert any("`adapters = slots` had no effect" in one for one in outcome.warnings)
    with pytest.raises(UserError, match="`adapters` cannot be 'both'"):
        Engine("cpu", adapters="both")


@needs_card
@pytest.mark.gpu
@pytest.mark.parametrize("offload", ["none", "models", "layers"])
def test_on_a_card_slots_and_merging_draw_the_same(
    tiny: BaseRef, uses: list[AdapterUse], tmp_path: Path, offload: str
) -> None:
    merging, beside = (
        Engine("cuda", dtype="float32", offload=offload, adapters=adapters) for adapters in ("merge", "slots")
    )
    for adapters in (uses[:1], uses, [], uses[1:]):
        wanted = spec(tiny, adapters=tuple(adapters))
        found = pixels(beside.generate(wanted, tmp_path / "slots"))[0]
        assert same(found, pixels(merging.generate(wanted, tmp_path / "merged"))[0])


@needs_card
@pytest.mark.gpu
def test_on_a_card_different_jobs_are_drawn_together(tiny: BaseRef, uses: list[AdapterUse], tmp_path: Path) -> None:
    engine, merging = (Engine("cuda", dtype="float32", adapters=adapters) for adapters in ("slots", "merge"))
    specs = [spec(tiny, seeds=(n,), adapters=(use,)) for n, use in enumerate(uses)]
    with calls() as seen:
        ends = Asked(tmp_path).together(engine, *specs)
    assert seen == [(0, 1, 2)]
    for one, end in zip(specs, ends, strict=True):
        assert same(drawn(end)[0], pixels(merging.generate(one, tmp_path / "alone"))[0])
