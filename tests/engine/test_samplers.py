"""Schedulers are made from what a base says about its model, not from the sampler it happened to be saved with."""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from loravault.engine.samplers import make_scheduler
from loravault.errors import UserError
from loravault.formats.samplers import SAMPLERS

pytestmark = pytest.mark.engine

SD1 = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
KINDS = {
    "Euler": EulerDiscreteScheduler,
    "Euler a": EulerAncestralDiscreteScheduler,
    "DPM++ 2M": DPMSolverMultistepScheduler,
    "DPM++ 2M Karras": DPMSolverMultistepScheduler,
    "DDIM": DDIMScheduler,
    "UniPC": UniPCMultistepScheduler,
}


def test_every_canonical_name_has_a_scheduler_of_its_kind() -> None:
    assert {name: type(make_scheduler(name, SD1)) for name in SAMPLERS} == KINDS


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_sampler_a_base_was_saved_with_does_not_leak(name: str) -> None:
    """Found in review: a folder saved with a Karras DPM solver made plain Euler use Karras sigmas."""
    plain = make_scheduler(name, SD1)
    for saved in (
        DPMSolverMultistepScheduler(
            **SD1, use_karras_sigmas=True, algorithm_type="sde-dpmsolver++", solver_order=3, thresholding=True
        ),
        EulerDiscreteScheduler(**SD1, use_karras_sigmas=True, timestep_spacing="leading"),
        DDIMScheduler(**SD1, clip_sample=True, steps_offset=0, set_alpha_to_one=False),
        PNDMScheduler(**SD1, skip_prk_steps=True),
    ):
        made = make_scheduler(name, dict(saved.config))
        for scheduler in (plain, made):
            scheduler.set_timesteps(7)
        assert torch.equal(torch.as_tensor(made.timesteps), torch.as_tensor(plain.timesteps))
        if hasattr(made, "sigmas"):
            assert torch.equal(made.sigmas, plain.sigmas)
        assert not made.config.get("clip_sample")
        assert not made.config.get("thresholding")


def test_a_base_without_signal_in_its_first_step_gets_that_step() -> None:
    config = {**SD1, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    made = make_scheduler("DDIM", config)
    made.set_timesteps(5)
    assert made.config.prediction_type == "v_prediction"
    assert int(made.timesteps[0]) == 999


def test_karras_differs_from_plain() -> None:
    plain, karras = make_scheduler("DPM++ 2M", SD1), make_scheduler("DPM++ 2M Karras", SD1)
    for scheduler in (plain, karras):
        scheduler.set_timesteps(10)
    assert not torch.allclose(plain.sigmas, karras.sigmas)


def test_the_config_of_the_base_is_not_changed() -> None:
    config = dict(SD1)
    first, second = make_scheduler("Euler", config), make_scheduler("Euler", config)
    assert config == SD1
    assert first is not second


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"There is no sampler “euler b”; nearest: Euler"):
        make_scheduler("euler b", SD1)
