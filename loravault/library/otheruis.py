"""Where other programs keep their models: A1111 and its relatives, ComfyUI, and ComfyUI's `extra_model_paths.yaml`.

Nothing is changed there and nothing is imported from there: only folders are named.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from loravault.errors import UserError
from loravault.vault.yamlread import read_mapping

KINDS = ("loras", "checkpoints", "parts", "vaes", "embeddings", "wildcards")

#: Folder below the program's own -> kind. Names as the programs make them; case matters on Linux.
_A1111_FOLDERS = {
    "models/Lora": "loras",
    "models/LyCORIS": "loras",
    "models/Stable-diffusion": "checkpoints",
    "models/Diffusers": "checkpoints",  # SD.Next
    "models/text_encoder": "parts",  # Forge
    "models/VAE": "vaes",
    "embeddings": "embeddings",
    "extensions/sd-dynamic-prompts/wildcards": "wildcards",
    "extensions/stable-diffusion-webui-wildcards/wildcards": "wildcards",
    "scripts/wildcards": "wildcards",
}
_COMFYUI_FOLDERS = {
    "models/loras": "loras",
    "models/checkpoints": "checkpoints",
    "models/diffusers": "checkpoints",
    "models/diffusion_models": "parts",
    "models/unet": "parts",
    "models/text_encoders": "parts",
    "models/clip": "parts",
    "models/vae": "vaes",
    "models/embeddings": "embeddings",
    "custom_nodes/comfyui-impact-pack/wildcards": "wildcards",
    "custom_nodes/ComfyUI-Impact-Pack/wildcards": "wildcards",
    "wildcards": "wildcards",
}
#: Key in `extra_model_paths.yaml` -> kind.
_EXTRA_KEYS = {
    "loras": "loras",
    "checkpoints": "checkpoints",
    "diffusers": "checkpoints",
    "diffusion_models": "parts",
    "unet": "parts",
    "text_encoders": "parts",
    "clip": "parts",
    "vae": "vaes",
    "embeddings": "embeddings",
    "wildcards": "wildcards",
}
#: The file that people edit, and the one that ComfyUI's desktop program writes.
_EXTRA_FILES = ("extra_model_paths.yaml", "extra_models_config.yaml")
_EXTRA_LIMIT = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class UiFolders:
    """What one program has; only folders that exist."""

    #: `A1111`, `ComfyUI` or the name of the YAML file.
    program: str
    #: Folders with adapters.
    loras: tuple[Path, ...] = ()
    #: Folders with base models.
    checkpoints: tuple[Path, ...] = ()
    #: Folders with VAEs.
    vaes: tuple[Path, ...] = ()
    #: Folders with the parts that bases may lack: diffusion models and text encoders that are files of their own.
    parts: tuple[Path, ...] = ()
    #: Folders with textual inversions.
    embeddings: tuple[Path, ...] = ()
    #: Folders with lists of words.
    wildcards: tuple[Path, ...] = ()

    @property
    def for_bases(self) -> tuple[Path, ...]:
        """Everything a base is made of."""
        return (*self.checkpoints, *self.parts, *self.vaes)


def find_ui(path: Path) -> UiFolders:
    """The model folders of the program at `path` (its folder, or an `extra_model_paths.yaml`).

    Raises `UserError` when nothing there looks like one.
    """
    if os.path.isfile(path):
        return _gather(path.name, _extra(path))
    if not os.path.isdir(path):
        raise UserError(f"There is no folder at {path} (from --ui).")
    # An installation may be wrapped once: Forge's and ComfyUI's portable packages have the program one level down.
    for folder in (path, path / "webui", path / "ComfyUI"):
        extra = [entry for name in _EXTRA_FILES if os.path.isfile(folder / name) for entry in _extra(folder / name)]
        for program, marker, table in (
            ("ComfyUI", "models/checkpoints", _COMFYUI_FOLDERS),
            ("A1111", "models/Stable-diffusion", _A1111_FOLDERS),
        ):
            if os.path.isdir(folder / marker):
                return _gather(program, [*((kind, folder / rel) for rel, kind in table.items()), *extra])
        if extra:
            return _gather(next(name for name in _EXTRA_FILES if os.path.isfile(folder / name)), extra)
    raise UserError(
        f"{path} looks like neither A1111, Forge nor ComfyUI (no models/Stable-diffusion, no models/checkpoints, "
        "no extra_model_paths.yaml): name the folder with the LoRAs by --loras."
    )


def _gather(program: str, found: Iterable[tuple[str, Path]]) -> UiFolders:
    """Keep what exists, each folder once however it is spelled."""
    kinds: dict[str, dict[str, Path]] = {kind: {} for kind in KINDS}
    for kind, folder in found:
        if os.path.isdir(folder):  # Path.is_dir raises for one that may not be looked at
            kinds[kind].setdefault(os.path.realpath(folder), Path(os.path.normpath(folder)))
    return UiFolders(program=program, **{kind: tuple(folders.values()) for kind, folders in kinds.items()})


def _extra(file: Path) -> list[tuple[str, Path]]:
    """The folders an `extra_model_paths.yaml` names: per section a `base_path` and keys with one path per line."""
    try:
        if file.stat().st_size > _EXTRA_LIMIT:
            raise UserError(f"{file} is too large to be an extra_model_paths.yaml.")
        text = file.read_text("utf-8-sig")
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} cannot be read as YAML: {error}.") from error
    try:
        document = read_mapping(text)
    except UserError as error:
        raise UserError(f"{file} cannot be read as YAML: {error}.") from error
    found = []
    for section in document.values():
        if isinstance(section, Mapping):
            found += _section(section, file.parent)
    return found


def _section(section: Mapping[str, object], start: Path) -> list[tuple[str, Path]]:
    given = section.get("base_path")
    base = start / _expanded(given) if isinstance(given, str) else start
    found = []
    for key, kind in _EXTRA_KEYS.items():
        value = section.get(key)
        for line in value.splitlines() if isinstance(value, str) else []:
            if line.strip():
                found.append((kind, base / _expanded(line.strip())))
    return found


def _expanded(text: str) -> str:
    return os.path.expanduser(os.path.expandvars(text))
