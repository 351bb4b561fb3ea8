"""The index follows the files: new and changed ones are read once, missing is a state, a doubt changes nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from loravault.config import Root
from loravault.index import adapters, refresh
from loravault.index.database import Index
from loravault.index.refresh import Refreshed, forget_losses, refresh_adapters, sudden_loss
from loravault.index.tables import AdapterRow
from tests.formats import headers

#: Long after any file of a test was written.
LATER = time.time() + 3600


class Library:
    """Roots `main` and `more`, an index, and a count of the files that were opened."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.index = Index(home / "state" / "index.sqlite")
        self.roots = [Root(name, home / name) for name in ("main", "more")]
        for root in self.roots:
            root.path.mkdir()
        self.main = self.roots[0].path
        self.read: list[str] = []
        self.fills: dict[str, int] = {}
        real = refresh.read_adapter

        def reading(path: Path, root: str, rel: str, beside: tuple[str, ...]) -> object:
            self.read.append(rel)
            return real(path, root, rel, beside)

        monkeypatch.setattr(refresh, "read_adapter", reading)

    def put(self, *names: str, fill: int | None = None) -> None:
        """Adapters of different weights, or all of the same with `fill`."""
        for name in names:
            path = self.main.parent / name if "/" in name else self.main / name
            own = self.fills.setdefault(name, len(self.fills) + 1)
            headers.write(path, headers.adapter(headers.lora(), fill=own if fill is None else fill))

    def look(self, now: float = LATER, budget_s: float | None = None) -> Refreshed:
        self.read.clear()
        return refresh_adapters(self.index, self.roots, now=lambda: now, budget_s=budget_s)

    def states(self) -> dict[str, str]:
        return {f"{row.root}/{row.rel}": row.state for row in self.rows()}

    def rows(self) -> list[AdapterRow]:
        with self.index.session() as session:
            return list(adapters.adapters(session))


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library(tmp_path, monkeypatch)
    yield made
    made.index.close()


def refusing(monkeypatch: pytest.MonkeyPatch, call: str, ending: str) -> None:
    real = getattr(os, call)

    def refuse(path: str | Path, *more: object, **options: object) -> object:
        if str(path).endswith(ending):
            raise PermissionError(13, "Permission denied")
        return real(path, *more, **options)

    monkeypatch.setattr(os, call, refuse)


def test_new_files_are_read_and_unchanged_ones_never_again(library: Library) -> None:
    library.put("a.safetensors", "b.safetensors")
    first = library.look()
    assert (first.seen, first.read, first.changed, library.read) == (2, 2, True, ["a.safetensors", "b.safetensors"])
    second = library.look()
    assert (second.seen, second.read, second.changed, library.read) == (2, 0, False, [])


def test_a_changed_file_is_read_again_alone(library: Library) -> None:
    library.put("a.safetensors", "b.safetensors")
    library.look()
    before = library.rows()[0].weight_id
    library.put("a.safetensors", fill=9)
    library.look()
    assert library.read == ["a.safetensors"]
    assert library.rows()[0].weight_id != before


def test_a_growing_file_is_no_broken_file(library: Library) -> None:
    """A copy that is going on is looked at again; one that stays as it is is told as incomplete."""
    whole = headers.adapter(headers.lora())
    path = headers.write(library.main / "a.safetensors", whole[:-7])
    result = library.look(now=path.stat().st_mtime + 1)
    assert (result.unsettled, result.read, library.states()) == (1, 0, {})
    assert library.look(now=path.stat().st_mtime + 3).broken == 1
    assert library.states() == {"main/a.safetensors": "incomplete"}
    assert "bytes of its tensors are missing" in (library.rows()[0].reason or "")
    path.write_bytes(whole)
    library.look(now=path.stat().st_mtime + 1)
    assert library.states() == {"main/a.safetensors": "ok"}, "what is whole need not wait"


def test_a_broken_file_of_the_future_is_told_all_the_same(library: Library) -> None:
    """It counted as young for ever, and was read every few seconds."""
    path = headers.write(library.main / "a.safetensors", b"")
    os.utime(path, (LATER + 10**6, LATER + 10**6))
    assert library.look().unsettled == 0
    assert library.states() == {"main/a.safetensors": "broken"}


