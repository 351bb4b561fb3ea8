"""Which bases can be trained on, and what is learned there."""

from __future__ import annotations

from collections.abc import Mapping

from loravault.engine.bases import Base
from loravault.engine.training.diffusion import Diffusion, DiffusionXL
from loravault.engine.training.flows import Flow3, FluxFlow
from loravault.engine.training.objectives import Objective
from loravault.errors import UserError
from loravault.formats.training import TrainingPlan

#: Pipeline → what is learned.
OBJECTIVES: Mapping[str, type[Objective]] = {
    "StableDiffusionPipeline": Diffusion,
    "StableDiffusionXLPipeline": DiffusionXL,
    "StableDiffusion3Pipeline": Flow3,
    "FluxPipeline": FluxFlow,
}


def objective_for(base: Base, plan: TrainingPlan) -> Objective:
    """What a training of this plan learns on this base. Raises `UserError` if it cannot be trained on."""
    kind = OBJECTIVES.get(base.drawer.pipeline)
    if kind is None:
        raise UserError(
            f"{base.name} ({base.family}) draws, but cannot be trained on yet: choose a base of Stable Diffusion 1, 2, "
            "3.5, SDXL or Flux.1."
        )
    config = base.denoiser.config
    drawn, taken = int(base.pipe.vae.config.latent_channels), int(config.in_channels)
    if taken != drawn * (4 if kind is FluxFlow else 1):
        raise UserError(
            f"{base.name} takes more than a picture (it is made for inpainting or editing): choose the base that it "
            "comes from."
        )
    return kind(base, noise_offset=plan.noise_offset, min_snr=plan.min_snr)
