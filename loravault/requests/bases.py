"""Which base a request gets. Pure, so that every catalog chooses alike."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

from loravault.formats.generation import BaseRef
from loravault.requests.model import NotFound


def choose_base(
    name: str | None, families: Collection[str], bases: Sequence[BaseRef], default: str | None
) -> BaseRef | NotFound:
    """The base of this name (in any case); without a name the default, or the first that is of one of the families.

    `bases` are in the user's order. Without families every base will do.
    """
    if name is not None:
        wanted = _fold(name)
        exact = [base for base in bases if base.name == name.strip()]
        found = exact or [base for base in bases if _fold(base.name) == wanted]
        return found[0] if found else NotFound(_closest(wanted, bases))
    fitting = [base for base in bases if not families or base.family in families]
    preferred = [base for base in fitting if default is not None and _fold(base.name) == _fold(default)]
    chosen = preferred or fitting
    return chosen[0] if chosen else NotFound(tuple(base.name for base in bases))


def _fold(name: str) -> str:
    return name.strip().casefold().removesuffix(".safetensors").removesuffix(".ckpt")


def _closest(wanted: str, bases: Sequence[BaseRef]) -> tuple[str, ...]:
    """Similar names; if there are none and not many bases, all of them."""
    by_fold = {_fold(base.name): base.name for base in bases}
    near = difflib.get_close_matches(wanted, by_fold, n=3, cutoff=0.5)
    return tuple(by_fold[match] for match in near) or (tuple(by_fold.values()) if len(by_fold) <= 6 else ())
