"""Files are moved and moved back, byte for byte; nothing is overwritten; what a crash cuts short is ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loravault import failpoints
from loravault.config import Root, VaultConfig
from loravault.errors import UserError
from loravault.keeping import trash as trash_module
from loravault.keeping.batches import VAULT, Move, batches_of, in_trash, is_in_trash
from loravault.keeping.trash import Trash
from loravault.vault.ledger import Ledger
from loravault.vault.recovery import COMPACT_BYTES, UNDO_S, compact
from tests.faults.editors import in_child


class Place:
    """A vault and a root with some files."""

    def __init__(self, home: Path, files: dict[str, bytes] | None = None) -> None:
        self.home = home
        self.vault, self.root = home / "vault", home / "loras"
        for folder in (self.vault, self.root):
            folder.mkdir(parents=True, exist_ok=True)
        for rel, data in (files or {}).items():
            path = home / rel
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self.ledger = Ledger(home / "state" / "ledger.jsonl")
        self.config = VaultConfig(vault=self.vault, loras=(Root("loras", self.root),))
        self.clock = 1_800_000_000.0
        self.trash = Trash(self.config, self.ledger, now=lambda: self.clock)

    def tree(self) -> dict[str, bytes]:
        """Every file below, the state apart."""
        return {
            path.relative_to(self.home).as_posix(): path.read_bytes()
            for path in sorted(self.home.rglob("*"))
            if path.is_file() and "state" not in path.relative_to(self.home).parts
        }


FILES = {
    "loras/Styles/ink.safetensors": b"weights",
    "loras/Styles/ink.json": b"{}",
    "loras/Styles/ink.preview.png": b"png",
    "vault/Notes/a.md": b"a",
}
INK = [
    Move("loras", f"Styles/ink{ending}", f"Art/feather{ending}") for ending in (".safetensors", ".json", ".preview.png")
]


def to_trash(place: Place, *rels: str, area: str = "loras") -> list[Move]:
    batch = place.trash.new_batch()
    return [Move(area, rel, in_trash(area, rel, batch)) for rel in rels]


def test_a_batch_goes_to_the_trash_and_comes_back_byte_for_byte(tmp_path: Path) -> None:
    place = Place(tmp_path, FILES)
    before = place.tree()
    moves = to_trash(place, "Styles/ink.safetensors", "Styles/ink.json") + to_trash(place, "Notes/a.md", area=VAULT)
    moved = place.trash.carry_out("clean", moves, whole=False)
    assert (moved.moves, moved.stayed) == (tuple(moves), ())
    assert sorted(place.tree().values()) == sorted(before.values())
    assert not (place.root / "Styles/ink.safetensors").exists()
    assert all(is_in_trash(move.target) for move in moves)
    assert [batch.what for batch in place.trash.batches()] == ["clean"]

    back = place.trash.undo()
    assert back.stayed == ()
    assert place.tree() == before
    assert not (place.root / ".loravault-trash").exists(), "no empty folder is left"
    assert list((place.vault / ".trash").iterdir()) == []
    with pytest.raises(UserError, match="nothing to undo"):
        place.trash.undo()


def test_undo_overwrites_nothing_and_says_what_it_could_not(tmp_path: Path) -> None:
    place = Place(tmp_path, FILES)
    place.trash.carry_out("clean", to_trash(place, "Styles/ink.safetensors", "Styles/ink.json"), whole=False)
    (place.root / "Styles/ink.json").write_bytes(b"a new one")
    moved = place.trash.undo()
    assert [move.target for move in moved.moves] == ["Styles/ink.safetensors"]
    assert "already something at Styles/ink.json" in moved.stayed[0][1]
    assert (place.root / "Styles/ink.json").read_bytes() == b"a new one"
    assert b"{}" in place.tree().values(), "the old one is still in the trash"
    (place.root / "Styles/ink.json").unlink()
    assert [move.target for move in place.trash.undo().moves] == ["Styles/ink.json"]


def test_batches_are_undone_by_name_and_only_once(tmp_path: Path) -> None:
    place = Place(tmp_path, FILES)
    first = place.trash.carry_out("one", to_trash(place, "Styles/ink.json"), whole=False).batch
    second = place.trash.carry_out("two", to_trash(place, "Styles/ink.preview.png"), whole=False).batch
    assert [batch.id for batch in place.trash.batches()] == [second, first]
    place.trash.undo(first)
    with pytest.raises(UserError, match="Nothing of"):
        place.trash.undo(first)
    with pytest.raises(UserError, match="no batch"):
        place.trash.undo("20200101")
    place.trash.undo()
    assert place.tree() == Place(tmp_path / "twin", FILES).tree()


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_a_whole_batch_whose_nth_rename_fails_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    place = Place(tmp_path, FILES)
    before = place.tree()
    honest, calls = trash_module.replace_no_overwrite, [0]

    def failing(source: Path, target: Path) -> None:
        calls[0] += 1
        if calls[0] == fails_at:
            raise OSError(28, "No space left on device")
        honest(source, target)

    monkeypatch.setattr(trash_module, "replace_no_overwrite", failing)
    with pytest.raises(UserError, match=r"Nothing was moved.*No space left"):
        place.trash.carry_out("rename", INK, whole=True)
    assert place.tree() == before
    assert not (place.root / "Art").exists(), "no empty folder is left"
    assert place.trash.batches() == []
    assert place.trash.recover() == []


def test_what_cannot_even_be_taken_back_is_told_and_undone_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path, FILES)
    before = place.tree()
    honest, calls = trash_module.replace_no_overwrite, [0]

    def failing(source: Path, target: Path) -> None:
        calls[0] += 1
        if calls[0] > 1:
            raise OSError(5, "Input/output error")
        honest(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(trash_module, "replace_no_overwrite", failing)
        with pytest.raises(UserError, match=r"could not be moved back: Styles/ink.safetensors"):
            place.trash.carry_out("rename", INK, whole=True)
    assert (place.root / "Art/feather.safetensors").exists()
    place.trash.undo()
    assert place.tree() == before


def test_a_whole_batch_checks_every_target_first(tmp_path: Path) -> None:
    place = Place(tmp_path, {**FILES, "loras/Art/feather.preview.png": b"another's"})
    before = place.tree()
    with pytest.raises(UserError, match=r"already something at Art/feather.preview.png"):
        place.trash.carry_out("rename", INK, whole=True)
    assert place.tree() == before
    assert place.ledger.size() == 0


def test_a_batch_that_is_not_whole_moves_the_rest(tmp_path: Path) -> None:
    place = Place(tmp_path, FILES)
    moved = place.trash.carry_out("clean", to_trash(place, "gone.json", "Styles/ink.json", "Styles"), whole=False)
    assert [move.source for move in moved.moves] == ["Styles/ink.json"]
    assert [reason for _, reason in moved.stayed] == ["gone.json is not there any more.", "Styles is not a file."]


@pytest.mark.parametrize("bad", ["../out.md", "a/../../out.md", "/etc/passwd", "a//b", "./a"])
def test_no_path_leaves_its_area(tmp_path: Path, bad: str) -> None:
    place = Place(tmp_path, FILES)
    before = place.tree()
    moved = place.trash.carry_out("clean", [Move(VAULT, "Notes/a.md", bad), Move(VAULT, bad, "b.md")], whole=False)
    assert moved.moves == ()
    assert place.tree() == before


def test_a_link_out_of_the_root_is_not_followed(tmp_path: Path) -> None:
    place = Place(tmp_path, {**FILES, "elsewhere/x.json": b"x"})
    (place.root / "Linked").symlink_to(tmp_path / "elsewhere")
    (place.vault / ".trash").symlink_to(tmp_path / "elsewhere")
    moves = [*to_trash(place, "Linked/x.json"), *to_trash(place, "Notes/a.md", area=VAULT)]
    moved = place.trash.carry_out("clean", moves, whole=False)
    assert moved.moves == ()
    assert all("through a link" in reason for _, reason in moved.stayed)


def test_a_hard_link_is_not_another_spelling(tmp_path: Path) -> None:
    """rename(2) of two names of one file does nothing and says nothing."""
    place = Place(tmp_path, FILES)
    os.link(place.root / "Styles/ink.json", place.root / "Styles/twin.json")
    moved = place.trash.carry_out("x", [Move("loras", "Styles/ink.json", "Styles/twin.json")], whole=False)
    assert "already something" in moved.stayed[0][1]


# ---- crashes


def crash_at(name: str, count: int) -> Callable[[str], None]:
    reached = [0]

    def hook(point: str) -> None:
        if point == name:
            reached[0] += 1
            if reached[0] == count:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook


POINTS = [("move.intent", 1), ("move.renamed", 1), ("move.renamed", 2), ("move.renamed", 3), ("move.synced", 1)]


@pytest.mark.faults
@pytest.mark.parametrize(("point", "count"), POINTS)
@pytest.mark.parametrize("whole", [True, False])
def test_a_kill_in_the_middle_is_ended_by_the_next_start(tmp_path: Path, point: str, count: int, whole: bool) -> None:
    """A whole batch is made or not made; another is closed as far as it came; undo restores every byte of both."""
    place = Place(tmp_path, FILES)
    before = place.tree()

    def move() -> None:
        failpoints.hook = crash_at(point, count)
        place.trash.carry_out("rename", INK, whole=whole)

    assert os.WIFSIGNALED(in_child(move))
    again = Place(tmp_path)
    told = again.trash.recover()
    made = [(again.root / move.target).exists() for move in INK]
    gone = [not (again.root / move.source).exists() for move in INK]
    assert made == gone, "every file is at one place"
    if whole:
        assert len(set(made)) == 1
        assert bool(told) == (point == "move.renamed" and count < 3)
    assert again.trash.recover() == []
    assert sum(len(batch.left) for batch in again.trash.batches()) == sum(made)
    while any(batch.left for batch in again.trash.batches()):
        again.trash.undo()
    assert again.tree() == before


@pytest.mark.faults
@pytest.mark.parametrize(("point", "count"), POINTS)
def test_a_kill_in_an_undo_is_ended_too(tmp_path: Path, point: str, count: int) -> None:
    place = Place(tmp_path, FILES)
    before = place.tree()
    place.trash.carry_out("clean", to_trash(place, *(move.source for move in INK)), whole=False)

    def undo() -> None:
        failpoints.hook = crash_at(point, count)
        place.trash.undo()

    assert os.WIFSIGNALED(in_child(undo))
    again = Place(tmp_path)
    again.trash.recover()
    while any(batch.left for batch in again.trash.batches()):
        assert again.trash.undo().moves
    assert again.tree() == before


def test_half_a_rename_of_a_poor_file_system_is_ended(tmp_path: Path) -> None:
    """Where renaming is linking and unlinking a crash leaves two names; where it is claiming, an empty target."""
    place = Place(tmp_path, FILES)
    place.ledger.append(
        {
            "op": "moves", "batch": "b", "at": 1, "what": "rename", "whole": False, "undoes": None,
            "moves": [[move.area, move.source, move.target] for move in INK[:2]],
        }
    )  # fmt: skip
    (place.root / "Art").mkdir()
    os.link(place.root / INK[0].source, place.root / INK[0].target)
    (place.root / INK[1].target).touch()
    place.trash.recover()
    assert not (place.root / INK[0].source).exists()
    assert (place.root / INK[0].target).read_bytes() == b"weights"
    assert not (place.root / INK[1].target).exists()
    assert (place.root / INK[1].source).read_bytes() == b"{}"


def test_a_root_that_is_away_lets_its_batch_wait(tmp_path: Path) -> None:
    place = Place(tmp_path, FILES)

    def move() -> None:
        failpoints.hook = crash_at("move.renamed", 1)
        place.trash.carry_out("rename", INK, whole=True)

    in_child(move)
    place.root.rename(tmp_path / "unplugged")
    told = Trash(place.config, place.ledger).recover()
    assert len(told) == 1
    assert "waits" in told[0]
    (tmp_path / "unplugged").rename(place.root)
    assert "back in its place" in Trash(place.config, place.ledger).recover()[0]
    assert (place.root / INK[0].source).exists()


# ---- the ledger and the emptying


def test_what_undo_needs_outlives_a_compaction_for_ninety_days(tmp_path: Path) -> None:
    place = Place(tmp_path, FILES)
    old = place.trash.carry_out("old", to_trash(place, "Styles/ink.json"), whole=False).batch
    place.clock += UNDO_S - 10
    new = place.trash.carry_out("new", to_trash(place, "Styles/ink.preview.png"), whole=False).batch
    place.ledger.append({"op": "write", "id": "x", "path": "y" * COMPACT_BYTES})
    place.ledger.append({"op": "verified", "id": "x"})
    compact(place.ledger, place.clock)
    assert place.ledger.size() < COMPACT_BYTES
    assert [batch.id for batch in place.trash.batches()] == [new, old]
    place.ledger.append({"op": "write", "id": "x", "path": "y" * COMPACT_BYTES})
    place.ledger.append({"op": "verified", "id": "x"})
    compact(place.ledger, place.clock + 20)
    assert [batch.id for batch in place.trash.batches()] == [new]


def test_only_our_own_old_batches_are_emptied(tmp_path: Path) -> None:
    place = Place(tmp_path, {**FILES, "vault/.trash/theirs.md": b"x", "vault/.trash/loravault-mine/y.md": b"y"})
    place.trash.carry_out("old", to_trash(place, "Styles/ink.json"), whole=False)
    place.trash.carry_out("old", to_trash(place, "Notes/a.md", area=VAULT), whole=False)
    place.clock += 40 * 86400
    place.trash.carry_out("new", to_trash(place, "Styles/ink.preview.png"), whole=False)
    found = place.trash.binned(30 * 86400)
    assert sorted((one.area, one.files, one.size) for one in found) == [("", 1, 1), ("loras", 1, 2)]
    assert place.trash.empty(found) == []
    left = place.tree()
    assert b"png" in left.values()
    assert {"vault/.trash/theirs.md", "vault/.trash/loravault-mine/y.md"} <= set(left)
    assert "loras/Styles/ink.json" not in left
    assert [len(batch.left) for batch in place.trash.batches()] == [1, 0, 0], "what is deleted cannot be undone"
    with pytest.raises(UserError, match="Nothing of"):
        place.trash.undo(place.trash.batches()[-1].id)
    place.clock += UNDO_S + 1
    place.ledger.append({"op": "write", "id": "x", "path": "y" * COMPACT_BYTES})
    place.ledger.append({"op": "verified", "id": "x"})
    compact(place.ledger, place.clock)
    assert place.ledger.size() == 0


NAMES = st.sampled_from(["a.json", "b.json", "X/a.json", "X/b.json", "X/Y/c.json", "d"])
STEPS = st.lists(st.tuples(st.sampled_from(["move", "trash", "undo"]), NAMES, NAMES, st.booleans()), max_size=12)


@settings(max_examples=60, deadline=None)
@given(present=st.sets(NAMES), steps=STEPS)
def test_whatever_is_moved_no_content_is_ever_lost(
    tmp_path_factory: pytest.TempPathFactory, present: set[str], steps: list[tuple[str, str, str, bool]]
) -> None:
    home = tmp_path_factory.mktemp("tree")
    place = Place(home, {f"loras/{rel}": rel.encode() for rel in present})
    contents = sorted(place.tree().values())
    for kind, one, other, whole in steps:
        try:
            if kind == "undo":
                place.trash.undo()
            else:
                moves = [Move("loras", one, other)] if kind == "move" else to_trash(place, one, other)
                place.trash.carry_out(kind, moves, whole=whole)
        except UserError:
            pass
        assert sorted(place.tree().values()) == contents
    assert batches_of(place.ledger.read()) == place.trash.batches()
    assert place.trash.recover() == []
