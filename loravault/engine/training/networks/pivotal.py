"""The trigger as vectors of its own, learned beside the adapter: one for each of its tokens, in every CLIP."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from loravault.engine.bases import Base
from loravault.engine.embeddings import Learned, name_in_file, put_in, table_of, tokens_of
from loravault.errors import UserError


class Pivotal:
    """Vectors that begin as the base's own for the trigger, fp32, and take their place in every prompt."""

    def __init__(self, base: Base, trigger: str) -> None:
        """Raises `UserError` if there is no trigger, it cannot be kept in a file, or the base has no CLIP."""
        self.words = " ".join(trigger.split())
        if not self.words or "." in self.words:
            raise UserError("To learn vectors for the trigger, give one without a dot in it, or set pivotal: 0.")
        self._base = base
        self.parts: dict[str, nn.Parameter] = {}
        self._tokens: dict[str, tuple[int, ...]] = {}
        for component in ("text_encoder", "text_encoder_2"):
            table: Any = table_of(base, component)
            if table is not None:
                self._tokens[component] = tokens_of(base, component, self.words)
                begin = table.weight.detach()[list(self._tokens[component])]
                self.parts[component] = nn.Parameter(begin.float().clone())
        if not self.parts:
            raise UserError(f"The base “{base.name}” reads no words that vectors can stand for; set pivotal: 0.")
        self._handles: list[Any] = []

    def attach(self) -> None:
        """In effect from now on."""
        self._handles = [put_in(self._base, one) for one in self.learned()]

    def detach(self) -> None:
        """The base's own words again."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def learned(self) -> list[Learned]:
        """What is in effect, with the parameters themselves."""
        return [Learned(self.words, key, self._tokens[key], part) for key, part in self.parts.items()]

    def tensors(self) -> dict[str, Tensor]:
        """Name in a file → a copy, fp32 on the CPU."""
        return {
            name_in_file(self._base, key, self.words): part.detach().to("cpu", copy=True)
            for key, part in self.parts.items()
        }
