"""Loading bases: diffusers folders and single files, offline and without a pickle."""

from __future__ import annotations

from pathlib import Path

from loravault.engine.bases.base import Base, ModuleKey
from loravault.engine.bases.folder import load_folder
from loravault.engine.devices import Device
from loravault.formats.generation import BaseRef

__all__ = ["Base", "ModuleKey", "load_base", "signature"]


def load_base(ref: BaseRef, device: Device) -> Base:
    """Reads a base and moves its models to the device. Raises `UserError` with what is wrong with it."""
    return load_folder(ref, device)


def signature(ref: BaseRef) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of every file of the folder: another signature is another base under the same name."""
    folder = Path(ref.path)
    files = sorted(path for pattern in ("*.json", "*/*.json", "*/*.safetensors") for path in folder.glob(pattern))
    stats = ((path, path.stat()) for path in files)
    return tuple((str(path.relative_to(folder)), status.st_size, status.st_mtime_ns) for path, status in stats)
