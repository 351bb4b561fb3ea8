"""A VAE of its own, in the place of the base's: a file or a folder, with the base's configuration."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any

from loravault.engine.bases.base import Base
from loravault.engine.bases.parts import check_whole, in_words, load_model, settled
from loravault.engine.bases.single_file import convert
from loravault.engine.bases.tensors import read_tensors
from loravault.engine.devices import Device
from loravault.errors import UserError
from loravault.formats.checkpoints import classify
from loravault.formats.generation import VaeRef
from loravault.formats.safetensors_header import read_header
from loravault.formats.vaes import belongs_elsewhere


class VaeShelf:
    """The VAE a base came with, and the last one that took its place. The base itself is never loaded again."""

    def __init__(self, base: Base, device: Device) -> None:
        self._base = base
        self._device = replace(device, dtype=base.pipe.vae.dtype)
        self._own = base.pipe.vae
        self._other: tuple[Hashable, Any] | None = None

    def put(self, wish: VaeRef | None) -> str | None:
        """Makes this VAE decode; None: the base's own. Returns what is to be said of it.

        Raises `UserError` if it cannot be loaded or does not fit.
        """
        if wish is None:
            self._base.pipe.vae = self._own
            return None
        key = (wish, _stamp(wish))
        if self._other is None or self._other[0] != key:
            self._other = None  # before the next one takes its memory
            self._other = (key, _load(wish, self._base, self._device, self._own))
        self._base.pipe.vae = self._other[1]
        theirs, ours = (vae.config.get("scaling_factor") for vae in (self._other[1], self._own))
        if theirs == ours:
            return self._told(wish)
        return (
            f"The VAE “{wish.name}” has another scale ({theirs}) than that of “{self._base.name}” ({ours}): "
            "it seems to belong to another family, and colours may be wrong."
        )

    def _told(self, wish: VaeRef) -> str | None:
        """A file has no configuration and took the base's scale; what it is may still be said somewhere."""
        path = Path(wish.path)
        if path.is_dir():
            return None
        metadata, channels = read_header(path).metadata, _channels(path)
        words = belongs_elsewhere(wish.name, metadata, channels, self._base.family)
        return None if words is None else f"The VAE “{wish.name}” {words}."


def _stamp(wish: VaeRef) -> tuple[tuple[str, int, int], ...]:
    """Of the file, or of every file of the folder: what is written into one changes nothing about the folder."""
    path = Path(wish.path)
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        stats = [(file.name, file.stat()) for file in files]
    except OSError:
        raise UserError(f"The VAE “{wish.name}” is not where it was: moved, or its drive is offline.") from None
    return tuple((name, status.st_size, status.st_mtime_ns) for name, status in stats)


def _load(wish: VaeRef, base: Base, device: Device, own: Any) -> Any:
    part = base.drawer.parts["vae"]
    path = Path(wish.path)
    try:
        if path.is_dir():
            found = load_model(part, path.parent, path.name, wish.name, device)
            channels = found.config.get("latent_channels", found.config.get("z_dim"))
        else:
            check_whole(path, "VAE", wish.name)
            found, channels = None, _channels(path)
        wanted = own.config.get("latent_channels", own.config.get("z_dim"))
        if channels != wanted:
            raise UserError(f"it has {channels} channels, and the base “{base.name}” has {wanted}.")
        return _from_file(path, base, device, own) if found is None else found
    except UserError as error:
        text = error.message.replace(f"The base “{wish.name}”", f"The VAE “{wish.name}”")
        raise UserError(
            text if text.startswith("The VAE") else f"The VAE “{wish.name}” cannot be used: {text}"
        ) from error


def _channels(path: Path) -> int:
    found = classify(read_header(path))
    if found.role is None or not found.role.startswith("vae-"):
        raise UserError(f"{found.problem or 'it is no VAE'}.")
    return int(found.role.removeprefix("vae-"))


def _from_file(path: Path, base: Base, device: Device, own: Any) -> Any:
    header = read_header(path)
    prefix = next((one for one in ("first_stage_model.", "vae.") if any(n.startswith(one) for n in header.tensors)), "")
    tensors = read_tensors(path, header, header.tensors, device.dtype)
    # diffusers reads a configuration from a folder only.
    folder = Path(tempfile.mkdtemp(prefix="loravault-vae-"))
    try:
        own.save_config(folder / "vae")
        inner = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        with in_words(path.stem):
            return settled(convert(base.drawer.parts["vae"], folder, "vae", inner, device.dtype), device)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
