"""Keeps what the search knows in line with the library: the documents of adapters that changed are made anew."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlmodel import Session

from loravault.index import adapters, commands, covers, library, search
from loravault.index.search_documents import FORM, document_of, document_of_file
from loravault.jobs.context import Context

#: Adapters that are looked up at a time.
AT_A_TIME = 200

#: After so many documents, and this share of all, the index of their words is put together again.
MANY, SHARE = 200, 0.1

_UNMERGED = "search.unmerged"


class SearchKeeper:
    """Call `library_changed` when adapters, cards or their pictures changed, and `step` in every tick."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._due: set[str] = set()
        self._everything = True
        with ctx.index.session() as session:
            #: Documents that were written since the index of their words was put together.
            self._unmerged = int(commands.fact(session, _UNMERGED) or 0)
        self._written = True
        self._merging = self._begun = False
        #: Of the unmerged ones, those that were there when the merging began.
        self._covered = 0

    def library_changed(self, weight_ids: set[str] | None = None) -> None:
        """Look at these adapters again; at all, and at files that cannot be read, if None."""
        if weight_ids is None:
            self._everything = True
        else:
            self._due |= weight_ids

    def step(self, budget_s: float) -> bool:
        """Do what is due for about so long. True: more is waiting."""
        until = time.monotonic() + budget_s
        if self._everything:
            self._everything = False
            with self._ctx.index.session() as session:
                self._due |= {*self._files(session), *library.all_weight_ids(session)}
        while self._due and time.monotonic() < until:
            some = sorted(self._due)[:AT_A_TIME]
            with self._ctx.index.session() as session:
                self._bring_current(session, some)
            self._due -= set(some)
        return bool(self._due) or self._merge(until)

    def _merge(self, until: float) -> bool:
        """When all is current, put the index together, in pieces, so that a search stays quick."""
        if self._written and not self._merging:
            self._written = False
            if self._unmerged >= MANY:
                with self._ctx.index.session() as session:
                    self._merging = self._unmerged >= SHARE * search.count(session)
            self._covered, self._begun = self._unmerged, False
        while self._merging and time.monotonic() < until:
            with self._ctx.index.session() as session:
                self._merging = search.merge(session, begin=not self._begun)
                self._begun = True
                if not self._merging:
                    self._unmerged -= self._covered
                    self._written = True
                    commands.set_fact(session, _UNMERGED, str(self._unmerged))
        return self._merging

    def _bring_current(self, session: Session, some: Sequence[str]) -> None:
        """After a start nearly all of them are as they were: then no document is made to find that out."""
        covered = {key for key, row in covers.covers(session, some).items() if row.path}
        sums = {
            key: f"{FORM}{'c' if key in covered else '-'}{told}" for key, told in library.sums(session, some).items()
        }
        due = sorted(set(some) - search.unchanged(session, sums))
        if not due:
            return
        found = library.entries(session, due)
        written = search.store(session, [document_of(entry, covered) for entry in found], sums)
        self._unmerged += written
        self._written = True
        commands.set_fact(session, _UNMERGED, str(self._unmerged))
        search.forget(session, set(due) - {entry.weight_id for entry in found})

    def _files(self, session: Session) -> set[str]:
        """Files that have no weight id are stored at once; what the search knows and is no more is returned."""
        unread = {f"{row.root}/{row.rel}": row for row in adapters.unreadable(session)}
        search.store(session, map(document_of_file, unread.values()))
        return {key for key in search.known_keys(session) if key not in unread}
