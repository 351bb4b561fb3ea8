"""Loading bases: diffusers folders and single files, offline and without a pickle."""

from __future__ import annotations

from pathlib import Path

from loravault.engine.bases.base import Base, ModuleKey
from loravault.engine.bases.folder import load_folder
from loravault.engine.bases.single_file import load_single_file
from loravault.engine.devices import Device
from loravault.formats.generation import BaseRef

__all__ = ["Base", "ModuleKey", "load_base", "signature"]


def load_base(ref: BaseRef, device: Device) -> Base:
    """Reads a base and moves its models to the device. Raises `UserError` with what is wrong with it."""
    single = ref.path.lower().endswith(".safetensors")
    return load_single_file(ref, device) if single else load_folder(ref, device)


def signature(ref: BaseRef) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of every file of the base: another signature is another base under the same name."""
    found: list[tuple[str, int, int]] = []
    for path in map(Path, (ref.path, *(place for _, place in ref.parts))):
        patterns = ("*.json", "*/*.json", "*.safetensors", "*/*.safetensors")
        files = [path] if path.is_file() else sorted(file for pattern in patterns for file in path.glob(pattern))
        found += [stamp for file in files if (stamp := _stamp(file)) is not None]
    return tuple(found)


def _stamp(file: Path) -> tuple[str, int, int] | None:
    """None for a link to nowhere, which the Hub's cache may hold: whoever needs the file says that it is missing."""
    try:
        status = file.stat()
    except OSError:
        return None
    return str(file), status.st_size, status.st_mtime_ns