def test_two_looks_make_missing_and_one_makes_it_back(library: Library) -> None:
    library.put("a.safetensors", "b.safetensors", "c.safetensors")
    library.look()
    moved = (library.main / "a.safetensors").rename(library.main.parent / "aside")
    assert library.look().missing == 0
    assert library.states()["main/a.safetensors"] == "ok"
    assert library.look().missing == 1
    assert library.states()["main/a.safetensors"] == "missing"
    assert library.look().missing == 0
    moved.rename(library.main / "a.safetensors")
    library.look()
    assert library.states()["main/a.safetensors"] == "ok"


def test_being_unseen_twice_means_in_a_row(library: Library) -> None:
    library.put("a.safetensors", "b.safetensors", "c.safetensors")
    library.look()
    for _ in range(3):
        moved = (library.main / "a.safetensors").rename(library.main.parent / "aside")
        library.look()
        moved.rename(library.main / "a.safetensors")
        library.look()
    assert library.states()["main/a.safetensors"] == "ok"


def test_an_offline_root_changes_nothing_and_is_told(library: Library) -> None:
    library.put("a.safetensors", "more/b.safetensors")
    library.look()
    library.main.rename(library.main.with_name("unplugged"))
    for _ in range(3):
        result = library.look()
    assert set(result.troubles) == {"main"}
    assert "is not there" in result.troubles["main"]
    assert library.states() == {"main/a.safetensors": "ok", "more/b.safetensors": "ok"}
    library.main.with_name("unplugged").rename(library.main)
    assert library.look().troubles == {}


