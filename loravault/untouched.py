"""What of a vault nobody wrote into since we made it: cards, and the answers and properties in notes of people's."""

from __future__ import annotations

import contextlib

from loravault import resources
from loravault.config import VaultConfig
from loravault.errors import UserError
from loravault.index.cards import AdapterPlace
from loravault.index.database import Index, IndexAbsent
from loravault.index.library import entries
from loravault.keeping.cardmemory import CardMemory
from loravault.keeping.cardnames import CallNames
from loravault.library.entry import Entry
from loravault.pages.cardkeys import found_at, says
from loravault.pages.cards import CardNames, is_own_cover, our_properties, render_card, text_of_card
from loravault.vault.answers import WRITTEN_KEYS, strip_ours
from loravault.vault.ledger import Ledger
from loravault.vault.links import parse_wikilink
from loravault.vault.note import parse_note
from loravault.vault.properties import strip_properties

#: Why a file that is not ours alone stays.
WRITTEN = "you wrote in it, or it is not as we made it"


class Cards:
    """Tells cards that nobody ever wrote into: they say what a new card would say, our own keys apart."""

    def __init__(self, config: VaultConfig) -> None:
        self._config = config
        self._entries: dict[str, Entry] | None = None
        self._calls = CallNames(())
        self._memory = CardMemory(Ledger(config.state_path / "ledger.jsonl"))
        with contextlib.suppress(UserError, IndexAbsent):
            index = Index(config.state_path / "index.sqlite", may_rebuild=False)
            try:
                with index.session() as session:
                    known = entries(session, with_cards=False)
                self._entries = {entry.weight_id: entry for entry in known}
                self._calls = CallNames(
                    AdapterPlace(e.name, None, p.root, p.rel, p.state, e.weight_id) for e in known for p in e.places
                )
            finally:
                index.close()

    def why_it_stays(self, rel: str, data: bytes) -> str | None:
        """None for an untouched card; for any other note of our folder the reason why it is left."""
        front = parse_note(data).frontmatter
        if front is None or front.get("loravault") != "card":
            return WRITTEN
        weight_id = front.get("lora")
        if self._entries is None:
            return "whether you wrote in it is not known; `loravault reindex` first finds out"
        entry = self._entries.get(str(weight_id))
        if entry is None:
            return "whether you wrote in it is not known: its LoRA is not"
        if self._memory.theirs(entry.weight_id):
            return WRITTEN
        link = parse_wikilink(str(front.get("cover")))
        names = CardNames(
            self._config.folder, self._config.vault.name, rel, self._calls.of(entry), link.path if link else None
        )
        fresh = render_card(entry, names, resources.templates()).data
        return None if is_untouched(data, fresh, entry, self._memory.blank(entry.weight_id)) else WRITTEN

    def without_added(self, data: bytes) -> bytes:
        """A note that was adopted as a card without the properties that we added, as far as they say what we would.

        One that stood there before, or says anything else, is the user's. The note as it is if it is no such note, or
        if it would not read back as it should.
        """
        note = parse_note(data)
        front = note.frontmatter
        if front is None or note.text_problem or front.problem or front.get("loravault") != "card":
            return data
        weight_id = str(front.get("lora"))
        entry, had = (self._entries or {}).get(weight_id), self._memory.had(weight_id)
        if entry is None or had is None:
            return data
        ours = our_properties(entry)
        added = {key for key, value in ours.items() if key not in had and says(found_at(front.properties, key), value)}
        link = front.get("cover")
        if self._memory.cover_was_filled(weight_id) and isinstance(link, str) and is_own_cover(link, weight_id):
            added |= {"cover"} if "|" not in link else set()
        new = strip_properties(data, lambda key: key.casefold() in added, lists=True)
        after = parse_note(new)
        wanted = {key: value for key, value in front.properties.items() if key.casefold() not in added}
        whole = not after.text_problem and after.frontmatter is not None and not after.frontmatter.problem
        if not whole or dict(after.frontmatter.properties if after.frontmatter else {}) != wanted:
            return data
        return new if new[after.body_start :] == data[note.body_start :] else data


def is_untouched(data: bytes, fresh: bytes, entry: Entry, blank: tuple[str, ...]) -> bool:
    """Whether a card has no word of the user's: the same text and the same user fields as a fresh one.

    A field that was left `blank` when the card was made may still be empty although more is known now.
    """
    note, new = parse_note(data), parse_note(fresh)
    if note.frontmatter is None or new.frontmatter is None or note.frontmatter.problem:
        return False
    if text_of_card(note, len(data)).strip() != text_of_card(new, len(fresh)).strip():
        return False
    ours = {"loravault", *our_properties(entry)}
    found, said = note.frontmatter.properties, new.frontmatter.properties
    for key in (found.keys() | said.keys()) - ours:
        if key == "cover" and (key not in found or is_own_cover(found[key], entry.weight_id)):
            continue
        if key in blank and key in found and not found[key]:
            continue
        if key not in found or key not in said or found[key] != said[key]:
            return False
    return True


def without_ours(data: bytes) -> bytes | None:
    """A note without intact results and without our properties; None if that cannot be done and read back as it should.

    Ours are the properties that answers set, in a note that says `loravault:`; any other, `lv_mood` too, is the user's.
    """
    before = parse_note(data)
    if before.text_problem or (before.frontmatter is not None and before.frontmatter.problem):
        return data
    properties = before.frontmatter.properties if before.frontmatter else {}
    ours = WRITTEN_KEYS if any(key.casefold() == "loravault" for key in properties) else frozenset()
    new = strip_ours(data, lambda key: key.casefold() in ours)
    after = parse_note(new)
    wanted = {key: value for key, value in properties.items() if key.casefold() not in ours}
    found = dict(after.frontmatter.properties if after.frontmatter else {})
    blocks = [(fence.block_hash, fence.language) for fence in before.fences]
    if after.text_problem or found != wanted or blocks != [(f.block_hash, f.language) for f in after.fences]:
        return None
    return new
