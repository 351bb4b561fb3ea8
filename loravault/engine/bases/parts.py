"""Loading the parts of a base: models from safetensors only, tokenizers, small JSON files; what is wrong, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import SafetensorError

from loravault.engine.devices import Device, is_out_of_memory
from loravault.engine.families import Part
from loravault.errors import UserError
from loravault.formats.safetensors_header import read_header
from loravault.formats.tensor_table import BrokenFile

_PICKLES = (".bin", ".ckpt", ".pt", ".pth")


@contextmanager
def in_words(name: str) -> Iterator[None]:
    """Turns whatever the libraries raise about the base `name` into a sentence."""
    try:
        yield
    except UserError as error:
        if error.message.startswith("The base “"):
            raise
        raise UserError(f"The base “{name}” cannot be loaded: {error}") from error
    except (OSError, ValueError, RuntimeError, KeyError, IndexError, TypeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise UserError(f"The base “{name}” cannot be loaded: {short(error)}") from error


def load_model(part: Part, folder: Path, name: str, base: str, device: Device) -> Any:
    """The model in `folder/name`. Raises `UserError` if a weight is missing, a pickle or cut short."""
    variant = _variant(folder, part, name, base)
    with in_words(base):
        model, report = getattr(diffusers if part.library == "diffusers" else transformers, part.kind).from_pretrained(
            str(folder / name),
            use_safetensors=True,  # without it diffusers and transformers fall back to pickles
            local_files_only=True,
            variant=variant,
            output_loading_info=True,
            **{"dtype" if part.library == "transformers" else "torch_dtype": device.dtype},
        )
        refuse_missing(name, report["missing_keys"])
    return settled(unmapped(model) if device.place.type == "cpu" else model, device)


@torch.no_grad()
def unmapped(model: Any) -> Any:
    """With weights of its own: the libraries map the file, and what is done to that file would be done to the weights.

    A file that is overwritten in place would change the pictures without a word, one that is cut short end the process.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model


def settled(model: Any, device: Device) -> Any:
    """On its device, for use and not for training."""
    return model.to(device.place).eval().requires_grad_(False)


def refuse_missing(name: str, missing: Any) -> None:
    """The libraries would fill the gap with random numbers and only log it."""
    real = sorted(key for key in missing if not key.endswith("position_ids"))
    if real:
        raise UserError(f"its {name} lacks {len(real)} tensors (first: {real[0]}). Copy it again.")


def load_tokenizer(part: Part, folder: Path, base: str) -> Any:
    """The tokenizer in `folder`."""
    if not folder.is_dir():
        raise UserError(f"The base “{base}” is incomplete: its folder {folder.name} is missing.")
    with in_words(base):
        return getattr(transformers, part.kind).from_pretrained(str(folder), local_files_only=True)


def _variant(folder: Path, part: Part, name: str, base: str) -> str | None:
    """None for `model.safetensors`, `fp16` for a folder that has only `model.fp16.safetensors`."""
    stem = part.weights
    if not (folder / name).is_dir():
        raise UserError(f"The base “{base}” is incomplete: its folder {name} is missing.")
    for variant in (None, "fp16", "bf16"):
        middle = f".{variant}" if variant else ""
        whole, sharded = f"{stem}{middle}.safetensors", f"{stem}.safetensors.index{middle}.json"
        if (folder / name / whole).is_file():
            check_whole(folder / name / whole, name, base)
            return variant
        if (folder / name / sharded).is_file():
            _check_shards(folder / name, sharded, name, base)
            return variant
    if any(file.suffix in _PICKLES for file in (folder / name).iterdir()):
        raise UserError(
            f"The base “{base}” keeps its {name} as a pickle, which is never opened because it can run programs. "
            "Get the folder with safetensors weights."
        )
    raise UserError(f"The base “{base}” is incomplete: {name}/{stem}.safetensors is missing.")


def _check_shards(folder: Path, index: str, name: str, base: str) -> None:
    table = read_json(folder / index, base).get("weight_map")
    files = sorted({str(file) for file in table.values()}) if isinstance(table, dict) else []
    for file in files:
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise UserError(f"The base “{base}” cannot be loaded: {name}/{index} names {file!r}.")
        if not (folder / file).is_file():
            raise UserError(f"The base “{base}” is incomplete: {name}/{file} is missing.")
        check_whole(folder / file, name, base)


def check_whole(path: Path, part: str, base: str) -> None:
    """Refuses a truncated file in words; the libraries say only that its header is wrong."""
    try:
        read_header(path)
    except BrokenFile as error:
        raise UserError(f"The base “{base}” cannot be loaded: of its {part}, {error.message}.") from error


def read_json(path: Path, base: str) -> dict[str, Any]:
    """An object from one of a base's small files."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise UserError(f"The base “{base}” is not where it was: moved, or its drive is offline.") from None
        raise UserError(f"The base “{base}” is not a diffusers folder: {path.name} is missing.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"The base “{base}” cannot be loaded: {path.name} is unreadable ({short(error)}).") from error
    if not isinstance(value, dict):
        raise UserError(f"The base “{base}” cannot be loaded: {path.name} holds no object.")
    return value


def short(error: Exception) -> str:
    """The first words of a library's message, in one line."""
    return " ".join(str(error).split())[:200]
