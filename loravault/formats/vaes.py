"""Which family a VAE belongs to, where its shapes cannot tell: those of SD 1 and SDXL differ in their scale only.

A file has no configuration. What can be known is what its metadata say, and its name; weights are not judged.
"""

from __future__ import annotations

from collections.abc import Mapping

from loravault.formats.families.told import family_among, fold, sayings

# Families whose VAEs are of one scale (and shift), by the channels of a latent. In one line they take each other's.
_ALIKE: Mapping[int, tuple[frozenset[str], ...]] = {
    4: (frozenset({"sd15", "sd2"}), frozenset({"sdxl"})),
    16: (frozenset({"sd3"}), frozenset({"flux", "chroma", "z-image"})),
}
# Names that VAEs were published under, without signs: they say no family.
_PUBLISHED: Mapping[int, Mapping[str, str]] = {
    4: {"vaeftmse": "sd15", "vaeftema": "sd15", "klf8anime": "sd15", "orangemixvae": "sd15", "clearvae": "sd15"},
    16: {},
}


def family_told(name: str, metadata: Mapping[str, str], channels: int) -> tuple[str, str] | None:
    """(family, where that is said: an entry of the metadata, or `name`) of a VAE file; None if nothing says it."""
    possible = {family for alike in _ALIKE.get(channels, ()) for family in alike}
    found = family_among(possible, sayings(metadata, name=name))
    if found is not None:
        return found
    folded = fold(name)
    published = (family for word, family in _PUBLISHED.get(channels, {}).items() if word in folded)
    return next(((family, "name") for family in published), None)


def belongs_elsewhere(name: str, metadata: Mapping[str, str], channels: int, family: str) -> str | None:
    """The end of a sentence about a VAE that is said to be for bases of another scale; None if nothing says so."""
    told = family_told(name, metadata, channels)
    if told is None:
        return None
    theirs = next(alike for alike in _ALIKE[channels] if told[0] in alike)
    if family in theirs or not any(family in alike for alike in _ALIKE[channels]):
        return None
    where = "its name" if told[1] == "name" else f"its metadata ({told[1]})"
    return f"is one for {told[0]}, by {where}, and the base is {family}: colours may be wrong"
