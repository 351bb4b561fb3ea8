"""The quick look: files that an event named are read at once, whatever the size of the library around them.

It only ever adds what is plain: a whole file whose weights are nowhere else. All that takes more than these files to
decide (what was moved, copied, or is gone, and what is broken) is left to the whole look, which follows in any case.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

from sqlmodel import Session

from loravault.config import Root
from loravault.index import adapters
from loravault.index.database import Index
from loravault.index.refresh import Neighbours, Refreshed, may_be_filled, store
from loravault.library.identify import AdapterRecord, read_adapter
from loravault.library.scan import Found, scan_named

#: More than so many names are many files on their way: the whole look is as quick.
MOST = 64


def look_at_hinted(
    index: Index,
    roots: Sequence[Root],
    hinted: Mapping[str, Collection[str]],
    *,
    now: Callable[[], float] = time.time,
) -> Refreshed:
    """Read the files that these paths name or stand beside (`hinted`: root name -> paths inside it)."""
    result = Refreshed()
    neighbours = Neighbours()
    taken: set[str] = set()
    for root in roots:
        batch: list[tuple[AdapterRecord, Found]] = []
        for item in scan_named(root.name, root.path, hinted.get(root.name, ())):
            if item.unfinished is not None:
                continue
            with index.session() as session:
                row = adapters.adapter_at(session, root.name, item.rel)
                if row is not None and (row.size, row.mtime_ns, row.dev, row.ino, row.beside) == item[2:7]:
                    continue
                path = root.path / item.rel
                record = read_adapter(path, root.name, item.rel, neighbours.of(path))
                if record.state != "ok" or record.weight_id is None or record.weight_id in taken:
                    continue
                if may_be_filled(record, item, now()):
                    continue
                if _is_alone(session, record, row.weight_id if row else None):
                    taken.add(record.weight_id)
                    batch.append((record, item))
        result.read += len(batch)
        store(index, batch, result)
    return result


def _is_alone(session: Session, record: AdapterRecord, before: str | None) -> bool:
    """Whether no other place is concerned: none has these weights, and none those that were here."""
    return all(
        (row.root, row.rel) == (record.root, record.rel)
        for weight_id in {record.weight_id, before} - {None}
        for row in adapters.adapters_by_weight_id(session, str(weight_id))
    )
