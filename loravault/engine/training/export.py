"""The finished adapter as a file: written beside its place, read back, compared, and only then put there."""

from __future__ import annotations

import base64
import contextlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor

from loravault import osdep
from loravault.engine.adapters import load_adapter, naming_of
from loravault.engine.bases import Base, ModuleKey
from loravault.engine.training.networks import ModuleTensors, Network
from loravault.engine.training.proof import Proof, prove
from loravault.engine.training.spelling import Spelled, spell
from loravault.errors import UserError
from loravault.formats.generation import AdapterUse
from loravault.formats.normal import base_names
from loravault.formats.safetensors_header import header_of, reader
from loravault.formats.safetensors_write import head, layout, sshs_hashes
from loravault.formats.tensor_table import BrokenFile, TensorInfo
from loravault.formats.training import TrainingPlan
from loravault.formats.weight_id import weight_id

_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
#: How far a file may be from what was trained, in shares of what that does: what rounding its numbers costs.
_LIMITS = {torch.float32: 1e-3, torch.float16: 1e-3, torch.bfloat16: 6e-3}
#: Of a thumbnail: edge in pixels, and quality.
_THUMBNAIL, _QUALITY = 256, 85
_PIECE = 1 << 20
#: What diffusers would take for the alphas, and refuse beside real ones.
_NEVER = "lora_adapter_metadata"


@dataclass(frozen=True)
class Written:
    """A file that was proven to give back what was trained."""

    path: Path
    weight_id: str
    #: `F16`, `BF16` or `F32`: as it was asked for, or as it had to be.
    precision: str
    #: Layers of the base that it changes.
    modules: int
    #: Of those, the ones that learned nothing, as `component/path`.
    zero: tuple[str, ...]
    #: `component/path` → length of the change of its weight.
    norms: Mapping[str, float]
    #: How far what is read is from what was trained, in shares of what the adapter does.
    error: float
    #: What a person should know, in sentences.
    remarks: tuple[str, ...] = ()


def write_adapter(
    network: Network,
    base: Base,
    plan: TrainingPlan,
    path: Path,
    metadata: Mapping[str, str],
    *,
    dtype: torch.dtype = torch.float16,
) -> Written:
    """Writes what `network` has learned to `path`, durably, and proven by reading it back through the engine.

    `metadata`: everything that is known before the tensors; their hashes are added here. `dtype`: the precision wished
    for; where too much would be lost in it, the file is written in fp32, and says so. Nothing else is left on disk.
    Raises `UserError`: numbers that are none, nothing learned, a disk that is full, or a file that is not the network.
    """
    trained = network.tensors()
    _refuse_nan(trained, network.pivotal.tensors() if network.pivotal is not None else {})
    spelled = _with_words(spell(trained, network.layers, naming_of(base), plan.naming), network, plan.pivotal)
    names = base_names(network.layers, naming_of(base))
    remarks = spelled.remarks
    for precision in dict.fromkeys((dtype, torch.float32)):
        tensors = _rounded(spelled, precision)
        if not all(bool(one.isfinite().all()) for one in tensors.values()):
            remarks += (f"Some numbers are too large for {_NAMES[precision]}, so the file has 32 bits.",)
            continue
        with _beside(path) as temporary:
            found = _write(temporary, tensors, metadata)
            use = AdapterUse(name=path.stem, path=str(temporary), weight_id=found, te=1.0, unet=1.0)
            adapter = load_adapter(use, base, names)
            proof = prove(adapter, network, base)
            if not any(proof.norms.values()):
                raise UserError("Nothing was learned: every change is still zero. Raise the learning rate.")
            if proof.lost or adapter.unused or not proof.worst <= _LIMITS[precision]:
                if precision != torch.float32:
                    remarks += (f"In {_NAMES[precision]} too much would be lost, so the file has 32 bits.",)
                    continue
                raise UserError(_why(proof, adapter.unused, path))
            _put(temporary, path)
        return _written(path, found, precision, proof, remarks)
    raise UserError("The LoRA holds infinite numbers, so it was not written. Lower the learning rate.")


def _written(path: Path, found: str, precision: torch.dtype, proof: Proof, remarks: tuple[str, ...]) -> Written:
    norms = {"/".join(key): norm for key, norm in proof.norms.items()}
    return Written(
        path=path,
        weight_id=found,
        precision=_NAMES[precision],
        modules=len(norms),
        zero=tuple(name for name, norm in norms.items() if norm == 0),
        norms=norms,
        error=proof.worst,
        remarks=remarks,
    )


