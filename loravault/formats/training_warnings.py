"""What a person should know before a training starts, and why one does not start at all. In words."""

from __future__ import annotations

import itertools
from collections import defaultdict

from loravault.formats.training import LookedAt, Survey, TrainingPlan, TrainingSpec
from loravault.formats.training_families import RECIPES

#: Fewer pictures than this are few.
_FEW = {"character": 10, "object": 5, "concept": 10, "style": 15}
#: More pictures than this are many: for a character each further one is more often a worse one.
_MANY = {"character": 50, "object": 50}
#: A picture of which the short side is below this share of the resolution teaches blur.
_TINY = 0.75
#: A picture with less even surface than this counts as a photograph. A base of drawings is refused only if most are.
PHOTO = 0.1
_NAMED = 5


def why_not(spec: TrainingSpec, survey: Survey) -> str | None:
    """Why nothing can be trained, as sentences; None: it can."""
    family = spec.base.family
    if family not in RECIPES:
        return (
            f'LoRAs cannot be trained on the base "{spec.base.name}" ({family}) yet; they can on: '
            f"{', '.join(RECIPES)}. Choose another `base`."
        )
    usable = _usable(spec, survey)
    if not usable:
        return _nothing_usable(survey)
    photos = sum(one.flat < PHOTO for one in usable)
    if family == "demo" and photos * 2 > len(usable):
        return (
            f"{_count(photos)} of {len(usable)} look like photographs, and the demo base draws small cartoons; photos "
            "need SD 1.5 or better: name such a base under `base` (`loravault bases` lists those that are here)."
        )
    return None


def warnings_of(spec: TrainingSpec, survey: Survey, plan: TrainingPlan) -> tuple[str, ...]:
    """Everything about the pictures and captions that makes a weak adapter likely."""
    usable = _usable(spec, survey)
    told = [
        *_left_out(survey),
        *_how_many(spec, len(usable)),
        *_alike(survey),
        *_captions(spec, usable),
        *_small(usable, plan),
    ]
    if not spec.trigger:
        told.append(
            "There is no `trigger`: what is learned then shows in every picture, as far as the captions do not tell."
        )
    photos = sum(one.flat < PHOTO for one in usable)
    if spec.base.family == "demo" and photos:
        told.append(f"{_count(photos)} of {len(usable)} may be photographs; the demo base draws small cartoons.")
    return tuple(told)


def _usable(spec: TrainingSpec, survey: Survey) -> list[LookedAt]:
    """What the subject is learned from."""
    others = {picture.name for picture in spec.pictures if picture.regularisation}
    return [one for one in survey.pictures if one.problem is None and one.name not in others]


def _nothing_usable(survey: Survey) -> str:
    problems = [f"{one.name}: {one.problem}" for one in survey.pictures if one.problem]
    if not problems:
        return "There is no picture to learn from: embed some in the note, or name a folder under `dataset`."
    return f"None of the pictures can be used. {'; '.join(problems[:_NAMED])}{_and_more(len(problems))}."


def _left_out(survey: Survey) -> list[str]:
    return [f"{one.name} is left out: {one.problem}." for one in survey.pictures if one.problem]


def _how_many(spec: TrainingSpec, count: int) -> list[str]:
    few, many = _FEW[spec.subject], _MANY.get(spec.subject)
    if count < few:
        return [
            f"{_count(count)} {'is' if count == 1 else 'are'} few for {with_article(spec.subject)}: with fewer than "
            f"{few} the LoRA mostly repeats them."
        ]
    if many is not None and count > many:
        return [
            f"{_count(count)} are many for {with_article(spec.subject)}: 20 to 30 good ones usually give a better LoRA "
            f"than more than {many}."
        ]
    return []


def _alike(survey: Survey) -> list[str]:
    told = []
    by_hash: defaultdict[str, list[str]] = defaultdict(list)
    for one in survey.pictures:
        if one.problem is None and one.sha256:
            by_hash[one.sha256].append(one.name)
    same = [names for names in by_hash.values() if len(names) > 1]
    if same:
        told.append(
            f"The same picture more than once: {'; '.join(' = '.join(names) for names in same[:_NAMED])}"
            f"{_and_more(len(same))}. It counts as often as it is there."
        )
    exact = {frozenset(pair) for names in same for pair in itertools.pairwise(names)}
    near = [pair for pair in survey.alike if frozenset(pair) not in exact]
    if near:
        told.append(
            f"Nearly the same: {'; '.join(' and '.join(pair) for pair in near[:_NAMED])}{_and_more(len(near))}. Of "
            "such pictures one is enough."
        )
    return told


def _captions(spec: TrainingSpec, usable: list[LookedAt]) -> list[str]:
    names = {one.name for one in usable}
    bare = [one.name for one in spec.pictures if one.name in names and not (one.caption or "").strip()]
    if not bare:
        return []
    if len(bare) == len(names):
        learned = f'"{spec.trigger}"' if spec.trigger else "nothing that could be asked for"
        return [
            f"No picture has a caption: each is learned as {learned}, with everything that is seen on it. A line under "
            "each picture that says what is seen (place, pose, clothes) keeps that apart."
        ]
    return [f"Without a caption: {', '.join(bare[:_NAMED])}{_and_more(len(bare))}."]


def _small(usable: list[LookedAt], plan: TrainingPlan) -> list[str]:
    side = min(plan.resolutions)
    small = [one for one in usable if 0 < min(one.width, one.height) < _TINY * side]
    if not small:
        return []
    listed = ", ".join(f"{one.name} ({one.width}×{one.height})" for one in small[:_NAMED])
    return [f"Smaller than the {side} pixels they are trained at, so they teach blur: {listed}{_and_more(len(small))}."]


def with_article(subject: str) -> str:
    """`a character`, `an object`."""
    return f"{'an' if subject == 'object' else 'a'} {subject}"


def _count(number: int) -> str:
    return f"{number} picture" if number == 1 else f"{number} pictures"


def _and_more(number: int) -> str:
    return f" and {number - _NAMED} more" if number > _NAMED else ""
