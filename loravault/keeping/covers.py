"""Keeps a cover for every adapter that has a picture: found, made small by another process, published, remembered.

Disposable: a cover says in its chunk what it was made from, so that after a rebuild of the index those on disk are
recognised and ten thousand pictures need not be decoded again. A superseded cover stays until `clean --images`, for a
card may name it.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loravault.errors import UserError
from loravault.formats.pictures import embedded_picture
from loravault.formats.safetensors_header import read_metadata
from loravault.index import covers as cover_rows
from loravault.index.library import entries, weight_ids
from loravault.index.tables import CoverRow
from loravault.jobs.context import Context, log
from loravault.library import covers
from loravault.library.covers import Rendered, Seen, Source
from loravault.library.decode import A_VIDEO, Small
from loravault.library.entry import Entry
from loravault.library.imagemeta import read_chunk
from loravault.library.thumbnailer import Thumbnailer
from loravault.settings import COVER_LEVELS

#: Pictures that are with the other process at a time: enough that it never waits for us.
IN_FLIGHT = 8
#: Adapters that are looked up at a time.
AT_A_TIME = 128
#: So many are published together, or what there is after so many seconds: the disk is waited for once.
TOGETHER, TOGETHER_S = 64, 2.0
#: Finished covers that cannot be written pile up to this number, then no more are made.
MOST_FINISHED = 256
#: After trouble with writing (seconds).
PAUSE_S = 60.0
#: What is in the folder of the covers is looked at anew after so long (seconds).
LISTING_S = 10.0


@dataclass
class Work:
    """The cover of one adapter on its way."""

    weight_id: str
    key: str
    blur: bool
    #: Pictures that were not tried yet, with the absolute path of their file.
    left: deque[tuple[Source, Path]]
    #: The picture that is tried now.
    now: Source | None = None
    problems: list[tuple[Source, str]] = field(default_factory=list)


@dataclass
class Finished:
    """A cover that waits to be published, or the word that there is none."""

    row: CoverRow
    data: bytes = b""


class CoverKeeper:
    """Call `library_changed` when adapters, sidecars or settings changed, and `step` in every tick."""

    def __init__(
        self,
        ctx: Context,
        *,
        wake: Callable[[], None] = lambda: None,
        thumbnailer: Thumbnailer | None = None,
        on_changed: Callable[[set[str]], None] = lambda _weight_ids: None,
    ) -> None:
        self._ctx = ctx
        self._thumbnailer = thumbnailer or Thumbnailer(wake=wake)
        self._on_changed = on_changed
        self._everything = False
        self._due: set[str] = set()
        self._ready: deque[Work] = deque()
        self._in_flight: dict[int, Work] = {}
        self._finished: list[Finished] = []
        self._listing: dict[str, list[str]] = {}
        self._listed_at = float("-inf")
        self._publish_at = 0.0
        self._not_before = float("-inf")

    @property
    def folder(self) -> str:
        """Where covers are in the vault."""
        return f"{self._ctx.config.folder}/Images/Covers"

    @property
    def waiting(self) -> int:
        """How many covers are still to be made or looked at, as far as is known."""
        return len(self._due) + len(self._ready) + len(self._in_flight) + len(self._finished)

    @property
    def _idle(self) -> bool:
        """Whether nothing more is going to be finished soon."""
        return not (self._due or self._ready or self._in_flight or self._everything)

    def library_changed(self, weight_ids: set[str] | None = None) -> None:
        """Look at these adapters again; at all if None."""
        if weight_ids is None:
            self._everything = True
        else:
            self._due |= weight_ids

    def step(self, budget_s: float) -> bool:
        """Do what can be done now. True: more can be done at once (what the other process works at does not count)."""
        until = time.monotonic() + budget_s
        self._due |= self._ctx.covers_due
        self._ctx.covers_due.clear()
        for answer in self._thumbnailer.answers():
            self._answered(answer)
        self._hand_over()
        if self._finished and (self._idle or len(self._finished) >= TOGETHER or time.monotonic() >= self._publish_at):
            self._publish()
        if self._everything:
            self._everything = False
            with self._ctx.index.session() as session:
                self._due.update(weight_ids(session))
        while self._due and not self._ready and time.monotonic() < until:
            self._look_at(list(itertools.islice(self._due, AT_A_TIME)))
            self._hand_over()
        return bool(self._due) and not self._ready

    def close(self) -> None:
        """Leave; what is unfinished is found again at the next start."""
        self._thumbnailer.close()

    # ---- looking

    def _look_at(self, weight_ids: Sequence[str]) -> None:
        self._due.difference_update(weight_ids)
        with self._ctx.index.session() as session:
            found = entries(session, weight_ids)
            known = cover_rows.covers(session, weight_ids)
            made = cover_rows.rendered(session, weight_ids)
        for entry in found:
            if entry.state == "ok":  # what is away or broken keeps the cover it has
                self._look(entry, known.get(entry.weight_id), made.get(entry.weight_id))

    def _look(self, entry: Entry, row: CoverRow | None, made: Rendered | None) -> None:
        blur = covers.is_blurred(entry, COVER_LEVELS[self._ctx.config.cover_level])
        seen = list(self._seen(entry, covers.sources(entry, made)))
        if not seen:
            self._without(entry, row)
            return
        key = covers.source_key([one for one, _ in seen], blur=blur)
        if row is not None and row.source_key == key and (row.path is None or self._is_there(row.path)):
            return
        there = self._recognised(entry.weight_id, key)
        if there is not None:
            self._finish(Finished(CoverRow(weight_id=entry.weight_id, path=there, source_key=key)))
            return
        self._ready.append(Work(entry.weight_id, key, blur, deque((one.source, path) for one, path in seen)))

    def _seen(self, entry: Entry, found: Sequence[Source]) -> Iterator[tuple[Seen, Path]]:
        """Those of its pictures that are there, with the file each is in."""
        roots = {root.name: root.path for root in self._ctx.config.loras}
        root = roots.get(entry.place.root)
        for source in found:
            if source.kind == "made":
                path = self._ctx.path(source.where)
            elif root is None:
                continue
            else:
                path = root / (entry.place.rel if source.kind == "embedded" else source.where)
            try:
                status = os.stat(path)
            except (OSError, ValueError):
                continue
            yield Seen(source, status.st_size, status.st_mtime_ns), path

    def _without(self, entry: Entry, row: CoverRow | None) -> None:
        """It has no picture (any more). A cover that is there stays; that there is only a film is told."""
        videos = entry.facts.get("videos") or ()
        problem = f"{str(videos[0]).rpartition('/')[2]}: {A_VIDEO}" if videos else None
        if (row.problem if row is not None else None) == problem:
            return
        path = row.path if row is not None else None
        self._finish(Finished(CoverRow(weight_id=entry.weight_id, path=path, problem=problem)))

    # ---- covers that are there

    def _present(self) -> Mapping[str, list[str]]:
        """Weight id -> names of its covers on disk."""
        if time.monotonic() - self._listed_at > LISTING_S:
            self._listing = {}
            try:
                names = sorted(os.listdir(self._ctx.path(self.folder)))
            except OSError:
                names = []
            for name in names:
                if (weight_id := covers.covered_by(name)) is not None:
                    self._listing.setdefault(weight_id, []).append(name)
            self._listed_at = time.monotonic()
        return self._listing

    def _is_there(self, path: str) -> bool:
        name = path.rpartition("/")[2]
        weight_id = covers.covered_by(name)
        return path == f"{self.folder}/{name}" and name in self._present().get(weight_id or "", ())

    def _recognised(self, weight_id: str, key: str) -> str | None:
        """A cover on disk that says it was made from just this."""
        for name in self._present().get(weight_id, ()):
            rel = f"{self.folder}/{name}"
            try:
                chunk = read_chunk(self._ctx.path(rel)) or {}
            except OSError:
                continue
            if chunk.get("cover") == weight_id and chunk.get("source") == key:
                return rel
        return None

    # ---- making

    def _hand_over(self) -> None:
        while self._ready and len(self._in_flight) < IN_FLIGHT and len(self._finished) < MOST_FINISHED:
            self._next_picture(self._ready.popleft())

    def _next_picture(self, work: Work) -> None:
        """Have the next picture of an adapter made small; when there is none left, that is the result."""
        while work.left:
            work.now, path = work.left.popleft()
            picture = _embedded(path, work.now.where) if work.now.kind == "embedded" else str(path)
            if picture is None:
                work.problems.append((work.now, "it cannot be read"))
                continue
            chunk = json.dumps({"v": 1, "cover": work.weight_id, "source": work.key}, separators=(",", ":"))
            self._in_flight[self._thumbnailer.order(picture, blur=work.blur, chunk=chunk)] = work
            return
        # What an earlier, better picture gave stays where it is; this version of the files is not tried again.
        earlier = self._present().get(work.weight_id, ())
        path_now = f"{self.folder}/{earlier[-1]}" if earlier else None
        self._finish(Finished(self._row(work, path_now)))

    def _answered(self, answer: Small) -> None:
        work = self._in_flight.pop(answer.id, None)
        if work is None or work.now is None:
            return
        if answer.problem is not None:
            work.problems.append((work.now, answer.problem))
            self._next_picture(work)
            return
        path = f"{self.folder}/{covers.cover_name(work.weight_id, answer.digest)}"
        self._finish(Finished(self._row(work, path), answer.data))

    def _finish(self, done: Finished) -> None:
        if not self._finished:
            self._publish_at = time.monotonic() + TOGETHER_S
        self._finished.append(done)

    @staticmethod
    def _row(work: Work, path: str | None) -> CoverRow:
        source = work.now.shown if work.now is not None and path is not None else ""
        return CoverRow(
            weight_id=work.weight_id,
            path=path,
            source_key=work.key,
            source=source,
            problem=covers.in_words(work.problems),
        )

    # ---- publishing

    def _publish(self) -> None:
        """Put finished covers into the vault, then remember them: nobody names a file that is not durably there."""
        if time.monotonic() < self._not_before:
            return
        ctx = self._ctx
        new = {one.row.path: one.data for one in self._finished if one.data and one.row.path is not None}
        try:
            if new:
                # A name that is taken holds the same picture: it is named after it.
                ctx.writer.create_many((path, data) for path, data in new.items())
        except (OSError, UserError) as error:
            reason = error.message if isinstance(error, UserError) else error.strerror or str(error)
            log.error("covers cannot be written: %s", reason)
            ctx.troubles["covers"] = (
                f"Covers cannot be written into the vault: {reason.rstrip('.')}. They wait a minute."
            )
            self._not_before = time.monotonic() + PAUSE_S
            return
        ctx.troubles.pop("covers", None)
        done, self._finished = self._finished, []
        with ctx.index.session() as session:
            cover_rows.store(session, (one.row for one in done))
        for one in done:
            self._remember_name(one.row)
        self._on_changed({one.row.weight_id for one in done})

    def _remember_name(self, row: CoverRow) -> None:
        names = self._listing.setdefault(row.weight_id, [])
        name = (row.path or "").rpartition("/")[2]
        if name and name not in names:
            names.append(name)


def _embedded(path: Path, key: str) -> bytes | None:
    """The picture in the metadata of an adapter file."""
    try:
        with open(path, "rb") as file:
            return embedded_picture(read_metadata(file).get(key))
    except (OSError, UserError):
        return None
