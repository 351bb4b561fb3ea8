"""Missing is a state and never a deletion; a doubt changes nothing, and two looks are needed to miss a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from loravault.index import refresh
from loravault.index.refresh import forget_losses, sudden_loss
from tests.index.library import Library, refusing


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
    assert "3 of 5 LoRAs" in result.troubles["main"]
    assert set(library.states().values()) == {"ok"}
    assert len(library.states()) == 5
    with library.index.session() as session:
        forget_losses(session, library.roots[0])
    assert library.look().troubles == {}
    assert sorted(library.states().values()) == ["missing"] * 3 + ["ok"] * 3


def test_the_empty_mount_point_of_a_drive_is_not_believed_however_few_its_loras_were(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stick with three LoRAs was unplugged, its empty folder stayed, and their cards said `missing`."""
    library.put("a.safetensors", "b.safetensors", "c.safetensors")
    library.look()
    away = library.main.rename(library.main.parent / "drive")
    library.main.mkdir()
    monkeypatch.setattr(refresh, "_disk", lambda path: path.stat().st_dev + 1)
    for _ in range(3):
        result = library.look()
    assert "on another disk than its LoRAs were" in result.troubles["main"]
    assert set(library.states().values()) == {"ok"}
    monkeypatch.undo()
    for _ in range(2):
        library.look()
    assert set(library.states().values()) == {"missing"}, "on its own disk, a folder so small may well be emptied"
    library.main.rmdir()
    away.rename(library.main)
    library.look()
    assert set(library.states().values()) == {"ok"}


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


def test_another_file_under_the_same_number_is_no_moved_file(library: Library) -> None:
    """File systems give the inode of a deleted file to the next one."""
    library.put("a.safetensors", "b.safetensors")
    library.look()
    (library.main / "a.safetensors").unlink()
    library.put("z.safetensors")
    library.look()
    library.look()
    assert library.states()["main/a.safetensors"] == "missing"
