"""What is written into a picture: A1111's infotext, and our own chunk. Holds no path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loravault import __version__
from loravault.formats.block_weights import Factors, as_vector, as_words, number, read_blocks
from loravault.formats.generation import AdapterUse, GenerationSpec
from loravault.formats.infotext import Infotext, write_infotext
from loravault.formats.outcome import AdapterHashes, Provenance
from loravault.formats.prompt_tags import LoraTag, parse_tags

#: (name, strengths per block) → strengths of text encoder and denoiser.
_Said = dict[tuple[str, Factors], tuple[float, float]]

#: Shape of the chunk; readers accept all older ones.
CHUNK_VERSION = 1

# A1111 names sampler and schedule apart. Where it would choose a schedule itself ("Automatic") ours has to be said.
_SAMPLERS: Mapping[str, tuple[str, str | None]] = {
    "Euler": ("Euler", "Uniform"),
    "Euler a": ("Euler a", "Uniform"),
    "DPM++ 2M": ("DPM++ 2M", "Uniform"),
    "DPM++ 2M Karras": ("DPM++ 2M", "Karras"),
}


def infotext_of(spec: GenerationSpec, index: int, hashes: Sequence[AdapterHashes]) -> str:
    """The generation data of image `index` as A1111 writes and reads it."""
    sampler, schedule = _SAMPLERS.get(spec.sampler, (spec.sampler, None))
    parameters = {"Steps": str(spec.steps), "Sampler": sampler}
    if schedule:
        parameters["Schedule type"] = schedule
    parameters |= {
        "CFG scale": f"{spec.cfg:g}",
        "Seed": str(spec.seeds[index]),
        "Size": f"{spec.width}x{spec.height}",
        "Model": spec.base.name,
    }
    if spec.vae is not None:
        parameters["VAE"] = spec.vae.name
    if spec.clip_skip > 1:
        parameters["Clip skip"] = str(spec.clip_skip)
    parameters |= {"RNG": "CPU", "Version": f"loravault {__version__}"}
    info = Infotext(
        prompt=_prompt(spec),
        negative=spec.negative,
        parameters=parameters,
        lora_hashes={one.name: one.autov3 for one in hashes},
        hashes={f"lora:{one.name}": one.autov2 for one in hashes},
    )
    return write_infotext(info)


def _prompt(spec: GenerationSpec) -> str:
    """What the user wrote, if it says everything; else the effective prompt, with a tag for each adapter.

    Trigger words and weights that came from a card, adapters that came from the note's properties and names for block
    weights that only this user has are not in the user's text; pasted elsewhere it would give another picture.
    """
    stripped, tags = parse_tags(spec.written_prompt)
    said = _written(tags, spec.base.family)
    if said is not None and said == _meant(spec) and stripped.split() == spec.prompt.split():
        return spec.written_prompt
    return " ".join([spec.prompt, *(_tag(use, spec.base.family) for use in spec.adapters)])


def _written(tags: Sequence[LoraTag], family: str) -> _Said | None:
    """What tags say about adapters; None if that is not all that must be known."""
    said: _Said = {}
    for tag in tags:
        if tag.problem or tag.te is None or tag.unet is None:
            return None
        try:
            blocks = read_blocks(tag.blocks, family) if tag.blocks else ()
        except ValueError:
            return None
        before = said.get((tag.name, blocks), (0.0, 0.0))
        said[tag.name, blocks] = (before[0] + tag.te, before[1] + tag.unet)
    return said


def _meant(spec: GenerationSpec) -> _Said:
    said: _Said = {}
    for use in spec.adapters:
        before = said.get((use.name, use.blocks), (0.0, 0.0))
        said[use.name, use.blocks] = (before[0] + use.te, before[1] + use.unet)
    return said


def _tag(use: AdapterUse, family: str) -> str:
    """As A1111 reads it, with its block weights where they can say it, else with ours."""
    strength = number(use.te) if use.te == use.unet else f"{number(use.te)}:{number(use.unet)}"
    vector = as_vector(use.blocks, family) if use.blocks else None
    words = as_words(use.blocks, family) if use.blocks else ""
    blocks = f":lbw={vector}" if vector else "".join(f":{word}" for word in words.split())
    return f"<lora:{use.name}:{strength}{blocks}>"


def chunk_of(spec: GenerationSpec, index: int, provenance: Provenance, versions: Mapping[str, str]) -> dict[str, Any]:
    """Our own record of image `index`."""
    stands_for = {"stands_for": provenance.stands_for, "named": provenance.named} if provenance.stands_for else {}
    return {
        "v": CHUNK_VERSION,
        "job": provenance.job,
        "block": provenance.block_hash,
        "fingerprint": provenance.fingerprint,
        "index": index,
        "count": len(spec.seeds),
        "seed": spec.seeds[index],
        "base": {"name": spec.base.name, "family": spec.base.family},
        "adapters": [_used(use) for use in spec.adapters],
        "versions": {"loravault": __version__, **versions},
        **stands_for,
    }


def _used(use: AdapterUse) -> dict[str, Any]:
    blocks = {"blocks": dict(use.blocks)} if use.blocks else {}
    return {"id": use.weight_id, "name": use.name, "te": use.te, "unet": use.unet, **blocks}
