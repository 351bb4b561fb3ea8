"""From a plan to the adapter of one layer."""

from __future__ import annotations

import math

from loravault.engine.training.networks.adapters import LayerAdapter, Start
from loravault.engine.training.networks.dora import Additive, Decomposed
from loravault.engine.training.networks.hadamard import Hadamard
from loravault.engine.training.networks.kronecker import Kronecker
from loravault.engine.training.networks.low_rank import LowRank
from loravault.engine.training.networks.scaling import Scaling
from loravault.engine.training.networks.targets import Layer, on_input
from loravault.errors import UserError
from loravault.formats.training import TrainingPlan


def make_adapter(layer: Layer, plan: TrainingPlan, start: Start) -> LayerAdapter | None:
    """The adapter of `layer`; None if the plan has none for it. Raises `UserError` where a DoRA is impossible."""
    if plan.dora and plan.algorithm in ("ia3", "dylora"):
        raise UserError(f"DoRA does not go together with {plan.algorithm}. Set dora: false, or algorithm: lora.")
    if plan.algorithm == "ia3":
        side = on_input(layer)
        return None if side is None else Scaling(layer, on_input=side)
    inner = _additive(layer, plan, start)
    if inner is None or not plan.dora:
        return inner
    if not layer.whole:
        raise UserError(
            "DoRA needs the weights of the base as they are, and this base keeps them in four or eight bits. "
            "Set dora: false, or quantised: none."
        )
    return Decomposed(inner)


def _additive(layer: Layer, plan: TrainingPlan, start: Start) -> Additive | None:
    rank, alpha = (plan.conv_rank, plan.conv_alpha) if layer.wide else (plan.rank, plan.alpha)
    if rank < 1:
        return None
    # rank-stabilised: α/√r
    scale = alpha / (math.sqrt(rank) if plan.rslora else rank)
    if plan.algorithm == "loha":
        return Hadamard(layer, rank, scale, start)
    if plan.algorithm == "lokr":
        return Kronecker(layer, rank, scale, plan.factor, start)
    return LowRank(layer, rank, scale, start)
