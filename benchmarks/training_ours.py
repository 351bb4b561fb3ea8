"""Our trainer in a process of its own, as `training_speed` runs it beside other programs' scripts.

python -m benchmarks.training_ours BASE DATA HOME STEPS {attention|all}
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.training_peers import RANK, RATE, SIDE
from loravault.dataset.folder import read_folder
from loravault.engine.devices import choose_device
from loravault.engine.training.loop import Loop
from loravault.engine.training.trainer import train
from loravault.formats.generation import BaseRef, GenerationSpec
from loravault.formats.outcome import GenerationOutcome
from loravault.formats.training import TrainingSpec, TrainingWishes


def wishes(steps: int, modules: str, *, rank: int, rate: float, side: int) -> TrainingWishes:
    """What the other scripts are told, and nothing decided by ourselves that they do otherwise."""
    return TrainingWishes(
        steps=steps,
        algorithm="lora",
        rank=rank,
        alpha=float(rank),
        attention_only=modules == "attention",
        learning_rate=rate,
        te_rate=0.0,
        resolutions=(side,),
        batch=1,
        accumulation=1,
        optimizer="adamw",
        schedule="constant",
        warmup=0,
        min_snr=0.0,
        clip=1.0,
        ema=0.0,
        precision="fp32",
        checkpointing=False,
        checkpoints=1,
        validation=0,
        caption_dropout=0.0,
        shuffle=False,
        seed=0,
    )


def main() -> None:
    """One training."""
    base, data, home = (Path(word) for word in sys.argv[1:4])
    steps, modules = int(sys.argv[4]), sys.argv[5]
    spec = TrainingSpec(
        base=BaseRef(name=base.name, path=str(base), family="sd15"),
        name="ours",
        pictures=tuple(read_folder(data / "kohya").pictures),
        wishes=wishes(steps, modules, rank=RANK, rate=RATE, side=SIDE),
        state_dir=str(home / "state"),
        cache_dir=str(home / "cache"),
    )
    (home / "out").mkdir(parents=True, exist_ok=True)
    advance = Loop.advance

    def told(loop: Loop) -> None:
        advance(loop)
        if loop.step == 1:
            print(f"1/{steps}", flush=True)

    Loop.advance = told  # type: ignore[method-assign]
    train(
        spec,
        home / "out",
        device=choose_device("cpu", "float32"),
        on_phase=lambda _name, _deadline_s: None,
        on_prepared=lambda _prepared: None,
        on_step=lambda _step: None,
        cancelled=lambda: False,
        paused=lambda: False,
        generate=_no_samples,
    )


def _no_samples(_spec: GenerationSpec, _folder: Path, _stem: str) -> GenerationOutcome:
    raise AssertionError("no samples were asked for")


if __name__ == "__main__":
    main()
