"""Opening the index: pragmas, transactions that cannot lose an upgrade race, and rebuilding instead of migrating."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.exc import DatabaseError
from sqlmodel import Session, SQLModel, create_engine

from loravault.errors import UserError
from loravault.index import tables

#: Marks the file as ours (`PRAGMA application_id`): "LVlt".
APPLICATION_ID = 0x4C566C74


class Index:
    """The open index of one vault. One per process; sessions are short and belong to one thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rebuilt_because: str | None = None
        self._prepare()
        self._engine = create_engine(f"sqlite:///{path}", connect_args={"check_same_thread": False})
        _install_pragmas(self._engine)
        try:
            self._make_tables()
        except DatabaseError as error:
            if is_passing(error):
                raise UserError(f"The index {path} cannot be opened ({error.orig}); free it or make room.") from error
            self._engine.dispose()  # damage that the check did not see
            self.rebuilt_because = "it is damaged"
            set_aside(path)
            self._make_tables()
        os.chmod(path, 0o600)
        self._witness = sqlite3.connect(path, timeout=10, check_same_thread=False)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A transaction: committed when the block ends, rolled back when it raises.

        It begins with `BEGIN IMMEDIATE`, because SQLite's busy timeout does not apply to a read lock that wants to
        become a write lock.
        """
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    def data_version(self) -> int:
        """A number that changes when anybody has written: lets an idle daemon poll for next to nothing.

        SQLite counts per connection what *others* wrote, hence a connection of its own that never writes.
        """
        return int(self._witness.execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        """Give the file back."""
        self._witness.close()
        self._engine.dispose()

    def _make_tables(self) -> None:
        SQLModel.metadata.create_all(self._engine)
        with self._engine.begin() as connection:
            connection.execute(text(f"PRAGMA user_version={tables.SCHEMA}"))
            connection.execute(text(f"PRAGMA application_id={APPLICATION_ID}"))

    def _prepare(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.path.exists():
            return
        version = _version_of(self.path)
        if version is not None and version > tables.SCHEMA:
            raise UserError(
                f"{self.path} was written by a newer loravault (schema {version}, this one knows {tables.SCHEMA}); "
                "upgrade loravault, or delete the file and run `loravault reindex`."
            )
        if version != tables.SCHEMA:
            self.rebuilt_because = "it is damaged" if version is None else f"its schema is {version}"
            set_aside(self.path)


def is_passing(error: DatabaseError) -> bool:
    """Whether an error of the database is about the moment (disk full, locked, read-only), not about its content."""
    text_of_it = str(error.orig).lower()
    return any(word in text_of_it for word in ("full", "locked", "readonly", "unable to open", "disk i/o"))


def set_aside(path: Path) -> None:
    """Move an index that cannot be used out of the way, with its journal. It is kept: it may help to find a bug."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.replace(path.with_name(f"{path.name}.{stamp}{suffix}.set-aside"))


def _version_of(path: Path) -> int | None:
    """The schema number of a sound index; None for a file that is none.

    The full check costs milliseconds at our sizes; `quick_check` misses half of all damage. Broad on purpose: a damaged
    file has been seen to raise UnicodeDecodeError out of the check itself.
    """
    try:
        connection = sqlite3.connect(path, timeout=10)
        try:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version > tables.SCHEMA:
                return version
            sound = connection.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok"
            ours = connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
            return version if sound and ours else None
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise UserError(f"Another program keeps {path} locked; close it and try again.") from error
        return None
    except Exception:
        return None


def _install_pragmas(engine: Any) -> None:
    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy's recipe: we send BEGIN ourselves
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
