"""Reads the adapters of the next jobs while the present ones are drawn, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable

from loravault.engine.cache import AdapterShelf
from loravault.formats.generation import AdapterUse

log = logging.getLogger("loravault")


class ReadingAhead:
    """One thread, started when there is something to read. Methods may be called from any other."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._wanted: deque[tuple[AdapterShelf, AdapterUse]] = deque()
        self._busy = False
        self._thread: threading.Thread | None = None

    def want(self, shelf: AdapterShelf, uses: Iterable[AdapterUse]) -> None:
        """These are needed next, in this order; what was wanted before and not read is forgotten."""
        with self._changed:
            self._wanted = deque((shelf, use) for use in uses)
            if self._wanted and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="reading ahead", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def forget(self) -> None:
        """Nothing is wanted; returns when nothing is being read, so that a base is not kept alive by it."""
        with self._changed:
            self._wanted.clear()
            self._changed.wait_for(lambda: not self._busy)

    def wait(self) -> None:
        """Returns when everything wanted was read."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy and not self._wanted)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._wanted))
                self._busy = True
            self._read_one()
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _read_one(self) -> None:
        """A function, so that nothing of a base is left in a variable while the thread waits."""
        with self._changed:
            if not self._wanted:
                return
            shelf, use = self._wanted.popleft()
        try:
            shelf.fetch(use)
        except Exception:  # whoever draws with it meets it again, and says it in the note
            log.debug("%s could not be read ahead", use.path, exc_info=True)
