"""What every family of bases answers: which parts it has, how a prompt becomes tensors, where latents begin and end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from loravault.errors import UserError
from loravault.formats.generation import GenerationSpec

#: A prompt as the pipeline takes it: argument → value with a batch of one (a tensor, a list of one tensor, or None).
Encoded = Mapping[str, Any]
#: Arguments of a pipeline.
Call = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """One folder of a diffusers folder."""

    #: `diffusers`, `transformers` or `tokenizer`: who loads it.
    library: str
    #: The class that is made; what the folder says is not believed, so that no foreign code can be named there.
    kind: str
    #: Whether the pipeline works without it.
    optional: bool = False

    @property
    def weights(self) -> str:
        """The name of its weights without ending."""
        return "diffusion_pytorch_model" if self.library == "diffusers" else "model"


CLIP = Part("transformers", "CLIPTextModel")
CLIP_PROJECTED = Part("transformers", "CLIPTextModelWithProjection")
T5 = Part("transformers", "T5EncoderModel")
CLIP_TOKENIZER = Part("tokenizer", "CLIPTokenizer")
T5_TOKENIZER = Part("tokenizer", "T5TokenizerFast")
QWEN_TOKENIZER = Part("tokenizer", "Qwen2TokenizerFast")
KL_VAE = Part("diffusers", "AutoencoderKL")


class Family(ABC):
    """One kind of pipeline. Without state: what belongs to a base is read from its pipeline."""

    #: The class in diffusers, as `model_index.json` names it.
    pipeline: str
    #: Folder → what is in it; in the order in which a person would miss them.
    parts: Mapping[str, Part]
    #: Whether it is a flow model, whose only samplers are those for flows.
    flow: bool = True
    #: Settings of the pipeline that are taken from `model_index.json`, with their values where it does not say.
    settings: Mapping[str, Any] = {}
    #: How a pipeline calls the guidance that `cfg` sets.
    guidance = "guidance_scale"
    #: Whether `clip_skip` means anything.
    skips = False
    #: Beginnings of the names of the denoiser's modules that see the tokens of all pictures in one row. The first
    #: dimension of what all others see is the pictures, once or, with guidance, twice one after the other. None: not
    #: known, so that pictures with different adapters are not drawn together.
    in_a_row: tuple[str, ...] | None = None

    @property
    def denoiser(self) -> str:
        """`unet` or `transformer`."""
        return "unet" if "unet" in self.parts else "transformer"

    @property
    def models(self) -> tuple[str, ...]:
        """The parts that adapters may change."""
        return tuple(name for name in self.parts if name == self.denoiser or name.startswith("text_encoder"))

    def precision(self, wish: torch.dtype) -> torch.dtype:
        """The precision for a device that would like `wish`: transformers overflow where a UNet does not."""
        return torch.bfloat16 if self.flow and wish is torch.float16 else wish

    # ---- prompts

    @abstractmethod
    def encode(self, pipe: Any, text: str, clip_skip: int, *, negative: bool) -> Encoded:
        """A prompt as the arguments of its pipeline, named as the positive prompt is."""

    def readers(self, pipe: Any) -> Sequence[tuple[Any, int]]:  # noqa: ARG002
        """(tokenizer, tokens of a prompt that are read) of each text encoder."""
        return ()

    def goes_with(self, one: Encoded, other: Encoded) -> bool:
        """Whether two prompts can be drawn in one batch: they have the same shape."""
        return {name: _shape(value) for name, value in one.items()} == {
            name: _shape(value) for name, value in other.items()
        }

    def joined(self, prompts: Sequence[Encoded]) -> Encoded:
        """Prompts of several pictures, each with a batch of one, as one batch. Each `goes_with` the first."""
        if all(one is prompts[0] for one in prompts):
            return _repeated(prompts[0], len(prompts))
        return {name: _joined([one[name] for one in prompts]) for name in prompts[0]}

    def arguments(self, pipe: Any, prompt: Encoded, negative: Encoded | None, cfg: float) -> Call:  # noqa: ARG002
        """What the pipeline is called with; the prompts are those of all pictures, `joined`."""
        found = {self.guidance: cfg, **prompt}
        for name, value in (negative or {}).items():
            found[f"negative_{name}"] = value
        return found

    def guided(self, pipe: Any, cfg: float) -> bool:  # noqa: ARG002
        """Whether the negative prompt is looked at."""
        return cfg > 1

    def ineffective(self, pipe: Any, spec: GenerationSpec) -> list[str]:
        """What was asked for and changes nothing, in sentences."""
        found = []
        if spec.negative.strip() and not self.guided(pipe, spec.cfg):
            found.append(f"The negative prompt had no effect: {self.why_unguided(pipe)}.")
        if spec.clip_skip > 1 and not self.skips:
            found.append(f"clip_skip {spec.clip_skip} had no effect: it means nothing for this base.")
        return found

    def why_unguided(self, pipe: Any) -> str:  # noqa: ARG002
        """Why a negative prompt does nothing."""
        return "with cfg 1 or less a picture is made without it"

    # ---- latents

    def unit(self, pipe: Any) -> int:
        """Width and height in pixels must be multiples of this."""
        return int(pipe.vae_scale_factor)

    @abstractmethod
    def noise(self, pipe: Any, size: tuple[int, int], generators: Sequence[torch.Generator]) -> torch.Tensor:
        """Where the pictures of `size` (width, height) begin: fp32 on the CPU, one for each generator.

        The same numbers that the pipeline would draw from the same generator.
        """

    def latent_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The precision the pipeline wants its latents in."""
        return dtype

    def latents(self, pipe: Any, drawn: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:  # noqa: ARG002
        """What the pipeline returned, as the decoder of the VAE takes it (in the latents' own precision)."""
        config = pipe.vae.config
        scaled: torch.Tensor = drawn / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)
        return scaled

    def pixels(self, pipe: Any, latents: torch.Tensor) -> torch.Tensor:
        """The decoder: (images, 3, height, width), -1 … 1."""
        image: torch.Tensor = pipe.vae.decode(latents, return_dict=False)[0]
        return image


