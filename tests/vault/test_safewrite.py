"""Writing loses no edit, tears no note, leaves no trace, and never leaves the vault."""

from __future__ import annotations

import os
import shutil
import stat

import pytest

from loravault.vault import safewrite
from loravault.vault.displaced import Displaced
from loravault.vault.ignore import conflict_original
from loravault.vault.ledger import Ledger
from loravault.vault.paths import PathRefused, VaultGone, inside
from loravault.vault.safewrite import NoteChanged
from tests.vault.scene import Scene, broken


def test_a_write_replaces_the_note_and_keeps_what_it_displaced_outside_the_vault(scene):
    scene.writer.replace("note.md", b"base\n", b"new\n")
    assert scene.note.read_bytes() == b"new\n"
    assert scene.writer.pending_checks == 1
    assert scene.wait() == []
    assert (scene.files(), scene.displaced(), scene.writer.pending_checks) == (["note.md"], [b"base\n"], 0)
    assert [r["op"] for r in scene.writer.ledger.read()] == ["write", "placed", "verified"]


def test_a_note_that_is_not_what_was_planned_on_is_left_alone(scene):
    for base in (b"other", b""):
        with pytest.raises(NoteChanged):
            scene.writer.replace("note.md", base, b"new\n")
    scene.note.unlink()
    with pytest.raises(NoteChanged, match="gone"):
        scene.writer.replace("note.md", b"base\n", b"new\n")
    assert (scene.files(), list(scene.writer.ledger.read())) == ([], [])


def test_writing_what_is_there_already_touches_nothing(scene):
    before = scene.note.stat()
    scene.writer.replace("note.md", b"base\n", b"base\n")
    assert scene.note.stat().st_mtime_ns == before.st_mtime_ns
    assert list(scene.writer.ledger.read()) == []


def test_the_mode_stays_and_the_mtime_advances_even_against_a_file_from_the_future(scene):
    scene.note.chmod(0o640)
    future = scene.note.stat().st_mtime_ns + 10**15
    os.utime(scene.note, ns=(future, future))
    scene.writer.replace("note.md", b"base\n", b"neww\n")
    status = scene.note.stat()
    assert stat.S_IMODE(status.st_mode) == 0o640
    assert status.st_mtime_ns // 10**6 > future // 10**6, "Obsidian compares milliseconds"


@pytest.mark.parametrize(
    "step", ["write.planned", "write.intent", "write.part-created", "write.part-synced", "write.temp-ready"]
)
def test_an_edit_between_plan_and_check_stops_the_write(scene, at_failpoint, step):
    at_failpoint(step, lambda: scene.note.write_bytes(b"user\n"))
    with pytest.raises(NoteChanged):
        scene.writer.replace("note.md", b"base\n", b"new\n")
    assert (scene.note.read_bytes(), scene.files(), scene.writer.pending_checks) == (b"user\n", ["note.md"], 0)
    assert [r["op"] for r in scene.writer.ledger.read()] == ["write", "abandoned"]


@pytest.mark.parametrize("style", ["in place", "rename"])
def test_an_edit_between_check_and_exchange_is_put_back(tmp_path, at_failpoint, style):
    scene = Scene(tmp_path)

    def save():
        if style == "in place":
            scene.note.write_bytes(b"user\n")
        else:
            (scene.root / "x").write_bytes(b"user\n")
            os.replace(scene.root / "x", scene.note)

    at_failpoint("write.checked", save)
    with pytest.raises(NoteChanged, match="the edit was kept"):
        scene.writer.replace("note.md", b"base\n", b"new\n")
    assert (scene.note.read_bytes(), scene.files()) == (b"user\n", ["note.md"])
    assert scene.restart().recover() == []


def test_a_note_deleted_between_check_and_exchange_stays_deleted(scene, at_failpoint):
    at_failpoint("write.checked", scene.note.unlink)
    with pytest.raises(NoteChanged):
        scene.writer.replace("note.md", b"base\n", b"new\n")
    assert scene.files() == []


def test_an_editor_that_had_the_old_file_open_keeps_its_edit_as_a_conflict_copy(scene):
    with scene.note.open("r+b") as editor:
        scene.writer.replace("note.md", b"base\n", b"new\n")
        editor.write(b"typed\n")
    assert scene.wait() == [], "it may still be writing"
    (sentence,) = scene.wait()
    assert "merge the two" in sentence
    assert (scene.note.read_bytes(), scene.conflicts()) == (b"new\n", [b"typed\n"])
    name = next(f for f in scene.files() if "conflict" in f)
    assert conflict_original(name) == "note.md", "a conflict copy is never a request"


