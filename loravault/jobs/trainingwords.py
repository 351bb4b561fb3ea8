"""The sentences of a training: what it will be, how far it is, what came of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loravault.formats.training import Described, Prepared, TrainingOutcome, TrainingPlan, TrainingSpec, TrainingStep
from loravault.formats.training_warnings import with_article
from loravault.jobs.words import duration, number, remark_lines, sentence
from loravault.vault.inert import inert
from loravault.vault.links import embed, wikilink

#: Pixels: as wide as a note's text usually is.
CHART_WIDTH = 700
_ALGORITHMS = {"lora": "LoRA", "locon": "LoCon", "loha": "LoHa", "lokr": "LoKr", "dylora": "DyLoRA", "ia3": "IA3"}
_OPTIMIZERS = {"adamw": "AdamW", "adamw8bit": "8-bit AdamW", "adafactor": "Adafactor", "prodigy": "Prodigy"}
_MOST_BUCKETS = 6
#: Characters of what a model says of a picture that are shown.
_CAPTION = 160


def first_line(spec: TrainingSpec) -> str:
    """What the queue calls it."""
    return f"training {spec.name}"[:80]


def plan_lines(spec: TrainingSpec, prepared: Prepared, remarks: Sequence[str] = ()) -> list[str]:
    """The first answer: what will be done and why, what it will cost, and what is worth knowing before."""
    plan, forecast = prepared.plan, prepared.forecast
    title = f"[!lora-training]+ Training {inert(spec.name)} · {plan.steps:,} steps · about {about(forecast.seconds)}"
    lines = [title, _pictures(spec, prepared), settings(spec, plan)]
    how = "from earlier trainings here" if forecast.measured else "estimated, the first training of a kind tells"
    lines.append(f"About {memory(forecast.bytes)} of memory; time {how}. This gives way to the result.")
    lines += _captions(prepared.described)
    if plan.reasons:
        lines += ["", "**Why**", *(f"- {sentence(reason)}" for reason in plan.reasons)]
    told = list(dict.fromkeys([*remarks, *prepared.warnings, *plan.warnings]))
    if told:
        lines += ["", "**Worth knowing**", *(f"- {sentence(warning)}" for warning in told)]
    return lines


def _pictures(spec: TrainingSpec, prepared: Prepared) -> str:
    survey = prepared.survey
    prior = sum(one.regularisation for one in spec.pictures)
    count = survey.usable - prior
    parts = [f"{_count(count, 'picture')} of {with_article(spec.subject)}"]
    if prior:
        parts.append(f"{prior} of its class")
    if spec.trigger:
        parts.append(f'trigger "{inert(spec.trigger)}"')
    if survey.measure:
        parts.append(f"diversity {survey.diversity:.2f} ({inert(survey.measure)})")
    shown = sorted(prepared.buckets, key=lambda one: -one[2])
    if shown:
        sizes = ", ".join(f"{width}×{height} ({pictures})" for width, height, pictures in shown[:_MOST_BUCKETS])
        more = f" and {len(shown) - _MOST_BUCKETS} more sizes" if len(shown) > _MOST_BUCKETS else ""
        parts.append(f"trained at {sizes}{more}")
    return " · ".join(parts)


def described(found: Described) -> str:
    """How many pictures a model described, without a full stop."""
    was = "was" if found.count == 1 else "were"
    return f"{found.count} of {_count(found.usable, 'picture')} {was} described by {inert(found.by)}"


def _captions(found: Described | None) -> list[str]:
    """What was said of which picture, so that a person can say it better."""
    if found is None or not found.count:
        return []
    lines = ["", "**Captions**", f"{described(found)}. A line under a picture takes the place of what is said here:"]
    lines += [f"- {inert(name)}: {inert(caption, _CAPTION)}" for name, caption in found.captions]
    more = found.count - len(found.captions)
    return [*lines, f"- and {more} more"] if more else lines


def settings(spec: TrainingSpec, plan: TrainingPlan) -> str:
    """Every number that people compare, on one line."""
    rate = f"{_OPTIMIZERS[plan.optimizer]} {number(plan.learning_rate)}"
    ranks = "" if plan.algorithm == "ia3" else f" rank {plan.rank}, alpha {number(plan.alpha)}"
    convolutions = f" (conv {plan.conv_rank}, {number(plan.conv_alpha)})" if plan.conv_rank else ""
    marks = [*(["rsLoRA"] if plan.rslora else []), *(["DoRA"] if plan.dora else [])]
    together = f"{plan.batch}" + (f" × {plan.accumulation}" if plan.accumulation > 1 else "")
    together += f" on each of {plan.gpus} cards" if plan.gpus > 1 else ""
    parts = [
        spec.base.name,
        f"{_ALGORITHMS[plan.algorithm]}{ranks}{convolutions}",
        *marks,
        "/".join(str(side) for side in plan.resolutions) + " px",
        f"batch {together}",
        rate + (f", text encoder {number(plan.te_rate)}" if plan.te_rate else ""),
        plan.schedule + (f" after {_count(plan.warmup, 'step')}" if plan.warmup else ""),
        *([f"min-SNR {number(plan.min_snr)}"] if plan.min_snr else []),
        *([f"EMA {number(plan.ema)}"] if plan.ema else []),
        plan.precision + (f", base {plan.quantised}" if plan.quantised != "none" else ""),
        *(["checkpointing"] if plan.checkpointing else []),
        f"seed {plan.seed}",
    ]
    return " · ".join(inert(part) for part in parts)


def progress(step: TrainingStep) -> str:
    """One line for the dashboard, the queue and a terminal."""
    left = f", {about(step.seconds_left)} left" if step.seconds_left > 0 else ""
    return f"step {step.step:,} of {step.steps:,}, loss {step.loss:.3g}{left}"


def behind(title: str, seconds_left: float | None) -> str:
    """What other notes wait for."""
    return f"{inert(title)}, {about(seconds_left)}" if seconds_left else inert(title)


@dataclass(frozen=True)
class Trained:
    """A training that came to its end, and where what it made is."""

    spec: TrainingSpec
    outcome: TrainingOutcome
    #: As prompts call it: the file's name without its ending.
    name: str
    #: Path of the file below its root, with the root's name.
    place: str
    #: Bytes.
    size: int
    #: Vault-relative; None: there is none.
    card: str | None = None
    chart: str | None = None
    strip: str | None = None
    remarks: tuple[str, ...] = ()


def result_lines(made: Trained) -> list[str]:
    """The last answer."""
    outcome, plan = made.outcome, made.outcome.prepared.plan
    title = f"[!lora-result]+ Trained {inert(made.name)} · {plan.steps:,} steps · {duration(outcome.seconds)}"
    link = wikilink(made.card.removesuffix(".md"), made.name) if made.card else inert(made.name)
    words = f' and "{inert(made.spec.trigger)}"' if made.spec.trigger else ""
    lines = [title, f"{link}: write {_tag(made.name)}{words} into a prompt. The file is {inert(made.place)}."]
    if made.strip:
        lines.append(embed(made.strip, CHART_WIDTH))
    if made.chart:
        lines.append(embed(made.chart, CHART_WIDTH))
    lines.append(settings(made.spec, plan))
    lines.append(
        f"{duration(outcome.seconds)} · at most {memory(outcome.peak_bytes)} of memory · file {memory(made.size)}"
    )
    of = outcome.prepared.described
    by_model = [f"{described(of)}."] if of is not None and of.count else []
    told = dict.fromkeys([*by_model, *made.remarks, *plan.warnings, *outcome.warnings])
    lines += remark_lines(told)
    if plan.reasons:  # they were said in the first answer, which this one takes the place of
        lines += ["", "> [!info]- Why these numbers", *(f"> - {sentence(reason)}" for reason in plan.reasons)]
    return lines


def done_message(made: Trained) -> str:
    """For `lv_message`."""
    steps = made.outcome.prepared.plan.steps
    return f"{inert(made.name)} trained in {duration(made.outcome.seconds)}, {steps:,} steps"


def stopped_lines(spec: TrainingSpec, step: int, steps: int) -> list[str]:
    """It was called off: what it has learned is kept."""
    how_far = f" at step {step:,} of {steps:,}" if steps else ""
    kept = (
        "What it has learned is kept: tick `run` and it goes on from there. With another picture or setting it begins "
        "anew."
    )
    return [
        f"[!lora-training]+ Training {inert(spec.name)} was stopped{how_far}",
        kept if step else "It had not begun.",
    ]


def failure_lines(messages: Sequence[str]) -> list[str]:
    """Nothing was trained: what is wrong and what to do."""
    title = "[!failure] Nothing was trained"
    if len(messages) == 1:
        return [title, sentence(messages[0])]
    return [title, *(f"- {sentence(message)}" for message in messages)]


def unchanged_message(name: str) -> str:
    """For `lv_message` of a tick that would give the same adapter again."""
    return (
        f"nothing changed: {inert(name)} was trained from exactly this. Change something, or add `again: 2` to train "
        "it once more"
    )


def under_way_message(name: str) -> str:
    """For `lv_message` of a tick while exactly this is being trained."""
    return f"{inert(name)} is being trained from exactly this already"


def about(seconds: float) -> str:
    """A time that is only an estimate: `40 s`, `4 min`, `1 h 20 min`."""
    if seconds < 90:
        return f"{max(1, round(seconds / 5) * 5)} s" if seconds >= 10 else f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    rounded = 5 * round(minutes / 5) if minutes < 600 else 60 * round(minutes / 60)
    return f"{rounded // 60} h {rounded % 60} min" if rounded % 60 else f"{rounded // 60} h"


def memory(count: int) -> str:
    """Bytes as people say them: `3.1 GB`, `480 MB`."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.1f} MB" if count < 1e7 else f"{count / 1e6:.0f} MB"


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _tag(name: str) -> str:
    """Ready to copy. A name that code cannot hold stands in plain text."""
    tag = f"<lora:{name}:1>"
    return inert(tag) if set(name) & set("`%{}$=") else f"`{tag}`"
