"""Which notes are never requests although they may look like one, with the reason in words for the dashboard."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loravault.vault.note import Note

_MAX_SETTINGS_BYTES = 1024 * 1024
_DATE = r"\d{4}-?\d{2}-?\d{2}"
# How sync tools name what they could not merge; the group is the original's stem.
_CONFLICT_NAMES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(.+)\.sync-conflict-{_DATE}-\d{{4,6}}(?:-[A-Z0-9]+)?",  # Syncthing
        r"(.+) \(Conflicted copy(?: [^)]*)?\)",  # Obsidian Sync
        rf"(.+) \([^()]*(?:'s)? conflicted copy {_DATE}[^()]*\)",  # Dropbox, ownCloud
        rf"(.+) \(conflicted copy {_DATE} ?\d*\)",  # Nextcloud
        rf"(.+) \([^()]*in Konflikt stehende Kopie[^()]*{_DATE}[^()]*\)",  # Dropbox, German
        rf"(.+) \(loravault conflict {_DATE}-\d{{6}}(?:-\d+)?\)",  # ours
        r"(.+)[ _]conflict(?:ed)?[-_ ]copy.*",
        r"(.+)\.conflicted",
        r"(.+)_conf\(\d+\)",  # Seafile's older form
        r"(.+) \(SFConflict [^)]*\)",  # Seafile
        rf"(.+)_{_DATE}_\d{{4,6}}_Conflict",  # Synology Drive
        rf"(.+)-conflict-{_DATE}.*",  # Resilio, Syncthing forks
    )
)
#: One of these is in every such name: nearly all names need no other look.
_CONFLICT_HINT = re.compile(r"conf|konfl", re.IGNORECASE)
_CONFLICT_FILES = frozenset({"conflict-files-obsidian-git"})
_NUMBERED = re.compile(r"(.+?)(?: \((\d{1,2})\)|[ _](\d{1,2}))")  # Obsidian, iCloud ` 2`, Google Drive ` (1)`
_HOSTNAMED = re.compile(r"(.+?)-[A-Za-z0-9][A-Za-z0-9-]{2,}(?:-\d+)?")  # OneDrive `X-LAPTOP-7QF`
_TEMPORARY = re.compile(
    r"(?:~\$|\._|~syncthing~|\.syncthing\.).*|.*(?:~|\.tmp|\.part|\.swp|\.icloud)|4913", re.IGNORECASE
)
_FOREIGN_OWNERS = {"excalidraw-plugin": "Excalidraw", "kanban-plugin": "Kanban"}
_PLACEHOLDER = re.compile(r"<%|\{\{")
_OUR_KEYS = re.compile(r"(?:lv_.*|loravault|run|cancel|auto)\Z")


@dataclass(frozen=True)
class IgnoreRules:
    """Folders of a vault in which no request lives, read from the vault's own settings."""

    template_folders: tuple[tuple[str, str], ...] = ()
    """(vault-relative folder, whose it is in words)"""

    @classmethod
    def read(cls, vault_root: Path, folder: str = "LoraVault") -> IgnoreRules:
        """Read the settings of Obsidian and of Templater; a file that is not there or cannot be read says nothing."""
        found = [(f"{folder.strip('/')}/Templates", "our own templates")]
        for config in config_folders(vault_root):
            core = setting(config / "templates.json", "folder")
            templater = setting(config / "plugins" / "templater-obsidian" / "data.json", "templates_folder")
            found.append((core, "the templates of Obsidian"))
            found.append((templater, "the templates of Templater"))
        return cls(tuple((name.strip("/"), whose) for name, whose in found if name.strip("/ ")))

    def skip_folder(self, rel: str) -> bool:
        """Whether nothing below this folder can be a request. The vault's root (`""`) never is."""
        return bool(rel) and self._folder_reason(rel) is not None

    def reason(self, rel: str) -> str | None:
        """Why the note at this vault-relative path is not looked at, in words; None if it may be a request."""
        folder, _, name = rel.rpartition("/")
        reason = self._folder_reason(folder) if folder else None
        if reason:
            return reason
        if name.startswith(".") or _TEMPORARY.match(name):
            return "it is a temporary or hidden file"
        if not name.lower().endswith(".md"):
            return "it is not a Markdown note"
        if name[:-3] in _CONFLICT_FILES:
            return "it is a list of sync conflicts"
        return None

    def _folder_reason(self, folder: str) -> str | None:
        for part in folder.split("/"):
            if part == ".trash":
                return "it is in the trash"
            if part.startswith("."):
                return "it is in a hidden folder"
        for templates, whose in self.template_folders:
            if folder == templates or folder.startswith(templates + "/"):
                return f"it is a template (the folder {templates} holds {whose})"
        return None

    @staticmethod
    def content_reason(note: Note) -> str | None:
        """Why this note's content forbids us to write into it, in words; None if it does not."""
        return content_reason(note)


def content_reason(note: Note) -> str | None:
    """Notes of plugins that own their format, and templates that were copied without being filled in."""
    properties = note.frontmatter.properties if note.frontmatter else {}
    for key, plugin in _FOREIGN_OWNERS.items():
        if key in properties:
            return f"it belongs to the {plugin} plugin, which owns the format of its notes"
    for key, value in properties.items():
        if _OUR_KEYS.match(key) and isinstance(value, str) and _PLACEHOLDER.search(value):
            return f"it is a template: `{key}` holds a placeholder that was never filled in"
    return None


def conflict_original(
    rel: str, job_of: Callable[[str], str | None] | None = None, note: Note | None = None
) -> str | None:
    """The path of the note that this one is a conflict copy of; None if it is none.

    Names that only sync tools give decide by themselves. Names that Obsidian or a user gives too (`X 2.md`, `X (1).md`,
    `X-LAPTOP.md`) count only if the sibling `X.md` holds the same `lv_job`: `job_of(path)` tells the sibling's.
    """
    folder, slash, name = rel.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    for pattern in _CONFLICT_NAMES if _CONFLICT_HINT.search(stem) else ():
        found = pattern.fullmatch(stem)
        if found:
            return f"{folder}{slash}{found.group(1)}{dot}{suffix}"
    job = note.frontmatter.get("lv_job") if note is not None and note.frontmatter else None
    if job is None or job_of is None:
        return None
    for pattern in (_NUMBERED, _HOSTNAMED):
        found = pattern.fullmatch(stem)
        if found:
            sibling = f"{folder}{slash}{found.group(1)}{dot}{suffix}"
            if job_of(sibling) == str(job):
                return sibling
    return None


def config_folders(vault_root: Path) -> list[Path]:
    """`.obsidian`, or whatever the user renamed it to: a dot folder that holds Obsidian's own files."""
    # os.path.isfile, because Path.is_file raises for what may not be looked at, such as .Trashes of a volume
    try:
        hidden = sorted(p for p in vault_root.iterdir() if p.name.startswith("."))
    except OSError:
        return []
    marks = ("app.json", "workspace.json", "core-plugins.json", "templates.json")
    return [p for p in hidden if p.name == ".obsidian" or any(os.path.isfile(p / mark) for mark in marks)]


def setting(path: Path, key: str) -> str:
    """A text out of a JSON file of settings; empty where the file or the key is not there or is something else."""
    try:
        if path.stat().st_size > _MAX_SETTINGS_BYTES:
            return ""
        settings: Any = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return ""
    value = settings.get(key) if isinstance(settings, dict) else None
    return value if isinstance(value, str) else ""
