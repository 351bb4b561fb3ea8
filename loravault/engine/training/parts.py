"""What every process of a training needs: the base as it is trained on, what is learned from, the network."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch

from loravault.engine.bases import Base, load_base
from loravault.engine.bases.vae import VaeShelf
from loravault.engine.devices import Device
from loravault.engine.training import chance
from loravault.engine.training.attention import small_attention
from loravault.engine.training.batches import Batches
from loravault.engine.training.echoes import Echoes
from loravault.engine.training.learner import PRECISIONS
from loravault.engine.training.learning import objective_for
from loravault.engine.training.networks import Network
from loravault.engine.training.objectives import Objective
from loravault.engine.training.quantised import quantise
from loravault.engine.training.store import Store
from loravault.engine.training.texts import trained_encoders
from loravault.engine.tuning import tune
from loravault.formats.training import Prepared, TrainingPlan, TrainingSpec


def frozen_base(spec: TrainingSpec, plan: TrainingPlan, device: Device, warn: Callable[[str | None], None]) -> Base:
    """The base as it is trained on: frozen, and on a card only as exact as the plan says. Raises `UserError`."""
    # A processor computes in half from weights in fp32 as fast as from weights in half, and more exactly.
    exact = device.place.type == "cpu"
    device = replace(device, dtype=torch.float32 if exact else PRECISIONS[plan.precision])
    if plan.quantised != "none":  # it may not fit before it is packed: until then everything waits elsewhere
        device = replace(device, place=torch.device("cpu"))
    base = load_base(spec.base, device)
    warn(VaeShelf(base, device).put(spec.vae))
    for part in base.pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    tune(base, device)
    return base


def filled(
    spec: TrainingSpec,
    prepared: Prepared,
    base: Base,
    store: Store,
    *,
    encoded: Callable[[int, int], None],
    leaving: Callable[[], bool],
    rank: int = 0,
    later: bool = False,
) -> tuple[Batches, Echoes]:
    """What this process learns from, encoded; what encodes it is let go of. Raises `UserError`, `Stopped`.

    `later`: see `Batches.prepare`.
    """
    plan = prepared.plan
    batches = Batches(spec, plan, prepared.survey, base, store, rank=rank, world=plan.gpus)
    echoes = Echoes(spec, plan, base, store, batches)
    echoes.prepare(leaving)
    batches.prepare(encoded, leaving, release=True, later=later)
    return batches, echoes


def encodes_later(plan: TrainingPlan, device: Device) -> bool:
    """Whether the first step begins before every picture is encoded.

    Several processes would encode the same pictures; a card has its memory for the steps when the VAE has gone, and
    would wait in them where the VAE is elsewhere (as with a base that is packed).
    """
    return plan.gpus == 1 and device.place.type == "cpu"


def attached(spec: TrainingSpec, plan: TrainingPlan, base: Base, device: Device) -> tuple[Objective, Network]:
    """What is learned on the base, and the network beside it: the same in every process."""
    if plan.quantised != "none":
        quantise(base.denoiser, plan.quantised, device.place)
        for name in trained_encoders(base) if plan.te_rate > 0 or plan.pivotal > 0 else ():
            getattr(base.pipe, name).to(device.place)
    objective = objective_for(base, plan)
    start = chance.generator(plan.seed, purpose="network")
    return objective, Network(base, plan, generator=start, trigger=spec.trigger)


def attention_for(base: Base, plan: TrainingPlan, device: Device) -> AbstractContextManager[None]:
    """For as long as it learns: attention as the device computes it quickest."""
    small = device.place.type == "cpu" and plan.precision == "bf16"
    return small_attention(base.denoiser) if small else nullcontext()
