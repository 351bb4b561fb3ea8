"""The canonical sampler names as diffusers schedulers, made new for every job: schedulers keep state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers

from loravault.errors import UserError
from loravault.formats.samplers import FLOW_SAMPLERS, SAMPLERS, nearest

# Spacing as A1111 has it: k-diffusion samplers space their times linearly over the whole range; DDIM and UniPC have
# ways of their own. Bases carry the spacing of the scheduler they were saved with, which says nothing about others.
_TABLE: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "Euler": ("EulerDiscreteScheduler", {"timestep_spacing": "linspace"}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "linspace"}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {"timestep_spacing": "linspace", "use_karras_sigmas": False}),
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", {"timestep_spacing": "linspace", "use_karras_sigmas": True}),
    "DDIM": ("DDIMScheduler", {"timestep_spacing": "leading", "steps_offset": 1}),
    "UniPC": ("UniPCMultistepScheduler", {"timestep_spacing": "linspace"}),
}


# What a config says about the model. The rest describes the sampler it was saved with, and would leak into another:
# a base saved with Karras sigmas must not make plain Euler use them.
_OF_THE_MODEL = frozenset({
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type",
    "rescale_betas_zero_snr", "set_alpha_to_one",
})  # fmt: skip


def check_sampler(name: str, *, flow: bool = False) -> None:
    """Raises `UserError` with the nearest for a name we do not have, or that is not for flow models."""
    if name not in _TABLE:
        close = ", ".join(nearest(name))
        raise UserError(f"There is no sampler “{name}”; nearest: {close}. All: {', '.join(SAMPLERS)}.")
    if flow and name not in FLOW_SAMPLERS:
        raise UserError(
            f"The sampler “{name}” cannot draw with this base, a flow model: {', '.join(FLOW_SAMPLERS)} can."
        )


def make_scheduler(name: str, pristine: Mapping[str, Any], *, flow: bool = False) -> Any:
    """A new scheduler from a base's unchanged `scheduler_config.json`. Raises `UserError` for a name we do not have.

    A flow model's configuration is all about the model (its shift, and how that follows the size of the picture).
    """
    check_sampler(name, flow=flow)
    if flow:
        return diffusers.FlowMatchEulerDiscreteScheduler.from_config(dict(pristine))  # type: ignore[no-untyped-call]
    kind, options = _TABLE[name]
    known = {key: value for key, value in pristine.items() if key in _OF_THE_MODEL}
    # Clipping predictions to [-1, 1] is for pixels, and the default of some schedulers.
    config = {**known, "clip_sample": False, **options}
    if pristine.get("rescale_betas_zero_snr"):
        config["timestep_spacing"] = "trailing"  # otherwise the first step is not the one without signal
    return getattr(diffusers, kind).from_config(config)
