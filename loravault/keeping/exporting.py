"""On request: what the user changes on a card is written beside the adapter, where other programs look for it.

Only fields that a person changed on a card are written, never what we filled in; only where the file that other
programs read says something else; and never into the adapter itself. A cover is written as `ink.preview.png` where the
adapter has no picture of its own. What we write brings the adapter to be read again, and then says what the card says,
or is known to be ours: nothing goes round in circles.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from loravault.errors import UserError
from loravault.index import cards as card_rows
from loravault.index import commands
from loravault.index import covers as cover_rows
from loravault.index.library import entries
from loravault.jobs.context import Context, log
from loravault.library.covers import is_blurred
from loravault.library.decode import Small
from loravault.library.entry import Entry
from loravault.library.export import UserEdits, export_edits, export_preview
from loravault.library.thumbnailer import Thumbnailer
from loravault.settings import COVER_LEVELS

#: Fields of a card that A1111's file has a place for.
FIELDS = ("trigger_words", "weight", "negative")
#: After trouble with writing (seconds).
PAUSE_S = 60.0
#: Adapters that are looked up at a time, and pictures that are with the other process at a time.
AT_A_TIME, IN_FLIGHT = 64, 4
_FACT = "exports"


class ExportKeeper:
    """Call `card_read` and `covers_changed` when that happens, and `step` in every tick."""

    def __init__(
        self, ctx: Context, *, wake: Callable[[], None] = lambda: None, thumbnailer: Thumbnailer | None = None
    ) -> None:
        self._ctx = ctx
        self._thumbnailer = thumbnailer or Thumbnailer(wake=wake)
        #: Weight id -> fields that the user changed and that are not written yet. Kept in the index, too.
        self._edited: dict[str, set[str]] = {}
        self._unsaved = False
        self._covers: dict[str, None] = {}
        self._all_covers = False
        #: Order -> (adapter file, weight id).
        self._in_flight: dict[int, tuple[Path, str]] = {}
        self._not_before = float("-inf")
        if self._on:
            with ctx.index.session() as session:
                told = json.loads(commands.fact(session, _FACT) or "{}")
            self._edited = {weight_id: set(fields) for weight_id, fields in told.items()}

    @property
    def _on(self) -> bool:
        return self._ctx.config.export == "a1111"

    # ---- what happens outside

    def card_read(self, read: card_rows.CardRead) -> None:
        """A known card was read; the index still has what it said before."""
        if not self._on or read.weight_id is None or read.problem is not None:
            return
        with self._ctx.index.session() as session:
            before = card_rows.card_at(session, read.path)
            earlier = json.loads(before.fields) if before is not None else None
        if earlier is None:
            return
        now = json.loads(read.fields)
        changed = {field for field in FIELDS if now.get(field) != earlier.get(field)}
        if changed:
            self._edited.setdefault(read.weight_id, set()).update(changed)
            self._unsaved = True

    def covers_changed(self, weight_ids: set[str] | None) -> None:
        """These adapters (None: perhaps any) have another cover."""
        if not self._on:
            return
        if weight_ids is None:
            self._all_covers = True
        else:
            self._covers.update(dict.fromkeys(sorted(weight_ids)))

    def step(self, budget_s: float) -> bool:
        """Write what is due. True: more can be done at once."""
        if not self._on or (not self._edited and not self._covers and not self._all_covers and not self._in_flight):
            return False
        until = time.monotonic() + budget_s
        self._save()
        for answer in self._thumbnailer.answers():
            self._answered(answer)
        if self._ctx.steady() < self._not_before:
            return False
        if self._edited:
            self._write_edits(until)
        if self._all_covers:
            self._all_covers = False
            with self._ctx.index.session() as session:
                rows = cover_rows.covers(session)
            self._covers.update(dict.fromkeys(sorted(key for key, row in rows.items() if row.path)))
        if self._covers and len(self._in_flight) < IN_FLIGHT:
            self._order()
        return bool(self._covers) and len(self._in_flight) < IN_FLIGHT

    def close(self) -> None:
        """Leave; pictures that are not written are found again at the next start."""
        self._thumbnailer.close()

    # ---- fields

    def _write_edits(self, until: float) -> None:
        """After trouble with the disk it ends, and goes on later."""
        ids = sorted(self._edited)[:AT_A_TIME]
        with self._ctx.index.session() as session:
            found = {entry.weight_id: entry for entry in entries(session, ids)}
        for weight_id in ids:
            entry = found.get(weight_id)
            path = self._path(entry) if entry is not None and entry.state == "ok" else None
            if (
                entry is not None
                and path is not None
                and not self._written(path, edits(entry, self._edited[weight_id]))
            ):
                return
            if path is not None or entry is None:
                del self._edited[weight_id]
                self._unsaved = True
            else:  # its file is away
                self._not_before = self._ctx.steady() + PAUSE_S
            if time.monotonic() >= until:
                break
        self._save()

    def _written(self, adapter: Path, told: UserEdits) -> bool:
        """Whether this is over: written, or refused for a reason that only the user can mend."""
        try:
            if export_edits(adapter, told):
                log.info("what you changed on the card of %s was written beside it", adapter.name)
        except UserError as error:
            self._ctx.troubles["export"] = f"An edit was not exported: {error.message}"
        except OSError as error:
            self._pause(adapter, error)
            return False
        else:
            self._ctx.troubles.pop("export", None)
        return True

    def _save(self) -> None:
        if self._unsaved:
            self._unsaved = False
            with self._ctx.index.session() as session:
                told = {weight_id: sorted(fields) for weight_id, fields in sorted(self._edited.items())}
                commands.set_fact(session, _FACT, json.dumps(told))

    # ---- pictures

    def _order(self) -> None:
        """Have covers made into pictures that other programs read."""
        ids = list(self._covers)[:AT_A_TIME]
        with self._ctx.index.session() as session:
            found = {entry.weight_id: entry for entry in entries(session, ids)}
            rows = cover_rows.covers(session, ids)
        level = COVER_LEVELS[self._ctx.config.cover_level]
        for weight_id in ids:
            if len(self._in_flight) >= IN_FLIGHT:
                return
            del self._covers[weight_id]
            entry, row = found.get(weight_id), rows.get(weight_id)
            if (
                entry is None
                or row is None
                or row.path is None
                or not _lacks_picture(entry)
                or is_blurred(entry, level)
            ):
                continue
            path = self._path(entry) if entry.state == "ok" else None
            if path is not None:
                order = self._thumbnailer.order(str(self._ctx.path(row.path)), png=True)
                self._in_flight[order] = path, weight_id

    def _answered(self, answer: Small) -> None:
        adapter, weight_id = self._in_flight.pop(answer.id)
        if answer.problem is not None:
            log.info("the cover of %s was not exported: %s", adapter.name, answer.problem)
            return
        try:
            export_preview(adapter, answer.data)
        except UserError as error:
            self._ctx.troubles["export"] = error.message
        except OSError as error:
            self._covers[weight_id] = None
            self._pause(adapter, error)

    # ---- both

    def _path(self, entry: Entry) -> Path | None:
        """The file that is used; None if its root is not configured any more."""
        roots = {root.name: root.path for root in self._ctx.config.loras}
        root = roots.get(entry.place.root)
        return root / entry.place.rel if root is not None else None

    def _pause(self, adapter: Path, error: OSError) -> None:
        reason = error.strerror or str(error)
        log.warning("nothing can be written beside %s: %s", adapter, reason)
        self._ctx.troubles["export"] = f"Nothing can be written beside {adapter} ({reason}); it is tried again."
        self._not_before = self._ctx.steady() + PAUSE_S


def edits(entry: Entry, fields: Iterable[str]) -> UserEdits:
    """What the card says in these fields; one that was emptied there is emptied elsewhere, too. Pure."""
    said = set(fields)
    return UserEdits(
        trigger_words=entry.trigger_words if "trigger_words" in said else None,
        weight=(entry.weight or 0.0) if "weight" in said else None,
        negative=(entry.negative or "") if "negative" in said else None,
    )


def _lacks_picture(entry: Entry) -> bool:
    return not entry.facts.get("stills") and not entry.facts.get("videos")
