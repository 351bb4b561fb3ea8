"""The watcher: turns the system's file events into hints. It may lose, double or invent them; nothing depends on it."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from loravault.config import Root, VaultConfig
from loravault.vault.walk import is_text

log = logging.getLogger("loravault")

# watchdog 7.1 registers a folder twice that is made inside a new one, and says so on the terminal; nothing is lost.
warnings.filterwarnings("ignore", message="Callback with id", category=RuntimeWarning)

#: (`note`, vault-relative path) · (`rescan`, "") · (`adapter`, path inside the root or "", root name).
OnHint = Callable[[str, str, str], None]


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
            if any(part.startswith(".") for part in rel.split("/")) or not is_text(rel):
                continue  # a walk leaves these out too
            if event.is_directory:
                if event.event_type in ("moved", "deleted"):
                    self._on_hint("rescan", "", "")
            elif rel.lower().endswith(".md"):
                self._on_hint("note", rel, "")


class _Adapters(FileSystemEventHandler):
    def __init__(self, root: Root, on_hint: OnHint) -> None:
        self._root = root
        self._on_hint = on_hint

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in ("opened", "closed_no_write"):
            return
        paths = [] if event.is_directory else [path for path in (event.src_path, event.dest_path) if path]
        self._on_hint("adapter", "", self._root.name)
        for path in paths:
            rel = os.path.relpath(os.fsdecode(path), self._root.path).replace(os.sep, "/")
            if is_text(rel):
                self._on_hint("adapter", rel, self._root.name)


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
        """Begin. Returns None, or what there will be no events of, and why: that is looked at now and then instead.

        Without events of the vault `alive` is false; a root that gives none costs only its own.
        """
        observer = Observer()
        try:
            observer.schedule(_Notes(self._config.vault, self._on_hint), os.fspath(self._config.vault), recursive=True)
            observer.start()
        except OSError as error:
            observer.unschedule_all()
            log.warning("no file events (%s); the vault is walked every few seconds instead", error)
            return (
                f"The system gives no file events ({error.strerror or error}): changes are noticed some seconds later."
            )
        self._observer = observer
        return " ".join(filter(None, map(self._watch_root, self._config.loras))) or None

    def _watch_root(self, root: Root) -> str | None:
        if not os.path.isdir(root.path) or self._observer is None:
            return None  # offline: the refresh of the adapters tells it
        try:
            self._observer.schedule(_Adapters(root, self._on_hint), os.fspath(root.path), recursive=True)
        except OSError as error:
            log.warning("no file events of %s (%s)", root.path, error)
            return (
                f"The system gives no file events of {root.path} ({error.strerror or error}): "
                "changes there are noticed later."
            )
        return None

    def stop(self) -> None:
        """End, and wait for the thread."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(5)
            self._observer = None
