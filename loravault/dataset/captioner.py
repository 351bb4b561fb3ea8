"""A model that describes pictures, as it lies on a disk: of which kind it is, and whether all of it is there.

Its folder is laid out as transformers saves models: `config.json`, weights as safetensors, a tokenizer, and how
pictures are prepared for it. Only names, sizes and headers are looked at here; the engine loads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import Any

from loravault.errors import UserError
from loravault.formats.safetensors_header import read_header
from loravault.formats.tensor_table import BrokenFile

#: `model_type` of a `config.json` → the class of transformers that describes pictures with it.
KINDS: Mapping[str, str] = MappingProxyType(
    {"blip": "BlipForConditionalGeneration", "vision-encoder-decoder": "VisionEncoderDecoderModel"}
)
_WHOLE, _SHARDED = "model.safetensors", "model.safetensors.index.json"
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")
#: In one file of each row the model says how pictures are prepared, and which words it knows.
_PREPARING = ("preprocessor_config.json", "processor_config.json")
_WORDS = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
#: Endings of the files that decide what is said.
_FILES = (".json", ".safetensors", ".txt", ".model")
#: Bytes; a larger JSON file is none of a model's.
_MOST_JSON = 64 << 20


class _Wrong(Exception):  # noqa: N818 - half a sentence
    """Why the folder cannot be used."""


@dataclass(frozen=True)
class Captioner:
    """A folder with everything that is needed."""

    folder: Path
    #: Class in transformers.
    kind: str
    #: Name and bytes of every file that decides what is said.
    sizes: tuple[tuple[str, int], ...]
    #: Of names, sizes and times of these: another signature is another model under the same name.
    signature: str

    @property
    def name(self) -> str:
        """What people call it."""
        return name_of(self.folder)


def name_of(folder: Path) -> str:
    """What a captioner in this folder is called."""
    return folder.name or str(folder)


def read_captioner(folder: Path) -> Captioner:
    """What lies in a folder. Raises `UserError` if no picture can be described with it."""
    try:
        if not folder.is_dir():
            raise _Wrong(f"there is no folder {folder}; plug its drive in, or correct `captioner` in config.toml")
        kind = _kind(folder)
        _check_weights(folder)
        for names, what in ((_PREPARING, "how pictures are prepared for it"), (_WORDS, "its tokenizer")):
            if not any((folder / name).is_file() for name in names):
                raise _Wrong(f"{names[0]} ({what}) is missing; copy the whole folder again")
        files = sorted(file for file in folder.iterdir() if file.suffix in _FILES and file.is_file())
        stamps = [(file.name, file.stat()) for file in files]
    except _Wrong as reason:
        raise UserError(f"The captioner “{name_of(folder)}” cannot be used: {reason}.") from reason
    except OSError as error:
        said = f"{error.strerror or error} ({Path(error.filename or folder).name})"
        raise UserError(f"The captioner “{name_of(folder)}” cannot be used: it cannot be read: {said}.") from error
    told = json.dumps([(name, status.st_size, status.st_mtime_ns) for name, status in stamps])
    sizes = tuple((name, status.st_size) for name, status in stamps)
    return Captioner(folder, kind, sizes, blake2b(told.encode("utf-8", "surrogatepass"), digest_size=10).hexdigest())


def _kind(folder: Path) -> str:
    if (folder / "adapter_config.json").exists():  # transformers would load what that names, from anywhere
        raise _Wrong("it is an adapter for a model; name a whole model, with the adapter merged into it")
    config = _json(folder / "config.json")
    kind = KINDS.get(str(config.get("model_type")))
    named = config.get("architectures")
    says = [str(one) for one in named] if isinstance(named, list) else []
    if kind is None or (says and kind not in says):
        what = says[0] if says else str(config.get("model_type") or "model of no known type")
        raise _Wrong(f"it is a {what[:80]}, and pictures are described with {' or '.join(KINDS.values())} only")
    return kind


def _check_weights(folder: Path) -> None:
    if (folder / _WHOLE).is_file():
        names = [_WHOLE]
    elif (folder / _SHARDED).is_file():
        table = _json(folder / _SHARDED).get("weight_map")
        names = sorted({str(name) for name in table.values()}) if isinstance(table, dict) else []
        if not names:
            raise _Wrong(f"{_SHARDED} names no file; copy it again")
    elif any(file.suffix in _PICKLES for file in folder.iterdir()):
        raise _Wrong(
            "its weights are a pickle, which is never opened because it can run programs; get it with safetensors "
            "weights, or another one"
        )
    else:
        raise _Wrong(f"{_WHOLE} is missing; copy the whole folder again")
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise _Wrong(f"{_SHARDED} names {name[:80]!r}, which is no file of the folder")
        if not (folder / name).is_file():
            raise _Wrong(f"{name} is missing; copy the whole folder again")
        try:
            read_header(folder / name)
        except BrokenFile as error:
            raise _Wrong(f"{name}: {error.message}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_JSON + 1)
        value = json.loads(data) if len(data) <= _MOST_JSON else None
    except FileNotFoundError:
        raise _Wrong(f"{path.name} is missing; name the folder of a model as transformers saves it") from None
    except (ValueError, RecursionError):  # also what is no UTF-8
        value = None
    if not isinstance(value, dict):
        raise _Wrong(f"{path.name} holds no JSON object; copy it again")
    return value
