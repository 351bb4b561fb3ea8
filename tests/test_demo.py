"""The demo: its folder, the tick, and how it follows what the notes say. The real run is an e2e test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from loravault import demo, resources
from loravault.demo import DemoFolder, NoteState, follow, requests_in, tick
from loravault.errors import UserError

NOTE = b"\xef\xbb\xbf---\r\nloravault: generate\r\nrun: false\r\nnote: 'run: false'\r\n---\r\nrun: false\r\n"


class TestTick:
    def test_only_the_property_changes(self, tmp_path: Path) -> None:
        """Neither a value that looks like it, nor the body, nor BOM and line ends."""
        note = tmp_path / "n.md"
        note.write_bytes(NOTE)

        tick(note)

        assert note.read_bytes() == NOTE.replace(b"\nrun: false", b"\nrun: true", 1)

    @pytest.mark.parametrize("data", [NOTE.replace(b"run: false\r\nnote", b"run: true\r\nnote"), b"run: false\n", b""])
    def test_a_note_without_an_open_box_stays_as_it_is(self, tmp_path: Path, data: bytes) -> None:
        note = tmp_path / "n.md"
        note.write_bytes(data)

        tick(note)

        assert note.read_bytes() == data


class TestPrepare:
    def test_a_folder_of_somebody_else_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").touch()

        with pytest.raises(UserError, match="was not made by"):
            demo.prepare(tmp_path)

        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    def test_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "x").touch()

        with pytest.raises(UserError, match="is a file"):
            demo.prepare(tmp_path / "x")

    def test_everything_stays_inside_and_a_second_time_changes_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / "conf"))
        folder = demo.prepare(tmp_path / "d")
        edited = folder.vault / "Welcome.md"
        edited.write_text("changed by its owner\n", "utf-8")
        before = everything(tmp_path)

        demo.prepare(tmp_path / "d")

        after = everything(tmp_path)
        for moving in ("d/.config/config.toml",):
            before.pop(moving), after.pop(moving)
        assert after == before
        assert not (tmp_path / "home").exists()
        assert demo.config_of(folder).state_dir.is_relative_to(tmp_path / "d" / ".state")

    def test_the_vault_is_the_example_and_its_notes_ask(self, tmp_path: Path) -> None:
        folder = demo.prepare(tmp_path / "d")

        for path in resources.example_vault().rglob("*"):
            if path.is_file():
                assert (folder.vault / path.relative_to(resources.example_vault())).read_bytes() == path.read_bytes()
        assert requests_in(folder.vault) == (
            "Pictures/A ghost of two LoRAs.md",
            "Pictures/A red house.md",
            "Pictures/Car in ink.md",
            "Training/A star in the snow.md",
            "Training/Train a star.md",
        )

    def test_what_uses_an_adapter_comes_after_what_trains_it(self) -> None:
        first, later = demo.stages(resources.example_vault())

        assert "Training/Train a star.md" in first
        assert len(first) == 4
        assert later == ("Training/A star in the snow.md",)


def everything(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class TestFollow:
    """A play: each call of the queue is one moment, in which the 'daemon' may write."""

    def folder(self, root: Path, text: str) -> DemoFolder:
        folder = DemoFolder(root)
        folder.vault.mkdir()
        self.write(folder, text)
        return folder

    @staticmethod
    def write(folder: DemoFolder, properties: str) -> None:
        (folder.vault / "N.md").write_text(f"---\nloravault: generate\n{properties}\n---\n", "utf-8")

    @staticmethod
    def sleeping() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

    def play(self, folder: DemoFolder, moments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> list[NoteState]:
        monkeypatch.setattr(demo, "_POLL_S", 0.001)
        script = iter(moments)

        def queue() -> list[SimpleNamespace]:
            self.write(folder, next(script))
            return [SimpleNamespace(note="N.md", progress=0.5, message="step 3 of 6")]

        process = self.sleeping()
        try:
            return [states[0] for states in follow(folder, ["N.md"], process, queue)]  # type: ignore[arg-type]
        finally:
            demo._end(process)

    def test_until_the_answer_is_in_the_note(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = self.folder(tmp_path, "run: true")

        states = self.play(
            folder, ["run: true", "run: false\nlv_status: running", "run: false\nlv_status: done"], monkeypatch
        )

        assert [(state.ticked, state.status) for state in states] == [(True, None), (False, "running"), (False, "done")]
        assert states[1].message == "step 3 of 6"

    def test_the_status_of_an_earlier_run_is_no_answer(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A second demo starts with `lv_status: done` from the first: ticked, it is not finished."""
        folder = self.folder(tmp_path, "run: true\nlv_status: done")

        states = self.play(folder, ["run: true\nlv_status: done", "run: false\nlv_status: failed"], monkeypatch)

        assert [state.finished for state in states] == [False, True]

    def test_a_daemon_that_dies_is_told_with_its_last_words(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path, "run: true")
        folder.log.write_text("12:00:00  the disk is full\n", "utf-8")
        process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
        process.wait()

        with pytest.raises(UserError, match=r"exit code 3\).*\n.*the disk is full"):
            list(follow(folder, ["N.md"], process, list))

    def test_silence_ends_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(demo, "_POLL_S", 0.001)
        folder = self.folder(tmp_path, "run: true")
        process = self.sleeping()

        try:
            with pytest.raises(UserError, match="Nothing has happened for 0 seconds"):
                list(follow(folder, ["N.md"], process, list, stalled_s=0.05))
        finally:
            demo._end(process)

    def test_a_note_that_is_being_written_counts_as_not_there_yet(self, tmp_path: Path) -> None:
        (tmp_path / "N.md").write_bytes(b"")

        assert demo.read_state(tmp_path, "N.md") is None
