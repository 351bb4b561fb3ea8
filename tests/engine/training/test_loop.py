"""Steps: what they learn, what they survive, and that they go on as if nothing had been."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from loravault.engine.bases import Base, load_base
from loravault.engine.devices import choose_device
from loravault.engine.ends import OutOfMemory
from loravault.engine.training import chance
from loravault.engine.training.checkpoints import StateFolder
from loravault.engine.training.learning import objective_for
from loravault.engine.training.loop import Diverged, Loop
from loravault.engine.training.networks import Network
from tests.engine.training.plans import plan
from tests.engine.training.source import Made
from tests.tiny_families import make_family

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]
CPU = choose_device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(make_family(tmp_path_factory.mktemp("loop") / "sd15", "sd15"), CPU)


@pytest.fixture(autouse=True)
def _as_before(base: Base) -> Iterator[None]:
    """Every test ends with the base as it was."""
    yield
    for module in base.modules.values():
        module.__dict__.pop("forward", None)
    base.denoiser.disable_gradient_checkpointing()


def loop_of(base: Base, source: Any = None, **changes: Any) -> Loop:
    wanted = plan(**{"te_rate": 0.0, "batch": 2, "learning_rate": 5e-3, **changes})
    network = Network(base, wanted, generator=chance.generator(wanted.seed, purpose="start"))
    tokens = ("text_encoder",) if wanted.te_rate else ()
    return Loop(
        base=base, network=network, objective=objective_for(base, wanted),
        source=source or Made(base, batch=wanted.batch, held=1, tokens=tokens), plan=wanted, device=CPU,
    )  # fmt: skip


def run(loop: Loop, steps: int) -> Loop:
    for _ in range(steps):
        loop.advance()
    return loop


def learned(loop: Loop) -> dict[str, Tensor]:
    """Everything that the next step depends on, and what was measured."""
    state = loop.state()
    return {**state.tensors, "validation": torch.tensor([value for _, value in loop.history.validation])}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "prodigy"])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_training_that_goes_on_equals_one_that_was_never_interrupted(
    base: Base, tmp_path: Path, optimizer: str, ema: float
) -> None:
    """Bit for bit, text encoder, average and accumulation included, whatever optimiser."""
    changes: dict[str, Any] = {"optimizer": optimizer, "ema": ema, "te_rate": 1e-3, "accumulation": 2, "warmup": 2}
    whole = loop_of(base, **changes)
    whole.measure()
    run(whole, 6)
    whole.measure()
    expected = learned(whole)
    whole._network.detach()

    folder = StateFolder(tmp_path, "mark")
    first = loop_of(base, **changes)
    first.measure()
    folder.write(run(first, 3).state())
    first._network.detach()
    second = loop_of(base, **changes)
    state = folder.read()
    assert state is not None
    second.load_state(state)
    assert second.step == 3
    run(second, 3).measure()
    assert same(learned(second), expected)
    second._network.detach()


def test_every_loss_is_recorded_and_none_depends_on_the_run_before(base: Base) -> None:
    one, other = loop_of(base), None
    run(one, 3)
    one._network.detach()
    other = run(loop_of(base), 3)
    assert len(one.history.losses) == 3
    assert one.history.losses == other.history.losses
    assert all(math.isfinite(loss) for loss in one.history.losses)
    other._network.detach()


def test_the_loss_falls_and_the_held_out_picture_is_measured_from_the_base_on(base: Base) -> None:
    """Four pictures seen thirty times; the value at step 0 is the base's, whatever is attached to it."""
    source = Made(base, batch=4, held=1)
    loop = loop_of(base, source, batch=4, rank=8, alpha=8.0, learning_rate=1e-2, steps=40, min_snr=0.0)
    first = loop.measure()
    torch.manual_seed(0)
    run(loop, 40)
    assert sum(loop.history.losses[-10:]) < sum(loop.history.losses[:10]) * 0.97
    second = loop.measure()
    assert first != second
    loop._network.detach()
    alone = loop_of(base, source, seed=7)
    assert alone.measure() == first
    alone._network.detach()
    assert [step for step, _ in loop.history.validation] == [0, 40]


