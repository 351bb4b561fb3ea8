"""The orders that a worker has and is not at. One thread puts them here as they come, another takes what is next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from loravault.formats.generation import GenerationSpec
from loravault.formats.grouping import Waiting, choose, overtaken
from loravault.jobs.protocol import Job

Mark = Callable[[GenerationSpec], Hashable]


@dataclass
class _Entry:
    job: Job
    overtaken: bool = False

    def seen(self, mark: Mark) -> Waiting:
        job = self.job
        return Waiting(mark(job.spec), len(job.spec.seeds), job.alone, job.background, self.overtaken)


class WaitingList:
    """Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._entries: list[_Entry] = []
        self._closed = False

    def put(self, jobs: Iterable[Job]) -> None:
        """These wait from now on; they are seen together."""
        with self._changed:
            self._entries += [_Entry(job) for job in jobs]
            self._changed.notify_all()

    def remove(self, job_id: str) -> bool:
        """It waits no more. False if it is not waiting (any more)."""
        with self._changed:
            kept = [one for one in self._entries if one.job.id != job_id]
            removed = len(kept) < len(self._entries)
            self._entries = kept
            return removed

    def close(self) -> None:
        """Nothing more is begun."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self, together: Callable[[GenerationSpec], int], mark: Mark) -> list[Job]:
        """Waits for what is to be drawn next; all of it is drawn together. Empty: closed.

        `together`: how many pictures of a spec's kind the device denoises at the same time; `mark`: specs of one mark
        can be worked on together.
        """
        with self._changed:
            while not self._closed:
                seen = [one.seen(mark) for one in self._entries]
                if seen:
                    turn = self._entries[choose(seen, 0)[0]].job
                    chosen = choose(seen, together(turn.spec))
                    for n in overtaken(seen, chosen):
                        self._entries[n].overtaken = True
                    taken = [self._entries[n].job for n in chosen]
                    self._entries = [one for n, one in enumerate(self._entries) if n not in chosen]
                    return taken
                self._changed.wait()
            return []

    def next_specs(self) -> list[GenerationSpec]:
        """What waits, in the order in which it is likely to be taken."""
        with self._changed:
            jobs = sorted((one.job for one in self._entries), key=lambda job: job.background)
            return [job.spec for job in jobs]
