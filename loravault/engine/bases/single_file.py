"""Loading a checkpoint that is one `.safetensors` file, with what it leaves unsaid from our own data and other files.

Nothing is mapped: a file that is cut short while it is mapped ends the process. Nothing is guessed either: its tensors
say what it is (`formats.checkpoints`), and one that is missing is an error, not a random number.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from accelerate import init_empty_weights  # type: ignore[import-untyped]

from loravault.engine.bases import original
from loravault.engine.bases.base import Base, make_base
from loravault.engine.bases.folder import drawer_of, make_pipe
from loravault.engine.bases.parts import in_words, load_model, load_tokenizer, read_json, refuse_missing, settled
from loravault.engine.bases.tensors import read_tensors
from loravault.engine.devices import Device
from loravault.engine.families import Family, Part
from loravault.errors import UserError
from loravault.formats.checkpoints import DENOISER_PREFIX, Checkpoint, classify
from loravault.formats.generation import BaseRef
from loravault.formats.safetensors_header import Header, read_header
from loravault.formats.tensor_table import BrokenFile
from loravault.resources import base_parts

_CLIP_L, _T5 = "text_encoders.clip_l.transformer.", "text_encoders.t5xxl.transformer."
#: Where text encoders stand in checkpoints, by part.
_ENCODERS: Mapping[str, tuple[str, ...]] = {
    "sd15": ("cond_stage_model.transformer.",),
    "sd2": ("cond_stage_model.model.",),
    "sdxl": ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."),
    "sd3": (
        "text_encoders.clip_l.transformer.",
        "text_encoders.clip_g.transformer.",
        "text_encoders.t5xxl.transformer.",
    ),
    "flux": ("text_encoders.clip_l.transformer.", "text_encoders.t5xxl.transformer."),
    "chroma": ("text_encoders.t5xxl.transformer.",),
}
_VAES = ("first_stage_model.", "vae.")
#: The tensor whose spread tells Stable Diffusion 2.1 for 768 pixels, which predicts velocity, from that for 512.
_TELLTALE = f"{DENOISER_PREFIX}output_blocks.11.1.transformer_blocks.0.norm1.bias"
_SPREAD = 0.09


@dataclass(frozen=True)
class _Source:
    """One checkpoint that is being loaded."""

    ref: BaseRef
    header: Header
    kind: Checkpoint
    config: Path
    device: Device

    def read(self, prefix: str) -> original.Tensors:
        """The tensors whose names begin so, without that beginning, in the precision that is worked with."""
        names = [name for name in self.header.tensors if name.startswith(prefix)]
        tensors = read_tensors(Path(self.ref.path), self.header, names, self.device.dtype)
        return {name[len(prefix) :]: tensor for name, tensor in tensors.items()}

    def first_prefix(self, prefixes: Collection[str]) -> str:
        """The one of these that the file has."""
        return next((one for one in prefixes if any(name.startswith(one) for name in self.header.tensors)), "")


def load_single_file(ref: BaseRef, device: Device, configs: Path | None = None) -> Base:
    """Reads the file and moves the models to the device.

    `configs` has a folder for every kind of checkpoint; None: those that come with loravault.
    Raises `UserError`: the file is gone, cut short, of a kind that is not known, or lacks parts that are not elsewhere.
    """
    path = Path(ref.path)
    try:
        header = read_header(path)
    except BrokenFile as error:
        raise UserError(f"The base “{ref.name}” cannot be loaded: {error.message}.") from error
    except OSError:
        raise UserError(f"The base “{ref.name}” is not where it was: moved, or its drive is offline.") from None
    kind = classify(header)
    if kind.problem or kind.config is None or kind.family is None:
        raise UserError(f"The base “{ref.name}” cannot be loaded: {kind.problem or f'it is only a {kind.kind}'}.")
    config = (configs or base_parts() / "configs") / kind.config
    index = read_json(config / "model_index.json", ref.name)
    drawer = drawer_of(str(index.get("_class_name")), ref.name)
    device = replace(device, dtype=drawer.precision(device.dtype))
    source = _Source(ref, header, kind, config, device)
    _check_parts(source, drawer)
    with in_words(ref.name):
        loaded = {name: _part(source, drawer, name, part) for name, part in drawer.parts.items()}
        scheduler_config = _scheduler_config(source)
    settings = {key: index.get(key, value) for key, value in drawer.settings.items()}
    return make_base(ref.name, ref.family, make_pipe(drawer, loaded, settings, ref.name), scheduler_config)


def _check_parts(source: _Source, drawer: Family) -> None:
    there = {*source.kind.parts, *(name for name, _ in source.ref.parts)}
    missing = [
        name
        for name, part in drawer.parts.items()
        if part.library != "tokenizer" and not part.optional and name not in there
    ]
    if missing:
        raise UserError(
            f"The base “{source.ref.name}” cannot be loaded: the file lacks {', '.join(missing)}, "
            "and they are not in the other base folders either."
        )


def _part(source: _Source, drawer: Family, name: str, part: Part) -> Any:
    elsewhere = dict(source.ref.parts).get(name)
    if part.library == "tokenizer":
        return _tokenizer(source, name, part, Path(elsewhere) if elsewhere else None)
    if elsewhere and Path(elsewhere).is_dir():
        return load_model(part, Path(elsewhere).parent, Path(elsewhere).name, source.ref.name, source.device)
    if elsewhere:
        source = replace(source, ref=replace(source.ref, path=elsewhere), header=_header(Path(elsewhere), name))
        return _converted(source, drawer, name, part, "")
    if name not in source.kind.parts:
        return None  # one that the pipeline can do without
    return _converted(source, drawer, name, part, _prefix(source, drawer, name))


def _header(path: Path, name: str) -> Header:
    try:
        return read_header(path)
    except BrokenFile as error:
        raise UserError(f"of its {name} in {path.name}, {error.message}.") from error


def _prefix(source: _Source, drawer: Family, name: str) -> str:
    if name == drawer.denoiser:
        return source.first_prefix([DENOISER_PREFIX])
    if name == "vae":
        return source.first_prefix(_VAES)
    encoders = [part for part in drawer.parts if part.startswith("text_encoder")]
    return _ENCODERS[str(source.kind.family)][encoders.index(name)]


def _converted(source: _Source, drawer: Family, name: str, part: Part, prefix: str) -> Any:
    if name == "vae" and not prefix:
        prefix = source.first_prefix(_VAES)
    tensors = source.read(prefix)
    if name == drawer.denoiser and drawer.pipeline in ("FluxPipeline", "ChromaPipeline"):
        return _filled(source, name, part, lambda _model: original.flux(tensors))
    if part.library == "diffusers":
        return settled(convert(part, source.config, name, tensors, source.device.dtype), source.device)
    if part.kind == "T5EncoderModel":
        return _filled(source, name, part, lambda _model: original.t5(tensors))
    return _filled(source, name, part, lambda model: _clip(model, tensors))


def _clip(model: Any, tensors: original.Tensors) -> original.Tensors:
    found = original.clip(tensors, wrapped=hasattr(model, "text_model"))
    if hasattr(model, "text_projection") and "text_projection.weight" not in found:
        width = model.text_projection.weight.shape[0]
        found["text_projection.weight"] = torch.eye(width, dtype=next(iter(found.values())).dtype)
    return found


def convert(part: Part, config: Path, name: str, tensors: original.Tensors, dtype: torch.dtype) -> Any:
    """A UNet, VAE or SD3 transformer, by diffusers' own conversion. Raises `UserError` if tensors are missing."""
    prefix = {"unet": DENOISER_PREFIX, "vae": "first_stage_model."}.get(name, "")
    if any(key.startswith("decoder.mid_block.") for key in tensors):  # a VAE in the names of diffusers already
        prefix = ""
    kind = getattr(diffusers, part.kind)
    model = kind.from_single_file(
        {prefix + key: tensor for key, tensor in tensors.items()},
        config=str(config),
        subfolder=name,
        torch_dtype=dtype,
        local_files_only=True,
    )
    refuse_missing(name, [key for key, tensor in model.state_dict().items() if tensor.is_meta])
    return model


