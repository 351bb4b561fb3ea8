"""What an adapter must leave as it is: without its trigger the base is to go on saying what it says.

A part of every batch is looked at a second time, with other words in the place of the trigger, and there the adapter's
answer is held to that of the base alone (ai-toolkit calls this differential output preservation). Nobody has to collect
or draw pictures of the class for it. The words are the class, nothing at all, and things of every day: an adapter that
was only shown what it is for draws it whatever is asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from loravault.dataset.captions import Words, captioned
from loravault.engine.bases import Base
from loravault.engine.training import chance
from loravault.engine.training.batch import Batch
from loravault.engine.training.batches import Batches
from loravault.engine.training.store import Store
from loravault.engine.training.texts import Texts, tokens_of, trained_encoders
from loravault.formats.training import TrainingPlan, TrainingSpec

#: What stands in the trigger's place where the base does not say which things it knows.
EVERYDAY = (
    "person", "man", "woman", "child", "cat", "dog", "horse", "bird", "fish", "car", "bicycle", "boat", "house", "tree",
    "flower", "mountain", "chair", "table", "cup", "book", "apple", "bottle", "lamp", "shoe",
)  # fmt: skip
#: Ways each caption is read in, where the text encoders are not trained: their states are kept.
VARIANTS = 4


class Echoes:
    """Second looks at the pictures of `batches`."""

    def __init__(self, spec: TrainingSpec, plan: TrainingPlan, base: Base, store: Store, batches: Batches) -> None:
        """Call `prepare` before the text encoders are let go of."""
        self._spec, self._plan, self._base, self._batches = spec, plan, base, batches
        trained = trained_encoders(base) if plan.te_rate > 0 or plan.pivotal > 0 else ()
        encoders = [name for name in base.drawer.parts if name.startswith("text_encoder")]
        self._tokens = bool(trained)
        self._texts = Texts(base, store, plan.clip_skip)
        #: Whether there are text encoders whose states are kept.
        self._reads = any(getattr(base.pipe, name, None) is not None and name not in trained for name in encoders)
        # where a style is left out nothing has to take its place
        self._things = () if spec.subject == "style" else words_of(Path(spec.base.path))

    @property
    def wanted(self) -> bool:
        """Whether there is anything to hold to: a share, and a trigger that can be left out."""
        return self._plan.preserve > 0 and bool(self._spec.trigger.strip())

    def prepare(self, cancelled: Callable[[], bool]) -> None:
        """Reads the captions. Raises `Stopped`, `UserError`."""
        if self.wanted and self._reads:
            self._texts.prepare(dict.fromkeys(self._captions()), lambda _done: None, cancelled)

    def _captions(self) -> Iterator[str]:
        for number, picture in enumerate(self._spec.pictures):
            for variant in range(VARIANTS) if not picture.regularisation else ():
                yield self.caption(number, variant)

    def caption(self, picture: int, variant: int) -> str:
        """A picture's caption without the trigger; every other variant has a thing in its place."""
        word, things = self._spec.class_word, self._things
        if variant % 2 and things:
            word = things[chance.number(self._plan.seed, picture, variant, purpose="echo") % len(things)]
        words = Words(self._spec.trigger, word, True)
        return captioned(self._spec.pictures[picture].caption, words)

    def at(self, step: int, micro: int, batch: Batch) -> Batch | None:
        """The pictures of this batch that are looked at again, with their other captions; None: not this time."""
        if not self.wanted:
            return None
        seed = self._plan.seed
        many = len(batch) * self._plan.preserve
        count = int(many) + (chance.share(seed, step, micro, purpose="echoes") < many % 1)
        own = [place for place in range(len(batch)) if not bool(batch.is_regularisation[place])][:count]
        if not own:
            return None
        picked = self._batches.picked(step, micro)
        captions = []
        for place in own:
            item, slot = picked[place]
            variant = chance.number(seed, slot, purpose="echo of a slot")
            # while text encoders learn nothing is kept, so every time may be another
            captions.append(self.caption(item.picture, variant if not self._reads else variant % VARIANTS))
        chosen = torch.tensor(own)
        return replace(
            batch,
            latents=batch.latents[chosen],
            texts=self._texts.get(captions) if self._reads else {},
            tokens=tokens_of(self._base, captions) if self._tokens else {},
            sizes=batch.sizes[chosen],
            weights=torch.ones(len(own)),
            masks=None,  # what does not count for the subject is held to the base, too
            is_regularisation=batch.is_regularisation[chosen],
        )


def words_of(base: Path) -> tuple[str, ...]:
    """The things that a base says it knows (the demo base does), else those of every day."""
    try:
        told = json.loads((base / "vocabulary.json").read_text("utf-8")).get("subjects")
    except (OSError, ValueError, AttributeError):
        return EVERYDAY
    return tuple(str(one) for one in told) if isinstance(told, list) and told else EVERYDAY
