"""Offloading, tiles and precision through the real engine: the same pictures, and weights that come back.

A CPU has nothing to offload to. The tests say that it has, so that the hooks are at work, with the CPU on both ends;
what only a card can show is marked `gpu`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loravault.engine import batch as batch_module
from loravault.engine import generate as generate_module
from loravault.engine.bases import load_base
from loravault.engine.devices import choose_device
from loravault.engine.ends import OutOfMemory
from loravault.engine.generate import Engine
from loravault.engine.offload import tiled
from loravault.engine.tuning import channels_last
from loravault.errors import UserError
from loravault.formats.generation import BaseRef, VaeRef
from loravault.formats.outcome import StepReport
from tests.engine.test_generate import equal, pixels, replaced, spec
from tests.tiny import make_adapter, use_of
from tests.tiny_families import MAKERS, kl_vae, make_family

pytestmark = [
    pytest.mark.engine,
    # Chroma still takes a module from where diffusers will move it from.
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]

NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
needs_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA card")


def offloading(wish: str = "auto") -> Engine:
    """An engine that believes its device has a memory of its own."""
    engine = Engine("cpu", offload=wish)
    engine._device = replace(engine._device, offloads=True)
    return engine


def failing(real: Callable[..., Any], times: int) -> Callable[..., Any]:
    """`real`, which runs out of memory when it is called the first `times` times."""
    left = [times]

    def call(*arguments: Any, **more: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise NO_MEMORY
        return real(*arguments, **more)

    return call


@pytest.mark.parametrize("wish", ["models", "layers"])
def test_adapters_are_in_effect_while_models_are_offloaded_and_leave_no_trace(
    engine: Engine, tiny: BaseRef, tmp_path: Path, wish: str
) -> None:
    for number in range(2):
        make_adapter(tmp_path / f"a{number}.safetensors", seed=number)
    a, b = (use_of(tmp_path / f"a{number}.safetensors", 0.7) for number in range(2))
    thrifty = offloading(wish)
    for adapters in ((), (a,), (a, b), (b,), ()):
        wanted = spec(tiny, adapters=adapters, seeds=(7, 8))
        outcome = thrifty.generate(wanted, tmp_path / "thrifty")
        usual = pixels(engine.generate(wanted, tmp_path / "usual"))
        assert [one.tobytes() for one in pixels(outcome)] == [one.tobytes() for one in usual]
        assert not outcome.warnings, "it was asked for, so it is not told"


@pytest.mark.parametrize("wish", ["models", "layers"])
def test_originals_come_back_after_a_trip_to_the_card(tiny: BaseRef, tmp_path: Path, wish: str) -> None:
    """What returns from a card is a copy in another place; what an adapter replaced is put back by reference."""
    make_adapter(tmp_path / "ink.safetensors")
    engine = offloading(wish)
    engine.generate(spec(tiny), tmp_path)
    assert engine._loaded is not None
    base, patchers = engine._loaded.base, engine._loaded.applier.patchers
    weights: dict[Any, Any] = {key: module.weight for key, module in base.modules.items()}
    numbers = {key: weight.data.clone() for key, weight in weights.items()}
    places: dict[Any, int] = {}
    changed, back = set(), []

    def before_merging(phase: str, _deadline_s: float) -> None:
        if phase == "LoRAs":
            places.update({key: weight.data_ptr() for key, weight in weights.items()})

    def travel(_report: StepReport) -> None:
        for patcher in patchers:
            changed.update(patcher._originals)
        for weight in weights.values():
            weight.data = weight.data.clone()

    def after_restoring(phase: str, _deadline_s: float) -> None:
        if phase == "prompt":
            back.extend(key for key in changed if weights[key].data_ptr() == places[key])

    ink = spec(tiny, adapters=(use_of(tmp_path / "ink.safetensors"),))
    engine.generate(ink, tmp_path, on_phase=before_merging, on_step=travel)
    engine.generate(spec(tiny), tmp_path, on_phase=after_restoring)
    assert len(changed) > 5
    assert set(back) == changed
    assert all(torch.equal(weights[key], value) for key, value in numbers.items())


@pytest.mark.parametrize(("family", "wish"), list(zip(sorted(MAKERS), cycle(["layers", "models"]))))
def test_every_family_can_be_offloaded(tmp_path: Path, family: str, wish: str) -> None:
    base = make_family(tmp_path / "base", family)
    wanted = spec(base, width=64, height=48, steps=2, cfg=3.0, sampler="Euler", negative="")
    thrifty = pixels(offloading(wish).generate(wanted, tmp_path / "a"))[0]
    assert np.array_equal(thrifty, pixels(Engine("cpu").generate(wanted, tmp_path / "b"))[0])


@pytest.mark.parametrize(
    ("where", "times", "told"),
    [
        ("load_base", 1, "one model at a time"),
        ("load_base", 2, "one layer at a time"),
        ("draw_latents", 2, "one model at a time"),  # the first one halves the batch
        ("draw_latents", 3, "one layer at a time"),
        ("decode", 1, "one model at a time"),  # a picture of one tile
        ("decode", 2, "one layer at a time"),
    ],
)
def test_memory_that_runs_out_costs_time_and_no_picture(
    tiny: BaseRef, tmp_path: Path, where: str, times: int, told: str
) -> None:
    """In whatever phase: the same pictures, adapters included, each once; it is told, also by the next job."""
    make_adapter(tmp_path / "ink.safetensors")
    wanted = spec(tiny, seeds=(1, 2), adapters=(use_of(tmp_path / "ink.safetensors", 0.7),))
    usual = pixels(Engine("cpu").generate(wanted, tmp_path / "usual"))
    thrifty = offloading()
    module = generate_module if where == "load_base" else batch_module
    with replaced(module, where, failing(getattr(module, where), times)):
        outcome = thrifty.generate(wanted, tmp_path / "thrifty")
    assert [image.seed for image in outcome.images] == [1, 2]
    assert all(equal(one, other) for one, other in zip(pixels(outcome), usual, strict=True))
    assert [told in sentence for sentence in outcome.warnings] == [True]
    assert outcome.warnings[0].startswith("cpu (")
    assert thrifty.generate(wanted, tmp_path / "next").warnings == outcome.warnings


def test_a_picture_that_was_saved_is_not_drawn_again(tiny: BaseRef, tmp_path: Path) -> None:
    """Memory runs out at the second picture: the first one stays as it is."""
    real, drawn = batch_module.decode, []

    def second_fails(base: Any, latent: torch.Tensor) -> Any:
        drawn.append(latent)
        if len(drawn) == 2:
            raise NO_MEMORY
        return real(base, latent)

    with replaced(batch_module, "decode", second_fails):
        outcome = offloading().generate(spec(tiny, seeds=(1, 2, 3)), tmp_path)
    assert [image.seed for image in outcome.images] == [1, 2, 3]
    assert len(drawn) == 4


def test_when_nothing_is_left_to_try_it_is_told(tiny: BaseRef, tmp_path: Path) -> None:
    for engine in (Engine("cpu"), offloading("none"), offloading()):
        with (
            replaced(generate_module, "load_base", failing(load_base, 99)),
            pytest.raises(OutOfMemory, match="too little memory for one image of 64×64"),
        ):
            engine.generate(spec(tiny), tmp_path)
        assert engine.generate(spec(tiny), tmp_path).images, "and the next job is drawn"


def test_a_decoder_that_runs_out_of_memory_goes_on_in_tiles(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    """Without drawing anything again, and for this job only."""
    wanted, steps = spec(tiny, width=576, height=64, steps=1), []
    usual = pixels(engine.generate(wanted, tmp_path / "usual"))[0]
    with replaced(batch_module, "decode", failing(batch_module.decode, 1)):
        outcome = engine.generate(wanted, tmp_path / "tiled", on_step=steps.append)
    assert len(steps) == 1
    assert "decoded in tiles of 512 pixels" in outcome.warnings[0]
    found = pixels(outcome)[0]
    assert found.shape == usual.shape
    assert not np.array_equal(found, usual), "tiles were used"
    again = engine.generate(wanted, tmp_path / "again")
    assert not again.warnings
    assert np.array_equal(pixels(again)[0], usual)


@pytest.mark.parametrize("family", sorted(MAKERS))
def test_every_decoder_can_be_tiled_and_is_as_before_afterwards(tmp_path: Path, family: str) -> None:
    pipe = load_base(make_family(tmp_path / "base", family), choose_device("cpu")).pipe
    before = dict(vars(pipe.vae))
    with tiled(pipe.vae, 512):
        assert pipe.vae.use_tiling
    assert dict(vars(pipe.vae)) == before
    with tiled(pipe.vae, 0):
        assert not pipe.vae.use_tiling


def test_channels_last_changes_no_picture(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    """Adapters are merged into weights that lie otherwise in memory."""
    make_adapter(tmp_path / "ink.safetensors")
    wanted = spec(tiny, adapters=(use_of(tmp_path / "ink.safetensors", 0.7),))
    usual = pixels(engine.generate(wanted, tmp_path))[0]
    other = Engine("cpu")
    other.generate(spec(tiny), tmp_path)
    assert other._loaded is not None
    channels_last(other._loaded.base.denoiser)
    assert equal(pixels(other.generate(wanted, tmp_path))[0], usual)


def test_what_a_cpu_cannot_do_is_told(tiny: BaseRef, tmp_path: Path) -> None:
    outcome = Engine("cpu", offload="models", compiled=True).generate(spec(tiny), tmp_path)
    assert outcome.warnings == (
        "`offload = models` had no effect: it is for NVIDIA cards.",
        "`compile = true` had no effect: models are only compiled for NVIDIA cards.",
    )


def test_precision_can_be_chosen(engine: Engine, tiny: BaseRef, tmp_path: Path) -> None:
    usual = pixels(engine.generate(spec(tiny), tmp_path))[0]
    half = Engine("cpu", dtype="bfloat16")
    drawn = pixels(half.generate(spec(tiny), tmp_path))[0]
    assert half._loaded is not None
    assert half._loaded.base.denoiser.dtype is torch.bfloat16
    assert not np.array_equal(drawn, usual)
    assert np.abs(drawn.astype(int) - usual.astype(int)).mean() < 30
    with pytest.raises(UserError, match="no precision called 'int8'"):
        choose_device("cpu", "int8")
    with pytest.raises(UserError, match="no way to offload called 'disk'"):
        Engine("cpu", offload="disk")


def test_the_worker_hears_what_is_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from loravault.config import VaultConfig
    from loravault.jobs.child import real_engine

    config = VaultConfig(
        vault=tmp_path, dtype="bfloat16", offload="layers", compile=True, adapters="slots", adapter_memory_mb=7
    )
    assert config.worker_env == {
        "LORAVAULT_DTYPE": "bfloat16",
        "LORAVAULT_OFFLOAD": "layers",
        "LORAVAULT_COMPILE": "1",
        "LORAVAULT_ADAPTERS": "slots",
        "LORAVAULT_ADAPTER_MEMORY_MB": "7",
    }
    monkeypatch.setenv("LORAVAULT_DEVICE", "cpu")
    for name, value in config.worker_env.items():
        monkeypatch.setenv(name, value)
    engine = real_engine()
    assert isinstance(engine, Engine)
    assert (engine._device.dtype, engine._offload_wish, engine._compiled) == (torch.bfloat16, "layers", True)
    assert (engine._adapters_wish, engine._adapter_bytes) == ("slots", 7 << 20)


@needs_card
@pytest.mark.gpu
@pytest.mark.parametrize("wish", ["none", "models", "layers"])
def test_on_a_card_offloading_draws_the_same_pictures(tiny: BaseRef, tmp_path: Path, wish: str) -> None:
    make_adapter(tmp_path / "ink.safetensors")
    usual, thrifty = Engine("cuda", offload="none"), Engine("cuda", offload=wish)
    for adapters in ((), (use_of(tmp_path / "ink.safetensors", 0.7),), ()):
        wanted = spec(tiny, adapters=adapters)
        expected = pixels(usual.generate(wanted, tmp_path / "usual"))[0]
        assert equal(pixels(thrifty.generate(wanted, tmp_path / "thrifty"))[0], expected)


@needs_card
@pytest.mark.gpu
def test_on_a_card_a_compiled_base_takes_other_adapters(tiny: BaseRef, tmp_path: Path) -> None:
    make_adapter(tmp_path / "ink.safetensors")
    usual, compiled = Engine("cuda", dtype="float32"), Engine("cuda", dtype="float32", compiled=True)
    for adapters in ((), (use_of(tmp_path / "ink.safetensors", 0.7),), ()):
        wanted = spec(tiny, adapters=adapters)
        outcome = compiled.generate(wanted, tmp_path / "compiled")
        assert not outcome.warnings
        assert equal(pixels(outcome)[0], pixels(usual.generate(wanted, tmp_path / "usual"))[0])


@pytest.mark.parametrize("wish", ["models", "layers"])
def test_another_vae_is_offloaded_like_the_bases_own(engine: Engine, tiny: BaseRef, tmp_path: Path, wish: str) -> None:
    """It comes and goes between jobs, in half precision and with a decoder that overflows there, too."""
    torch.manual_seed(9)
    kl_vae(tmp_path / "other", 4)
    other = VaeRef(name="other", path=str(tmp_path / "other"))
    thrifty = offloading(wish)
    for vae in (None, other, None):
        wanted = spec(tiny, vae=vae)
        thrifty_picture = pixels(thrifty.generate(wanted, tmp_path / "thrifty"))[0]
        assert np.array_equal(thrifty_picture, pixels(engine.generate(wanted, tmp_path / "usual"))[0])


@pytest.mark.parametrize("wish", ["models", "layers"])
def test_a_decoder_that_overflows_is_used_in_full_precision_while_offloaded(
    tiny: BaseRef, tmp_path: Path, wish: str
) -> None:
    engine = offloading(wish)
    engine._device = replace(engine._device, dtype=torch.bfloat16)
    engine.generate(spec(tiny), tmp_path)
    assert engine._loaded is not None
    vae, seen = engine._loaded.base.pipe.vae, []

    def overflow(module: torch.nn.Module, _arguments: Any, output: torch.Tensor) -> torch.Tensor:
        seen.append(output.dtype)
        return output if output.dtype is torch.float32 else output * float("nan")

    handle = vae.decoder.register_forward_hook(overflow)
    try:
        outcome = engine.generate(spec(tiny), tmp_path)
    finally:
        handle.remove()
    assert len(outcome.images) == 1
    assert seen == [torch.bfloat16, torch.float32]
    assert vae.dtype is torch.bfloat16


def test_memory_that_runs_out_while_a_vae_is_converted_costs_no_later_job(
    tiny: BaseRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of its weights had the other precision, and every later picture was called a bug of ours."""
    engine = Engine("cpu")
    asked = spec(tiny, steps=1)
    engine.generate(asked, tmp_path)
    assert engine._loaded is not None
    vae = engine._loaded.base.pipe.vae.to(torch.bfloat16)
    kind, to, decode = type(vae), type(vae).to, type(vae).decode

    def half(self: Any, *args: Any, **options: Any) -> Any:
        if self is vae and args == (torch.float32,):
            self.post_quant_conv.to(torch.float32)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return to(self, *args, **options)

    def overflowing(self: Any, latents: Any, *args: Any, **options: Any) -> Any:
        if self is vae:
            return (torch.full((1, 3, 64, 64), float("nan"), dtype=latents.dtype),)
        return decode(self, latents, *args, **options)

    monkeypatch.setattr(kind, "to", half)
    monkeypatch.setattr(kind, "decode", overflowing)
    with contextlib.suppress(OutOfMemory):
        engine.generate(asked, tmp_path)
    assert len(engine.generate(asked, tmp_path).images) == len(asked.seeds)
