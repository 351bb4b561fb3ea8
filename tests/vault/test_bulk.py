"""Many files at once: whole or not there, nobody's file replaced, and a crash in the middle costs nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loravault.vault.ledger import Ledger
from loravault.vault.paths import PathRefused
from loravault.vault.safewrite import VaultWriter


def writer(home: Path) -> VaultWriter:
    (home / "vault").mkdir(exist_ok=True)
    return VaultWriter(home / "vault", Ledger(home / "state" / "ledger.jsonl"), home / "state" / "displaced")


def files(home: Path) -> dict[str, bytes]:
    root = home / "vault"
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


ITEMS = [(f"LoRAs/{n % 5}/card {n}.md", b"text %d" % n) for n in range(50)]


def test_every_file_is_made_with_its_folders_and_no_temp_stays(tmp_path):
    assert writer(tmp_path).create_many(ITEMS) == []
    assert files(tmp_path) == dict(ITEMS)


def test_a_name_that_is_taken_keeps_its_file_and_is_told(tmp_path):
    one = writer(tmp_path)
    one.create("LoRAs/1/card 1.md", b"the user's own")
    assert one.create_many(ITEMS) == ["LoRAs/1/card 1.md"]
    assert files(tmp_path)["LoRAs/1/card 1.md"] == b"the user's own"
    assert len(files(tmp_path)) == 50


def test_a_name_that_appears_meanwhile_is_not_replaced(tmp_path, monkeypatch):
    one = writer(tmp_path)
    target = tmp_path / "vault" / "LoRAs" / "1" / "card 1.md"
    monkeypatch.setattr("loravault.vault.bulk.sync_files", lambda temps: target.write_bytes(b"typed just now"))
    assert one.create_many(ITEMS) == ["LoRAs/1/card 1.md"]
    assert target.read_bytes() == b"typed just now"


def test_what_cannot_be_synced_is_not_made(tmp_path, monkeypatch):
    def full(temps: list[Path]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("loravault.vault.bulk.sync_files", full)
    with pytest.raises(OSError, match="No space left"):
        writer(tmp_path).create_many(ITEMS)
    assert files(tmp_path) == {}


def test_a_path_that_leaves_the_vault_is_refused(tmp_path):
    with pytest.raises(PathRefused):
        writer(tmp_path).create_many([("../outside.md", b"")])


@pytest.mark.parametrize("many", [3, 50])
def test_few_files_are_synced_one_by_one_and_many_at_once(tmp_path, many):
    assert writer(tmp_path).create_many(ITEMS[:many]) == []
    assert len(files(tmp_path)) == many


@pytest.mark.faults
@pytest.mark.parametrize("at", ["bulk.written", "bulk.synced", "bulk.linked"])
def test_killed_anywhere_the_next_write_makes_all_of_them_whole(tmp_path, at):
    code = (
        "import sys; from pathlib import Path; from tests.vault.test_bulk import ITEMS, writer\n"
        "writer(Path(sys.argv[1])).create_many(ITEMS)"
    )
    env = {**os.environ, "LORAVAULT_CRASH_AT": at}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=env, check=False)
    assert done.returncode == -signal.SIGKILL
    seen = {rel: data for rel, data in files(tmp_path).items() if "/." not in rel}
    assert seen.items() <= dict(ITEMS).items()  # whatever is there is whole
    writer(tmp_path).create_many([item for item in ITEMS if item[0] not in seen])
    assert {rel: data for rel, data in files(tmp_path).items() if "/." not in rel} == dict(ITEMS)
    assert not [rel for rel in files(tmp_path) if "/.lv-" in rel]


def test_folders_that_are_made_become_durable_with_the_files(tmp_path, monkeypatch):
    """Each new folder cost a wait for the disk of its own: a tenth of the first write of a library."""
    synced: list[Path] = []
    monkeypatch.setattr("loravault.vault.bulk.sync_folders", synced.extend)
    monkeypatch.setattr("loravault.vault.safewrite.fsync_dir", lambda folder: pytest.fail(f"waited for {folder}"))
    assert writer(tmp_path).create_many([("LoRAs/a/b/card.md", b"x"), ("LoRAs/a/c/card 2.md", b"y")]) == []
    root = (tmp_path / "vault").resolve()
    assert set(synced) == {root / rel for rel in ("", "LoRAs", "LoRAs/a", "LoRAs/a/b", "LoRAs/a/c")}
    assert synced.index(root) < synced.index(root / "LoRAs/a/b"), "the outer ones first"


def test_a_folder_that_cannot_be_made_costs_its_own_files_only(tmp_path):
    """One file named like a category kept every other new card of its batch away, and the same batch came again."""
    one = writer(tmp_path)
    root = tmp_path / "vault"
    (root / "LoRAs").mkdir()
    (root / "LoRAs/1").write_text("the user's own")
    (tmp_path / "out").mkdir()
    (root / "LoRAs/2").symlink_to(tmp_path / "out")
    refused: dict[str, str] = {}
    deeper = [("LoRAs/1/deeper/card.md", b"x")]
    assert one.create_many([*ITEMS, *deeper], refused) == []
    there = {rel for rel in files(tmp_path) if rel.endswith(".md")}
    assert there == {rel for rel, _ in ITEMS if rel.split("/")[1] in "034"}
    assert refused.keys() == {rel for rel, _ in [*ITEMS, *deeper]} - there
    assert refused["LoRAs/1/deeper/card.md"].startswith("LoRAs/1 is no folder")
    assert "rename it" in refused["LoRAs/1/card 1.md"]
    assert "leads outside the vault" in refused["LoRAs/2/card 2.md"]
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(FileExistsError):
        one.create_many(deeper)


def test_a_full_disk_is_about_all_files(tmp_path, monkeypatch):
    def full(_folder: Path) -> list[Path]:
        raise OSError(28, "No space left on device")

    one = writer(tmp_path)
    monkeypatch.setattr(one, "_folders_made", full)
    with pytest.raises(OSError, match="No space left"):
        one.create_many(ITEMS, {})
