"""Writes what the user said on a card where other programs look: A1111's `ink.json`, and `ink.preview.png`.

Only on request. Nothing is ever written into a `.safetensors`, no key of another tool is lost, no picture of another
tool is replaced, and every file is whole at any moment.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loravault.errors import UserError
from loravault.formats.sidecars import MAX_BYTES
from loravault.formats.trigger_words import plain_and_groups
from loravault.library.beside import MEDIA_ENDING, beside_of, ending_of, is_adapter, stem_of
from loravault.library.exportmark import CHUNK
from loravault.library.imagemeta import read_chunk
from loravault.osdep import copy_metadata, fsync_dir, fsync_file, replace_no_overwrite

_PNG = b"\x89PNG\r\n\x1a\n"
_OUTFITS = " || "


@dataclass(frozen=True)
class UserEdits:
    """What the user decided. None leaves what other tools say; empty removes it where it is said."""

    description: str | None = None
    #: As on a card: plain words and named groups.
    trigger_words: Sequence[str] | None = None
    weight: float | None = None
    negative: str | None = None
    notes: str | None = None

    def values(self) -> dict[str, Any]:
        """The edits under A1111's keys."""
        words = None if self.trigger_words is None else activation_text(self.trigger_words)
        told = {
            "description": self.description, "activation text": words, "preferred weight": self.weight,
            "negative text": self.negative, "notes": self.notes,
        }  # fmt: skip
        return {key: value for key, value in told.items() if value is not None}


def activation_text(trigger_words: Sequence[str]) -> str:
    """Trigger words as A1111 inserts them: plain words with commas, outfits behind `||` as other tools join them."""
    always, groups = plain_and_groups(trigger_words)
    return _OUTFITS.join(part for part in (", ".join(always), *(group.prompt for group in groups)) if part)


def plan_json(existing: bytes | None, edits: UserEdits) -> bytes | None:
    """The new content of `ink.json`; None if nothing has to be written. Raises `UserError` if it is nobody's JSON.

    Keys that are there keep their order, new ones follow. Nothing empty is added, and no empty file made.
    """
    table = {} if existing is None else _object(existing)
    changed = dict(table)
    for key, value in edits.values().items():
        if key in table or value not in ("", 0):
            changed[key] = value
    if changed == table or not changed:
        return None
    try:
        return _dumped(changed, ascii_only=False)
    except UnicodeEncodeError:  # half a character, which only an escape can write
        return _dumped(changed, ascii_only=True)


def _dumped(table: dict[str, Any], *, ascii_only: bool) -> bytes:
    return (json.dumps(table, indent=4, ensure_ascii=ascii_only) + "\n").encode()


def _object(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise UserError(f"it is larger than {MAX_BYTES // 2**20} MiB, which no such file is")
    try:
        value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError):
        raise UserError("it is not valid JSON, so what else it holds would be lost") from None
    if not isinstance(value, dict):
        raise UserError("it holds something else than a JSON object, so it is not A1111's")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key twice")
    return table


def export_edits(adapter: Path, edits: UserEdits) -> bool:
    """Bring `ink.json` beside the adapter up to date; whether it was written. Raises `UserError`, `OSError`."""
    target = _target(adapter, ".json")
    if target.is_symlink():
        raise UserError(f"{target.name} is a link and was left alone; write to the file it leads to yourself.")
    try:
        existing = target.read_bytes()
    except FileNotFoundError:
        existing = None
    try:
        new = plan_json(existing, edits)
    except UserError as error:
        raise UserError(f"{target.name} was left alone: {error.message}; move it away and export again.") from None
    if new is not None:
        _write(target, new, existing)
    return new is not None


def plan_preview(adapter: str, listing: Sequence[str], ours: bool) -> str | None:
    """The name under which a preview may be written; None if another picture stands for the adapter already.

    `ours`: whether the `.preview.png` that is there was written by `export_preview`.
    """
    target = f"{stem_of(adapter)}.preview.png"
    for name in beside_of(adapter, listing):
        match = MEDIA_ENDING.fullmatch(ending_of(name, adapter))
        stands = match is not None and not match[1].startswith(".example.")
        if stands and not (name == target and ours):
            return None
    return target


def export_preview(adapter: Path, png: bytes) -> bool:
    """Write the bytes of a PNG file as the preview that every other program shows; False if there is one already.

    A preview that we wrote earlier is replaced. Raises `UserError` if the bytes are no PNG, `OSError`.
    """
    if not is_adapter(adapter.name):
        raise UserError(f"{adapter.name} is no LoRA: previews are written beside .safetensors files only.")
    marked = _marked(png)
    target = adapter.with_name(f"{stem_of(adapter.name)}.preview.png")
    ours = not target.is_symlink() and _is_ours(target)
    if plan_preview(adapter.name, os.listdir(adapter.parent), ours) is None:
        return False
    existing = target.read_bytes() if ours else None
    if existing == marked:
        return False
    try:
        _write(target, marked, existing)
    except FileExistsError:
        return False  # another program was quicker
    return True


def _is_ours(target: Path) -> bool:
    try:
        return (read_chunk(target) or {}).get("preview") is True
    except OSError:
        return False


def _marked(png: bytes) -> bytes:
    """The PNG with our mark behind its first chunk (`IHDR`)."""
    end = len(_PNG) + 25
    if not png.startswith(_PNG) or png[12:16] != b"IHDR" or len(png) <= end:
        raise UserError("The preview was not written: its bytes are not those of a PNG file.")
    body = CHUNK
    chunk = struct.pack(">L", len(body) - 4) + body + struct.pack(">L", zlib.crc32(body))
    return png if chunk in png[: end + len(chunk)] else png[:end] + chunk + png[end:]


def _target(adapter: Path, ending: str) -> Path:
    """The sidecar as it is spelled on the disk, else as it will be."""
    if not is_adapter(adapter.name):
        raise UserError(f"{adapter.name} is no LoRA: sidecars are written beside .safetensors files only.")
    exact = f"{stem_of(adapter.name)}{ending}"
    there = [
        name for name in beside_of(adapter.name, os.listdir(adapter.parent)) if ending_of(name, adapter.name) == ending
    ]
    return adapter.with_name(exact if exact in there or not there else there[0])


def _write(target: Path, data: bytes, old: bytes | None) -> None:
    """Replace a file that still holds `old`, or make it if that is None (`FileExistsError` if it appeared)."""
    temp = target.with_name(f".lv-{secrets.token_hex(4)}.tmp")
    try:
        with open(temp, "xb") as file:
            file.write(data)
        if old is not None:
            copy_metadata(target, temp)
        fsync_file(temp)
        if old is None:
            replace_no_overwrite(temp, target)
        elif target.read_bytes() != old:
            raise UserError(f"{target.name} changed while it was being written and was left alone; try again.")
        else:
            os.replace(temp, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temp.unlink()
    fsync_dir(target.parent)
