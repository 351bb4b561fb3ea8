"""The watcher: turns the system's file events into hints. It may lose, double or invent them; nothing depends on it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from loravault.config import VaultConfig

log = logging.getLogger("loravault")

#: (`note`, vault-relative path) · (`adapter`, root name) · (`rescan`, "").
OnHint = Callable[[str, str], None]


class _Notes(FileSystemEventHandler):
    def __init__(self, vault: Path, on_hint: OnHint) -> None:
        self._vault = os.fspath(vault)
        self._on_hint = on_hint

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in ("opened", "closed_no_write"):
            return  # reading is no change
        for path in (event.src_path, event.dest_path):
            if not path:
                continue
            rel = os.path.relpath(os.fsdecode(path), self._vault).replace(os.sep, "/")
            if any(part.startswith(".") for part in rel.split("/")):
                continue
            if event.is_directory:
                if event.event_type in ("moved", "deleted"):
                    self._on_hint("rescan", "")
            elif rel.lower().endswith(".md"):
                self._on_hint("note", rel)


class _Adapters(FileSystemEventHandler):
    def __init__(self, root: str, on_hint: OnHint) -> None:
        self._root = root
        self._on_hint = on_hint

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type not in ("opened", "closed_no_write"):
            self._on_hint("adapter", self._root)


class Watcher:
    """Watches the vault and every root of adapters."""

    def __init__(self, config: VaultConfig, on_hint: OnHint) -> None:
        self._config = config
        self._on_hint = on_hint
        self._observer: BaseObserver | None = None

    @property
    def alive(self) -> bool:
        """Whether events can be expected."""
        return self._observer is not None and self._observer.is_alive()

    def start(self) -> str | None:
        """Begin. Returns None, or why there will be no events: then the vault is walked more often instead."""
        observer = Observer()
        try:
            observer.schedule(_Notes(self._config.vault, self._on_hint), os.fspath(self._config.vault), recursive=True)
            for root in self._config.loras:
                if root.path.is_dir():
                    observer.schedule(_Adapters(root.name, self._on_hint), os.fspath(root.path), recursive=True)
            observer.start()
        except OSError as error:
            log.warning("no file events (%s); the vault is walked every few seconds instead", error)
            return (
                f"The system gives no file events ({error.strerror or error}): changes are noticed some seconds later."
            )
        self._observer = observer
        return None

    def stop(self) -> None:
        """End, and wait for the thread."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(5)
            self._observer = None
