"""Looks at the cards of some adapters: has anybody worked on them?"""

from __future__ import annotations

from collections.abc import Collection

from sqlmodel import Session, col, select

from loravault import resources
from loravault.config import VaultConfig
from loravault.index.cards import adapter_places
from loravault.index.library import entries
from loravault.index.tables import CardRow
from loravault.keeping.cardmemory import CardMemory
from loravault.keeping.cardnames import CallNames
from loravault.pages.cards import CardNames, render_card
from loravault.untouched import is_untouched
from loravault.vault.ledger import Ledger
from loravault.vault.note import MAX_NOTE_BYTES


def worked_on(config: VaultConfig, session: Session, weight_ids: Collection[str]) -> set[str]:
    """Those of these adapters on whose card somebody wrote, as it is on the disk now.

    A card that cannot be read, a second card and a note that is left alone all count as somebody's work.
    """
    wanted = set(weight_ids)
    cards = [
        row
        for row in session.exec(select(CardRow).where(col(CardRow.weight_id).is_not(None))).all()
        if row.weight_id in wanted
    ]
    if not cards:
        return set()
    bare = {entry.weight_id: entry for entry in entries(session, wanted, with_cards=False)}
    calls = CallNames(adapter_places(session))
    memory = CardMemory(Ledger(config.state_path / "ledger.jsonl"))

    def is_untouched_card(row: CardRow) -> bool:
        entry = bare.get(row.weight_id or "")
        if entry is None or row.problem is not None:
            return False
        try:
            with (config.vault / row.path).open("rb") as file:
                data = file.read(MAX_NOTE_BYTES + 1)
        except FileNotFoundError:
            return True  # it was deleted: the next look at the vault will know
        except OSError:
            return False
        shown = CardNames(config.folder, config.vault.name, row.path, calls.of(entry))
        fresh = render_card(entry, shown, resources.templates()).data
        return is_untouched(data, fresh, entry, memory.blank(entry.weight_id))

    return {row.weight_id or "" for row in cards if not is_untouched_card(row)}
