"""Which notes show adapters without a picture by themselves (`loravault: preview`, `auto: true`), and when they go on.

Only a memory of the process: after a restart everything is found again in the notes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sqlmodel import Session

from loravault.index import notes, work
from loravault.jobs.catalog import IndexCatalog
from loravault.jobs.planning import Plan, sha
from loravault.jobs.previews import Previews
from loravault.jobs.reading import ReadNote
from loravault.requests.model import Request
from loravault.vault.note import MAX_NOTE_BYTES

#: Whether something else waits or runs is asked this often while there is something to show (seconds).
ASK_S = 1.0
#: A note that is nearly too long to be read grows no further by itself.
FULL_BYTES = MAX_NOTE_BYTES * 9 // 10
TOO_FULL = "it is nearly too long to be read: delete old results in it, and its previews go on; or use another note."


@dataclass
class _Note:
    #: What it asks for, as a hash.
    wish: str
    #: Weight ids of adapters that were tried for this wish: a picture that failed is not tried again.
    tried: set[str] = field(default_factory=set)
    #: It was cancelled: nothing more until the user changes what it asks for.
    held: bool = False


class Showing:
    """Remembers the notes; `steady` is a clock in seconds."""

    def __init__(self, steady: Callable[[], float]) -> None:
        self._steady = steady
        self._notes: dict[str, _Note] = {}
        self._due = False
        self._not_before = float("-inf")

    def seen(self, rel: str, request: Request) -> None:
        """A request was read."""
        if request.kind != "preview" or not request.auto:
            self._notes.pop(rel, None)
            return
        wish = _wish(request)
        if rel not in self._notes or self._notes[rel].wish != wish:
            self._notes[rel] = _Note(wish)

    def gone(self, rel: str) -> None:
        """The note is not there any more."""
        self._notes.pop(rel, None)

    def hold(self, rel: str, request: Request) -> None:
        """The note was cancelled: this wish goes on no more."""
        note = self._notes.get(rel)
        if note is not None and note.wish == _wish(request):
            note.held = True

    def tried(self, rel: str, request: Request) -> set[str] | None:
        """The adapters that were tried for what the note asks for, to be added to; None if it must not go on."""
        self.seen(rel, request)
        note = self._notes.get(rel)
        return None if note is None or note.held else note.tried

    def next_plan(
        self, session: Session, read: ReadNote, request: Request, catalog: IndexCatalog, *, may_begin: bool
    ) -> Plan:
        """The next adapters without a picture: when nothing else waits or runs, and none that was tried before."""
        if len(read.note.data) > FULL_BYTES:
            notes.note_or_new(session, read.rel).problem = TOO_FULL
            return Plan()
        tried = self.tried(read.rel, request)
        if tried is None:
            return Plan()
        if not may_begin or work.open_jobs(session) or work.unaccepted_run_of(session, read.rel) is not None:
            self.ask_again()
            return Plan()
        known = notes.auto_known(session, read.rel) | work.fingerprints_tried(session, read.rel)
        return Previews(session, request, catalog).background(known, tried)

    def ask_again(self) -> None:
        """Something may be to do: the library changed, or something else was running."""
        self._due = bool(self._notes)

    def is_due(self) -> bool:
        """Whether to look if something else waits or runs; true at most once in `ASK_S`."""
        if not self._due or self._steady() < self._not_before:
            return False
        self._not_before = self._steady() + ASK_S
        return True

    def take(self) -> list[str]:
        """The notes to look at now."""
        self._due = False
        return sorted(rel for rel, note in self._notes.items() if not note.held)


def _wish(request: Request) -> str:
    blocks = [block.block_hash for block in request.blocks]
    return sha(repr((sorted((key, repr(value)) for key, value in request.options.items()), blocks)).encode())
