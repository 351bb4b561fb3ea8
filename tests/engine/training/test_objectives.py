"""What is learned is what diffusers' own training utilities and scripts would have it, number for number."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler, FluxPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift
from diffusers.training_utils import compute_loss_weighting_for_sd3, compute_snr
from torch import Tensor
from torch.nn import functional

from loravault.engine.bases import Base, load_base
from loravault.engine.devices import choose_device
from loravault.engine.training.batch import Batch
from loravault.engine.training.chance import generator
from loravault.engine.training.diffusion import Diffusion
from loravault.engine.training.flows import Flow, Flow3, FluxFlow
from loravault.engine.training.learning import objective_for
from loravault.engine.training.objectives import Draw, Objective
from loravault.engine.training.reading import read
from loravault.errors import UserError
from tests.engine.training.plans import plan
from tests.engine.training.source import CAPTIONS, Made
from tests.tiny_families import make_family

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]
TRAINED = ("sd15", "sd2", "sdxl", "sd3", "flux")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Base]:
    folder = tmp_path_factory.mktemp("families")
    device = choose_device("cpu")
    return {name: load_base(make_family(folder / name, name), device) for name in (*TRAINED, "z-image")}


def scheduled(base: Base, **changes: Any) -> Base:
    """The base with another schedule."""
    return Base(base.name, base.family, base.pipe, {**base.scheduler_config, **changes}, base.modules)


class Parrot:
    """Says of every picture what it is told to, and remembers what it was shown."""

    def __init__(self, objective: Objective, said: Tensor) -> None:
        self.shown: list[tuple[Tensor, Tensor]] = []

        def predict(noisy: Tensor, when: Tensor, texts: Any, batch: Batch) -> Tensor:
            self.shown.append((noisy, when))
            return said

        objective.predict = predict  # type: ignore[method-assign]


def drawn(batch: Batch, shares: list[float]) -> tuple[Draw, Tensor]:
    """(noise and shares, what a model might say)."""
    noise = torch.randn(batch.latents.shape, generator=generator(1, purpose="n"))
    said = torch.randn(batch.latents.shape, generator=generator(2, purpose="s"))
    return Draw(noise, torch.tensor(shares)), said


@pytest.mark.parametrize("gamma", [0.0, 5.0])
@pytest.mark.parametrize(
    "schedule",
    [
        {},
        {"prediction_type": "v_prediction"},
        {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
        {"rescale_betas_zero_snr": True},
    ],
)
def test_noise_and_velocity_are_learned_as_the_scripts_of_diffusers_do(
    bases: dict[str, Base], schedule: dict[str, Any], gamma: float
) -> None:
    base = scheduled(bases["sd15"], **schedule)
    objective = Diffusion(base, min_snr=gamma)
    batch = Made(base, batch=3).at(0)
    draw, said = drawn(batch, [0.0, 0.4567, 0.99999])
    seen = Parrot(objective, said)
    errors = objective.errors(batch, batch.texts, draw, weighted=True)

    scheduler: Any = DDPMScheduler.from_config(dict(base.scheduler_config))  # type: ignore[no-untyped-call]
    times = torch.tensor([0, 456, 999])
    assert torch.equal(seen.shown[0][1], times)
    noisy = scheduler.add_noise(batch.latents, draw.noise, times)
    torch.testing.assert_close(seen.shown[0][0], noisy, rtol=1e-5, atol=1e-5)
    velocity = schedule.get("prediction_type") == "v_prediction"
    target = scheduler.get_velocity(batch.latents, draw.noise, times) if velocity else draw.noise
    expected = functional.mse_loss(said, target, reduction="none").mean(dim=(1, 2, 3))
    if gamma:
        snr = compute_snr(scheduler, times)
        weights = torch.minimum(snr, torch.full_like(snr, gamma)) / (snr + 1 if velocity else snr)
        expected = expected * weights.nan_to_num(1.0)  # 0/0 at zero SNR: the limit
    torch.testing.assert_close(errors, expected, rtol=1e-4, atol=1e-6)


def test_even_shares_meet_every_time_equally_often() -> None:
    """And none that there is not, although the shares of floats may round up to 1."""
    objective = Diffusion.__new__(Diffusion)
    objective.alphas = torch.ones(1000)
    times = objective.times(torch.linspace(0, 1, 100_001))
    counts = torch.bincount(times, minlength=1000)
    assert (int(times.min()), int(times.max())) == (0, 999)
    assert int(counts[:-1].max() - counts.min()) <= 2


def test_noise_offset_moves_whole_channels(bases: dict[str, Base]) -> None:
    """noise += offset · N(0, 1), one number for each channel of each picture."""
    latents = torch.zeros(2, 4, 8, 8)
    plain = Diffusion(bases["sd15"]).draw(latents, generator(3, purpose="noise")).noise
    moved = Diffusion(bases["sd15"], noise_offset=0.1).draw(latents, generator(3, purpose="noise")).noise
    difference = moved - plain
    assert torch.allclose(difference, difference[:, :, :1, :1].expand_as(difference), atol=1e-6)
    assert len({round(float(one), 5) for one in difference[:, :, 0, 0].flatten()}) == 8
    assert 0.02 < float(difference.std()) < 0.3


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_flows_are_learned_as_the_scripts_of_diffusers_do(bases: dict[str, Base], family: str) -> None:
    """Noisy, target and time; at the sigmas of the scheduler that the pipeline draws with."""
    base = bases[family]
    objective = objective_for(base, plan())
    assert isinstance(objective, Flow)
    batch = Made(base, batch=3).at(0)
    draw, said = drawn(batch, [0.1, 0.5, 0.9])
    seen = Parrot(objective, said)
    errors = objective.errors(batch, batch.texts, draw, weighted=True)
    noisy, when = seen.shown[0]

    config = dict(base.scheduler_config)
    make: Any = FlowMatchEulerDiscreteScheduler.from_config
    scheduler = make(config)
    if config["use_dynamic_shifting"]:
        mu = calculate_shift(
            16, config["base_image_seq_len"], config["max_image_seq_len"], config["base_shift"], config["max_shift"]
        )
        sigmas = scheduler.time_shift(mu, 1.0, draw.shares)
    else:
        sigmas = config["shift"] * draw.shares / (1 + (config["shift"] - 1) * draw.shares)
    torch.testing.assert_close(when, sigmas)
    sigmas = sigmas.view(-1, 1, 1, 1)
    torch.testing.assert_close(noisy, (1.0 - sigmas) * batch.latents + sigmas * draw.noise)
    weighting = compute_loss_weighting_for_sd3("logit_normal", sigmas)
    expected = (weighting * (said - (draw.noise - batch.latents)) ** 2).reshape(3, -1).mean(1)
    torch.testing.assert_close(errors, expected)


def test_shares_of_flows_are_logit_normal(bases: dict[str, Base]) -> None:
    """As in compute_density_for_timestep_sampling("logit_normal", mean 0, std 1)."""
    latents = torch.zeros(20_000, 1, 1, 1)
    shares = objective_for(bases["sd3"], plan()).draw(latents, generator(4, purpose="noise")).shares
    logits = torch.logit(shares)
    assert abs(float(logits.mean())) < 0.03
    assert abs(float(logits.std()) - 1) < 0.03


def test_schnell_is_learned_without_guidance_and_without_a_shift(tmp_path: Path) -> None:
    base = load_base(make_family(tmp_path / "schnell", "flux", guidance=False), choose_device("cpu"))
    objective = objective_for(base, plan())
    assert isinstance(objective, FluxFlow)
    assert objective.shift(4096) == 1.0
    batch = Made(base).at(0)
    assert torch.isfinite(objective.errors(batch, batch.texts, drawn(batch, [0.3, 0.6])[0], weighted=True)).all()


def test_what_flux_is_told_is_what_its_pipeline_tells_it(bases: dict[str, Base]) -> None:
    """Packed tokens, places of the tokens, guidance 1 and the time: against the pipeline's own helpers."""
    base = bases["flux"]
    objective = objective_for(base, plan())
    batch = Made(base).at(0)
    told: dict[str, Any] = {}
    hook = base.denoiser.register_forward_pre_hook(lambda _m, _a, given: told.update(given), with_kwargs=True)
    pipe: Any = FluxPipeline
    with torch.no_grad():
        said = objective.predict(batch.latents, torch.tensor([0.25, 0.5]), batch.texts, batch)
    hook.remove()
    assert said.shape == batch.latents.shape
    torch.testing.assert_close(told["hidden_states"], pipe._pack_latents(batch.latents, 2, 16, 8, 8))
    torch.testing.assert_close(told["img_ids"], pipe._prepare_latent_image_ids(2, 4, 4, "cpu", torch.float32))
    assert told["guidance"].tolist() == [1.0, 1.0]
    assert told["timestep"].tolist() == [0.25, 0.5]
    assert told["txt_ids"].shape == (batch.texts["prompt_embeds"].shape[1], 3)


