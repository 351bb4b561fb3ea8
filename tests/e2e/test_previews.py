"""Previews with the real demo base: each adapter shows what it does."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

from loravault import resources
from loravault.config import Root, VaultConfig
from loravault.daemon import Daemon
from loravault.vault.note import parse_note
from tests.imagemeta import read_meta

pytestmark = [pytest.mark.e2e, pytest.mark.engine, pytest.mark.timeout(300)]


def test_two_adapters_are_shown_in_one_callout_and_their_cards_get_the_covers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    vault, loras = tmp_path / "vault", tmp_path / "loras"
    (vault / ".obsidian").mkdir(parents=True)
    loras.mkdir()
    for path in resources.demo_adapters().glob("*.safetensors"):
        shutil.copy(path, loras)
    note = vault / "Previews.md"
    note.write_text("---\nloravault: preview\nrun: true\nloras: [ink_outline, ghost_friend]\n---\n\nMine.\n")
    config = VaultConfig(vault=vault, loras=(Root("loras", loras),), write_quiet_s=0.3, read_quiet_s=0.2)
    daemon = Daemon(config)
    daemon.open()
    try:
        give_up = time.monotonic() + 250

        def over() -> bool:
            assert time.monotonic() < give_up, note.read_text()
            return b"lv_status: done" in note.read_bytes() and len(covers(vault)) >= 4

        daemon.run(threading.Event(), until=over)
    finally:
        daemon.close()

    [region] = parse_note(note.read_bytes()).regions
    named = [line.split("|")[0][3:] for line in region.lines if line.startswith("![[")]
    assert len(named) == 2
    prompts = [(read_meta(vault / path).infotext or "").partition(" <lora")[0] for path in named]  # type: ignore[union-attr]
    assert prompts == ["sks style, a picture of a red house in a meadow", "a picture of a gho in a meadow"]
    first, second = (Image.open(vault / path).convert("RGB") for path in named)
    assert min(ImageStat.Stat(first).stddev) > 10
    assert max(ImageStat.Stat(ImageChops.difference(first, second)).mean) > 10, "they do not look alike"


def covers(vault: Path) -> list[Path]:
    """Two of the pictures in the metadata of the files, two of the previews."""
    return list((vault / "LoraVault" / "Images" / "Covers").glob("lv-cover-*"))