def _filled(source: _Source, name: str, part: Part, tensors_for: Callable[[Any], original.Tensors]) -> Any:
    """A model made from its configuration, with these tensors in it."""
    folder = str(source.config / name)
    kind = getattr(diffusers if part.library == "diffusers" else transformers, part.kind)
    with init_empty_weights():
        if part.library == "diffusers":
            model = kind.from_config(kind.load_config(folder, local_files_only=True))
        else:
            model = kind(kind.config_class.from_pretrained(folder, local_files_only=True))
    missing, _ = model.load_state_dict(tensors_for(model), strict=False, assign=True)
    refuse_missing(name, missing)
    return settled(model, source.device)


def _tokenizer(source: _Source, name: str, part: Part, elsewhere: Path | None) -> Any:
    """From where we were told, beside the configuration, or ours."""
    if elsewhere is not None or (source.config / name).is_dir():
        return load_tokenizer(part, elsewhere or source.config / name, source.ref.name)
    clip = part.kind == "CLIPTokenizer"
    tokenizer = load_tokenizer(part, base_parts() / "tokenizers" / ("clip" if clip else "t5"), source.ref.name)
    if clip and (name == "tokenizer_2" or source.kind.family == "sd2"):
        tokenizer.pad_token = "!"  # OpenCLIP fills up with zeros, which is the number of this word
    return tokenizer


def _scheduler_config(source: _Source) -> dict[str, Any]:
    """The configuration's, with what the file says of its own training."""
    config = read_json(source.config / "scheduler" / "scheduler_config.json", source.ref.name)
    if source.kind.prediction:
        config["prediction_type"] = source.kind.prediction
    elif source.kind.family == "sd2" and _TELLTALE in source.header.tensors:
        spread = read_tensors(Path(source.ref.path), source.header, [_TELLTALE], torch.float32)[_TELLTALE]
        velocity = float(spread.std(unbiased=False)) > _SPREAD
        config["prediction_type"] = "v_prediction" if velocity else "epsilon"
    if source.kind.zero_snr:
        config["rescale_betas_zero_snr"] = True
    return config
