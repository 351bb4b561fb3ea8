"""From wishes and pictures to numbers: every number of a training that nobody asked for, each with its reason.

Pure, so that the same note always comes to the same plan. How long:

    band   = 500 … 1,000 pictures seen if they are alike (diversity ≤ .15), 1,000 … 2,000 if they differ (≥ .25),
             in between in proportion; styles and transformers take the upper band
    seen   = low + (high - low) × clamp((N - 10) / 20, 0, 1)            N = pictures to learn from
    steps  = seen × (how often the family has to look) / (batch × accumulation × gpus)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

from loravault.formats.training import (
    Optimizer,
    Precision,
    Survey,
    TrainingPlan,
    TrainingSpec,
    TrainingWishes,
)
from loravault.formats.training_families import MOST_RATE, RATE_FACTOR, RECIPES, Recipe, recipe_of
from loravault.formats.training_forecast import DeviceFacts, forecast, needed_bytes, rate_key, rate_of
from loravault.formats.training_warnings import warnings_of, why_not, with_article

__all__ = ["DeviceFacts", "decide", "forecast", "needed_bytes", "rate_key", "rate_of", "why_not"]

#: Diversity up to which pictures are alike, and from which they differ.
ALIKE, DIFFERENT = 0.15, 0.25
_ALIKE_BAND, _DIFFERENT_BAND = (500, 1000), (1000, 2000)
#: Pictures from which one, and two, can be spared to measure with.
_SPARE_ONE, _SPARE_TWO = 15, 30
#: Somebody who asks for so many times fewer steps than are usual is told.
_FEW_STEPS = 3
#: Share of the device's memory that a plan may fill.
_FILL = 0.9


def decide(spec: TrainingSpec, survey: Survey, *, device: DeviceFacts) -> TrainingPlan:
    """Every number of a training. Call it only if `why_not` knows no reason; raises `ValueError` otherwise."""
    problem = why_not(spec, survey)
    recipe = recipe_of(spec.base.family, spec.subject)
    if problem or recipe is None:
        raise ValueError(problem)
    work = _Work(spec, survey, device, recipe)
    plan = work.plan()
    return replace(plan, reasons=tuple(work.reasons), warnings=(*work.warnings, *warnings_of(spec, survey, plan)))


@dataclass
class _Work:
    """One plan on its way."""

    spec: TrainingSpec
    survey: Survey
    device: DeviceFacts
    recipe: Recipe
    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def wishes(self) -> TrainingWishes:
        """What the person asked for."""
        return self.spec.wishes

    def plan(self) -> TrainingPlan:
        """All numbers; what depends on memory before what depends on the batch."""
        network = self._network()
        plan = TrainingPlan(
            steps=1,
            batch=self.wishes.batch or 1,
            accumulation=self.wishes.accumulation or 1,
            gpus=self._gpus(),
            resolutions=self.wishes.resolutions or self.recipe.resolutions,
            precision=self._precision(),
            quantised=self.wishes.quantised or "none",
            checkpointing=bool(self.wishes.checkpointing),
            checkpoints=1,
            warmup=0,
            **network,
            **self._rates(network),
            **self._data(),
        )
        plan = self._steps(self._fitted(plan))
        return replace(plan, checkpoints=self._checkpoints(plan), warmup=self._warmup(plan))

    def _gpus(self) -> int:
        """One card, unless more are asked for: the others may be drawing."""
        wanted, there = self.wishes.gpus, max(1, self.device.cards)
        if wanted is not None and wanted > there:
            self.warnings.append(
                f"{wanted} cards were asked for (`gpus`), and {there} can be used: it is trained on "
                f"{'one' if there == 1 else there}."
            )
        return 1 if wanted is None else min(wanted or there, there)

    # ---- what is trained

    def _network(self) -> dict[str, Any]:
        """Algorithm, ranks and alphas."""
        wishes, recipe = self.wishes, self.recipe
        algorithm = wishes.algorithm or ("locon" if recipe.conv_rank and wishes.conv_rank != 0 else "lora")
        rank = wishes.rank or recipe.rank
        ratio = recipe.alpha / recipe.rank
        alpha = wishes.alpha if wishes.alpha is not None else ratio * (rank**0.5 if wishes.rslora else rank)
        conv_rank = wishes.conv_rank
        if conv_rank is None:
            conv_rank = (recipe.conv_rank or rank // 2) if algorithm == "locon" else 0
        conv_ratio = recipe.conv_alpha / recipe.conv_rank if recipe.conv_rank else ratio
        conv_alpha = wishes.conv_alpha if wishes.conv_alpha is not None else conv_ratio * conv_rank
        if wishes.algorithm is None or wishes.rank is None:
            self._because(
                f"{_TITLES[algorithm]} of rank {rank}, alpha {alpha:g}"
                + (f" (3×3 convolutions: rank {conv_rank}, alpha {conv_alpha:g})" if conv_rank else ""),
                f"what is usual for {with_article(self.spec.subject)} on {self.spec.base.family}",
            )
        return {
            "algorithm": algorithm,
            "rank": rank,
            "alpha": float(alpha),
            "conv_rank": conv_rank,
            "conv_alpha": float(conv_alpha),
            "attention_only": wishes.attention_only,
            "rslora": wishes.rslora,
            "dora": wishes.dora,
            "factor": wishes.factor if wishes.factor is not None else 8,
            "pivotal": wishes.pivotal,
            "naming": wishes.naming,
        }

    def _rates(self, network: dict[str, Any]) -> dict[str, Any]:
        """How it is trained: rates, optimiser, schedule, loss."""
        wishes, recipe = self.wishes, self.recipe
        optimizer = wishes.optimizer or self._optimizer()
        usual, usual_te = self._usual_rates(network["algorithm"], optimizer)
        rate = usual if wishes.learning_rate is None else wishes.learning_rate
        te_rate = usual_te if wishes.te_rate is None else wishes.te_rate
        schedule = wishes.schedule or ("constant" if optimizer == "prodigy" else recipe.schedule)
        if wishes.learning_rate is None or wishes.te_rate is None:
            encoders = f"{te_rate:g} for the text encoder" if te_rate else "the text encoder left alone"
            self._because(
                f"learning rate {rate:g}, {encoders}",
                f"what is usual for {with_article(self.spec.subject)} on {self.spec.base.family}"
                + (f" with {_TITLES[network['algorithm']]}" if network["algorithm"] in RATE_FACTOR else ""),
            )
        v_prediction = self.spec.base.variant == "v-prediction"
        return {
            "learning_rate": rate,
            "te_rate": te_rate,
            "optimizer": optimizer,
            "schedule": schedule,
            "min_snr": wishes.min_snr if wishes.min_snr is not None else (0.0 if v_prediction else recipe.min_snr),
            "noise_offset": wishes.noise_offset or 0.0,
            "preserve": self._preserve(),
            "prior_weight": 1.0 if wishes.prior_weight is None else wishes.prior_weight,
            "clip": 1.0 if wishes.clip is None else wishes.clip,
            "ema": wishes.ema or 0.0,
        }

    def _usual_rates(self, algorithm: str, optimizer: Optimizer) -> tuple[float, float]:
        """Rates where nobody named any: Prodigy finds its own, and wants 1."""
        if optimizer == "prodigy":
            return 1.0, 1.0 if self.recipe.te_rate else 0.0
        factor = RATE_FACTOR.get(algorithm, 1.0)
        rate = min(self.recipe.rate * factor, max(MOST_RATE, self.recipe.rate))
        return rate, min(self.recipe.te_rate * factor, max(MOST_RATE, self.recipe.te_rate))

    def _preserve(self) -> float:
        """Nothing is held where no trigger can be left out, or where the person has pictures of the class for it."""
        if self.wishes.preserve is not None:
            return self.wishes.preserve
        others = any(one.regularisation for one in self.spec.pictures)
        share = 0.0 if others or not self.spec.trigger.strip() else self.recipe.preserve
        if share:
            self._because(
                f"{share:.0%} of the pictures are looked at twice, the second time without the trigger and held to "
                "what the base makes of that",
                f"{self.spec.base.family} forgets other things without it",
            )
        return share

    def _optimizer(self) -> Optimizer:
        return "adamw8bit" if self.device.kind == "cuda" and self.device.has_8bit else "adamw"

    def _precision(self) -> Precision:
        if self.wishes.precision is not None:
            return self.wishes.precision
        if self.device.kind == "cpu" and self.device.bf16:
            self._because("bfloat16", f"{self.device.name} multiplies it about twice as fast, and weights stay in fp32")
            return "bf16"
        if self.device.kind != "cuda":
            return "fp32"
        return "bf16" if self.device.bf16 else "fp16"

    def _data(self) -> dict[str, Any]:
        """What is done with pictures and captions."""
        wishes, recipe = self.wishes, self.recipe
        shuffle = bool(wishes.shuffle)
        keep = wishes.keep_tokens if wishes.keep_tokens is not None else int(shuffle and bool(self.spec.trigger))
        return {
            "flip": bool(wishes.flip),
            "crops": bool(wishes.crops),
            "caption_dropout": recipe.caption_dropout if wishes.caption_dropout is None else wishes.caption_dropout,
            "shuffle": shuffle,
            "keep_tokens": keep,
            "tag_dropout": wishes.tag_dropout or 0.0,
            "clip_skip": wishes.clip_skip or 1,
            "caption_prefix": wishes.caption_prefix,
            "validation": self._validation(),
            "seed": seed_of(self.spec.name) if wishes.seed is None else wishes.seed,
        }

    def _validation(self) -> int:
        count = learned_from(self.spec, self.survey)
        if self.wishes.validation is not None:
            return max(0, min(self.wishes.validation, count - 1))
        spared = 2 if count >= _SPARE_TWO else int(count >= _SPARE_ONE)
        if spared:
            one = spared == 1
            self._because(
                f"{'1 picture is' if one else f'{spared} pictures are'} held back to measure with",
                f"from {_SPARE_TWO if spared == 2 else _SPARE_ONE} pictures on {'one' if one else 'two'} can be spared",
            )
        return spared

    # ---- what memory bears

    def _fitted(self, plan: TrainingPlan) -> TrainingPlan:
        """The batch, and what saves memory, as far as nobody asked for either."""
        most = self.recipe.batch if self.wishes.batch is None else self.wishes.batch
        count = max(1, learned_from(self.spec, self.survey) - plan.validation)
        most = most if self.wishes.batch is not None else max(1, min(most, count))
        limit = self._limit()
        if limit is None:
            return replace(plan, batch=most)
        free = self.wishes.checkpointing is None
        thrifty = [plan.checkpointing, True] if free and not plan.checkpointing else [plan.checkpointing]
        for checkpointing in thrifty:
            for batch in [most] if self.wishes.batch else range(most, 0, -1):
                tried = replace(plan, batch=batch, checkpointing=checkpointing)
                if needed_bytes(tried, self.spec.base.family) <= limit:
                    return self._told(tried, most, limit)
        return self._squeezed(replace(plan, batch=self.wishes.batch or 1, checkpointing=thrifty[-1]), limit)

    def _limit(self) -> float | None:
        """Bytes that a plan may take; None where memory is not what is scarce, or not known."""
        return self.device.bytes * _FILL if self.device.bytes and self.device.kind != "cpu" else None

    def _squeezed(self, plan: TrainingPlan, limit: float) -> TrainingPlan:
        """What is left to try: four-bit weights, then smaller pictures."""
        family = self.spec.base.family
        if self.wishes.quantised is None and self.device.has_nf4:
            plan = replace(plan, quantised="nf4")
        sides = sorted(plan.resolutions)
        while self.wishes.resolutions is None and len(sides) > 1 and needed_bytes(plan, family) > limit:
            sides = sides[:-1]
            plan = replace(plan, resolutions=tuple(sides))
        if needed_bytes(plan, family) > limit:
            self.warnings.append(
                f"It may not fit into the memory of {self.device.name}: about "
                f"{needed_bytes(plan, family) / 1e9:.1f} GB are needed and {self.device.bytes / 1e9:.1f} GB are there. "
                "A smaller `resolution` or `rank` helps."
            )
        return self._told(plan, plan.batch, limit)

    def _told(self, plan: TrainingPlan, most: int, limit: float) -> TrainingPlan:
        saved = [
            *([f"batch {plan.batch} instead of {most}"] if plan.batch < most else []),
            *(["activations computed twice"] if plan.checkpointing and not self.wishes.checkpointing else []),
            *(["the base in 4 bits"] if plan.quantised == "nf4" and self.wishes.quantised is None else []),
        ]
        if saved:
            self._because(", ".join(saved), f"so that it fits into {limit / _FILL / 1e9:.1f} GB of {self.device.name}")
        return plan

    # ---- how long

    def _steps(self, plan: TrainingPlan) -> TrainingPlan:
        together = plan.batch * plan.accumulation * plan.gpus
        count = learned_from(self.spec, self.survey)
        low, high = band(self.survey.diversity, long=self.recipe.long)
        seen = low + (high - low) * min(1.0, max(0.0, (count - 10) / 20))
        steps = max(1, round(seen * self.recipe.often / together))
        if self.wishes.steps is not None:
            self._warn_if_few(self.wishes.steps, steps)
            return replace(plan, steps=self.wishes.steps)
        often = f" × {self.recipe.often:g}" if self.recipe.often != 1 else ""
        divided = f" / {together}" if together != 1 else ""
        kind = self._kind_of_band()
        self._because(
            f"{steps:,} steps",
            f"({low:,.0f} + {high - low:,.0f} × clamp(({count} - 10) / 20, 0, 1)){often}{divided}, for {count} "
            f"pictures {kind}",
        )
        return replace(plan, steps=steps)

    def _warn_if_few(self, wished: int, usual: int) -> None:
        if wished * _FEW_STEPS <= usual:
            self.warnings.append(
                f"{wished:,} {'step is' if wished == 1 else 'steps are'} few: `steps: auto` would take {usual:,}. "
                "A LoRA that is trained so briefly hardly shows what it was trained on."
            )

    def _kind_of_band(self) -> str:
        measured = f"diversity {self.survey.diversity:.2f}"
        if self.recipe.long:
            return f"of {with_article(self.spec.subject)}, which takes the upper band ({measured})"
        if self.survey.diversity <= ALIKE:
            return f"that are alike ({measured} ≤ {ALIKE:g})"
        if self.survey.diversity >= DIFFERENT:
            return f"that differ ({measured} ≥ {DIFFERENT:g})"
        return f"between alike and different ({measured})"

    def _checkpoints(self, plan: TrainingPlan) -> int:
        if self.wishes.checkpoints is not None:
            return max(1, min(self.wishes.checkpoints, plan.steps))
        return max(1, min(4, plan.steps // 50))

    def _warmup(self, plan: TrainingPlan) -> int:
        if self.wishes.warmup is not None:
            return min(self.wishes.warmup, plan.steps)
        return 0 if plan.optimizer == "prodigy" else min(200, round(plan.steps * self.recipe.warmup))

    def _because(self, what: str, why: str) -> None:
        self.reasons.append(f"{what[:1].upper()}{what[1:]}: {why}.")


_TITLES = {
    "lora": "LoRA", "locon": "LoCon", "loha": "LoHa", "lokr": "LoKr", "dylora": "DyLoRA", "ia3": "IA3",
}  # fmt: skip


def trainable(family: str) -> bool:
    """Whether adapters of this family can be trained here."""
    return family in RECIPES


def band(diversity: float, *, long: bool = False) -> tuple[float, float]:
    """How many pictures are looked at in all: with ten or fewer pictures, and with thirty or more."""
    share = 1.0 if long else min(1.0, max(0.0, (diversity - ALIKE) / (DIFFERENT - ALIKE)))
    low, high = (a + (b - a) * share for a, b in zip(_ALIKE_BAND, _DIFFERENT_BAND, strict=True))
    return low, high


def learned_from(spec: TrainingSpec, survey: Survey) -> int:
    """How many pictures there are to learn the subject from."""
    usable = {one.name for one in survey.pictures if one.problem is None}
    return sum(not picture.regularisation and picture.name in usable for picture in spec.pictures)


def seed_of(name: str) -> int:
    """The seed of a training that names none: always the same for the same name, so that it can be repeated."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=4).digest())
