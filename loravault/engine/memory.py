"""What is tried, in which order, when a device has too little memory. Decides only: who draws acts on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

#: Pictures of more pixels are decoded in tiles from the start: four megapixels at once take over 10 GB.
LARGE_SIDE = 1536
LARGE = LARGE_SIDE * LARGE_SIDE
#: Sides of the tiles in pixels: from the start, and after memory ran out.
LARGE_TILE, SMALL_TILE = 1024, 512
_TONE = "which may differ a little in tone"


class Offload(IntEnum):
    """What of a base waits in ordinary memory while it is not in use; each is slower than the one before."""

    NONE = 0
    #: One model is on the card at a time.
    MODELS = 1
    #: One layer is on the card at a time.
    LAYERS = 2


#: As `config.toml` calls them; `auto` is `none` until memory runs out.
OFFLOADS = {"auto": Offload.NONE, "none": Offload.NONE, "models": Offload.MODELS, "layers": Offload.LAYERS}


@dataclass(frozen=True)
class Thrift:
    """How memory is saved while one job is drawn."""

    #: Pictures that are denoised at the same time.
    together: int
    #: Side of the tiles a picture is decoded in, in pixels; 0: whole.
    tile: int
    offload: Offload

    def less(self, phase: str, size: tuple[int, int], most: Offload) -> Thrift | None:
        """What to try after memory ran out in `phase` (as `on_phase` names it); None: nothing is left.

        `size` is (width, height) of a picture, `most` the strongest way to offload that may be taken.
        """
        if phase == "draw" and self.together > 1:
            return replace(self, together=(self.together + 1) // 2)
        if phase == "decode" and self.tile != SMALL_TILE and max(size) > SMALL_TILE:
            return replace(self, tile=SMALL_TILE)
        if self.offload < most:
            return replace(self, offload=Offload(self.offload + 1))
        return None

    def sentence(self, before: Thrift, device: str, size: tuple[int, int]) -> str | None:
        """What a result says that was made so, where `before` was the plan; None: no one would notice."""
        told = []
        if self.offload > before.offload:
            one = "model" if self.offload is Offload.MODELS else "layer"
            told.append(f"drawn with one {one} at a time on the card, which is slower")
        if self.tile == SMALL_TILE != before.tile:
            told.append(f"decoded in tiles of {SMALL_TILE} pixels, {_TONE}")
        lacking = f"{device} has too little memory for {size[0]}×{size[1]}: {' and '.join(told)}." if told else None
        # Even where memory is enough: single areas come out some shades lighter or darker.
        large = f"Decoded in tiles of {LARGE_TILE} pixels, as all pictures above {LARGE_SIDE}×{LARGE_SIDE}, {_TONE}."
        return " ".join(filter(None, (lacking, large if self.tile == LARGE_TILE else None))) or None


def plan(size: tuple[int, int], together: int, offload: Offload) -> Thrift:
    """How a job begins. Up to `LARGE` pixels pictures are decoded whole."""
    return Thrift(together, LARGE_TILE if size[0] * size[1] > LARGE else 0, offload)
