"""What step n learns from: a pure function of the spec, the plan, the survey and n.

Nothing is remembered between steps, so a run that was interrupted goes on with the pictures, cuts, mirrorings, captions
and draws it would have had. Everything by chance is counted by the place of a picture in the whole training (its slot).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from loravault.dataset.buckets import Item, arrange, noted, table
from loravault.dataset.captions import Variation, Words, captioned, prefixed, varied
from loravault.dataset.order import Order
from loravault.engine.bases import Base
from loravault.engine.training import chance
from loravault.engine.training.batch import Batch
from loravault.engine.training.latents import Latents, Moments, Wanted
from loravault.engine.training.store import Store
from loravault.engine.training.texts import Texts, tokens_of, trained_encoders
from loravault.errors import UserError
from loravault.formats.chance import chance as dice
from loravault.formats.training import LookedAt, Survey, TrainingPicture, TrainingPlan, TrainingSpec

#: Ways in which a caption that varies is read, at most, where text encoders are not trained: their states are kept.
VARIANTS = 16
#: Bytes that the captions of one training may take, ways to vary them included.
_TEXT_BYTES = 2 << 30


class Batches:
    """The pictures of one training. Several processes take slices of the same batches by `rank` of `world`."""

    def __init__(
        self,
        spec: TrainingSpec,
        plan: TrainingPlan,
        survey: Survey,
        base: Base,
        store: Store,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Raises `UserError` if there is nothing to learn from, or the base cannot be trained."""
        self._spec, self._plan, self._base, self._store = spec, plan, base, store
        self._rank, self._world = rank, world
        self._crops = plan.crops
        items = arrange(spec.pictures, survey, plan.resolutions, crops=plan.crops)
        self.survey = noted(survey, items, crops=plan.crops)
        #: Places in the spec of the pictures that are measured with and never learned from.
        self.held_back = held_back(spec.pictures, survey, plan.validation)
        self._held = tuple(item for item in items if item.picture in self.held_back)
        self._items = tuple(item for item in items if item.picture not in self.held_back)
        own, prior = ([one for one in self._items if self._is_prior(one) is kind] for kind in (False, True))
        if not own:
            raise UserError(_nothing(survey))
        together = plan.batch * world
        self._kinds = [(own, Order(own, seed=plan.seed, together=together))]
        if prior and plan.prior_weight > 0:
            self._kinds.append((prior, Order(prior, seed=plan.seed + 1, together=together)))
        self._trains_texts = bool(trained_encoders(base)) and (plan.te_rate > 0 or plan.pivotal > 0)
        self._latents = Latents(base, store)
        self._texts = Texts(base, store, plan.clip_skip)
        self._variants = 1
        #: It is only needed until every picture is encoded.
        self._vae_may_go = False
        #: Pictures that were encoded when they were first learned from, and how long that took.
        self._encoded, self._encoding_s = 0, 0.0

    # ---- what there is

    @property
    def buckets(self) -> tuple[tuple[int, int, int], ...]:
        """(width, height, pictures) of every bucket that is learned from, the fullest first."""
        return table(self._items)

    @cached_property
    def captions(self) -> tuple[str, ...]:
        """Of every picture of the spec: with the trigger and the prefix, before anything varies."""
        return tuple(prefixed(self._caption(number), self._plan.caption_prefix) for number in range(self._count))

    def encoding(self, steps: int) -> tuple[float, float]:
        """Seconds that `at` has spent on encoding pictures, and about how many it will in so many more steps."""
        shown = steps * self._plan.batch * self._plan.accumulation
        each = self._encoding_s / self._encoded if self._encoded else 0.0
        return self._encoding_s, each * min(shown, self._latents.waiting)

    @property
    def _count(self) -> int:
        return len(self._spec.pictures)

    def _is_prior(self, item: Item) -> bool:
        return self._spec.pictures[item.picture].regularisation

    @property
    def _variation(self) -> Variation:
        """What varies apart from captions that drop out."""
        plan = self._plan
        return Variation(shuffle=plan.shuffle, keep_tokens=plan.keep_tokens, tag_dropout=plan.tag_dropout)

    # ---- before the first step

    def prepare(
        self,
        on_progress: Callable[[int, int], None] = lambda _done, _all: None,
        cancelled: Callable[[], bool] = lambda: False,
        *,
        release: bool = False,
        later: bool = False,
    ) -> None:
        """Fills the caches.

        `on_progress(done, of)` counts latents and captions. `release`: the weights of what is not needed any more (VAE,
        text encoders) are let go of, for good. `later`: a picture is encoded when it is first learned from, so that the
        first step does not wait for all of them; the VAE stays until the last one. Raises `UserError`, `OutOfMemory`,
        `Stopped` (what is done is kept for the next time).
        """
        wanted = list(dict.fromkeys(self._wanted_latents()))
        if self._reads:
            # How large one is decides how many there can be.
            first = next(iter(self._own_captions()))
            self._texts.prepare([first], lambda _done: None, cancelled)
            self._variants = self._possible_variants(self._texts.bytes_of(first))
        captions = list(dict.fromkeys(self._wanted_captions())) if self._reads else []
        total = len(wanted) + len(captions)
        self._latents.prepare(wanted, lambda done, _all: on_progress(done, total), cancelled, later=later)
        self._texts.prepare(captions, lambda done: on_progress(len(wanted) + done, total), cancelled)
        self._store.trim()
        if release:
            self._release()

    @cached_property
    def _reads(self) -> bool:
        """Whether states of text encoders are kept: while all of them are trained there is nothing to keep."""
        if not self._trains_texts:
            return True
        trained = trained_encoders(self._base)
        return any(getattr(self._base.pipe, name, None) is not None for name in self._encoders if name not in trained)

    @property
    def _encoders(self) -> list[str]:
        return [name for name in self._base.drawer.parts if name.startswith("text_encoder")]

    def _wanted_latents(self) -> Iterator[Wanted]:
        shown = [item for items, _ in self._kinds for item in items]  # none of the class where it has no weight
        for item in () if self._crops else shown:
            yield self._wanted(item, flip=False)
            if self._plan.flip:
                yield self._wanted(item, flip=True)
        for item in self._measured():
            yield self._wanted(item, flip=False)

    def _own_captions(self) -> Iterator[str]:
        """The captions of every usable picture in each of its ways."""
        used = dict.fromkeys(item.picture for item in (*self._items, *self._held))
        for picture in used:
            for variant in range(self._variants):
                yield self._variant(picture, variant)

    def _wanted_captions(self) -> Iterator[str]:
        yield from self._own_captions()
        yield from (self.captions[number] for number in sorted(self.held_back))
        if self._plan.caption_dropout > 0:
            yield ""

    def _possible_variants(self, size: int) -> int:
        """How many ways of each caption are kept: no more than are seen, and than there is room for."""
        if not self._variation.varies:
            return 1
        pictures = len({item.picture for item in self._items})
        together = self._plan.batch * self._plan.accumulation * self._world
        seen = math.ceil(self._plan.steps * together / pictures)
        return max(1, min(VARIANTS, seen, max(2, _TEXT_BYTES // (pictures * max(1, size)))))

    def _release(self) -> None:
        trained = trained_encoders(self._base) if self._trains_texts else ()
        if self._crops:
            self._latents.stay_exact()  # it is needed in every step
        self._vae_may_go = not self._crops
        self._let_go(*(one for one in self._encoders if one not in trained))
        self._release_vae()

    def _release_vae(self) -> None:
        if self._vae_may_go and not self._latents.waiting:
            self._vae_may_go = False
            self._let_go("vae")

    def _let_go(self, *names: str) -> None:
        for name in names:
            model = getattr(self._base.pipe, name, None)
            if model is not None:
                model.to("meta")  # who still holds it keeps its shapes, and nothing else

    # ---- a step

    def at(self, step: int, micro: int = 0) -> Batch:
        """What this process learns from in the `micro`-th part of a step (both from 0), on the CPU. After `prepare`."""
        picked = self.picked(step, micro)
        seed = self._plan.seed
        flips = [self._plan.flip and chance.number(seed, slot, purpose="flip") % 2 == 1 for _, slot in picked]
        wanted = [self._wanted(item, flip=flip) for (item, _), flip in zip(picked, flips, strict=True)]
        if self._crops:
            moments, wanted = self._cut_out(wanted, [slot for _, slot in picked])
        else:
            moments = self._timed_moments(wanted)
        draws = [chance.generator(seed, slot, purpose="latents") for _, slot in picked]
        weights = [self._plan.prior_weight if self._is_prior(item) else 1.0 for item, _ in picked]
        return self._batch(
            wanted, moments, draws, weights, [self.caption_at(item.picture, slot) for item, slot in picked]
        )

    def _moments(self, wanted: Sequence[Wanted]) -> list[Moments]:
        found = [self._latents.get(one) for one in wanted]
        self._release_vae()
        return found

    def _timed_moments(self, wanted: Sequence[Wanted]) -> list[Moments]:
        waiting, began = self._latents.waiting, time.perf_counter()
        found = self._moments(wanted)
        if encoded := waiting - self._latents.waiting:
            self._encoded += encoded
            self._encoding_s += time.perf_counter() - began
        return found

    def _batch(
        self, wanted: Sequence[Wanted], moments: Sequence[Moments], draws: Sequence[torch.Generator | None],
        weights: Sequence[float], captions: Sequence[str],
    ) -> Batch:  # fmt: skip
        latents = torch.stack([self._latents.drawn(one, draw) for one, draw in zip(moments, draws, strict=True)])
        return Batch(
            latents=latents,
            texts=self._texts.get(captions) if self._reads else {},
            tokens=tokens_of(self._base, captions) if self._trains_texts else {},
            sizes=torch.tensor([sizes_of(one) for one in wanted], dtype=torch.float32),
            weights=torch.tensor(weights, dtype=torch.float32),
            masks=_masks([one.mask for one in moments], latents),
            is_regularisation=torch.tensor([one.picture.regularisation for one in wanted]),
        )

    def picked(self, step: int, micro: int = 0) -> tuple[tuple[Item, int], ...]:
        """(picture at its resolution, slot in the whole training) of each picture of a batch."""
        number = step * self._plan.accumulation + micro
        # Pictures of the class come between those of the subject, batch by batch.
        items, order = self._kinds[number % len(self._kinds)]
        found = order.batch(number // len(self._kinds))
        first = self._rank * self._plan.batch
        mine = found[first : first + self._plan.batch]
        slot = number * len(found) + first
        return tuple((items[one], slot + place) for place, one in enumerate(mine))

    def caption_at(self, picture: int, slot: int) -> str:
        """What is learned with a picture in one slot; empty where its caption drops out."""
        plan = self._plan
        if plan.caption_dropout > 0 and chance.share(plan.seed, slot, purpose="dropout") < plan.caption_dropout:
            return ""
        if not self._variation.varies:
            return self.captions[picture]
        if not self._reads:  # nothing is kept, so every time may be another
            return self._varied(picture, dice(plan.seed, slot, purpose="caption"))
        return self._variant(picture, chance.number(plan.seed, slot, purpose="variant") % self._variants)

    def _variant(self, picture: int, variant: int) -> str:
        return self._varied(picture, dice(self._plan.seed, picture, variant, purpose="caption of a picture"))

    def _varied(self, picture: int, by: Any) -> str:
        trigger = "" if self._spec.pictures[picture].regularisation else self._spec.trigger
        return prefixed(varied(self._caption(picture), self._variation, by, trigger), self._plan.caption_prefix)

    def _caption(self, picture: int) -> str:
        one, spec = self._spec.pictures[picture], self._spec
        return captioned(one.caption, Words(spec.trigger, spec.class_word, one.regularisation))

    def _cut_out(self, wanted: Sequence[Wanted], slots: Sequence[int]) -> tuple[list[Moments], list[Wanted]]:
        """Squares cut out of scaled pictures at random, and what was cut."""
        cuts, placed = [], []
        for one, slot in zip(wanted, slots, strict=True):
            (wide, high), (width, height) = one.placement.scaled, one.placement.bucket
            left, top = (
                int(chance.share(self._plan.seed, slot, purpose=f"crop {way}") * (room + 1))
                for way, room in (("x", wide - width), ("y", high - height))
            )
            pixels, mask, placement = self._latents.square(one, (left, top))
            cuts.append((pixels, mask))
            placed.append(replace(one, placement=placement))
        return self._latents.moments(cuts, [one.picture.name for one in wanted]), placed

    def _wanted(self, item: Item, *, flip: bool) -> Wanted:
        return Wanted(self._spec.pictures[item.picture], self.survey.pictures[item.picture], item.placement, flip)

    # ---- measuring

    def held_out(self) -> Iterator[Batch]:
        """The pictures that were held back, each once, with its own caption; nothing about them is left to chance."""
        items = sorted(self._measured(), key=lambda item: (item.placement.bucket, item.picture))
        start = 0
        while start < len(items):
            bucket = items[start].placement.bucket
            end = start
            while end < len(items) and end - start < self._plan.batch and items[end].placement.bucket == bucket:
                end += 1
            yield self._fixed(items[start:end])
            start = end

    def _measured(self) -> tuple[Item, ...]:
        """One item of every picture that was held back: the whole of it, at the smallest of its resolutions."""
        found: dict[int, Item] = {}
        for item in self._held:
            found.setdefault(item.picture, item)
        return tuple(found.values())

    def _fixed(self, items: Sequence[Item]) -> Batch:
        wanted = [self._wanted(item, flip=False) for item in items]
        moments = self._moments(wanted)
        captions = [self.captions[item.picture] for item in items]
        return self._batch(wanted, moments, [None] * len(items), [1.0] * len(items), captions)


def sizes_of(one: Wanted) -> tuple[int, ...]:
    """As SDXL is told them: (height, width) as the picture was, (top, left) of the cut, (height, width) trained at.

    A mirrored picture's cut begins as far from the left as it ended from the right.
    """
    (left, top), (width, height) = one.placement.crop, one.placement.bucket
    left = one.placement.scaled[0] - width - left if one.flip else left
    return one.seen.height, one.seen.width, top, left, height, width


def held_back(pictures: Sequence[TrainingPicture], survey: Survey, count: int) -> frozenset[int]:
    """Places of the pictures that are measured with: by the hash of their files, so that every training takes the same.

    Copies of a file go together, however many; one other picture is always left to learn from.
    """
    usable = {
        number: seen.sha256
        for number, (picture, seen) in enumerate(zip(pictures, survey.pictures, strict=True))
        if seen.problem is None and not picture.regularisation
    }
    files = sorted(set(usable.values()), key=lambda one: blake2b(one.encode(), digest_size=8).digest())
    chosen = set(files[: max(0, min(count, len(files) - 1))])
    return frozenset(number for number, file in usable.items() if file in chosen)


def _masks(masks: Sequence[Tensor | None], latents: Tensor) -> Tensor | None:
    if all(mask is None for mask in masks):
        return None
    whole = torch.ones(1, *latents.shape[-2:])
    return torch.stack([whole if mask is None else mask for mask in masks])


def _nothing(survey: Survey) -> str:
    problems: list[LookedAt] = [one for one in survey.pictures if one.problem is not None]
    if not problems:
        return "There is nothing to learn from: embed pictures in the note, or name a folder with `dataset`."
    first = problems[0]
    return f"None of the pictures can be learned from. Of “{first.name}”: {first.problem}."
