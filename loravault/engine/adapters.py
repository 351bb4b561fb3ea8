"""Reading a kohya LoRA or LoCon: checked against the base from its header alone, then read into low-rank factors.

Nothing is mapped (a file cut short while it is mapped kills the process) and nothing but safetensors is opened.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from loravault.engine.bases import Base
from loravault.errors import UserError
from loravault.formats import families, keys
from loravault.formats.generation import AdapterUse
from loravault.formats.hashes import FileHashes, file_hashes
from loravault.formats.safetensors_header import BrokenFile, Header, ReadAt, TensorInfo, header_of, reader
from loravault.formats.weight_id import weight_id

_DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
_KOHYA = ("lora_unet_", "lora_te_", "lora_te1_")
#: Component of the key grammar → prefix of the key map.
_PREFIX: Mapping[str, str] = {"unet": "lora_unet", "te": "lora_te", "te1": "lora_te"}

ModuleKey = tuple[str, str]


@dataclass(frozen=True)
class Factors:
    """ΔW = scale · up · down, or scale · Σ mid[m,n,k,l] · up[i,m] · down[n,j]; tensors in the file's precision."""

    #: (out, rank).
    up: torch.Tensor
    #: (rank, in) or (rank, in, kernel, kernel).
    down: torch.Tensor
    #: (rank, rank, kernel, kernel), Tucker form of LoCon.
    mid: torch.Tensor | None
    #: alpha / rank.
    scale: float

    def delta(self, like: torch.Tensor) -> torch.Tensor:
        """ΔW in fp32, with the shape of `like` and on its device."""
        up, down = (part.to(like.device, torch.float32) for part in (self.up, self.down))
        if self.mid is None:
            product = up.flatten(1) @ down.flatten(1)
        else:
            mid = self.mid.to(like.device, torch.float32)
            product = torch.einsum("mnkl,im,nj->ijkl", mid, up.flatten(1), down.flatten(1))
        return product.reshape(like.shape).mul_(self.scale)


@dataclass(frozen=True)
class Adapter:
    """An adapter file, read and checked for one base."""

    factors: Mapping[ModuleKey, Factors]
    hashes: FileHashes
    #: Names of tensors that have no place in the base or in what we can apply.
    unused: tuple[str, ...]
    tensors: int
    #: All of its weights are zero.
    void: bool

    @property
    def bytes(self) -> int:
        """Memory that it holds."""
        parts = (part for one in self.factors.values() for part in (one.up, one.down, one.mid) if part is not None)
        return sum(part.numel() * part.element_size() for part in parts)

    def touches(self, component: str) -> bool:
        """Whether it changes anything in `unet` or `text_encoder`."""
        return any(key[0] == component for key in self.factors)


@dataclass(frozen=True)
class _Plan:
    """Tensor rows for one module, its shapes checked."""

    key: ModuleKey
    up: TensorInfo
    down: TensorInfo
    mid: TensorInfo | None
    alpha: TensorInfo | None
    names: tuple[str, ...]


def load_adapter(use: AdapterUse, base: Base) -> Adapter:
    """Reads the file of `use` for `base`.

    Raises `UserError`: the file is gone, broken or another than the index says, holds NaN, or does not fit the base.
    """
    try:
        with open(use.path, "rb") as file:
            before = os.fstat(file.fileno())
            header = header_of(file)
            read_at = reader(file)
            found = weight_id(header, read_at)
            if found != use.weight_id:
                raise UserError(f"The file of the adapter “{use.name}” is another one by now. Run the note again.")
            plans = _plan(use.name, header, base)
            data = {plan.key: _read(header, read_at, plan) for plan in plans}
            hashes = file_hashes(use.path)
            after = os.stat(use.path)
    except BrokenFile as error:
        raise UserError(f"The adapter “{use.name}” cannot be used: {error.message}.") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"The adapter “{use.name}” cannot be read: {reason}. Is its drive there?") from error
    if (before.st_size, before.st_mtime_ns, before.st_ino) != (after.st_size, after.st_mtime_ns, after.st_ino):
        raise UserError(f"The file of the adapter “{use.name}” changed while it was read. Run the note again.")
    _refuse_nan(use.name, plans, data)
    used = {name for plan in plans for name in plan.names}
    unused = tuple(sorted(set(header.tensors) - used))
    void = not any(bool(one.up.float().any()) and bool(one.down.float().any()) for one in data.values())
    return Adapter(data, hashes, unused, len(header.tensors), void)


def _plan(name: str, header: Header, base: Base) -> list[_Plan]:
    """What goes where; decided from names and shapes before a weight is read."""
    modules = keys.modules_of(header.tensors)
    plans: list[_Plan] = []
    misfits: list[str] = []
    for module in modules.values():
        parts = _parts(module)
        if parts is None:
            continue
        target = base.key_map.get(f"{_PREFIX[module.component]}_{module.path}")
        if target is None:
            continue
        key = (target.component, target.module)
        plan = _fit(key, parts, tuple(base.modules[key].weight.shape))  # type: ignore[arg-type]
        if plan is None:
            misfits.append(module.path)
        else:
            plans.append(plan)
    if misfits or not plans:
        raise UserError(_misfit(name, header, base, misfits, modules))
    return plans