def test_sdxl_is_told_the_sizes_of_each_picture(bases: dict[str, Base]) -> None:
    """Other time ids, another answer: they arrive."""
    base = bases["sdxl"]
    objective = objective_for(base, plan())
    batch = Made(base).at(0)
    object.__setattr__(batch, "sizes", torch.tensor([[64.0, 64, 0, 0, 64, 64], [512.0, 64, 0, 9, 64, 64]]))
    same = torch.zeros(2, 4, 8, 8) + batch.latents[:1]
    texts = {name: value[:1].expand_as(value) for name, value in batch.texts.items()}
    with torch.no_grad():
        said = objective.predict(same, torch.tensor([10, 10]), texts, batch)
    assert not torch.allclose(said[0], said[1])


def test_masks_and_weights_count_as_in_kohyas_scripts(bases: dict[str, Base]) -> None:
    """What is masked is no error (the mean is over everything); a picture's error is multiplied with its weight."""
    base = bases["sd15"]
    objective = Diffusion(base)
    batch = Made(base).at(0)
    draw, said = drawn(batch, [0.2, 0.8])
    Parrot(objective, said)
    whole = objective.errors(batch, batch.texts, draw, weighted=True)
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, :, :4] = 1
    object.__setattr__(batch, "masks", mask)
    left = objective.errors(batch, batch.texts, draw, weighted=True)
    object.__setattr__(batch, "masks", 1 - mask)
    right = objective.errors(batch, batch.texts, draw, weighted=True)
    torch.testing.assert_close(left + right, whole)
    object.__setattr__(batch, "masks", None)
    object.__setattr__(batch, "weights", torch.tensor([1.0, 0.25]))
    torch.testing.assert_close(objective.loss(batch, batch.texts, draw), whole[0] + whole[1] / 4)


