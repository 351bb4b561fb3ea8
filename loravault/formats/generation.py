"""The values that describe a picture to be made: what a request becomes and what the engine takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BaseRef:
    """A base model on disk."""

    #: What the user calls it: `demo`, or the folder or file name without its extension.
    name: str
    #: Absolute path of a diffusers folder, or of a `.safetensors` checkpoint.
    path: str
    #: `demo`, `sd15`, …
    family: str
    #: `schnell`, `turbo`, `v-prediction`, …; None if there are none, or it cannot be told.
    variant: str | None = None
    #: For a checkpoint that is one file: what it lacks → the absolute path of a file or folder that has it.
    parts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class VaeRef:
    """A VAE on disk that takes the place of the base's own."""

    #: What the user calls it: the folder or file name without its extension.
    name: str
    #: Absolute path of a `.safetensors` file, or of a folder as diffusers keeps a VAE.
    path: str


@dataclass(frozen=True, kw_only=True)
class AdapterUse:
    """One adapter with the strengths it is applied at."""

    #: The name shown to people and written into the infotext.
    name: str
    #: Absolute path of the `.safetensors` file.
    path: str
    #: `w1-<16 hex>`.
    weight_id: str
    #: Strength for the text encoder; may be negative.
    te: float
    #: Strength for the UNet or transformer; may be negative.
    unet: float
    #: Block (as `formats.blocks` names them) → factor of the strength there; blocks that are not in it keep it.
    blocks: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class GenerationSpec:
    """Everything that decides the pixels. Two equal specs give the same pictures on one machine."""

    base: BaseRef
    #: The prompt as the text encoder gets it: tags cut out, trigger words inserted.
    prompt: str
    negative: str = ""
    #: One image each, in order; 0 … 2**53-1 (Obsidian corrupts larger integers).
    seeds: tuple[int, ...]
    #: Pixels, multiples of 8.
    width: int
    height: int
    steps: int
    cfg: float
    #: A canonical name of `formats.samplers`.
    sampler: str
    #: 1 = last layer of the text encoder, as A1111 counts.
    clip_skip: int = 1
    adapters: tuple[AdapterUse, ...] = ()
    #: None = the base's own.
    vae: VaeRef | None = None
    #: `webp`, `png` or `jpeg`.
    image_format: str = "webp"
    #: The prompt as the user wrote it, tags included: what the infotext shows.
    written_prompt: str = ""