def _refuse_nan(trained: Mapping[ModuleKey, ModuleTensors], words: Mapping[str, Tensor]) -> None:
    bad = [
        "/".join(key) for key, one in trained.items() if not all(bool(t.isfinite().all()) for t in one.parts.values())
    ]
    bad += [name for name, one in words.items() if not bool(one.isfinite().all())]
    if bad:
        raise UserError(
            f"The training has diverged: {len(bad)} of {len(trained)} modules hold NaN or infinite numbers (first: "
            f"{bad[0]}), so nothing was written. Lower the learning rate."
        )


def _why(proof: Proof, unused: tuple[str, ...], path: Path) -> str:
    if proof.lost or unused:
        first = "/".join(proof.lost[0]) if proof.lost else unused[0]
        reason = f"{len(proof.lost) or len(unused)} of its modules are not found again (first: {first})"
    else:
        reason = f"it differs by {proof.worst:.2%} of what was learned"
    return f"The file {path.name} does not give back what was trained: {reason}. It was not kept; please report this."


def _with_words(spelled: Spelled, network: Network, wished: int) -> Spelled:
    """With the vectors of the trigger, which are never rounded."""
    if network.pivotal is None:
        return spelled
    words = network.pivotal.tensors()
    count = len(next(iter(words.values())))
    others = f", one for each of its tokens and not {wished}" if count != wished else ""
    remark = (
        f"The {count} vectors of “{network.pivotal.words}”{others} are in the file; A1111 reads them too, other "
        "programs leave them out."
    )
    return replace(
        spelled,
        tensors={**spelled.tensors, **words},
        exact=spelled.exact | words.keys(),
        remarks=(*spelled.remarks, remark),
    )


def _rounded(spelled: Spelled, precision: torch.dtype) -> dict[str, Tensor]:
    return {
        name: tensor.to(torch.float32 if name in spelled.exact else precision).contiguous()
        for name, tensor in spelled.tensors.items()
    }


# ---- the file


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Writes the file, durably, and returns its weight id."""
    table = layout({name: (_NAMES[one.dtype], tuple(one.shape)) for name, one in tensors.items()})
    said = {key: value for key, value in metadata.items() if key != _NEVER}
    said |= sshs_hashes(said, table, _area(tensors, table))
    said["modelspec.hash_sha256"] = f"0x{said['sshs_model_hash']}"
    _write_pieces(path, head(said, table), _area(tensors, table))
    with open(path, "rb") as file:
        return weight_id(header_of(file), reader(file))


def _area(tensors: Mapping[str, Tensor], table: Mapping[str, TensorInfo]) -> Iterator[bytes]:
    for name in table:
        view: Any = tensors[name].reshape(-1).view(torch.uint8).numpy()
        yield memoryview(view)  # type: ignore[misc]


def _write_pieces(path: Path, first: bytes, pieces: Iterable[bytes]) -> None:
    try:
        with open(path, "wb") as file:
            file.write(first)
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"The LoRA could not be written to {path.parent}: {error.strerror or error}.") from error


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A name in the same folder that no scan looks at; whatever is left under it in the end is removed."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _put(temporary: Path, path: Path) -> None:
    try:
        temporary.replace(path)
        osdep.fsync_dir(path.parent)
    except OSError as error:
        raise UserError(f"The LoRA could not be put at {path}: {error.strerror or error}.") from error


# ---- what is known only when pictures were made with the file


def add_thumbnail(path: Path, picture: Path) -> None:
    """Puts a picture that we made into the metadata of a file that we wrote, 256 pixels wide, as ModelSpec has it.

    Weights, and so the weight id, stay as they are; the file is whole at every moment. Raises `UserError`.
    """
    add_metadata(path, {"modelspec.thumbnail": thumbnail(picture)})


def thumbnail(picture: Path) -> str:
    """A data URL of a JPEG. Raises `UserError` for what is no picture."""
    try:
        with Image.open(picture) as image:
            small = ImageOps.fit(image.convert("RGB"), (_THUMBNAIL, _THUMBNAIL))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"The sample {picture.name} cannot be made the LoRA's thumbnail: {error}.") from error
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def add_metadata(path: Path, more: Mapping[str, str]) -> None:
    """Adds entries to the metadata of a file, or replaces them; its tensors stay, byte for byte. Raises `UserError`."""
    try:
        with open(path, "rb") as file, _beside(path) as temporary:
            header = header_of(file)
            before = weight_id(header, reader(file))
            said = {**header.metadata, **more}
            file.seek(header.data_start)
            _write_pieces(temporary, head(said, header.tensors), iter(lambda: file.read(_PIECE), b""))
            with open(temporary, "rb") as copy:
                if weight_id(header_of(copy), reader(copy)) != before:
                    raise UserError(f"The file {path.name} changed while its metadata was written. Try again.")
            _put(temporary, path)
    except BrokenFile as error:
        raise UserError(f"The file {path.name} cannot be completed: {error.message}.") from error
    except OSError as error:
        raise UserError(f"The file {path.name} cannot be completed: {error.strerror or error}.") from error
