"""What was computed once and serves every training: tensors in files that are named by everything they depend on.

A key is a hash of all that decides the content, so nothing in here is ever out of date: what changed has another name.
A file is written beside its place and renamed; two processes that write the same one write the same. Each carries a
checksum, and one that does not match (a crash, a bad disk) is as if it were not there.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

Tensors = Mapping[str, torch.Tensor]

#: Bytes that all trainings together may keep: the latents of ten thousand pictures, or two thousand captions for a T5.
LIMIT = 8 << 30
#: A temporary file that is older belongs to nobody any more (seconds).
_STALE = 24 * 3600.0
_SUM = "sum"
#: Files that are mapped at the same time; Linux allows a process 65530 maps, and the models need some.
_MOST_MAPS = 30_000


def key_of(*parts: Any) -> str:
    """The name of what depends on `parts` (what JSON can hold), and on nothing else."""
    return blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=20).hexdigest()


def fingerprint(model: torch.nn.Module) -> str:
    """Of a model's class, configuration, and every bit of its weights, in the precision they are in."""
    digest = blake3(max_threads=blake3.AUTO)
    config: Any = getattr(model, "config", None)
    told = config.to_dict() if hasattr(config, "to_dict") else dict(config or {})
    # where a model was loaded from, and by which version, changes nothing about what it says
    kept = {name: value for name, value in told.items() if not name.startswith("_") and "version" not in name}
    digest.update(repr((type(model).__name__, sorted((name, repr(value)) for name, value in kept.items()))).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
            digest.update(_bytes(tensor))
    return digest.hexdigest(length=20)


def _bytes(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    array: Any = flat.view(torch.uint8).numpy() if flat.numel() else b""
    return memoryview(array)


class Store:
    """A folder of such files. What has been read stays mapped: it is in memory once, and only while there is room."""

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self._folder = folder
        self._limit = limit
        self._used: set[Path] = set()
        self._maps = 0
        #: What went wrong with the disk, in sentences; nothing is lost by it but time.
        self.problems: list[str] = []

    def read(self, kind: str, key: str) -> Tensors | None:
        """The tensors under this name; None if they are not there, or not whole."""
        path = self._path(kind, key)
        try:
            with safe_open(path, "pt") as file:
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
                whole = (file.metadata() or {}).get(_SUM) == _checksum(found)
        except (SafetensorError, ValueError):
            whole, found = False, {}
        except (OSError, RuntimeError):  # not there, or not to be had now: no reason to remove it
            return None
        if not whole:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        self._maps += 1
        if self._maps > _MOST_MAPS:
            found = {name: tensor.clone() for name, tensor in found.items()}
        self._used.add(path)
        with contextlib.suppress(OSError):
            os.utime(path)  # what was used last goes last
        return found

    def write(self, kind: str, key: str, tensors: Tensors) -> Tensors:
        """Keeps tensors (on the CPU) under this name. Returns them as they are from now on."""
        path = self._path(kind, key)
        whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        temp = path.with_name(f".{key}.{os.getpid()}.{time.monotonic_ns():x}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(whole, temp, metadata={_SUM: _checksum(whole)})
            os.replace(temp, path)
        except (OSError, SafetensorError) as error:
            with contextlib.suppress(OSError):
                temp.unlink()
            said = f"What was computed for the next training could not be kept ({' '.join(str(error).split())[:120]})."
            if said not in self.problems:
                self.problems.append(said)
            return whole
        return self.read(kind, key) or whole

    def trim(self) -> int:
        """Removes what was used longest ago until the rest is within the limit; returns the bytes that went.

        What this process has used stays, whatever its size.
        """
        found: list[tuple[float, int, Path]] = []
        gone = total = 0
        for path in self._folder.glob("*/*/*"):
            with contextlib.suppress(OSError):
                status = path.stat()
                if path.name.endswith(".tmp"):
                    if time.time() - status.st_mtime > _STALE:
                        path.unlink()
                elif path.suffix == ".safetensors":
                    total += status.st_size
                    found.append((status.st_mtime, status.st_size, path))
        for _, size, path in sorted(found):
            if total - gone <= self._limit:
                break
            if path not in self._used:
                with contextlib.suppress(OSError):
                    path.unlink()
                    gone += size
        return gone

    def _path(self, kind: str, key: str) -> Path:
        return self._folder / kind / key[:2] / f"{key}.safetensors"


def _checksum(tensors: Tensors) -> str:
    digest = blake3()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest(length=16)
