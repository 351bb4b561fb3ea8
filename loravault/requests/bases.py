"""Which base and which VAE a request gets. Pure, so that every catalog chooses alike."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from loravault.formats.generation import BaseRef, VaeRef
from loravault.library.hubcache import is_hub_id
from loravault.requests.model import NotFound


@dataclass(frozen=True)
class Defaults:
    """Which base is meant where nobody names one, as the configuration has it."""

    name: str | None = None
    #: Family → name.
    by_family: Mapping[str, str] = field(default_factory=dict)


def choose_base(
    name: str | None,
    families: Collection[str],
    bases: Sequence[BaseRef],
    defaults: Defaults,
    reasons: Mapping[str, str] | None = None,
) -> BaseRef | NotFound:
    """The base of this name (in any case); without a name the default, or the first that is of one of the families.

    `bases` are in the user's order. Without families every base will do. `reasons`: name → why what goes by it is no
    usable base.
    """
    if name is not None:
        return _named(name, bases, reasons or {})
    fitting = [base for base in bases if not families or base.family in families]
    wishes = [*(defaults.by_family[family] for family in sorted(families) if family in defaults.by_family)]
    wishes += [defaults.name] if defaults.name is not None else []
    for wish in wishes:
        preferred = [base for base in fitting if _fold(base.name) == _fold(wish)]
        if preferred:
            return preferred[0]
    return fitting[0] if fitting else NotFound(tuple(base.name for base in bases))


def choose_vae(name: str, vaes: Sequence[VaeRef]) -> VaeRef | NotFound:
    """The VAE of this name, in any case."""
    wanted = _fold(name)
    found = [vae for vae in vaes if vae.name == name.strip()] or [vae for vae in vaes if _fold(vae.name) == wanted]
    return found[0] if found else NotFound(_closest(wanted, (vae.name for vae in vaes)))


def _named(name: str, bases: Sequence[BaseRef], reasons: Mapping[str, str]) -> BaseRef | NotFound:
    wanted = _fold(name)
    exact = [base for base in bases if base.name == name.strip()]
    found = exact or [base for base in bases if _fold(base.name) == wanted]
    if found:
        return found[0]
    near = _closest(wanted, (base.name for base in bases))
    refused = {_fold(one): f'The base "{one}" cannot be used: {why}.' for one, why in reasons.items()}
    if wanted in refused:
        return NotFound(near, refused[wanted])
    if is_hub_id(name.strip()):
        return NotFound(near, (
            f"There is no base \"{name.strip()}\" on this machine, and a request does not download one: fetch it with "
            f"`loravault bases --fetch {name.strip()}`, or put its .safetensors file into one of the folders with "
            "bases."
        ))  # fmt: skip
    return NotFound(near)


def _fold(name: str) -> str:
    # Only the ending that the user may have written: "v1.5" has none.
    return re.sub(r"\.(safetensors|ckpt|pt)$", "", name.strip().casefold())


def _closest(wanted: str, names: Iterable[str]) -> tuple[str, ...]:
    """Similar names; if there are none and not many names, all of them."""
    by_fold = {_fold(name): name for name in names}
    near = difflib.get_close_matches(wanted, by_fold, n=3, cutoff=0.5)
    return tuple(by_fold[match] for match in near) or (tuple(by_fold.values()) if len(by_fold) <= 6 else ())
