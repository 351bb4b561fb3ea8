"""What the search knows follows the files: new, changed, gone and unreadable ones, in slices."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlmodel import Session

from loravault.config import Root, VaultConfig
from loravault.index import adapters, cards, covers, library, overview, search
from loravault.index.database import Index
from loravault.index.refresh import forget_losses, refresh_adapters
from loravault.index.search_documents import SearchDocument, document_of
from loravault.index.tables import AdapterRow, CoverRow
from loravault.jobs.context import Context
from loravault.keeping.search import SearchKeeper
from loravault.library.entry import Entry
from loravault.vault.ignore import IgnoreRules
from loravault.vault.ledger import Ledger
from loravault.vault.safewrite import VaultWriter
from tests.formats import headers


class Scene:
    """A root, an index, and the keeper."""

    def __init__(self, home: Path) -> None:
        self.root = Root("main", home / "loras")
        self.root.path.mkdir()
        (home / "vault").mkdir()
        writer = VaultWriter(home / "vault", Ledger(home / "ledger.jsonl"), home / "displaced")
        config = VaultConfig(vault=home / "vault", loras=(self.root,))
        self.index = Index(home / "index.sqlite")
        self.ctx = Context(config=config, index=self.index, ledger=writer.ledger, writer=writer, rules=IgnoreRules())
        self.keeper = SearchKeeper(self.ctx)

    def put(self, name: str, fill: int, cut: int = 0) -> Path:
        data = headers.adapter(headers.lora(), fill=fill)
        path = headers.write(self.root.path / name, data[: len(data) - cut])
        os.utime(path, (time.time() - 100, time.time() - 100))
        return path

    def look(self) -> None:
        refresh_adapters(self.index, [self.root])
        self.keeper.library_changed(None)
        while self.keeper.step(1.0):
            pass

    def names(self, text: str = "") -> list[str]:
        with self.index.session() as session:
            return [hit.name for hit in search.search(session, text).hits]


def test_files_are_found_once_they_were_looked_at_and_forgotten_when_their_rows_are(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    path = scene.put("styles/redDress.safetensors", fill=1)
    scene.put("blue.safetensors", fill=2)
    scene.put("cut.safetensors", fill=3, cut=5)
    scene.look()
    assert scene.names() == ["blue", "cut", "redDress"]
    assert scene.names("dress folder:styles") == ["redDress"]
    assert scene.names("is:broken") == ["cut"]

    path.unlink()
    with scene.index.session() as session:
        forget_losses(session, scene.root)
    scene.look()
    assert scene.names("missing") == ["redDress"], "missing is a state, never a deletion"

    with scene.index.session() as session:
        session.delete(session.get(AdapterRow, ("main", "blue.safetensors")))
    scene.put("cut.safetensors", fill=3)
    scene.look()
    assert scene.names("is:broken") == []
    assert scene.names("cut") == ["cut"]


def another_start(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the adapters whose documents the keeper of another start makes anew."""
    made: list[str] = []

    def watched(entry: Entry, covered: Collection[str] = ()) -> SearchDocument:
        made.append(entry.name)
        return document_of(entry, covered)

    monkeypatch.setattr("loravault.keeping.search.document_of", watched)
    scene.keeper = SearchKeeper(scene.ctx)
    scene.look()
    return made