def _parts(module: keys.Module) -> dict[str, tuple[str, TensorInfo]] | None:
    """The parts of a module that is a plain LoRA or LoCon in kohya names, else None."""
    names = [row[0] for row in module.parts.values()]
    if module.component not in _PREFIX or not all(name.startswith(_KOHYA) for name in names):
        return None
    if not {"lora_down", "lora_up"} <= module.parts.keys() <= {"lora_down", "lora_up", "lora_mid", "alpha"}:
        return None
    return module.parts


def _fit(key: ModuleKey, parts: Mapping[str, tuple[str, TensorInfo]], shape: Sequence[int]) -> _Plan | None:
    """The plan for one module if up·down has the shape of its weight, else None."""
    infos = {part: row[1] for part, row in parts.items()}
    up, down, mid, alpha = infos["lora_up"], infos["lora_down"], infos.get("lora_mid"), infos.get("alpha")
    if len(up.shape) not in (2, 4) or len(down.shape) not in (2, 4) or set(up.shape[2:]) - {1}:
        return None
    rank = down.shape[0]
    kernel = down.shape[2:]
    if mid is not None:
        if len(mid.shape) != 4 or mid.shape[:2] != (rank, rank) or set(kernel) - {1}:
            return None
        kernel = mid.shape[2:]
    product = (up.shape[0], down.shape[1], *kernel)
    if rank < 1 or up.shape[1] != rank or _squeeze(product) != _squeeze(shape):
        return None
    if any(info.dtype not in _DTYPES for info in infos.values()) or (alpha and math.prod(alpha.shape) != 1):
        return None
    return _Plan(key, up, down, mid, alpha, tuple(row[0] for row in parts.values()))


def _squeeze(shape: Sequence[int]) -> tuple[int, ...]:
    """A 1×1 convolution and a linear layer are the same thing."""
    return tuple(shape[:2]) if set(shape[2:]) <= {1} else tuple(shape)


def _read(header: Header, read_at: ReadAt, plan: _Plan) -> Factors:
    up, down = (_tensor(header, read_at, info) for info in (plan.up, plan.down))
    mid = _tensor(header, read_at, plan.mid) if plan.mid else None
    # A file without alpha means alpha = rank, for kohya, A1111 and ComfyUI alike.
    alpha = float(_tensor(header, read_at, plan.alpha).float()) if plan.alpha else float(down.shape[0])
    return Factors(up.flatten(1), down, mid, alpha / down.shape[0])


def _tensor(header: Header, read_at: ReadAt, info: TensorInfo) -> torch.Tensor:
    data = bytearray(read_at(header.data_start + info.start, info.end - info.start))
    if not data:
        return torch.empty(info.shape, dtype=_DTYPES[info.dtype])
    return torch.frombuffer(data, dtype=_DTYPES[info.dtype]).reshape(info.shape)


def _refuse_nan(name: str, plans: Iterable[_Plan], data: Mapping[ModuleKey, Factors]) -> None:
    bad = [plan.names[0] for plan in plans if not _finite(data[plan.key])]
    if bad:
        raise UserError(
            f"The adapter “{name}” is damaged: {len(bad)} of its modules hold NaN or infinite numbers (first: "
            f"{bad[0].split('.')[0]}), which would make every picture black. Get the file again."
        )


def _finite(one: Factors) -> bool:
    parts = [part.float() for part in (one.up, one.down, one.mid) if part is not None]
    return math.isfinite(one.scale) and all(bool(torch.isfinite(part).all()) for part in parts)


def _misfit(name: str, header: Header, base: Base, misfits: Sequence[str], modules: Mapping[str, keys.Module]) -> str:
    """Why an adapter cannot be applied to this base, in one or two sentences."""
    try:
        seen = families.identify(header)
    except BrokenFile as error:
        return f"The adapter “{name}” cannot be used: {error.message}."
    if seen.family not in (base.family, "unknown"):
        count = f"{len(misfits)} of its {len(modules)} modules have other shapes" if misfits else "no module of it fits"
        return (
            f"The adapter “{name}” is made for {seen.family}, the base “{base.name}” is {base.family}: {count}. "
            f"Choose a base of the family {seen.family}."
        )
    if misfits:
        return (
            f"The adapter “{name}” does not fit the base “{base.name}”: {len(misfits)} of its {len(modules)} modules "
            f"have other shapes (first: {misfits[0]})."
        )
    if seen.network not in ("lora", "locon", "dylora"):
        return (
            f"The adapter “{name}” is of the kind {seen.network}, which this version cannot apply yet; "
            "LoRA and LoCon work."
        )
    if not any(tensor.startswith(_KOHYA) for tensor in header.tensors):
        return f"The adapter “{name}” names its tensors as {_style(header)} does; this version reads kohya names only."
    return f"No module of the adapter “{name}” exists in the base “{base.name}” (first: {next(iter(modules))})."


def _style(header: Header) -> str:
    peft = any(".lora_A." in name or ".lora." in name for name in header.tensors)
    return "PEFT or diffusers" if peft else "no known tool"


def describe_unused(name: str, adapter: Adapter, base: Base) -> str | None:
    """The sentence about tensors that found no place."""
    if not adapter.unused:
        return None
    return (
        f"{len(adapter.unused)} of the {adapter.tensors} tensors of “{name}” have no place in the base “{base.name}” "
        f"and were not used (first: {adapter.unused[0]})."
    )


def file_key(use: AdapterUse) -> tuple[Any, ...] | None:
    """What tells whether a file is still the one that was read; None if it is gone."""
    try:
        status = os.stat(use.path)
    except OSError:
        return None
    return (use.path, use.weight_id, status.st_size, status.st_mtime_ns, status.st_ino)
