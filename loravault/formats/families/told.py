"""What is said about an adapter's base model: in its metadata, in files of other tools, in its name. No shapes here."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from loravault.formats.families.index import FAMILIES
from loravault.formats.families.table import Family

#: Where a file says what it was trained on, most trustworthy first.
_ENTRIES = ("modelspec.architecture", "ss_base_model_version", "ss_sd_model_name")
_NAMES = ("name", "folder")
_SHORT = 5
# Variants whose words mean something else in most names: they count where the name also names the family.
_COMMON = frozenset(
    {
        "alpha", "base", "dev", "edit", "fill", "large", "layered", "lite", "medium", "pro", "radiance", "sigma",
        "turbo", "2b", "5b", "13b", "14b", "i2v", "2512", "o1", "i1",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Saying:
    """One statement about the base model."""

    #: The name of a metadata entry or of another tool's file, `name` or `folder`.
    source: str
    #: Small letters and digits only.
    folded: str
    family: str | None = None
    variant: str | None = None


def sayings(
    metadata: Mapping[str, str], told: Sequence[tuple[str, str]] = (), name: str = "", folder: str = ""
) -> list[Saying]:
    """Everything that is said, most trustworthy first: `told` are (source, base model) pairs from other files."""
    result = []
    for source, text in told:
        known = from_civitai(text)
        family, variant = known or (_claimed(fold(text)), None)
        result.append(Saying(source, fold(text), family, variant))
    for source in _ENTRIES:
        # in the name of a file the family stands anywhere; in the other two it stands first
        text = metadata.get(source, "")[:400]
        folded = fold(text if source == "ss_sd_model_name" else text.partition("/")[0])
        if folded and folded != "none":
            result.append(Saying(source, folded, None if source == "ss_sd_model_name" else _claimed(folded)))
    if metadata.get("ss_v2") == "True":
        result.append(Saying("ss_v2", "sdv2", "sd2"))
    result += [Saying(source, text) for source, text in (("name", name[:400]), ("folder", folder[:400])) if text]
    return result


def family_among(allowed: Collection[str], said: Sequence[Saying]) -> tuple[str, str] | None:
    """(family, source) of the first statement that names one of the families that are possible, else None."""
    for saying in said:
        if saying.family in allowed:
            return str(saying.family), saying.source
        if saying.source in (*_NAMES, "ss_sd_model_name"):
            found = [family for family in allowed if _names(FAMILIES[family], saying.folded)]
            if len(found) == 1:
                return found[0], saying.source
    return None


def variant_among(family: Family, allowed: Collection[str | None], said: Sequence[Saying]) -> tuple[str, str] | None:
    """(variant, source) of the first statement that names one; shapes forbid the variants that are not in `allowed`."""
    by_shape = {model.variant for model in family.models}
    for saying in said:
        found = saying.variant if saying.family == family.name and saying.variant else None
        if found is None and saying.family in (None, family.name):
            means = _meant if saying.source in _NAMES else _contains
            found = next((variant for word, variant in family.variants.items() if means(word, saying, family)), None)
        if found is not None and (found in allowed or found not in by_shape):
            return found, saying.source
    return None


def _contains(word: str, saying: Saying, _: Family) -> bool:
    """In the name of a base model a variant's word may be anywhere: `ponyDiffusionV6XL`."""
    return word in fold(saying.folded)


def _meant(word: str, saying: Saying, family: Family) -> bool:
    """In the name of an adapter the word must stand alone, or begin one, and mean nothing else."""
    words = _words(saying.folded)
    begins = len(word) >= _SHORT - 1 and any(one.startswith(word) for one in words)
    inside = len(word) > _SHORT and word in fold(saying.folded)
    return (word in words or begins or inside) and (word not in _COMMON or _names(family, saying.folded))


def expert_of(name: str, folder: str = "") -> str | None:
    """`high` or `low`: which of the two models of Wan 2.2 14B it is for. Only names tell."""
    for text in (name, folder):
        words = _words(text)
        found = {side for side in ("high", "low") if side in words or f"{side}noise" in fold(text)}
        if len(found) == 1:
            return found.pop()
    return None


def fold(text: str) -> str:
    """`Flux.1-dev` → `flux1dev`: what writers spell differently is left out."""
    return re.sub(r"[\W_]+", "", text.casefold())


def _words(text: str) -> frozenset[str]:
    return frozenset(re.split(r"[\W_]+", text.casefold()))


def _names(family: Family, text: str) -> bool:
    """Whether a name has a word that means this family; short ones must stand alone."""
    words = _words(text)
    return any(word in words or (len(word) >= _SHORT and word in fold(text)) for word in family.words)


def _claimed(folded: str) -> str | None:
    return next((family for beginning, family in _beginnings() if folded.startswith(beginning)), None)


