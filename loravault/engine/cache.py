"""Adapters that were read for a base, kept in memory up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from functools import cached_property

from loravault.engine.adapters import Adapter, FileKey, file_key, load_adapter, names_of
from loravault.engine.bases import Base
from loravault.formats.generation import AdapterUse
from loravault.formats.normal import BaseNames

#: Bytes of adapters that are kept: four or five of the size that is usual for SDXL.
LIMIT = 1 << 30


class AdapterShelf:
    """The adapters of one base. The one that was used longest ago makes room; the last one stays, whatever its size."""

    def __init__(self, base: Base, limit: int = LIMIT) -> None:
        self._base = base
        self._limit = limit
        self._kept: OrderedDict[FileKey, Adapter] = OrderedDict()

    @cached_property
    def _names(self) -> BaseNames:
        """Made when the first adapter is read: a base is used without any, too."""
        return names_of(self._base)

    @property
    def bytes(self) -> int:
        """Memory that the adapters hold."""
        return sum(one.bytes for one in self._kept.values())

    def get(self, use: AdapterUse) -> Adapter:
        """The adapter of `use`, from memory if its file is still the one that was read. Raises as `load_adapter`."""
        key = file_key(use)
        found = self._kept.get(key) if key is not None else None
        if found is None:
            found = load_adapter(use, self._base, self._names)
            for old in [old for old in self._kept if old[1] == use.path]:  # the file as it was
                del self._kept[old]
            self._kept[found.key] = found
        self._kept.move_to_end(found.key)
        while len(self._kept) > 1 and self.bytes > self._limit:
            self._kept.popitem(last=False)
        return found

    def forget(self) -> None:
        """Lets go of everything."""
        self._kept.clear()
