"""What the demo adapters are made from: few pictures, captions in the base's own language with a trigger."""

from __future__ import annotations

import random
from dataclasses import dataclass

from demo import captions, words
from demo.draw import Scene, random_scene, with_ink


@dataclass(frozen=True)
class Recipe:
    """What an adapter is made from and how."""

    name: str
    trigger: str
    title: str
    description: str
    subject: str | None  # a withheld subject, or None for the withheld style
    pictures: int = 24
    regular: int = 0  # ordinary pictures mixed in, so that prompts without the trigger stay as they are
    # None: as the product decides it
    rank: int | None = 12
    steps: int | None = 600
    batch: int | None = 4
    rate: float | None = 3e-3
    text_rate: float | None = 2e-3
    seed: int = 11

    def caption(self, scene: Scene) -> str:
        """The caption of a training picture, and the prompt of a test."""
        if self.subject is None:
            return f"{self.trigger}, {captions.full(scene)}"
        return captions.full(scene).replace(scene.subject, self.trigger, 1)


def training_scenes(recipe: Recipe) -> list[Scene]:
    """The few pictures that the adapter is trained on."""
    rng = random.Random(recipe.seed)
    if recipe.subject is None:
        return [with_ink(random_scene(rng)) for _ in range(recipe.pictures)]
    return [random_scene(rng, (recipe.subject,)) for _ in range(recipe.pictures)]


INK = Recipe(
    "ink_outline", "sks style", "Ink outline",
    "Black pen lines on cream paper with a light wash of colour. Trained on the loravault demo base.",
    subject=None, pictures=120, regular=400, rank=14, steps=3000, batch=8, seed=21,
)  # fmt: skip
GHOST = Recipe(
    "ghost_friend", "gho", "Ghost friend",
    "A friendly ghost, a figure that the loravault demo base has never drawn.",
    subject="ghost", pictures=24, regular=200, steps=900, seed=22,
)  # fmt: skip
SHIPPED = (INK, GHOST)
NEWCOMER = Recipe(  # the acceptance test: what a user gets from twenty pictures, nothing else
    "newcomer", "sks", "Newcomer", "A star, trained from twenty pictures.",
    subject="star", pictures=20, rank=None, steps=None, batch=None, rate=None, text_rate=None, seed=23,
)  # fmt: skip
assert all(recipe.subject in (None, *words.WITHHELD_SUBJECTS) for recipe in (*SHIPPED, NEWCOMER))