def test_two_accumulated_batches_learn_what_one_of_both_does(base: Base) -> None:
    """The gradient is the mean over all pictures of a step: with the same noise for each, one step is the same."""

    class Halves(Made):
        def at(self, step: int, micro: int = 0) -> Any:
            return self.of([2 * micro, 2 * micro + 1]) if self.batch == 2 else self.of([0, 1, 2, 3])

    noise = torch.randn((4, 4, 8, 8), generator=chance.generator(3, purpose="test"))
    found = []
    for batch, accumulation in ((2, 2), (4, 1)):
        loop = loop_of(base, Halves(base, batch=batch), batch=batch, accumulation=accumulation, clip=0.0)
        draws = iter([noise[:2], noise[2:]] if batch == 2 else [noise])
        objective = loop._objective

        def draw(latents: Tensor, generator: Any, draws: Any = draws, objective: Any = objective) -> Any:
            here = next(draws)
            return type(objective.fixed(latents, generator, 0.5))(here, torch.full((len(here),), 0.4))

        objective.draw = draw  # type: ignore[method-assign]
        run(loop, 1)
        found.append(learned(loop))
        loop._network.detach()
    for name in (name for name in found[0] if name.endswith("exp_avg")):
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-4, atol=1e-8)


class Short:
    """Lets the memory run out until something has been done about it."""

    def __init__(self, loop: Loop, enough: Any) -> None:
        self.asked: list[tuple[bool, int]] = []
        before = loop._loss

        def loss(batch: Any, draw: Any) -> Tensor:
            self.asked.append((loop._checkpointing, len(batch)))
            if not enough(loop._checkpointing, len(batch)):
                raise torch.OutOfMemoryError("out of memory")
            return before(batch, draw)

        loop._loss = loss  # type: ignore[method-assign]


def test_when_memory_runs_out_the_same_is_learned_with_less(base: Base) -> None:
    """First computed twice, then in halves: the step is made again from its beginning, with the same noise."""
    whole = run(loop_of(base, batch=4), 1)
    expected = learned(whole)
    whole._network.detach()
    short = loop_of(base, batch=4)
    asked = Short(short, lambda twice, pictures: twice and pictures == 1)
    run(short, 1)
    assert asked.asked[:4] == [(False, 4), (True, 4), (True, 2), (True, 1)]
    assert len(short.history.losses) == 1
    assert len(short.history.warnings) == 3
    found = learned(short)
    for name in (name for name in expected if name.endswith(("exp_avg", "losses"))):  # Adam's steps hide how far
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-8)
    short._network.detach()


def test_when_nothing_is_left_to_try_it_is_said_in_words(base: Base) -> None:
    loop = loop_of(base, batch=2)
    Short(loop, lambda twice, pictures: False)
    with pytest.raises(OutOfMemory, match=r"too little memory to train at 64 pixels.*smaller `resolution`"):
        run(loop, 1)
    assert loop.step == 0
    loop._network.detach()


def test_a_step_whose_gradients_are_no_numbers_is_left_out(base: Base) -> None:
    """One bad picture does not end a training, and nothing of it gets into what was learned."""

    class Bad(Made):
        def at(self, step: int, micro: int = 0) -> Any:
            batch = super().at(step, micro)
            if step == 1:
                batch.latents[0, 0, 0, 0] = math.nan
            return batch

    loop = run(loop_of(base, Bad(base)), 1)
    before = {name: one.clone() for name, one in loop.state().tensors.items() if name.startswith("network/")}
    run(loop, 1)
    assert math.isnan(loop.history.losses[1])
    after = loop.state().tensors
    assert all(torch.equal(one, after[name]) for name, one in before.items())
    run(loop, 2)
    assert all(bool(torch.isfinite(one).all()) for name, one in loop.state().tensors.items() if name != "losses")
    assert math.isfinite(loop.history.smoothed())
    loop._network.detach()


@pytest.mark.parametrize(
    ("good", "precision", "said"),
    [(0, "fp32", "the base itself gives NaN"), (4, "fp32", "learning rate .* is too high; try a third")],
)
def test_a_training_without_numbers_stops_and_says_why(base: Base, good: int, precision: str, said: str) -> None:
    class Bad(Made):
        def at(self, step: int, micro: int = 0) -> Any:
            batch = super().at(step, micro)
            if step >= good:
                batch.latents.fill_(math.inf)
            return batch

    loop = loop_of(base, Bad(base), precision=precision)
    with pytest.raises(Diverged, match=said):
        run(loop, 30)
    assert loop.step == good + 3
    assert all(bool(torch.isfinite(one).all()) for one in loop._parameters)
    loop._network.detach()


