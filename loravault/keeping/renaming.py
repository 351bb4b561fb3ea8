"""What `mv` would do: an adapter, everything that goes with it, and who will not find it any more."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from sqlmodel import Session

from loravault.config import VaultConfig
from loravault.errors import UserError
from loravault.index import adapters
from loravault.index.cards import given_names
from loravault.index.library import entries
from loravault.keeping.adapterfiles import busy_files, file_of, sidecars_beside
from loravault.library import names
from loravault.library.housekeeping import Named, new_place, rename_moves
from loravault.pages.own import is_ours
from loravault.vault.mentions import read_mentions


@dataclass(frozen=True)
class RenamePlan:
    """An adapter with all that goes with it, and where to."""

    root: str
    #: Paths inside the root.
    source: str
    target: str
    #: (from, to), the adapter first.
    moves: tuple[tuple[str, str], ...]
    #: Beside it, but perhaps another model's too: stays.
    shared: tuple[str, ...]
    #: Notes that name it in a way that will not find it any more.
    notes: tuple[str, ...]


def plan_rename(config: VaultConfig, session: Session, name: str, new: str) -> RenamePlan:
    """What `mv` would do. Raises `UserError` for a name that nobody has or several have, or a place that is none."""
    found = names.find_one(name, adapters.adapters(session), given=given_names(session))
    if found.state == "incomplete":
        raise UserError(f"{found.root}/{found.rel} is still being downloaded; wait until it is whole.")
    home = next((root.path for root in config.loras if root.name == found.root), None)
    if home is None or not os.path.lexists(home / found.rel):
        raise UserError(f"{found.root}/{found.rel} is not there at the moment; plug its drive in, or `reindex`.")
    if (found.root, found.rel) in busy_files(session, config.loras):
        raise UserError(f"A request that waits or runs uses {found.name}; wait until it is through.")
    target = new_place(found.rel, new, lambda rel: (home / rel).is_dir())
    if target == found.rel:
        raise UserError(f"{found.root}/{found.rel} is there already.")
    own, shared = sidecars_beside(home, found.rel)
    before = file_of(found)
    after = replace(before, rel=target, name=target.rpartition("/")[2].removesuffix(".safetensors"))
    mentions = read_mentions(config.vault, is_ours).names
    named = Named(mentions)
    lost = named.forms_of(before) - named.forms_of(after)
    cards = {entry.card for entry in entries(session, [found.weight_id] if found.weight_id else [])}
    notes = sorted({note for form in lost for note in mentions[form]} - cards)
    return RenamePlan(
        found.root, found.rel, target, tuple(rename_moves(found.rel, target, own)), shared, tuple(map(str, notes))
    )
