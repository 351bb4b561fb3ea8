"""Looking at every picture once before anything is trained: can it be used, how large is it, how alike are they.

Likeness is measured by colours and by what is where (a histogram and 8×8 pixels, the middle counting most), not by a
model that knows what is shown. Its scale is set so that the bands hold which embeddings gave (`DIVERSE`, `SIMILAR`):
one scene over and over is below .15, pictures of anything are above .25. Two photos of one person in two places
look more different to it than they would to such a model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from loravault.dataset.pictures import ON_WHITE, Decoded, NotUsable, decode, read_bytes
from loravault.formats.training import LookedAt, Survey, TrainingPicture

Floats = NDArray[np.float32]

#: Below: nearly the same over and over; above: of many things.
SIMILAR, DIVERSE = 0.15, 0.25
MEASURE = "by colours and an 8×8 thumbnail, not by a model that knows what is shown"
#: Of more pictures so many, evenly spread, are compared.
_COMPARED = 256
#: Sides in pixels of what is decoded, of what colours are counted on, of the thumbnail.
_DECODED, _COLOURS, _THUMB = 256, 32, 8
#: What makes .15 and .25 of the mean distance; from the demo's drawings (tests/dataset/test_survey.py).
_SCALE = 0.49
#: Bits of 64 in which two hashes may differ, and how far two thumbnails may be apart, to be one picture saved twice.
_SAME_BITS, _SAME_THUMB = 4, 0.06
#: How bright red, green and blue are.
_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)
#: Neighbours that differ by at most so many of 255 are of one colour.
_EVEN = 1


@dataclass(frozen=True)
class _Looks:
    """What is kept of a picture to compare it with."""

    #: Root of the share of each colour.
    colours: Floats
    #: RGB, 0 … 1, weighted so that the squared distance of two is a weighted mean.
    thumb: Floats
    #: 64 bits.
    print: int


def survey(
    pictures: Sequence[TrainingPicture], *, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> Survey:
    """Decodes every picture once, one at a time, in the order given.

    `progress(done, of)` is called after each; to stop, let it raise.
    """
    seen: list[LookedAt] = []
    subject: list[_Looks] = []
    twins = {False: _Twins(), True: _Twins()}
    for number, picture in enumerate(pictures):
        look, looks = _look(picture)
        if looks is not None:
            if (twin := twins[picture.regularisation].of(look, looks)) is not None:
                look = replace(look, remarks=(*look.remarks, twin))
            if not picture.regularisation:
                subject.append(looks)
        seen.append(look)
        progress(number + 1, len(pictures))
    return Survey(pictures=tuple(seen), diversity=diversity(subject), measure=MEASURE)


def _look(picture: TrainingPicture) -> tuple[LookedAt, _Looks | None]:
    sha256, size = "", (0, 0)
    try:
        data = read_bytes(picture.path)
        sha256 = hashlib.sha256(data).hexdigest()
        found = decode(data, least=_DECODED)
        del data
        size = found.size
        _check_mask(picture, found)
        small = Decoded(_reduced(found.image), found.size, found.profile, ()).rgb()
    except (NotUsable, MemoryError) as reason:
        problem = str(reason) or "it needs more memory than there is"
        return LookedAt(name=picture.name, width=size[0], height=size[1], sha256=sha256, problem=problem), None
    remarks = found.remarks
    if picture.mask == picture.path:
        remarks = tuple("what is transparent does not count" if one == ON_WHITE else one for one in remarks)
    look = LookedAt(
        name=picture.name, width=size[0], height=size[1], sha256=sha256, remarks=remarks, flat=round(flatness(small), 3)
    )
    return look, looks_of(small)


def _check_mask(picture: TrainingPicture, found: Decoded) -> None:
    """Raises `NotUsable`: without its mask a picture would teach what it must not."""
    if picture.mask is None:
        return
    if picture.mask == picture.path:
        opacity = found.opacity()
    else:
        try:
            opacity = decode(read_bytes(picture.mask), least=_DECODED).brightness()
        except NotUsable as reason:
            raise NotUsable(f"of its mask: {reason}") from reason
    if opacity is not None and opacity.getextrema()[1] == 0:
        raise NotUsable("nothing of it counts: its mask is black everywhere")


def _reduced(image: Image.Image) -> Image.Image:
    scale = min(1.0, _DECODED / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


# ---- what a picture looks like


def flatness(image: Image.Image) -> float:
    """Share of an RGB picture whose neighbours to the right and below are of the same colour."""
    pixels = np.asarray(image, dtype=np.int16)
    across = np.abs(np.diff(pixels, axis=1)).max(axis=2)[:-1]
    down = np.abs(np.diff(pixels, axis=0)).max(axis=2)[:, :-1]
    both = np.maximum(across, down)
    return float((both <= _EVEN).mean()) if both.size else 1.0


def looks_of(image: Image.Image) -> _Looks:
    """Of an RGB picture of any size."""
    colours, thumb = (
        np.asarray(image.resize((side, side), Image.Resampling.BOX), dtype=np.float32) / np.float32(255)
        for side in (_COLOURS, _THUMB)
    )
    weighted = thumb * np.sqrt(_middle(_THUMB) / 3)[..., None]
    return _Looks(_histogram(colours), weighted.ravel().astype(np.float32), _fingerprint(image))


@cache
def _middle(side: int) -> Floats:
    """How much each place counts; together 1."""
    at = np.linspace(-1, 1, side, dtype=np.float32)
    weights = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 0.8**2))
    found: Floats = (weights / weights.sum()).astype(np.float32)
    return found


def _histogram(pixels: Floats) -> Floats:
    """Brightness, red against green, yellow against blue; every pixel is shared out between its nearest bins."""
    red, green, blue = (pixels[..., channel].ravel() for channel in range(3))
    brightness: Floats = pixels.reshape(-1, 3) @ _GREY
    axes = (
        _shares(brightness, 0, 1, 5),
        _shares(red - green, -1, 1, 7),
        _shares((red + green) / np.float32(2) - blue, -1, 1, 7),
    )
    found = np.einsum("n,ni,nj,nk->ijk", _middle(_COLOURS).ravel(), *axes).ravel()
    root: Floats = np.sqrt(found / found.sum()).astype(np.float32)
    return root


def _shares(values: Floats, low: float, high: float, bins: int) -> Floats:
    place = np.clip((values - low) / (high - low), 0, 1) * (bins - 1)
    found: Floats = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(bins, dtype=np.float32))).astype(np.float32)
    return found


@cache
def _cosines() -> Floats:
    """The eight lowest waves over 32 places."""
    place, wave = np.arange(32), np.arange(8)
    found: Floats = np.cos(np.pi * (2 * place[None] + 1) * wave[:, None] / 64).astype(np.float32)
    return found


def _fingerprint(image: Image.Image) -> int:
    """A perceptual hash: which of the 64 lowest waves are stronger than their median."""
    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS), dtype=np.float32)
    waves = (_cosines() @ grey @ _cosines().T).ravel()
    bits = waves > np.median(waves[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


# ---- how alike they are


class _Twins:
    """The pictures so far, to find those that come twice."""

    def __init__(self) -> None:
        self._files: dict[str, str] = {}
        self._names: list[str] = []
        self._prints = np.zeros(64, dtype=np.uint64)
        self._thumbs = np.zeros((64, 3 * _THUMB**2), dtype=np.float32)

    def of(self, look: LookedAt, looks: _Looks) -> str | None:
        """What an earlier picture has in common with this one, which is earlier from now on; None: nothing."""
        found = self._alike(look, looks)
        count = len(self._names)
        if count == len(self._prints):
            self._prints = np.concatenate([self._prints, np.zeros_like(self._prints)])
            self._thumbs = np.concatenate([self._thumbs, np.zeros_like(self._thumbs)])
        self._files.setdefault(look.sha256, look.name)
        self._names.append(look.name)
        self._prints[count], self._thumbs[count] = looks.print, looks.thumb
        return found

    def _alike(self, look: LookedAt, looks: _Looks) -> str | None:
        if look.sha256 in self._files:
            return f"it is the same file as {self._files[look.sha256]}"
        count = len(self._names)
        differing = self._prints[:count] ^ np.uint64(looks.print)
        bits = _bit_counts()[differing.view(np.uint16)].reshape(count, 4).sum(axis=1)
        for number in np.flatnonzero(bits <= _SAME_BITS):
            if float(np.linalg.norm(self._thumbs[number] - looks.thumb)) <= _SAME_THUMB:
                return f"it looks the same as {self._names[number]}"
        return None


@cache
def _bit_counts() -> NDArray[np.uint8]:
    """How many bits are set in each number of 16 bits."""
    return np.array([number.bit_count() for number in range(1 << 16)], dtype=np.uint8)


def diversity(looks: Sequence[_Looks]) -> float:
    """0 (all the same) … 1: the mean over all pairs; 0 for less than two."""
    if len(looks) > _COMPARED:
        looks = [looks[number * len(looks) // _COMPARED] for number in range(_COMPARED)]
    if len(looks) < 2:
        return 0.0
    colours = np.stack([one.colours for one in looks])
    thumbs = np.stack([one.thumb for one in looks])
    products = thumbs @ thumbs.T
    squares = np.diag(products)
    places = np.sqrt(np.maximum(0, squares[:, None] + squares[None] - 2 * products))
    distances = 0.5 * (1 - colours @ colours.T) + places
    pairs = np.triu_indices(len(looks), 1)
    return float(np.clip(_SCALE * distances[pairs].mean(), 0, 1))
