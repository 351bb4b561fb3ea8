"""Who puts adapters into effect: the seam between a batch of pictures and the ways of applying what each asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from loravault.engine.apply import Patcher, State, Strength

#: The adapters of one picture with their strengths.
Stack = Sequence[Strength]


class Applier(Protocol):
    """One base, one way of applying.

    `for_text` is called while everything rests in ordinary memory and before anything is attached, and again for each
    job before its prompt is read; `for_pictures` before each call of the denoiser.
    """

    def for_text(self, stack: Stack) -> State:
        """Makes the text encoders read with this stack; returns what is in effect there, for who remembers prompts.

        Raises `UserError` if a change turns out not to fit its layer: then nothing is in effect.
        """

    def for_pictures(self, stacks: Sequence[Stack]) -> None:
        """Makes the next call of the denoiser draw with these, one for each picture, in the order of the pictures."""

    def forget(self) -> None:
        """Puts the base back as it was."""


class Merging:
    """In the weights themselves: every picture of a batch has the same adapters."""

    def __init__(self, patcher: Patcher) -> None:
        self._patcher = patcher

    def for_text(self, stack: Stack) -> State:
        """Merges it, into the denoiser too."""
        in_text, _ = self._patcher.apply(stack)
        return in_text

    def for_pictures(self, stacks: Sequence[Stack]) -> None:
        """Merges it, unless it is in effect. Raises `ValueError` if they are not all the same."""
        if any(list(stack) != list(stacks[0]) for stack in stacks):
            raise ValueError("pictures of one batch have different adapters, which cannot be merged")
        self._patcher.apply(stacks[0])

    def forget(self) -> None:
        """Puts every original tensor back."""
        self._patcher.restore()
