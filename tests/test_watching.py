"""Hints are for notes that can be stored; what gives no events costs only its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from watchdog.events import DirDeletedEvent, FileModifiedEvent, FileMovedEvent, FileOpenedEvent
from watchdog.observers.api import BaseObserver

from loravault.config import Root, VaultConfig
from loravault.watching import OnHint, Watcher, _Adapters, _Notes


def config(home: Path, *roots: Path) -> VaultConfig:
    vault = home / "vault"
    vault.mkdir()
    return VaultConfig(vault=vault, loras=tuple(Root(root.name, root) for root in roots))


def hinting() -> tuple[list[tuple[str, str, str]], OnHint]:
    hints: list[tuple[str, str, str]] = []
    return hints, lambda kind, rel, root: hints.append((kind, rel, root))


def test_a_name_that_is_not_text_gives_no_hint() -> None:
    """A file `caf\\xe9.md` from an old machine was taken for a note, could not be stored, and ended the daemon."""
    hints, on_hint = hinting()
    notes = _Notes(Path("/vault"), on_hint)
    bad = os.fsdecode(b"/vault/caf\xe9.md")
    notes.on_any_event(FileModifiedEvent(bad))
    notes.on_any_event(FileModifiedEvent(os.fsdecode(b"/vault/caf\xe9/a.md")))
    assert hints == []
    notes.on_any_event(FileMovedEvent(bad, "/vault/café.md"))
    assert hints == [("note", "café.md", "")]


def test_only_changes_of_visible_notes_are_hints() -> None:
    hints, on_hint = hinting()
    notes = _Notes(Path("/vault"), on_hint)
    for name in ("a.png", ".obsidian/a.md", "sub/.lv-1.md"):
        notes.on_any_event(FileModifiedEvent(f"/vault/{name}"))
    notes.on_any_event(FileOpenedEvent("/vault/a.md"))
    assert hints == []
    notes.on_any_event(FileModifiedEvent("/vault/sub/a.MD"))
    notes.on_any_event(DirDeletedEvent("/vault/sub"))
    assert hints == [("note", "sub/a.MD", ""), ("rescan", "", "")]


def test_a_change_in_a_root_is_a_hint_and_names_the_file_if_it_can_be_named() -> None:
    hints, on_hint = hinting()
    adapters = _Adapters(Root("main", Path("/loras")), on_hint)
    adapters.on_any_event(FileModifiedEvent(os.fsdecode(b"/loras/\xe9.safetensors")))
    assert hints == [("adapter", "", "main")]
    adapters.on_any_event(FileMovedEvent("/loras/.part", "/loras/styles/ink.safetensors"))
    assert hints[1:] == [
        ("adapter", "", "main"),
        ("adapter", ".part", "main"),
        ("adapter", "styles/ink.safetensors", "main"),
    ]
    hints.clear()
    adapters.on_any_event(DirDeletedEvent("/loras/styles"))
    adapters.on_any_event(FileOpenedEvent("/loras/a.safetensors"))
    assert hints == [("adapter", "", "main")]


def refusing(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    real = BaseObserver.schedule

    def schedule(self: BaseObserver, handler: Any, path: str, **options: Any) -> Any:
        if Path(path).name in names:
            raise OSError(28, "inotify watch limit reached")
        return real(self, handler, path, **options)

    monkeypatch.setattr(BaseObserver, "schedule", schedule)


def test_a_root_without_events_costs_only_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One folder that could not be watched took the events of the vault with it."""
    roots = [tmp_path / name for name in ("good", "bad")]
    for root in roots:
        root.mkdir()
    refusing(monkeypatch, "bad")
    watcher = Watcher(config(tmp_path, *roots, tmp_path / "offline"), hinting()[1])
    try:
        trouble = watcher.start()
        assert watcher.alive
    finally:
        watcher.stop()
    assert trouble
    assert str(tmp_path / "bad") in trouble
    assert "good" not in trouble
    assert "offline" not in trouble


def test_a_vault_without_events_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, "vault")
    watcher = Watcher(config(tmp_path), hinting()[1])
    trouble = watcher.start()
    assert trouble
    assert "inotify watch limit reached" in trouble
    assert not watcher.alive
