"""What is known about training on each family: the numbers that are good to begin with, and what a step costs.

Rates, ranks and resolutions are the practice of the trainers that people use (kohya's sd-scripts, OneTrainer,
ai-toolkit, diffusers' scripts, Civitai's form). alpha ≠ rank is the practice for UNets, alpha = rank for transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from loravault.formats.training import Schedule, Subject


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a training begins with where nobody says otherwise."""

    resolutions: tuple[int, ...]
    rank: int
    alpha: float
    conv_rank: int = 0
    conv_alpha: float = 0.0
    #: Of the UNet or transformer, and of the text encoders (0: left alone); for AdamW.
    rate: float = 1e-4
    te_rate: float = 0.0
    schedule: Schedule = "cosine"
    #: The most pictures that are learned from together, if memory bears it.
    batch: int = 1
    min_snr: float = 0.0
    caption_dropout: float = 0.0
    #: Whether the upper band of steps is taken whatever the pictures are like.
    long: bool = False
    #: Share of the pictures that is held to the base without the trigger: a very small base forgets everything else.
    preserve: float = 0.0
    #: Pictures are looked at so many times as often as the bands say: a very small base learns less from each.
    often: float = 1.0
    #: Share of the steps over which the rate rises.
    warmup: float = 0.05


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What training on a family costs, as far as it follows from its size. Rough; measured rates take their place."""

    #: Parameters of the UNet or transformer, and of all text encoders.
    parameters: float
    text_parameters: float
    #: The side of the pictures that the other numbers are for, in pixels.
    side: int
    #: Numbers that are kept for the backward pass of one picture without checkpointing.
    activations: float
    #: Multiply-adds of one forward pass for one picture.
    work: float
    #: Parameters of an adapter of rank 1.
    rank_parameters: float


_UNET_CHARACTER = Recipe(resolutions=(512,), rank=16, alpha=8, te_rate=5e-5, batch=2, min_snr=5.0)
_SDXL_CHARACTER = Recipe(resolutions=(1024,), rank=16, alpha=8, batch=4, min_snr=5.0)
_FLOW = Recipe(resolutions=(1024,), rank=16, alpha=16, schedule="constant", long=True)
_DEMO = Recipe(
    resolutions=(128,), rank=16, alpha=16, rate=2e-3, te_rate=4e-3, batch=4, often=2.0, preserve=0.5,
)  # fmt: skip


def _unet(character: Recipe, *, conv: tuple[int, float], object_rank: int, concept_te: float) -> dict[Subject, Recipe]:
    style = replace(
        character, rank=32, alpha=16, conv_rank=conv[0], conv_alpha=conv[1], te_rate=0.0, caption_dropout=0.1, long=True
    )
    thing = replace(character, rank=object_rank, alpha=object_rank / 2, te_rate=concept_te)
    return {"character": character, "style": style, "object": thing, "concept": thing}


def _flow(recipe: Recipe) -> dict[Subject, Recipe]:
    return {
        "character": recipe,
        "style": replace(recipe, caption_dropout=0.05),
        "object": recipe,
        "concept": recipe,
    }


#: Family → subject → what to begin with.
RECIPES: Mapping[str, Mapping[Subject, Recipe]] = MappingProxyType(
    {
        "demo": {
            "character": _DEMO,
            "object": _DEMO,
            "concept": _DEMO,
            "style": replace(_DEMO, long=True),
        },
        "sd15": _unet(_UNET_CHARACTER, conv=(16, 8), object_rank=16, concept_te=5e-5),
        "sd2": _unet(replace(_UNET_CHARACTER, resolutions=(768,)), conv=(16, 8), object_rank=16, concept_te=5e-5),
        "sdxl": _unet(_SDXL_CHARACTER, conv=(16, 8), object_rank=16, concept_te=0.0),
        "sd3": _flow(_FLOW),
        "flux": _flow(replace(_FLOW, resolutions=(512, 768, 1024))),
    }
)

#: Sizes of the published models. SD3's are those of 3.5 medium.
COSTS: Mapping[str, Costs] = MappingProxyType(
    {
        # 5.9e8 were counted; its layers are so small that a processor does three times as many of large ones meanwhile.
        "demo": Costs(
            parameters=5.42e6, text_parameters=0.75e6, side=128, activations=1.1e7, work=1.9e9, rank_parameters=3.1e4
        ),
        "sd15": Costs(
            parameters=860e6, text_parameters=123e6, side=512, activations=1.3e9, work=3.4e11, rank_parameters=6.6e5
        ),
        "sd2": Costs(
            parameters=866e6, text_parameters=340e6, side=768, activations=2.9e9, work=8.3e11, rank_parameters=7.0e5
        ),
        "sdxl": Costs(
            parameters=2567e6, text_parameters=817e6, side=1024, activations=5.5e9, work=3.0e12, rank_parameters=2.9e6
        ),
        "sd3": Costs(
            parameters=2243e6, text_parameters=5580e6, side=1024, activations=1.1e10, work=6.0e12, rank_parameters=1.4e6
        ),
        "flux": Costs(
            parameters=11900e6,
            text_parameters=4885e6,
            side=1024,
            activations=2.4e10,
            work=3.3e13,
            rank_parameters=2.4e6,
        ),
    }
)

#: What an algorithm's rate is, as a multiple of a plain LoRA's: what it multiplies starts out smaller, or is a scale.
RATE_FACTOR: Mapping[str, float] = MappingProxyType({"loha": 5.0, "lokr": 10.0, "ia3": 50.0})
#: Beyond this every rate of AdamW diverges.
MOST_RATE = 1e-2


def recipe_of(family: str, subject: Subject) -> Recipe | None:
    """What a training of this subject on this family begins with; None if the family cannot be trained here."""
    return RECIPES.get(family, {}).get(subject)
