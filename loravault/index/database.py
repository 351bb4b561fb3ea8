"""Opening the index: pragmas, transactions that cannot lose an upgrade race, and rebuilding instead of migrating."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.pool import QueuePool
from sqlmodel import Session, SQLModel, create_engine

from loravault.errors import UserError
from loravault.index import search, tables

#: Marks the file as ours (`PRAGMA application_id`): "LVlt".
APPLICATION_ID = 0x4C566C74


#: A schema number from here on is no newer loravault but damage.
PLAUSIBLE_SCHEMA = 10_000


class IndexAbsent(UserError):  # noqa: N818 - a state that is told, not a fault
    """There is no index, or its holder is just making it. Who only reads sees nothing; who asks waits a moment."""


class Index:
    """The open index of one vault. One per process; sessions are short and belong to one thread.

    Only the holder of the vault's lock may set a file aside or make one. Everybody else opens it with
    `may_rebuild=False`: what cannot be used is then a `UserError`, and nothing on the disk is changed.
    """

    def __init__(self, path: Path, *, may_rebuild: bool = True) -> None:
        self.path = path
        self.rebuilt_because: str | None = None
        if may_rebuild:
            self._prepare()
        else:
            _check_usable(path)
        self._engine = create_engine("sqlite://", creator=lambda: _connect(path), poolclass=QueuePool)
        _install_pragmas(self._engine)
        if may_rebuild:
            self._make_or_rebuild()
        status = path.stat()
        self._identity = (status.st_dev, status.st_ino)
        self._witness = _connect(path)

    def _make_or_rebuild(self) -> None:
        try:
            self._make_tables()
        except DatabaseError as error:
            if is_passing(error):
                raise UserError(
                    f"The index {self.path} cannot be opened ({error.orig}); free it or make room."
                ) from error
            self._engine.dispose()  # damage that the check did not see
            self.rebuilt_because = "it is damaged"
            set_aside(self.path)
            _make_file(self.path)
            self._make_tables()
        os.chmod(self.path, 0o600)

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

        SQLite counts per connection what *others* wrote, hence a connection of its own that never writes. Its errors
        are those of any other statement: whoever survives a damaged index survives this one too.
        """
        statement = "PRAGMA data_version"
        try:
            return int(self._witness.execute(statement).fetchone()[0])
        except sqlite3.OperationalError as error:
            raise OperationalError(statement, None, error) from error
        except sqlite3.DatabaseError as error:
            raise DatabaseError(statement, None, error) from error

    def is_replaced(self) -> bool:
        """Whether the file at this path is no longer the one that was opened: deleted, or set aside by its holder."""
        try:
            status = self.path.stat()
        except OSError:
            return True
        return (status.st_dev, status.st_ino) != self._identity

    def close(self) -> None:
        """Give the file back."""
        self._witness.close()
        self._engine.dispose()

    def _make_tables(self) -> None:
        """Make what is missing. Writes nothing into an index that is complete: nobody shall think it has changed."""
        SQLModel.metadata.create_all(self._engine)
        with self._engine.begin() as connection:
            for statement in search.DDL:
                connection.exec_driver_sql(statement)
            for pragma, value in (("user_version", tables.SCHEMA), ("application_id", APPLICATION_ID)):
                if connection.execute(text(f"PRAGMA {pragma}")).scalar() != value:
                    connection.execute(text(f"PRAGMA {pragma}={value}"))

    def _prepare(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.path.exists():
            _make_file(self.path)
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
            _make_file(self.path)


def is_passing(error: DatabaseError) -> bool:
    """Whether an error of the database is about the moment (disk full, locked, read-only), not about its content."""
    text_of_it = str(error.orig).lower()
    return any(word in text_of_it for word in ("full", "locked", "readonly", "unable to open", "disk i/o"))


def is_damage(error: DatabaseError) -> bool:
    """Whether an error is about the content of the file. Other errors (a broken constraint) are bugs of a statement."""
    return not is_passing(error) and (type(error) is DatabaseError or "no such table" in str(error.orig))


def in_words(error: DatabaseError) -> str | None:
    """An error of the database for a person; None for one that is a bug of ours."""
    if is_passing(error):
        return f"The vault's index cannot be used at the moment ({error.orig}): free it or make room, and try again."
    if is_damage(error):
        return (
            f"The vault's index is damaged ({error.orig}): stop `loravault watch` if it runs, then `loravault reindex` "
            "builds it anew; nothing is lost."
        )
    return None


def set_aside(path: Path) -> None:
    """Move an index that cannot be used out of the way, with its journal. It is kept: it may help to find a bug."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.replace(path.with_name(f"{path.name}.{stamp}{suffix}.set-aside"))


def _connect(path: Path) -> sqlite3.Connection:
    """A connection to a file that is there: a file that was deleted meanwhile does not come back as an empty one."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    return sqlite3.connect(uri, uri=True, timeout=10, check_same_thread=False)


def _make_file(path: Path) -> None:
    """An empty file that was never anybody else's to read."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _check_usable(path: Path) -> None:
    """For whoever does not hold the lock: raises `UserError` when the index is none of ours; changes nothing."""
    absent = IndexAbsent(f"There is no index at {path} yet; `loravault watch` or `loravault reindex` makes it.")
    if not path.exists():
        raise absent
    try:
        with contextlib.closing(_connect(path)) as connection:
            version, mark = (
                int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("user_version", "application_id")
            )
    except sqlite3.OperationalError as error:
        raise UserError(f"The index {path} cannot be opened ({error}); free it or make room, and try again.") from error
    except sqlite3.DatabaseError as error:
        raise UserError(
            f"The index {path} is damaged ({error}): stop `loravault watch` if it runs, then `loravault reindex` "
            "builds it anew; nothing is lost."
        ) from error
    if (version, mark) == (0, 0):
        raise absent
    if mark != APPLICATION_ID or version != tables.SCHEMA:
        raise UserError(
            f"The index {path} is of another loravault (schema {version}, this one knows {tables.SCHEMA}): stop the "
            "`loravault watch` that runs, and start the one you want to use."
        )


def _version_of(path: Path) -> int | None:
    """The schema number of a sound index; None for a file that is none.

    The full check costs milliseconds at our sizes; `quick_check` misses half of all damage. Broad on purpose: a damaged
    file has been seen to raise UnicodeDecodeError out of the check itself.
    """
    try:
        connection = sqlite3.connect(path, timeout=10)
        try:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if tables.SCHEMA < version < PLAUSIBLE_SCHEMA:
                return version
            sound = connection.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok"
            ours = connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
            return version if sound and ours and version <= tables.SCHEMA else None
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise UserError(f"Another program keeps {path} locked; close it and try again.") from error
        if "unable to open" in str(error):  # a file that may not be read is not a damaged one
            raise UserError(f"The index {path} cannot be opened ({error}); make it readable and try again.") from error
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