def test_with_a_rebase_such_an_edit_is_merged(scene):
    with scene.note.open("r+b") as editor:
        scene.writer.replace("note.md", b"base\n", b"base\n+ours\n", lambda data: data + b"+ours\n")
        editor.write(b"typed\n")
    scene.wait()
    (sentence,) = scene.wait()
    assert "both changes" in sentence
    assert scene.note.read_bytes() == b"typed\n+ours\n"
    assert scene.wait() == []
    assert (scene.files(), scene.conflicts()) == (["note.md"], [])


def test_a_rebase_that_comes_too_late_or_fails_falls_back_to_the_conflict_copy(scene):
    def refuse(data):
        raise NoteChanged("no")

    for rebase, later in ((refuse, b"new\n"), (lambda d: d + b"x", b"newer by the user\n")):
        scene.note.write_bytes(b"base\n")
        with scene.note.open("r+b") as editor:
            scene.writer.replace("note.md", b"base\n", b"new\n", rebase)
            editor.write(b"typed\n")
        scene.note.write_bytes(later)
        scene.wait()
        assert len(scene.wait()) == 1
        assert scene.note.read_bytes() == later
    assert scene.conflicts() == [b"typed\n", b"typed\n"]


def test_a_slow_editor_is_waited_for(scene):
    with scene.note.open("r+b", buffering=0) as editor:
        scene.writer.replace("note.md", b"base\n", b"new\n")
        editor.truncate(0)
        for number in range(4):
            assert scene.wait() == []
            editor.write(b"word %d\n" % number)
            os.utime(editor.fileno(), ns=(0, 10**18 + number))
    scene.wait()
    assert len(scene.wait()) == 1
    assert scene.conflicts()[0].endswith(b"word 3\n")


def test_an_editor_that_only_emptied_the_old_file_leaves_no_conflict_copy(scene):
    with scene.note.open("r+b") as editor:
        scene.writer.replace("note.md", b"base\n", b"new\n")
        editor.truncate(0)
    for _ in range(15):
        assert scene.wait() == []
    assert (scene.conflicts(), scene.files(), scene.writer.pending_checks) == ([], ["note.md"], 0)


def test_two_writes_within_one_grace_are_both_checked(scene):
    scene.writer.replace("note.md", b"base\n", b"one\n")
    scene.writer.replace("note.md", b"one\n", b"two\n")
    assert scene.writer.pending_checks == 2
    assert scene.wait() == []
    assert scene.displaced() == [b"base\n", b"one\n"]


def test_a_folder_that_cannot_be_written_leaves_everything_as_it_is(scene, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        os, "write", lambda fd, data, real=os.write: full() if bytes(data[:3]) == b"new" else real(fd, data)
    )
    with pytest.raises(OSError, match="No space"):
        scene.writer.replace("note.md", b"base\n", b"new\n")
    assert (scene.note.read_bytes(), scene.files()) == (b"base\n", ["note.md"])
    with pytest.raises(OSError, match="No space"):
        scene.writer.create("other.md", b"new")
    assert scene.files() == ["note.md"]


def test_create_is_exclusive_and_makes_folders(scene):
    scene.writer.create("a/b/c.md", b"x")
    with pytest.raises(FileExistsError):
        scene.writer.create("a/b/c.md", b"y")
    assert scene.files() == ["a/b/c.md", "note.md"]
    assert (scene.root / "a/b/c.md").read_bytes() == b"x"
    assert stat.S_IMODE((scene.root / "a/b/c.md").stat().st_mode) & 0o600 == 0o600


def test_a_name_taken_at_the_last_moment_is_not_overwritten(scene, at_failpoint):
    target = scene.root / "new.md"
    at_failpoint("write.temp-ready", lambda: target.write_bytes(b"user"))
    with pytest.raises(FileExistsError):
        scene.writer.create("new.md", b"ours")
    assert (target.read_bytes(), scene.files()) == (b"user", ["new.md", "note.md"])


def test_publish_replaces_our_own_file_and_is_free_the_second_time(scene):
    scene.writer.publish("Images/lv-1.webp", b"one")
    inode = (scene.root / "Images/lv-1.webp").stat().st_ino
    scene.writer.publish("Images/lv-1.webp", b"one")
    assert (scene.root / "Images/lv-1.webp").stat().st_ino == inode
    scene.writer.publish("Images/lv-1.webp", b"two")
    assert (scene.root / "Images/lv-1.webp").read_bytes() == b"two"
    assert scene.files() == ["Images/lv-1.webp", "note.md"]


def test_pages_of_ours_are_written_only_over_what_was_seen(scene):
    scene.writer.write_own("page.md", b"one", None)
    scene.writer.write_own("page.md", b"two", b"one")
    for new, old in ((b"x", None), (b"x", b"one")):
        with pytest.raises(NoteChanged):
            scene.writer.write_own("page.md", new, old)
    assert (scene.root / "page.md").read_bytes() == b"two"
    assert (scene.files(), scene.displaced(), list(scene.writer.ledger.read())) == (["note.md", "page.md"], [], [])