def test_another_start_makes_documents_of_what_changed_and_of_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ten thousand adapters, four seconds went by at every start to find that nothing had changed."""
    scene = Scene(tmp_path)
    for name in ("a", "b", "c", "d"):
        scene.put(f"{name}.safetensors", fill=ord(name))
    scene.look()
    assert another_start(scene, monkeypatch) == []

    with scene.index.session() as session:
        ids = {row.name: str(row.weight_id) for row in adapters.adapters(session)}
        covers.store(session, [CoverRow(weight_id=ids["a"], path="Images/a.webp")])
        fields = '{"topics": ["rain"]}'
        cards.put(session, [cards.CardRead("B.md", 1, 1, "", ids["b"], fields=fields, body="")])
    scene.put("c.safetensors", fill=77)
    assert sorted(another_start(scene, monkeypatch)) == ["a", "b", "c"]
    assert scene.names("rain") == ["b"]
    assert another_start(scene, monkeypatch) == []


@pytest.mark.parametrize("column", [name for name in library._File._fields if name not in ("weight_id", "root", "rel")])
def test_whatever_is_known_of_a_file_tells_in_its_sum(tmp_path: Path, column: str) -> None:
    scene = Scene(tmp_path)
    scene.put("a.safetensors", fill=1)
    scene.look()
    with scene.index.session() as session:
        (row,) = adapters.adapters(session)
        before = library.sums(session, [str(row.weight_id)])
        session.connection().exec_driver_sql(f"UPDATE adapter SET {column} = '7'")
        after = library.sums(session, [str(row.weight_id)])
    assert before.keys() == after.keys()
    assert before != after


def test_a_slice_ends_in_time_and_the_next_one_goes_on(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    for number in range(3):
        scene.put(f"a{number}.safetensors", fill=number + 1)
    refresh_adapters(scene.index, [scene.root])
    assert scene.keeper.step(0.0)
    assert scene.names() == []
    assert not scene.keeper.step(1.0)
    assert len(scene.names()) == 3
    assert not scene.keeper.step(0.0)


def test_a_cover_of_ours_is_a_preview(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.put("a.safetensors", fill=1)
    scene.look()
    assert scene.names("nopreview") == ["a"]
    with scene.index.session() as session:
        (row,) = adapters.adapters(session)
        covers.store(session, [CoverRow(weight_id=str(row.weight_id), path="Images/a.webp")])
    scene.keeper.library_changed({str(row.weight_id)})
    scene.keeper.step(1.0)
    assert scene.names("nopreview") == []
    with scene.index.session() as session:
        assert overview.statistics(session).with_preview == 1


def test_duplicates_and_numbers_are_read_from_the_same_rows(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    first = scene.put("a.safetensors", fill=1)
    scene.put("b/copy.safetensors", fill=1)
    os.link(first, scene.root.path / "linked.safetensors")
    scene.put("cut.safetensors", fill=3, cut=5)
    scene.look()
    with scene.index.session() as session:
        (twice,) = overview.duplicates(session)
        numbers = overview.statistics(session)
    assert (twice.used, twice.others) == ("main/a.safetensors", ("main/b/copy.safetensors",))
    assert twice.freeable == first.stat().st_size
    assert (numbers.adapters, numbers.duplicates, numbers.by_state["broken"].adapters) == (1, 1, 1)


def parts(scene: Scene) -> int:
    """Of how many parts the index of the words consists."""
    with scene.index.session() as session:
        rows = session.connection().exec_driver_sql("SELECT COUNT(DISTINCT segid) FROM search_text_idx").all()
    return int(rows[0][0])


def test_after_many_documents_the_index_is_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand documents left seventeen parts, and a search took twice as long."""
    monkeypatch.setattr("loravault.keeping.search.AT_A_TIME", 1)
    scene = Scene(tmp_path)
    for number in range(4):
        scene.put(f"ink {number}.safetensors", fill=number)
    scene.look()
    assert parts(scene) > 1, "few documents are not worth the work"
    monkeypatch.setattr("loravault.keeping.search.MANY", 4)
    scene.keeper = SearchKeeper(scene.ctx)
    scene.look()
    assert parts(scene) == 1, "what an earlier process wrote counts"
    assert scene.names("ink") == [f"ink {number}" for number in range(4)]

    again = SearchKeeper(scene.ctx)
    monkeypatch.setattr("loravault.index.search.merge", lambda *_, **__: pytest.fail("nothing was written since"))
    while again.step(1.0):
        pass


def test_documents_that_come_while_it_is_put_together_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr("loravault.keeping.search.time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr("loravault.keeping.search.MANY", 1)
    pieces: list[bool] = []

    def merge(_session: Session, *, begin: bool) -> bool:
        pieces.append(begin)
        return len(pieces) < 3

    monkeypatch.setattr("loravault.index.search.merge", merge)
    scene = Scene(tmp_path)
    scene.put("ink.safetensors", fill=1)
    refresh_adapters(scene.index, [scene.root])
    assert scene.keeper.step(2.5), "a document, and a piece"
    assert pieces == [True]
    scene.put("late.safetensors", fill=9)
    refresh_adapters(scene.index, [scene.root])
    scene.keeper.library_changed(None)
    assert scene.keeper.step(1.5), "there is time for one thing"
    assert (scene.names("late"), pieces) == (["late"], [True])
    while scene.keeper.step(1.5):
        pass
    scene.keeper.step(1.5)
    assert pieces == [True, False, False, True], "what came meanwhile counts again"