class Patched(Family):
    """A transformer that reads patches of 2×2 numbers of the latent."""

    def unit(self, pipe: Any) -> int:
        """16."""
        return int(pipe.vae_scale_factor) * 2


class Packed(Patched):
    """One whose pipeline takes the patches of a 16-channel latent as tokens."""

    in_a_row = ()

    def noise(self, pipe: Any, size: tuple[int, int], generators: Sequence[torch.Generator]) -> torch.Tensor:
        """(images, height/16 · width/16, 64)."""
        scale = int(pipe.vae_scale_factor)
        channels = pipe.transformer.config.in_channels // 4
        return pack(draw_noise((channels, size[1] // scale, size[0] // scale), generators))

    def unpacked(self, pipe: Any, drawn: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """(images, 16, height/8, width/8)."""
        scale = int(pipe.vae_scale_factor)
        return unpack(drawn, size[1] // scale, size[0] // scale)

    def latents(self, pipe: Any, drawn: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Unpacked and scaled."""
        return super().latents(pipe, self.unpacked(pipe, drawn, size), size)


def _repeated(encoded: Encoded, images: int) -> dict[str, Any]:
    """For a batch; a list stays a list, None stays None."""
    return {
        name: value * images
        if isinstance(value, list)
        else None
        if value is None
        else value.expand(images, *value.shape[1:])
        for name, value in encoded.items()
    }


def _shape(value: Any) -> Any:
    """What has to be the same in one batch; the pictures of a list need not be of one length."""
    return value.shape[1:] if isinstance(value, torch.Tensor) else type(value)


def _joined(values: Sequence[Any]) -> Any:
    if isinstance(values[0], torch.Tensor):
        return torch.cat(list(values))
    return [one for value in values for one in value] if isinstance(values[0], list) else None


def draw_noise(shape: tuple[int, ...], generators: Sequence[torch.Generator]) -> torch.Tensor:
    """fp32 on the CPU whatever the device: the same seed begins with the same noise everywhere."""
    return torch.cat([torch.randn((1, *shape), generator=one, dtype=torch.float32) for one in generators])


def pack(latents: torch.Tensor) -> torch.Tensor:
    """(images, channels, height, width) → (images, height/2 · width/2, 4 · channels): each 2×2 patch is one token."""
    images, channels, height, width = latents.shape
    patches = latents.reshape(images, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(images, height // 2 * (width // 2), channels * 4)


def unpack(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The way back from `pack`; `height` and `width` are those of the latents."""
    images, _, channels = tokens.shape
    patches = tokens.reshape(images, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(images, channels // 4, height, width)


def check_layers(clip_skip: int, layers: int) -> None:
    """Raises `UserError` if the text encoder has not that many."""
    if not 1 <= clip_skip <= layers:
        raise UserError(f"clip_skip {clip_skip} is not possible: this base's text encoder has {layers} layers.")
