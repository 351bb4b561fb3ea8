"""Reading a note of the vault as far as it concerns us, and why it may be left alone although it names loravault."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from loravault.jobs import planning
from loravault.jobs.context import Context, log
from loravault.vault.ignore import conflict_original
from loravault.vault.note import MAX_NOTE_BYTES, Note, might_be_request, parse_note
from loravault.vault.walk import StatKey, stat_key

_NO_NOTE = parse_note(b"")
_SAYS_RUN = re.compile(rb"^[ \t]*run[ \t]*:[ \t]*true\b", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class ReadNote:
    """A note as it was read, with its identity."""

    rel: str
    key: StatKey
    #: Of its bytes; empty for an ordinary note.
    sha: str
    note: Note
    #: Its properties name loravault somehow.
    names_us: bool

    @property
    def is_invalid_tick(self) -> bool:
        """Its properties cannot be read, but visibly say `run: true`."""
        front = self.note.frontmatter
        if front is None or front.problem is None:
            return False
        return bool(_SAYS_RUN.search(self.note.data[front.yaml_start : front.yaml_end]))


class CardReader(Protocol):
    """Who reads the notes of adapters; `keeping.cards`."""

    def is_known(self, rel: str, key: StatKey | None) -> bool:
        """Whether a note is a card that has not changed since it was read."""

    def was_card(self, rel: str) -> bool:
        """Whether the note at this path was a card when it was last read."""

    def concerns(self, rel: str, note: Note) -> bool:
        """Whether a note is a card, or was one."""

    def card_seen(self, rel: str, note: Note, key: StatKey, problem: str | None = None) -> None:
        """A note that concerns it was read."""

    def card_gone(self, rel: str) -> None:
        """Two scans did not find the note."""

    def into_index(self) -> bool:
        """Write what was read into the index. Whether that is anything new."""


class NoteReader:
    """Reads notes; `known` tells the paths that concern us whatever they say now."""

    def __init__(self, ctx: Context, known: Callable[[str], bool]) -> None:
        self._ctx = ctx
        self._known = known

    def read(self, rel: str) -> ReadNote | None:
        """The note; only as far as is needed if it is an ordinary one. None if it is not there or cannot be read."""
        path = self._ctx.path(rel)
        key = stat_key(path)
        if key is None:
            return None
        try:
            with path.open("rb") as file:
                data = file.read(MAX_NOTE_BYTES + 1)
        except OSError as error:
            log.warning("%s cannot be read: %s", rel, error)
            return None
        names_us = might_be_request(data)
        if not names_us and not self._known(rel):
            return ReadNote(rel, key, "", _NO_NOTE, names_us=False)
        return ReadNote(rel, key, planning.sha(data), parse_note(data), names_us=names_us)

    def why_skipped(self, read: ReadNote) -> str | None:
        """Why a note that names loravault is not taken as a request, in words; None if it may be one."""
        rules, note = self._ctx.rules, read.note
        place = rules.reason(read.rel)
        if place is not None:
            return place
        if note.text_problem:
            return note.text_problem
        if note.frontmatter is not None and note.frontmatter.problem:
            return note.frontmatter.problem
        return rules.content_reason(note) or _conflict_of(conflict_original(read.rel))

    def why_twin(self, read: ReadNote) -> str | None:
        """`X 2.md` beside an `X.md` of the same job, ticked when it appeared: a sync tool's copy, not a wish.

        A tick that was set afterwards is a wish (people duplicate a note and run the copy): then do not ask.
        """
        return _conflict_of(conflict_original(read.rel, self._job_of, read.note))

    def _job_of(self, rel: str) -> str | None:
        try:
            with self._ctx.path(rel).open("rb") as file:
                front = parse_note(file.read(MAX_NOTE_BYTES + 1)).frontmatter
        except OSError:
            return None
        value = front.get("lv_job") if front else None
        return None if value is None else str(value)


def _conflict_of(original: str | None) -> str | None:
    return None if original is None else f"it is a conflict copy of {original}; merge the two and run the one you keep"
