"""Opening the index: it is disposable, so damage rebuilds it; only a newer one is refused."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy.exc import DatabaseError

from loravault.errors import UserError
from loravault.index import commands
from loravault.index.database import APPLICATION_ID, Index, IndexAbsent, is_damage
from loravault.index.tables import SCHEMA


def _filled(path: Path) -> None:
    index = Index(path)
    with index.session() as session:
        for number in range(200):
            commands.set_fact(session, f"key{number}", "x" * 50)
    index.close()


def test_it_is_ours_private_and_keeps_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    _filled(path)

    index = Index(path)
    with index.session() as session:
        assert commands.fact(session, "key7") == "x" * 50
    index.close()

    assert path.stat().st_mode & 0o777 == 0o600
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    connection.close()


def test_a_newer_index_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    _filled(path)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={SCHEMA + 1}")
    connection.close()
    before = path.read_bytes()

    with pytest.raises(UserError, match="newer loravault"):
        Index(path)

    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 100, b"SQLite format 3\0" + b"\0" * 4000])
def test_what_is_no_index_is_set_aside_and_rebuilt(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "index.sqlite"
    path.write_bytes(content)

    index = Index(path)
    with index.session() as session:
        assert commands.fact(session, "key7") is None
    index.close()

    assert index.rebuilt_because
    assert len(list(tmp_path.glob("*.set-aside"))) == 1


def test_flipped_bytes_never_stop_the_daemon(tmp_path: Path) -> None:
    """Twenty flipped bytes: it opens with the old content or rebuilt, it never raises. `quick_check` misses half."""
    source = tmp_path / "good.sqlite"
    _filled(source)
    good = source.read_bytes()
    chance = random.Random(7)
    rebuilt = 0
    for trial in range(30):
        path = tmp_path / f"{trial}.sqlite"
        damaged = bytearray(good)
        for _ in range(20):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)

        index = Index(path)
        with index.session() as session:
            commands.set_fact(session, "new", "1")
        rebuilt += index.rebuilt_because is not None
        index.close()

    assert rebuilt > 15, "the check is broken if it finds nothing"


def test_a_writer_waits_for_another_instead_of_failing(tmp_path: Path) -> None:
    """A deferred transaction that reads, then writes, fails at once when another writes; ours begin IMMEDIATE."""
    index = Index(tmp_path / "index.sqlite")
    other = sqlite3.connect(tmp_path / "index.sqlite", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.3, lambda: other.execute("COMMIT")).start()
    began = time.monotonic()

    with index.session() as session:
        commands.set_fact(session, "a", "1")

    assert time.monotonic() - began > 0.2
    other.close()
    index.close()


def test_data_version_tells_of_any_write(tmp_path: Path) -> None:
    index = Index(tmp_path / "index.sqlite")
    quiet = [index.data_version() for _ in range(3)]
    with index.session() as session:
        commands.ask(session, "run", {"note": "a.md"}, 1.0)

    assert len(set(quiet)) == 1
    assert index.data_version() != quiet[0]
    index.close()


def test_opening_is_no_writing(tmp_path: Path) -> None:
    """Each open told the daemon that something had changed; an idle one was kept busy by `loravault queue`."""
    path = tmp_path / "index.sqlite"
    index = Index(path)
    before = index.data_version()

    Index(path, may_rebuild=False).close()
    Index(path).close()

    assert index.data_version() == before
    index.close()


class TestWithoutTheLock:
    """Whoever does not hold the vault's lock looks, and never makes, mends or moves a file of the daemon's."""

    def reader(self, path: Path) -> Index:
        return Index(path, may_rebuild=False)

    @pytest.mark.parametrize("schema", [SCHEMA - 1, SCHEMA + 1])
    def test_another_schema_is_told_and_the_file_stays(self, tmp_path: Path, schema: int) -> None:
        """A command line of another version set the index of the running daemon aside."""
        path = tmp_path / "index.sqlite"
        daemons = Index(path)
        connection = sqlite3.connect(path)
        connection.execute(f"PRAGMA user_version={schema}")
        connection.close()

        with pytest.raises(UserError, match=f"another loravault .schema {schema}, this one knows {SCHEMA}"):
            self.reader(path)

        assert not daemons.is_replaced()
        assert not list(tmp_path.glob("*.set-aside"))
        daemons.close()

    @pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\0" * 4000])
    def test_damage_is_told_and_the_file_stays(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "index.sqlite"
        path.write_bytes(content)

        with pytest.raises(UserError):
            self.reader(path)

        assert path.read_bytes() == content
        assert [file.name for file in tmp_path.iterdir()] == ["index.sqlite"]

    def test_none_is_not_made(self, tmp_path: Path) -> None:
        with pytest.raises(IndexAbsent):
            self.reader(tmp_path / "index.sqlite")

        assert list(tmp_path.iterdir()) == []

    def test_one_that_is_just_being_made_counts_as_none(self, tmp_path: Path) -> None:
        (tmp_path / "index.sqlite").touch()

        with pytest.raises(IndexAbsent):
            self.reader(tmp_path / "index.sqlite")

    def test_a_name_with_signs_that_a_url_would_take_apart(self, tmp_path: Path) -> None:
        path = tmp_path / "50% of? #1 ü" / "index.sqlite"
        _filled(path)

        index = self.reader(path)
        with index.session() as session:
            assert commands.fact(session, "key7") == "x" * 50
        index.close()


def test_it_notices_that_its_file_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    index = Index(path)
    assert not index.is_replaced()
    path.unlink()
    assert index.is_replaced()
    path.touch()
    assert index.is_replaced()
    index.close()


def test_damage_under_the_counter_is_an_error_like_any_other(tmp_path: Path) -> None:
    """The raw connection raised sqlite3's own error, which the daemon's handler of a damaged index did not see."""

    class Broken:
        def execute(self, _statement: str) -> None:
            raise sqlite3.DatabaseError("database disk image is malformed")

    index = Index(tmp_path / "index.sqlite")
    index._witness.close()
    index._witness = Broken()  # type: ignore[assignment]

    with pytest.raises(DatabaseError) as raised:
        index.data_version()

    assert is_damage(raised.value)
    index._engine.dispose()
