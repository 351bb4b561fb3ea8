"""Batches of made-up pictures that a loop can learn from: a stand-in for the real ones, which need files."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from loravault.engine.bases import Base
from loravault.engine.training.batch import Batch
from loravault.engine.training.chance import generator

CAPTIONS = ("a cat", "sks", "the red house", "")


class Made:
    """`count` pictures of 64 pixels; step n takes the next of them. Everything follows from the number of a picture."""

    def __init__(
        self, base: Base, *, batch: int = 2, count: int = 4, held: int = 0, tokens: tuple[str, ...] = ()
    ) -> None:
        self.base, self.batch, self.count, self.held = base, batch, count, held
        self.trained = tokens
        self.asked: list[tuple[int, int]] = []

    def at(self, step: int, micro: int = 0) -> Batch:
        self.asked.append((step, micro))
        first = (step * 2 + micro) * self.batch
        return self.of([(first + place) % self.count for place in range(self.batch)])

    def held_out(self) -> Iterator[Batch]:
        for number in range(self.held):
            yield self.of([100 + number])

    def of(self, numbers: list[int]) -> Batch:
        """These pictures."""
        channels = int(self.base.pipe.vae.config.latent_channels)
        latents = torch.cat(
            [torch.randn((1, channels, 8, 8), generator=generator(1, one, purpose="picture")) for one in numbers]
        )
        captions = [CAPTIONS[one % len(CAPTIONS)] for one in numbers]
        return Batch(
            latents=latents,
            texts=texts_of(self.base, captions),
            tokens={name: tokens_of(self.base, name, captions) for name in self.trained},
            sizes=torch.tensor([[64.0, 64, 0, 0, 64, 64]]).expand(len(numbers), 6),
            weights=torch.ones(len(numbers)),
            is_regularisation=torch.zeros(len(numbers), dtype=torch.bool),
        )


@torch.no_grad()
def texts_of(base: Base, captions: list[str]) -> dict[str, Tensor]:
    """As the families encode them."""
    each = [base.drawer.encode(base.pipe, one, 1, negative=False) for one in captions]
    return {name: torch.cat([one[name] for one in each]) for name in each[0]}


def tokens_of(base: Base, encoder: str, captions: list[str]) -> Tensor:
    """Numbers of the words."""
    tokenizer = getattr(base.pipe, encoder.replace("text_encoder", "tokenizer"))
    found: Tensor = tokenizer(
        captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    return found
