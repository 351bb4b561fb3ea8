"""Which notes need a look. Events are hints; a rescan is the truth: without a watcher the same notes come, later."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from loravault.errors import UserError
from loravault.index import cards, notes
from loravault.jobs.context import Context, log
from loravault.vault.walk import StatKey, walk_notes

#: A note that changes for so long in the first look is not waited for (seconds): a plugin may never leave it alone.
RESTLESS_S = 10.0

#: Notes are handed out for about so long at a time (seconds): answers are written and commands obeyed in between.
BUDGET_S = 0.5


class NoteFeed:
    """Remembers what every note looked like, and hands out those that changed and have come to rest."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._known: dict[str, StatKey] = {}
        self._pending: set[str] = set()
        self._absent_once: set[str] = set()
        #: Notes of the first scan that were not handed out yet -> since when they change; None: not scanned yet.
        self._first: dict[str, float | None] | None = None
        #: Notes that did not come to rest in the first look, and were not handed out since.
        self.restless: set[str] = set()
        #: The time was up before every note that is at rest was handed out: more can be had at once.
        self.more = False
        with ctx.index.session() as session:
            #: What an earlier run left in the vault; nothing once the vault was seen to be sound.
            self._expected = {*notes.paths(session), *(card.path for card in cards.known_cards(session))}

    @property
    def waiting(self) -> bool:
        """Whether some note is still coming to rest."""
        return bool(self._pending)

    def changing(self) -> Iterator[str]:
        """Notes that are coming to rest."""
        return iter(self._pending)

    def hint(self, rel: str) -> None:
        """Somebody says that this note changed."""
        if not self._ctx.skip_folder(rel.rpartition("/")[0]):
            self._pending.add(rel)

    @property
    def first_look_is_over(self) -> bool:
        """Whether every note of the first scan was handed out, or never came to rest. Once true, it stays so."""
        return self._first is not None and not self._first

    def look_again(self, rel: str) -> None:
        """Hand this note out once more although it did not change since it was last read."""
        self._known.pop(rel, None)
        self._pending.add(rel)

    def rescan(self) -> list[str]:
        """Compare every note with what is remembered. Returns the notes that two scans in a row did not find."""
        ctx = self._ctx
        if not ctx.config.vault.is_dir():
            ctx.troubles["vault"] = "The vault is not there; nothing is changed until it is back."
            return []
        present = {seen.rel: seen.key for seen in walk_notes(ctx.config.vault, ctx.skip_folder)}
        if not present and len(self._known) > 3:
            ctx.troubles["vault"] = "The vault is suddenly empty; nothing is changed until its notes are back."
            return []
        lost = self._lost(present)
        if lost:
            self._tell_loss(len(lost))
            return []
        self._expected = set()
        ctx.troubles.pop("vault", None)
        if self._first is None:
            self._first = {rel: None for rel, key in present.items() if self._known.get(rel) != key}
        self._pending.update(rel for rel, key in present.items() if self._known.get(rel) != key)
        absent = self._known.keys() - present.keys()
        gone = sorted(absent & self._absent_once)
        self._absent_once = set(absent) - set(gone)
        for rel in gone:
            self._known.pop(rel, None)
            self._ctx.settle.forget(rel)
        return gone

    def _lost(self, present: Collection[str]) -> list[str]:
        """The notes of an earlier run that are gone, if that is over half of them. One that was moved is not gone."""
        if len(self._expected) <= 3:
            return []
        names = {rel.rpartition("/")[2] for rel in present}
        lost = [rel for rel in self._expected if rel.rpartition("/")[2] not in names]
        return sorted(lost) if 2 * len(lost) > len(self._expected) else []

    def _tell_loss(self, count: int) -> None:
        sentence = (
            f"{count} of {len(self._expected)} cards and requests are gone from {self._ctx.config.vault} since the "
            "last run: is its drive there, is its sync done? No card and no page is changed until they are back, or "
            "`loravault reindex` says that it is right."
        )
        if self._ctx.troubles.get("vault") != sentence:
            log.warning("%s", sentence)
        self._ctx.troubles["vault"] = sentence

    def accept_losses(self) -> list[str]:
        """The user says that the vault is right as it is. Returns the notes whose loss was doubted."""
        lost = self._lost([seen.rel for seen in walk_notes(self._ctx.config.vault, self._ctx.skip_folder)])
        self._expected = set()
        return lost

    def must_be_sound(self) -> None:
        """Look through the vault if nobody did yet. Raises `UserError` while most of its notes are gone."""
        if self._first is None:
            self.rescan()
        if self._first is None:
            raise UserError(self._ctx.troubles["vault"])

    def ready(self) -> Iterator[str]:
        """Changed notes that have been quiet for the read gate, one at a time, once per change; some of them, if many.

        A note counts as seen when the next one is asked for: if the caller fails with it, it comes again.
        """
        ctx = self._ctx
        until, self.more = ctx.steady() + BUDGET_S, False
        for rel in sorted(self._pending):
            key = ctx.observe(rel)
            if key is None or self._known.get(rel) == key:
                self._pending.discard(rel)
                self._looked_at(rel)
            elif ctx.quiet_for(rel, key) >= ctx.config.read_quiet_s:
                yield rel
                self._pending.discard(rel)
                self._known[rel] = key
                self._looked_at(rel)
                if ctx.steady() >= until:
                    self.more = True
                    return
            else:
                self._is_restless(rel)

    def _looked_at(self, rel: str) -> None:
        self.restless.discard(rel)
        if self._first:
            self._first.pop(rel, None)

    def _is_restless(self, rel: str) -> None:
        """It changes. In the first look the others do not wait for it for ever."""
        if not self._first or rel not in self._first:
            return
        now = self._ctx.steady()
        since = self._first[rel]
        if since is None:
            self._first[rel] = now
        elif now - since >= RESTLESS_S:
            del self._first[rel]
            self.restless.add(rel)
            log.info("%s has not come to rest since the start; it is read when it does", rel)

    def paths(self) -> list[str]:
        """Every note that is known, also those that are not read yet."""
        return list(self._known.keys() | self._pending)
