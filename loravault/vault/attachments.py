"""Where Obsidian puts attachments: `attachmentFolderPath` of the vault's own `app.json`, in all its forms.

absent, "", "/"   the vault's root          "./"      beside the note
"Folder"          that folder of the vault  "./sub"   a folder beside the note
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from loravault.errors import UserError
from loravault.vault.ignore import config_folders, setting
from loravault.vault.paths import PathRefused, inside

_KEY = "attachmentFolderPath"
_ADVICE = "choose another one in Obsidian: Settings, Files and links, Default location for new attachments"


class NoAttachments(UserError):  # noqa: N818 - told on the dashboard; our own folder is used instead
    """The folder that is set for attachments is none that a picture may be put into."""


@dataclass(frozen=True)
class Attachments:
    """The setting of one vault. Cheap to read, so it is read whenever it is needed and is never out of date."""

    root: Path
    #: As it stands in `app.json`; empty where it is at its default.
    setting: str

    @classmethod
    def read(cls, root: Path) -> Attachments:
        """What is set in the configuration folder that Obsidian used last; a file that cannot be read says nothing."""
        folders = config_folders(root)
        newest = max(folders, key=_last_used, default=None)
        return cls(root, "" if newest is None else _folder_set(newest / "app.json"))

    def folder_for(self, note: str) -> str:
        """The vault-relative folder for the attachments of a note (vault-relative path); `""` is the vault's root.

        Raises `NoAttachments` for a folder that is hidden or lies outside the vault.
        """
        text = self.setting.strip().replace("\\", "/")
        beside = text == "." or text.startswith("./")
        parts = [part for part in (text[1:] if beside else text).split("/") if part and part != "."]
        home = note.rpartition("/")[0] if beside else ""
        folder = "/".join([home, *parts] if home else parts)
        if not folder:
            return ""
        try:
            inside(self.root, folder)
        except PathRefused as refusal:
            raise NoAttachments(
                f"Obsidian's folder for attachments is set to {self.setting!r}: {refusal.message} Pictures go into "
                f"our own folder instead; {_ADVICE}."
            ) from refusal
        return folder


def unusable(folder: str, error: OSError) -> NoAttachments:
    """What is said of a folder for attachments that may be one by its name, but takes no picture."""
    return NoAttachments(
        f'Obsidian\'s folder for attachments is "{folder or "/"}", and no picture can be put there '
        f"({error.strerror or error}). Pictures go into our own folder instead; free it, or {_ADVICE}."
    )


def _last_used(folder: Path) -> tuple[float, bool]:
    """Obsidian writes the workspace whenever a pane is moved: of several configuration folders the newest is in use."""
    try:
        when = (folder / "workspace.json").stat().st_mtime
    except OSError:
        when = 0.0
    return when, folder.name == ".obsidian"


def _folder_set(path: Path) -> str:
    text = setting(path, _KEY)
    return text if _is_clean(text) else ""


def _is_clean(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return "\0" not in text and len(text) < 4096