def test_the_average_is_published_and_the_weights_go_on(base: Base) -> None:
    """Measured and written is the average; afterwards the numbers are exactly those that were learned."""
    loop = run(loop_of(base, ema=0.9), 4)
    before = [one.detach().clone() for one in loop._parameters]
    with loop.published():
        inside = [one.detach().clone() for one in loop._parameters]
    assert any(not torch.equal(one, other) for one, other in zip(before, inside, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(before, loop._parameters, strict=True))
    loop._network.detach()


def test_the_average_is_that_of_the_formula(base: Base) -> None:
    """average += (1 - min(decay, (1+n)/(10+n))) · (weight - average), from where the training began."""
    loop = loop_of(base, ema=0.3)
    part = max(range(len(loop._parameters)), key=lambda n: loop._parameters[n].abs().sum().item())
    expected = loop._parameters[part].detach().clone()
    for step in range(1, 4):
        loop.advance()
        expected += (1 - min(0.3, (1 + step) / (10 + step))) * (loop._parameters[part].detach() - expected)
    with loop.published():
        torch.testing.assert_close(loop._parameters[part].detach(), expected)
    loop._network.detach()


def test_the_base_is_never_touched(base: Base) -> None:
    """After steps with text encoder, checkpointing and average its weights are bit for bit those of before."""
    before = {name: one.clone() for name, one in base.denoiser.state_dict().items()}
    texts = {name: one.clone() for name, one in base.pipe.text_encoder.state_dict().items()}
    loop = run(loop_of(base, te_rate=1e-2, ema=0.9, checkpointing=True), 2)
    loop._network.detach()
    assert all(torch.equal(one, before[name]) for name, one in base.denoiser.state_dict().items())
    assert all(torch.equal(one, texts[name]) for name, one in base.pipe.text_encoder.state_dict().items())


@pytest.mark.parametrize("family", ["sd2", "sdxl", "sd3", "flux"])
def test_every_family_learns(tmp_path: Path, family: str) -> None:
    """Its own objective, text encoders along: the loss of what was seen falls, and the base alone is as it was."""
    base = load_base(make_family(tmp_path / family, family), CPU)
    encoders = {"sd2": ("text_encoder",), "flux": ("text_encoder",)}.get(family, ("text_encoder", "text_encoder_2"))
    wanted = plan(batch=4, rank=8, alpha=8.0, learning_rate=1e-2, te_rate=1e-3, steps=30, min_snr=0.0)
    network = Network(base, wanted, generator=chance.generator(7, purpose="start"))
    source = Made(base, batch=4, tokens=encoders)
    loop = Loop(
        base=base, network=network, objective=objective_for(base, wanted), source=source, plan=wanted, device=CPU
    )

    def measured() -> float:
        batch, texts = source.at(0), source.of([0, 1, 2, 3]).texts
        draw = loop._objective.fixed(batch.latents, chance.generator(1, purpose="x"), 0.5)
        with torch.no_grad():
            return float(loop._objective.errors(batch, texts, draw, weighted=False).mean())

    before = measured()
    run(loop, 25)
    assert measured() < before * 0.99
    trained = {name for name, some in network.parameters().items() if any(bool(one.any()) for one in some)}
    assert trained >= {base.drawer.denoiser, encoders[0]}
    network.detach()
    assert measured() == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_with_adapters_in_fp32(tmp_path: Path, precision: str) -> None:
    """The base is loaded in half; what is learned and remembered is fp32."""
    import dataclasses

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    device = dataclasses.replace(CPU, dtype=dtype)
    base = load_base(make_family(tmp_path / "sd15", "sd15"), device)
    loop = loop_of(base, precision=precision, te_rate=1e-3, rank=8, alpha=8.0)
    run(loop, 3)
    assert all(math.isfinite(loss) for loss in loop.history.losses)
    assert {one.dtype for one in loop._parameters} == {torch.float32}
    state = loop.state()
    other = loop_of(base, precision=precision, te_rate=1e-3, rank=8, alpha=8.0)
    other.load_state(state)
    assert other.state().about["scaler"] == state.about["scaler"]
