"""A base in memory with everything that is kept with it between jobs: what jobs need of it before they are drawn."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from loravault.engine.adapters import Adapter, describe_unused
from loravault.engine.appliers import Applier
from loravault.engine.bases import Base
from loravault.engine.bases.vae import VaeShelf
from loravault.engine.cache import AdapterShelf
from loravault.engine.embeddings import inserted
from loravault.engine.job import Job
from loravault.engine.memory import Offload
from loravault.engine.prompts import PromptEncoder
from loravault.engine.strengths import Strength
from loravault.formats.generation import AdapterUse, BaseRef


@dataclass
class Loaded:
    """A base in memory and everything that is kept with it."""

    key: Hashable
    ref: BaseRef
    base: Base
    offload: Offload
    #: Why it is not compiled although it should be.
    uncompiled: str | None
    applier: Applier
    encoder: PromptEncoder
    vaes: VaeShelf
    adapters: AdapterShelf
    #: The device is at work and needs nothing read: time to read ahead.
    drawing: bool = False

    def read(self, job: Job) -> None:
        """Its adapters. Raises `UserError` if one cannot be used."""
        stack = []
        for use in job.spec.adapters:
            if job.stop_if_asked():
                return
            stack.append(Strength(self._adapter(job, use), use.te, use.unet, use.blocks))
        # Jobs that name the same ones in another order are drawn together.
        job.warn(self.applier.in_words(stack))
        job.stack = sorted(stack, key=lambda one: (one.adapter.key, one.te, one.unet, one.blocks))

    def _adapter(self, job: Job, use: AdapterUse) -> Adapter:
        adapter = self.adapters.get(use)
        job.adapters.setdefault(use.name, (use, adapter))
        job.warn(describe_unused(use.name, adapter, self.base))
        if adapter.void:
            job.warn(f"“{use.name}” changes nothing: all its weights are zero.")
        return adapter

    def encode(self, job: Job) -> None:
        """Prompt and negative prompt; None for a negative that is not looked at."""
        spec, base = job.spec, self.base
        for sentence in base.drawer.ineffective(base.pipe, spec):
            job.warn(sentence)
        guided = base.drawer.guided(base.pipe, spec.cfg)
        for what, text in {"prompt": spec.prompt, "negative prompt": spec.negative if guided else ""}.items():
            if cut := self.encoder.cut_off(text):
                job.warn(f"The {what} is too long: {cut}.")
        # Words with vectors of their own are so wherever the adapter reaches the text encoders, at whatever strength.
        spoken = {one.adapter.key: one.adapter for one in job.stack if one.adapter.embeddings and one.te != 0}
        in_text, encoder = (self.applier.text_state(job.stack), *spoken), self.encoder
        texts = {False: spec.prompt, True: spec.negative} if guided else {False: spec.prompt}
        if not all(encoder.knows(text, spec.clip_skip, in_text, negative=no) for no, text in texts.items()):
            self.applier.for_text(job.stack)
        with inserted(base, (learned for adapter in spoken.values() for learned in adapter.embeddings)):
            found = [encoder.encode(text, spec.clip_skip, in_text, negative=no) for no, text in texts.items()]
        job.prompt, job.negative = found[0], found[1] if guided else None
