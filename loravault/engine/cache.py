"""Adapters that were read for a base, kept in memory up to a number of bytes."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterable
from functools import cached_property

from loravault.engine.adapters import Adapter, FileKey, file_key, load_adapter, names_of
from loravault.engine.bases import Base
from loravault.errors import UserError
from loravault.formats.generation import AdapterUse
from loravault.formats.normal import BaseNames

#: Bytes of adapters that are kept: four or five of the size that is usual for SDXL.
LIMIT = 1 << 30


class AdapterShelf:
    """The adapters of one base. The one that was used longest ago makes room; the last one stays, whatever its size.

    Thread-safe: one thread draws, another reads ahead. Neither reads a file that the other is reading.
    """

    def __init__(self, base: Base, limit: int = LIMIT) -> None:
        self._base = base
        self._limit = limit
        self._kept: OrderedDict[FileKey, Adapter] = OrderedDict()
        #: What is drawn with now: it does not make room.
        self._held: frozenset[FileKey] = frozenset()
        self._reading: set[FileKey] = set()
        self._changed = threading.Condition()

    @cached_property
    def _names(self) -> BaseNames:
        """Made when the first adapter is read: a base is used without any, too."""
        return names_of(self._base)

    @property
    def bytes(self) -> int:
        """Memory that the adapters hold."""
        with self._changed:
            return self._bytes()

    def get(self, use: AdapterUse) -> Adapter:
        """The adapter of `use`, from memory if its file is still the one that was read. Raises as `load_adapter`."""
        key = file_key(use)
        if key is None:
            return load_adapter(use, self._base, self._names)  # says why it cannot
        with self._changed:
            self._changed.wait_for(lambda: key not in self._reading)
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
            self._reading.add(key)
        return self._read(key, use)

    def fetch(self, use: AdapterUse) -> None:
        """Reads the adapter of `use` for later, if there is room beside what is drawn with.

        What is wrong with it is not told now but to whoever gets it.
        """
        key = file_key(use)
        with self._changed:
            if key is None or key in self._kept or key in self._reading or self._held_bytes() + key[2] > self._limit:
                return
            self._reading.add(key)
        with contextlib.suppress(UserError):
            self._read(key, use)

    def hold(self, keys: Iterable[FileKey]) -> None:
        """From now on these are drawn with."""
        with self._changed:
            self._held = frozenset(keys)

    def forget(self) -> None:
        """Lets go of everything."""
        with self._changed:
            self._kept.clear()

    def _read(self, key: FileKey, use: AdapterUse) -> Adapter:
        """Reads it without the lock; `key` is in `_reading`."""
        try:
            found = load_adapter(use, self._base, self._names)
            with self._changed:
                for old in [old for old in self._kept if old[1] == use.path]:  # the file as it was
                    del self._kept[old]
                self._kept[found.key] = found
                self._make_room(found.key)
        finally:
            with self._changed:
                self._reading.discard(key)
                self._changed.notify_all()
        return found

    def _make_room(self, last: FileKey) -> None:
        free = [key for key in self._kept if key != last and key not in self._held]
        while free and self._bytes() > self._limit:
            del self._kept[free.pop(0)]

    def _bytes(self) -> int:
        return sum(one.bytes for one in self._kept.values())

    def _held_bytes(self) -> int:
        return sum(one.bytes for key, one in self._kept.items() if key in self._held)