@cache
def _beginnings() -> tuple[tuple[str, str], ...]:
    pairs: Iterator[tuple[str, str]] = (
        (beginning, family.name) for family in FAMILIES.values() for beginning in family.claims
    )
    return tuple(sorted(pairs, key=lambda pair: -len(pair[0])))


def from_civitai(text: str) -> tuple[str, str | None] | None:
    """(family, variant) of what Civitai calls a `baseModel`; None for what is no base model or not known."""
    return CIVITAI.get(" ".join(text.casefold().split()))


#: `baseModel` in small letters → family, variant. Families without a table here are known by this name only.
CIVITAI: Mapping[str, tuple[str, str | None]] = {
    "sd 1.4": ("sd15", None), "sd 1.5": ("sd15", None), "sd 1.5 lcm": ("sd15", "lcm"),
    "sd 1.5 hyper": ("sd15", "hyper"),
    "sd 2.0": ("sd2", None), "sd 2.0 768": ("sd2", "v-prediction"), "sd 2.1": ("sd2", None),
    "sd 2.1 768": ("sd2", "v-prediction"), "sd 2.1 unclip": ("sd2", "unclip"),
    "sd 3": ("sd3", "medium"), "sd 3.5": ("sd3", None), "sd 3.5 medium": ("sd3", "3.5-medium"),
    "sd 3.5 large": ("sd3", "3.5-large"), "sd 3.5 large turbo": ("sd3", "3.5-large"),
    "sdxl 0.9": ("sdxl", None), "sdxl 1.0": ("sdxl", None), "sdxl 1.0 lcm": ("sdxl", "lcm"),
    "sdxl distilled": ("sdxl", "distilled"), "sdxl hyper": ("sdxl", "hyper"),
    "sdxl lightning": ("sdxl", "lightning"), "sdxl turbo": ("sdxl", "turbo"),
    "pony": ("sdxl", "pony"), "illustrious": ("sdxl", "illustrious"), "noobai": ("sdxl", "noobai"),
    "playground v2": ("sdxl", "playground"), "kolors": ("kolors", None),
    "pony v7": ("auraflow", "pony-v7"), "auraflow": ("auraflow", None),
    "flux.1 d": ("flux", "dev"), "flux.1 s": ("flux", "schnell"), "flux.1 krea": ("flux", "krea"),
    "flux.1 kontext": ("flux", "kontext"),
    "flux.2 d": ("flux2", "dev"), "flux.2 klein 9b": ("flux2", "klein-9b"), "flux.2 klein 4b": ("flux2", "klein-4b"),
    "flux.2 klein 9b-base": ("flux2", "klein-9b"), "flux.2 klein 4b-base": ("flux2", "klein-4b"),
    "flux 3 video": ("flux3", "video"), "chroma": ("chroma", None),
    "pixart a": ("pixart", "alpha"), "pixart e": ("pixart", "sigma"),
    "hunyuan 1": ("hunyuan-dit", None), "hunyuan video": ("hunyuan-video", None),
    "lumina": ("lumina2", None), "hidream": ("hidream", "i1"), "hidream-o1": ("hidream", "o1"),
    "qwen": ("qwen-image", None), "qwen 2": ("qwen-image", "2"), "qwen 3": ("qwen-image", "3"),
    "zimageturbo": ("z-image", "turbo"), "zimagebase": ("z-image", "base"),
    "wan video": ("wan", None), "wan video 1.3b t2v": ("wan", "1.3b"), "wan video 14b t2v": ("wan", "14b"),
    "wan video 14b i2v 480p": ("wan", "14b-i2v"), "wan video 14b i2v 720p": ("wan", "14b-i2v"),
    "wan video 2.2 ti2v-5b": ("wan", "5b"), "wan video 2.2 t2v-a14b": ("wan", "14b"),
    "wan video 2.2 i2v-a14b": ("wan", "14b"), "wan video 2.5 t2v": ("wan", "2.5"),
    "wan video 2.5 i2v": ("wan", "2.5"), "wan video 2.7": ("wan", "2.7"), "wan image 2.7": ("wan", "2.7"),
    "ltxv": ("ltx", None), "ltxv2": ("ltx", "ltx2"), "ltxv 2.3": ("ltx", "ltx2"),
    "cogvideox": ("cogvideox", None), "mochi": ("mochi", None),
    "svd": ("svd", None), "svd xt": ("svd", "xt"), "stable cascade": ("cascade", None),
    "anima": ("anima", None), "ernie": ("ernie-image", None), "ideogram 4.0": ("ideogram4", None),
    "krea 2": ("krea2", None), "minimax h3": ("minimax-h3", None), "lens": ("lens", None),
    "mageflow": ("mageflow", None), "boogu": ("boogu", None), "nucleus": ("nucleus", None),
    "ace audio": ("ace-step", None),
}  # fmt: skip
