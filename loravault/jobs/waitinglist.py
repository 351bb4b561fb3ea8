"""The orders that a worker has and is not at. One thread puts them here as they come, another takes what is next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from loravault.formats.generation import GenerationSpec
from loravault.formats.grouping import Waiting, choose, overtaken
from loravault.jobs.protocol import Job, Train

Mark = Callable[[GenerationSpec], Hashable]


@dataclass
class _Entry:
    job: Job | Train
    overtaken: bool = False

    def seen(self, mark: Mark) -> Waiting:
        job = self.job
        if isinstance(job, Train):  # with nothing else, and after everything else
            return Waiting(job.id, 1, alone=True, background=True, overtaken=self.overtaken)
        return Waiting(mark(job.spec), len(job.spec.seeds), job.alone, job.background, self.overtaken)


class WaitingList:
    """Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._entries: list[_Entry] = []
        self._closed = False

    def put(self, jobs: Iterable[Job | Train]) -> None:
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

    def take(self, together: Callable[[GenerationSpec], int], mark: Mark) -> list[Job | Train]:
        """Waits for what is to be drawn next; all of it is drawn together. Empty: closed.

        `together`: how many pictures of a spec's kind the device denoises at the same time; `mark`: specs of one mark
        can be worked on together.
        """
        with self._changed:
            while not self._closed:
                seen = [one.seen(mark) for one in self._entries]
                if seen:
                    turn = self._entries[choose(seen, 0)[0]].job
                    chosen = choose(seen, 1 if isinstance(turn, Train) else together(turn.spec))
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
            jobs = [one.job for one in self._entries if isinstance(one.job, Job)]
            return [job.spec for job in sorted(jobs, key=lambda job: job.background)]