def test_an_edit_of_a_page_while_it_is_written_stays(scene, at_failpoint):
    scene.writer.write_own("page.md", b"one", None)
    at_failpoint("write.temp-ready", lambda: (scene.root / "page.md").write_bytes(b"user"))
    with pytest.raises(NoteChanged):
        scene.writer.write_own("page.md", b"two", b"one")
    assert ((scene.root / "page.md").read_bytes(), scene.files()) == (b"user", ["note.md", "page.md"])


def test_where_the_vault_was_unplugged_nothing_is_made(scene):
    """Publishing a picture made the vault anew, as an empty folder on the wrong disk."""
    shutil.move(scene.root, scene.root.with_name("away"))
    for there in (False, True):  # first no folder at all, then an empty one in its place
        if there:
            scene.root.mkdir()
        for write in (
            lambda: scene.writer.publish("Images/a.webp", b"x"),
            lambda: scene.writer.create("a/b.md", b"x"),
            lambda: scene.writer.write_own("page.md", b"x", None),
            lambda: scene.writer.replace("note.md", b"base\n", b"x"),
        ):
            with pytest.raises(VaultGone, match="Plug its drive in"):
                write()
        assert scene.root.exists() == there
        assert not there or list(scene.root.iterdir()) == []
    scene.root.rmdir()
    shutil.move(scene.root.with_name("away"), scene.root)
    scene.writer.publish("Images/a.webp", b"x")
    assert scene.files() == ["Images/a.webp", "note.md"]


def test_a_check_that_cannot_be_made_now_is_told_once_and_made_later(scene, monkeypatch):
    """A full disk in the state folder killed the daemon."""
    scene.writer.replace("note.md", b"base\n", b"new\n")
    with monkeypatch.context() as patch:
        patch.setattr(Displaced, "keep", broken)
        (sentence,) = scene.wait()
        assert "No space left" in sentence
        assert "note.md" in sentence
        assert (scene.wait(0.5), scene.wait(), scene.writer.pending_checks) == ([], [], 1)
    assert scene.wait() == []
    assert (scene.displaced(), scene.files(), scene.writer.pending_checks) == ([b"base\n"], ["note.md"], 0)


@pytest.mark.parametrize("rebase", [None, lambda data: data + b"ours\n"], ids=["conflict", "merge"])
def test_a_ledger_on_a_full_disk_neither_loses_nor_doubles_the_edit_that_was_found(scene, monkeypatch, rebase):
    with scene.note.open("r+b") as editor:
        scene.writer.replace("note.md", b"base\n", b"base\nours\n", rebase)
        editor.write(b"typed\n")
    scene.wait()
    real = Ledger.append
    with monkeypatch.context() as patch:
        ends = ("conflict", "verified")
        patch.setattr(Ledger, "append", lambda self, r: broken() if r["op"] in ends else real(self, r))
        sentences = scene.wait()
        assert len(sentences) == 2, "the edit, and that the disk is full"
        assert len(scene.wait()) == (rebase is not None), "the merge was a write of its own"
    for _ in range(3):
        assert scene.wait() == []
    assert len(scene.conflicts()) == (rebase is None)
    assert scene.note.read_bytes() == (b"base\nours\n" if rebase is None else b"typed\nours\n")
    assert scene.writer.pending_checks == 0
    assert scene.restart().recover() == []


def test_a_conflict_copy_that_is_refused_keeps_the_edit_beside_the_note(scene, monkeypatch):
    with scene.note.open("r+b") as editor:
        scene.writer.replace("note.md", b"base\n", b"new\n")
        editor.write(b"typed\n")
    scene.wait()
    with monkeypatch.context() as patch:
        patch.setattr(safewrite, "inside", lambda root, rel: inside(root, "../x"))
        (sentence,) = scene.wait()
        assert "tried again" in sentence
    (sentence,) = scene.wait()
    assert "merge the two" in sentence
    assert scene.conflicts() == [b"typed\n"]


def test_a_folder_that_is_a_link_to_another_disk_is_refused_with_the_way_out(scene, tmp_path):
    (tmp_path / "disk").mkdir()
    (scene.root / "LoraVault").mkdir()
    (scene.root / "LoraVault/Images").symlink_to(tmp_path / "disk")
    with pytest.raises(PathRefused) as caught:
        scene.writer.publish("LoraVault/Images/2026-11/lv-1.webp", b"x")
    assert caught.value.message.startswith("'LoraVault/Images' is a link that leads outside the vault")
    assert "`originals`" in caught.value.message
    assert list((tmp_path / "disk").iterdir()) == []
