"""Answers put into a note, for tests that only look at the note."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from loravault.vault.answers import Answer, apply_answers_told
from loravault.vault.properties import Value


def apply_answers(
    data: bytes,
    answers: Sequence[Answer],
    properties: Mapping[str, Value] | None = None,
    *,
    cap: int | None = None,
    linked: Collection[str] | None = None,
) -> bytes:
    """Like `apply_answers_told`, for callers that need not know which properties could not be set."""
    return apply_answers_told(data, answers, properties, cap=cap, linked=linked).data