@pytest.mark.parametrize("family", TRAINED)
def test_captions_read_while_text_encoders_learn_are_what_the_family_reads(bases: dict[str, Base], family: str) -> None:
    """With a gradient and in one go, but the same tensors: else an adapter learns for prompts that no one writes."""
    base = bases[family]
    encoders = {"sd15": ("text_encoder",), "sd2": ("text_encoder",), "flux": ("text_encoder",)}.get(
        family, ("text_encoder", "text_encoder_2")
    )
    source = Made(base, batch=len(CAPTIONS), tokens=encoders)
    batch = source.at(0)
    for clip_skip in (1, 2):
        expected = [base.drawer.encode(base.pipe, one, clip_skip, negative=False) for one in CAPTIONS]
        found = read(base, batch, clip_skip)
        for name in expected[0]:
            wanted = torch.cat([one[name] for one in expected])
            torch.testing.assert_close(found[name], wanted, rtol=1e-4, atol=1e-5)


def test_a_base_that_cannot_be_trained_on_is_refused_in_words(bases: dict[str, Base]) -> None:
    with pytest.raises(UserError, match="cannot be trained on yet"):
        objective_for(bases["z-image"], plan())
    with pytest.raises(UserError, match="predicts 'sample'"):
        objective_for(scheduled(bases["sd15"], prediction_type="sample"), plan())


def test_a_flow_learns_most_in_the_middle_and_a_shift_moves_it_to_noise() -> None:
    flow = Flow3.__new__(Flow3)
    flow._config = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    assert flow.shift(256) == pytest.approx(math.exp(0.5))
    assert flow.shift(4096) == pytest.approx(math.exp(1.15))
    sigmas = flow.sigmas(torch.tensor([0.0, 0.5, 1.0]), 4096)
    assert sigmas[0] == 0
    assert sigmas[2] == 1
    assert float(sigmas[1]) == pytest.approx(math.exp(1.15) / (math.exp(1.15) + 1))
