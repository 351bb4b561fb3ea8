"""`doctor`: what it finds, and that its exit code says whether anything is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loravault import doctor, osdep
from loravault.config import VaultConfig
from loravault.doctor import Finding, can_exchange, examine, file_system
from loravault.index.database import Index
from loravault.index.tables import AdapterRow
from loravault.pages import bases as base_files
from loravault.pages import own
from loravault.settings import Root
from tests.fakes.captioner_folder import make_captioner

from .cli.helpers import FakeControl, app_in, call

MOUNTS = """\
/dev/vda / ext4 rw 0 0
tmpfs /tmp tmpfs rw 0 0
nas:/notes /mnt/my\\040notes nfs4 rw 0 0
nas:/n /mnt/my cifs rw 0 0
"""


def fake_device(wish: str) -> Finding:
    return Finding("device", f"cpu for {wish}")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/a", "ext4"),
        ("/tmp/x", "tmpfs"),
        ("/mnt/my notes/v", "nfs4"),
        ("/mnt/my/x", "cifs"),
        ("/mnt/mine", "ext4"),
    ],
)
def test_the_innermost_mount_decides(tmp_path: Path, path: str, kind: str) -> None:
    (tmp_path / "mounts").write_text(MOUNTS, "utf-8")

    assert file_system(Path(path), tmp_path / "mounts") == kind


def test_where_the_system_does_not_tell(tmp_path: Path) -> None:
    assert file_system(tmp_path, tmp_path / "no such file") == ""


def test_the_probe_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    can_exchange(tmp_path)
    monkeypatch.setattr(osdep, "exchange", lambda *_: (_ for _ in ()).throw(OSError(5, "I/O error")))

    assert not can_exchange(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_drive_that_is_not_plugged_in_is_told(tmp_path: Path) -> None:
    config = VaultConfig(
        vault=tmp_path, loras=(Root("a", tmp_path), Root("usb", tmp_path / "gone")), state_root=tmp_path
    )

    found = {finding.label: finding for finding in examine(config, fake_device)}

    assert found["device"].text == "cpu for auto"
    assert found["loras a"].advice is None
    assert "Plug its drive in" in (found["loras usb"].advice or "")
    assert found["daemon"].text.startswith("not running")
    assert "demo (demo)" in found["bases"].text


def indexed(tmp_path: Path, *states: str) -> VaultConfig:
    """A vault whose index knows one file in each of these states."""
    (tmp_path / "LoraVault").mkdir()
    config = VaultConfig(vault=tmp_path, state_root=tmp_path / "state")
    index = Index(config.state_dir / "index.sqlite")
    with index.session() as session:
        for number, state in enumerate(states):
            session.add(AdapterRow(root="a", rel=f"{number}", name="x", state=state, hashed=number == 0))
    index.close()
    return config


def test_the_library_in_numbers_and_what_is_wrong_in_it(tmp_path: Path) -> None:
    found = list(doctor.library(indexed(tmp_path, "ok", "ok", "duplicate", "broken", "missing")))

    assert [finding.text for finding in found] == ["2 usable, 1 copy, 1 broken, 1 missing", "1 of 3 files"]
    assert "`loravault search broken` and `loravault search missing`" in (found[0].advice or "")


def test_the_dashboard_is_named_only_where_there_is_one(tmp_path: Path) -> None:
    """After `reindex` alone it sent people to a page that only `watch` makes."""
    config = indexed(tmp_path, "ok", "incomplete")
    first = next(iter(doctor.library(config)))
    assert "say `loravault search broken` with `loravault show NAME`." in (first.advice or "")
    (tmp_path / "LoraVault" / "LoraVault.md").write_text("")
    first = next(iter(doctor.library(config)))
    assert "on the dashboard: LoraVault/LoraVault.md" in (first.advice or "")


def test_a_healthy_library_is_no_trouble_and_one_without_index_is_said_to_be_that(tmp_path: Path) -> None:
    bare = VaultConfig(vault=tmp_path, state_root=tmp_path / "nothing")
    assert [finding.text[:15] for finding in doctor.library(bare)] == ["not indexed yet"]
    assert not (tmp_path / "nothing").exists(), "doctor only looks"

    found = list(doctor.library(indexed(tmp_path, "ok")))

    assert [(finding.text, finding.advice) for finding in found] == [("1 usable", None), ("complete", None)]


def test_pages_that_the_user_changed_are_named_and_no_fault(tmp_path: Path) -> None:
    config = indexed(tmp_path)
    (tmp_path / "LoraVault" / "Gallery").mkdir()
    page, base = own.seal("---\nx: 1\n---\nText\n"), base_files.seal("views: []\n")
    files = {
        "LoRAs.base": base,
        "Images.base": base + b"# mine\n",
        "LoraVault.md": page,
        "LoraVault status.md": page,
        "Gallery/All.md": page,
        "Gallery/Sorted.md": page + b"my words",
        "Gallery/My own.md": b"# never ours\n",
    }
    for name, data in files.items():
        (tmp_path / "LoraVault" / name).write_bytes(data)

    (found,) = doctor.edited(config)

    assert found.text.startswith("Images.base, Gallery/Sorted.md (left alone")
    assert found.advice is None
    for name in ("Images.base", "Gallery/Sorted.md"):
        (tmp_path / "LoraVault" / name).unlink()
    assert list(doctor.edited(config)) == []


def test_a_gpu_that_torch_cannot_use_comes_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(doctor, "version", lambda _: "2.13.0+cpu")

    assert "-m pip install --force-reinstall torch==2.13.0" in (doctor._advice("cpu (2 threads)") or "")
    assert doctor._advice("cuda:0 (A card)") is None
    monkeypatch.setattr(doctor, "version", lambda _: "2.13.0")
    assert "driver" in (doctor._advice("cpu (2 threads)") or "")


def test_a_worker_that_cannot_start_is_the_first_line() -> None:
    found = doctor.device("auto", ["false"])

    assert (found.label, found.text) == ("device", "none")
    assert (found.advice or "").startswith("The worker could not start")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "device", fake_device)
    app = app_in(tmp_path, FakeControl())

    fine = call(app, "doctor")
    (tmp_path / "loras").rmdir()
    broken = call(app, "doctor", "--json")

    assert fine.code == 0
    assert fine.out.startswith("device ")
    assert broken.code == 1
    assert [f["label"] for f in json.loads(broken.out)["findings"] if f["advice"]] == ["loras loras"]


def test_without_a_vault_the_machine_is_still_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "device", fake_device)
    app = app_in(tmp_path, set_up=False)

    result = call(app, "doctor")

    assert result.code == 1
    assert result.out.startswith("device ")
    assert "! No vault at or above" in result.out


def test_the_captioner_is_looked_at_if_there_is_one(tmp_path: Path) -> None:
    folder = make_captioner(tmp_path / "blip")
    assert list(doctor.captioner(VaultConfig(vault=tmp_path))) == []

    (found,) = doctor.captioner(VaultConfig(vault=tmp_path, captioner=folder))
    assert (found.text, found.advice) == ("blip (BlipForConditionalGeneration)", None)

    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (found,) = doctor.captioner(VaultConfig(vault=tmp_path, captioner=folder))
    assert found.text == str(folder)
    assert "pickle" in (found.advice or "")
