"""Plans for tests: a small LoRA, and what a test says beside it."""

from __future__ import annotations

from typing import Any

from loravault.formats.training import TrainingPlan


def plan(**changes: Any) -> TrainingPlan:
    """Rank 4, alpha 2, text encoders too."""
    values: dict[str, Any] = {
        "steps": 10, "algorithm": "lora", "rank": 4, "alpha": 2.0, "conv_rank": 0, "conv_alpha": 1.0, "rslora": False,
        "dora": False, "factor": -1, "learning_rate": 1e-3, "te_rate": 1e-4, "pivotal": 0, "resolutions": (64,),
        "batch": 1, "accumulation": 1, "optimizer": "adamw", "schedule": "constant", "warmup": 0, "min_snr": 5.0,
        "noise_offset": 0.0, "prior_weight": 1.0, "clip": 1.0, "ema": 0.0, "precision": "fp32", "quantised": "none",
        "checkpointing": False, "flip": False, "crops": False, "checkpoints": 1, "validation": 0,
        "caption_dropout": 0.0, "shuffle": False, "keep_tokens": 0, "caption_prefix": "", "seed": 7, "naming": "kohya",
    }  # fmt: skip
    return TrainingPlan(**{**values, **changes})
