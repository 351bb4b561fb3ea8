"""From a plan to the adapter of one layer."""

from __future__ import annotations

import math

from loravault.engine.training.networks.adapters import LayerAdapter, Start
from loravault.engine.training.networks.low_rank import LowRank
from loravault.engine.training.networks.targets import Layer
from loravault.formats.training import TrainingPlan


def make_adapter(layer: Layer, plan: TrainingPlan, start: Start) -> LayerAdapter | None:
    """The adapter of `layer`; None if the plan has no rank for it."""
    rank, alpha = (plan.conv_rank, plan.conv_alpha) if layer.wide else (plan.rank, plan.alpha)
    if rank < 1:
        return None
    # rank-stabilised: α/√r
    scale = alpha / (math.sqrt(rank) if plan.rslora else rank)
    return LowRank(layer, rank, scale, start)