def test_a_root_that_may_not_be_looked_at_changes_nothing(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Path.is_dir raised PermissionError, and the daemon ended."""
    library.put("a.safetensors", "more/b.safetensors")
    library.look()
    for call in ("stat", "scandir"):
        refusing(monkeypatch, call, "/main")
    for _ in range(3):
        result = library.look()
    assert "cannot be read: Permission denied" in result.troubles["main"]
    assert library.states() == {"main/a.safetensors": "ok", "more/b.safetensors": "ok"}


def test_an_unreadable_folder_costs_only_what_is_in_it(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """One folder of another user kept the whole root from being indexed."""
    library.put("main/locked/a.safetensors", "b.safetensors", "c.safetensors")
    library.look()
    refusing(monkeypatch, "scandir", "locked")
    library.put("d.safetensors")
    (library.main / "c.safetensors").unlink()
    for _ in range(3):
        result = library.look()
    assert 'The folder "locked" cannot be read' in result.troubles["main"]
    assert library.states() == {
        "main/locked/a.safetensors": "ok",
        "main/b.safetensors": "ok",
        "main/c.safetensors": "missing",
        "main/d.safetensors": "ok",
    }


def test_a_sudden_loss_of_more_than_half_is_not_believed_until_told(library: Library) -> None:
    names = [f"{letter}.safetensors" for letter in "abcde"]
    library.put(*names)
    library.look()
    for name in names[:3]:
        (library.main / name).unlink()
    library.put("new.safetensors")
    for _ in range(3):
        result = library.look()
    assert "3 of 5 adapters" in result.troubles["main"]
    assert set(library.states().values()) == {"ok"}
    assert len(library.states()) == 5
    with library.index.session() as session:
        forget_losses(session, library.roots[0])
    assert library.look().troubles == {}
    assert sorted(library.states().values()) == ["missing"] * 3 + ["ok"] * 3


def test_the_user_word_does_not_make_missing_what_may_not_be_looked_at(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.put("a.safetensors", "b.safetensors")
    library.look()
    (library.main / "b.safetensors").unlink()
    refusing(monkeypatch, "stat", "a.safetensors")
    with library.index.session() as session:
        forget_losses(session, library.roots[0])
    assert library.states() == {"main/a.safetensors": "ok", "main/b.safetensors": "missing"}


@pytest.mark.parametrize(
    ("present", "lost", "believed"), [(0, 0, True), (3, 3, True), (4, 2, True), (4, 3, False), (100, 51, False)]
)
def test_which_losses_are_sudden(present: int, lost: int, believed: bool) -> None:
    assert (sudden_loss(present, lost, "adapters") is None) == believed


def test_the_same_weights_in_two_places_are_two_rows_of_one_adapter(library: Library) -> None:
    library.put("a.safetensors", "more/copy.safetensors", fill=5)
    library.look()
    first, second = library.rows()
    assert first.weight_id == second.weight_id
    assert (first.rel, second.rel) == ("a.safetensors", "copy.safetensors")
    with library.index.session() as session:
        for row in adapters.adapters(session):
            row.hashed, row.autov2, row.autov3 = False, None, None
            session.add(row)
    with library.index.session() as session:
        adapters.store_hashes(session, first.weight_id or "", ("more", "copy.safetensors"), "v2", "v3")
    told = {row.rel: (row.autov2, row.autov3) for row in library.rows()}
    assert told == {"a.safetensors": (None, "v3"), "copy.safetensors": ("v2", "v3")}, "a copy may have another header"


def test_measured_hashes_survive_a_touch_and_no_change_of_weights(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker measured them; the claim in the header of a large file must not take their place."""
    monkeypatch.setattr("loravault.library.identify.HASH_AT_ONCE_BYTES", 0)
    path = library.main / "a.safetensors"

    def write(fill: int) -> None:
        headers.write(path, headers.adapter(headers.lora(), {"sshs_model_hash": "ab" * 32}, fill=fill))

    write(1)
    library.look()
    assert (library.rows()[0].autov2, library.rows()[0].autov3) == (None, "ab" * 6)
    with library.index.session() as session:
        row = library.rows()[0]
        adapters.store_hashes(session, row.weight_id or "", ("main", row.rel), "measured2", "measured3")
    os.utime(path, (1, 1))
    library.look()
    assert (library.read, library.rows()[0].autov2, library.rows()[0].autov3) == (
        ["a.safetensors"],
        "measured2",
        "measured3",
    )
    write(2)
    library.look()
    assert (library.rows()[0].autov2, library.rows()[0].autov3) == (None, "ab" * 6)


def test_a_first_start_works_in_slices(library: Library) -> None:
    """A large library kept the daemon from everything else until its last header was read."""
    library.put(*(f"{letter}.safetensors" for letter in "abc"), "more/d.safetensors")
    read: list[str] = []
    for _ in range(3):
        assert library.look(budget_s=0.0).unfinished
        assert len(library.read) == 1, "every slice gets on, and none takes more than its time"
        read += library.read
    last = library.look(budget_s=0.0)
    read += library.read
    assert not last.unfinished
    assert read == ["a.safetensors", "b.safetensors", "c.safetensors", "d.safetensors"]
    assert not library.look(budget_s=0.0).unfinished


def test_slices_of_one_look_are_no_two_looks(library: Library) -> None:
    """A file that is moved during a long first look would be missing after two slices of half a second."""
    library.put("a.safetensors", "b.safetensors", "c.safetensors")
    library.look()
    (library.main / "a.safetensors").unlink()
    library.put(*(f"{letter}.safetensors" for letter in "vwxyz"))
    for _ in range(4):
        assert library.look(budget_s=0.0).unfinished
    assert library.states()["main/a.safetensors"] == "ok"
    assert not library.look(budget_s=60).unfinished
    assert library.states()["main/a.safetensors"] == "ok"
    library.look(budget_s=60)
    assert library.states()["main/a.safetensors"] == "missing"


def test_a_file_that_goes_while_it_is_read_keeps_what_was_known(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row became broken, without the weight id that its card is found by."""
    library.put("a.safetensors")
    library.look()
    os.utime(library.main / "a.safetensors", (1, 1))
    real: Callable[..., object] = refresh.read_adapter

    def reading(path: Path, root: str, rel: str, beside: tuple[str, ...]) -> object:
        path.unlink()
        return real(path, root, rel, beside)

    monkeypatch.setattr(refresh, "read_adapter", reading)
    library.look()
    assert [(row.state, bool(row.weight_id)) for row in library.rows()] == [("ok", True)]


def test_numbers_of_a_network_file_system_are_stored_and_compared(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An inode of 2⁶³ or more, or a time after 2262, raised OverflowError at every look."""
    library.put("a.safetensors", "b.safetensors")
    real = os.stat

    def stat(path: str | Path, **options: object) -> object:
        status = real(path, **options)  # type: ignore[arg-type]
        if not os.fspath(path).endswith(".safetensors"):
            return status
        return os.stat_result((status.st_mode, 2**64 - status.st_ino, 2**64 - 1, *status[3:]), {"st_mtime_ns": 2**65})

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr("loravault.library.scan.look_at", stat)
    assert library.look().read == 2
    assert library.look().read == 0


def test_a_moved_file_is_known_again_without_being_hashed(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reorganising folders cost a night of hashing in other tools, and their cards."""
    monkeypatch.setattr("loravault.library.identify.HASH_AT_ONCE_BYTES", 0)
    library.put("a.safetensors", "b.safetensors", "c.safetensors", "d.safetensors", "e.safetensors")
    library.look()
    with library.index.session() as session:
        for row in adapters.adapters(session):
            row.hashed, row.sha256 = True, f"sha of {row.rel}"
            session.add(row)
    (library.main / "Styles").mkdir()
    for name in "abcd":  # most of the library at once, and one of them into another root
        home = library.roots[1].path if name == "d" else library.main / "Styles"
        (library.main / f"{name}.safetensors").rename(home / f"new {name}.safetensors")
    result = library.look()
    assert result.troubles == {}, "moving is not losing"
    assert library.states() == {
        "main/Styles/new a.safetensors": "ok",
        "main/Styles/new b.safetensors": "ok",
        "main/Styles/new c.safetensors": "ok",
        "main/e.safetensors": "ok",
        "more/new d.safetensors": "ok",
    }
    assert all(row.hashed and row.sha256 for row in library.rows())
    assert library.look().changed is False


def test_another_file_under_the_same_number_is_no_moved_file(library: Library) -> None:
    """File systems give the inode of a deleted file to the next one."""
    library.put("a.safetensors", "b.safetensors")
    library.look()
    (library.main / "a.safetensors").unlink()
    library.put("z.safetensors")
    library.look()
    library.look()
    assert library.states()["main/a.safetensors"] == "missing"


def test_copies_are_told_and_the_oldest_is_used_then_the_first_by_place(library: Library) -> None:
    library.put("b.safetensors", "a.safetensors", "more/c.safetensors", "A later copy.safetensors", fill=5)
    library.put("other.safetensors", fill=6)
    for old in (library.main / "a.safetensors", library.main / "b.safetensors", *library.main.parent.glob("more/c.*")):
        os.utime(old, (1000, 1000))
    library.look()
    assert library.states() == {
        "main/A later copy.safetensors": "duplicate",
        "main/a.safetensors": "ok",
        "main/b.safetensors": "duplicate",
        "main/other.safetensors": "ok",
        "more/c.safetensors": "duplicate",
    }
    assert [row.reason for row in library.rows() if row.rel == "c.safetensors"] == [
        "the same weights as main/a.safetensors"
    ]
    (library.main / "a.safetensors").unlink()
    library.look()
    assert library.states()["main/b.safetensors"] == "ok", "a copy that is used again is no duplicate"
    assert "main/a.safetensors" not in library.states(), "a copy that went is not missed"


def test_a_file_that_is_being_downloaded_is_incomplete_whatever_it_holds(library: Library) -> None:
    library.put("a.safetensors")
    (library.main / "a.safetensors.part").write_bytes(b"")
    library.look()
    assert library.states() == {"main/a.safetensors": "incomplete"}
    (library.main / "a.safetensors.part").unlink()
    library.look()
    assert library.states() == {"main/a.safetensors": "ok"}


def test_a_changed_file_beside_an_adapter_is_a_change_of_it(library: Library) -> None:
    library.put("a.safetensors", "a.v2.safetensors")
    library.look()
    (library.main / "a.json").write_text('{"activation text": "sks"}')
    library.look()
    assert library.read == ["a.safetensors"]
    (library.main / "A.V2.preview.png").write_bytes(b"\x89PNG")
    library.look()
    assert library.read == ["a.safetensors", "a.v2.safetensors"], "its name also begins with that of the other"
    library.look()
    assert library.read == []


def test_pickles_are_told_by_name(library: Library) -> None:
    (library.main / "old.pt").write_bytes(b"\x80\x02")
    assert library.look().pickles == {"main": ("old.pt",), "more": ()}
