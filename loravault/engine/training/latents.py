"""Pictures as latents: decoded, scaled, cut, encoded once, kept on disk.

Kept is the distribution that the VAE gives (mean and spread), as diffusers trains: what is learned from is drawn from
it anew in every step. The VAE works in fp32 whatever the base works in: SDXL's own gives NaN in fp16, and bf16 blurs.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loravault.dataset.buckets import Placement
from loravault.dataset.pictures import VERSION, Decoded, NotUsable, decode, read_bytes
from loravault.engine.bases import Base
from loravault.engine.devices import images_at_once, is_out_of_memory
from loravault.engine.ends import OutOfMemory, Stopped
from loravault.engine.memory import LARGE, LARGE_TILE, SMALL_TILE
from loravault.engine.offload import tiled
from loravault.engine.training.store import Store, fingerprint, key_of
from loravault.errors import UserError
from loravault.formats.training import LookedAt, TrainingPicture

_KIND = "latents"
_VERSION = 1
#: Bytes of scaled pictures that are kept for cutting squares out of them.
_SCALED = 1 << 30


@dataclass(frozen=True)
class Wanted:
    """One picture as it is trained."""

    picture: TrainingPicture
    seen: LookedAt
    placement: Placement
    #: Mirrored, left for right.
    flip: bool = False


@dataclass(frozen=True)
class Moments:
    """What a VAE says of one picture. All fp32 on the CPU."""

    #: [C, h, w]; as the VAE gives them, not scaled.
    mean: Tensor
    std: Tensor
    #: [1, h, w], 0 … 1; None: everything counts.
    mask: Tensor | None


class Latents:
    """The pictures of one training through one VAE."""

    def __init__(self, base: Base, store: Store) -> None:
        """Raises `UserError` for a base whose VAE is of a kind that is not trained with."""
        self._base = base
        self._store = store
        kind = base.drawer.parts["vae"].kind
        if kind != "AutoencoderKL":
            raise UserError(f"The base “{base.name}” cannot be trained yet: its VAE is of another kind ({kind}).")
        self._vae: Any = base.pipe.vae
        config = self._vae.config
        self._scale = float(config.scaling_factor)
        self._shift = float(getattr(config, "shift_factor", None) or 0.0)
        self._print: str | None = None
        self._kept: dict[str, Moments] = {}
        #: Keys of what is encoded when it is first asked for.
        self._later: set[str] = set()
        self._scaled: OrderedDict[tuple[TrainingPicture, tuple[int, int]], tuple[Decoded, ...]] = OrderedDict()
        self._masks: dict[str, str] = {}

    # ---- from the cache

    @property
    def waiting(self) -> int:
        """How many are still to be encoded when they are first asked for: so long the VAE is needed."""
        return len(self._later)

    def prepare(
        self, wanted: Sequence[Wanted], on_progress: Callable[[int, int], None], cancelled: Callable[[], bool],
        *, later: bool = False,
    ) -> None:  # fmt: skip
        """Encodes what is not kept yet. Raises `UserError`, `OutOfMemory`, `Stopped` (what is done is kept).

        `on_progress(done, of)` after each group of pictures. `later`: each is encoded when `get` asks for it, which
        then raises the same.
        """
        todo = []
        for one in wanted:
            key = self._key(one)
            if key not in self._kept:
                tensors = self._store.read(_KIND, key)
                if tensors is None:
                    todo.append(one)
                else:
                    self._kept[key] = _moments(tensors)
        if later:
            self._later.update(map(self._key, todo))
            todo = []
        done = len(wanted) - len(todo)
        on_progress(done, len(wanted))
        with self.exact():
            for group in self._groups(todo):
                if cancelled():
                    raise Stopped
                self._encode_group(group)
                done += len(group)
                on_progress(done, len(wanted))

    def get(self, one: Wanted) -> Moments:
        """Of a picture that was prepared."""
        key = self._key(one)
        if key in self._later:
            with self.exact():
                self._encode_group([one])
            self._later.discard(key)
        return self._kept[key]

    def drawn(self, moments: Moments, generator: torch.Generator | None) -> Tensor:
        """[C, h, w] as the denoiser knows it: drawn from the distribution, or its mean without a generator."""
        found = moments.mean
        if generator is not None:
            found = found + moments.std * torch.randn(found.shape, generator=generator, dtype=torch.float32)
        return (found - self._shift) * self._scale

    def _key(self, one: Wanted) -> str:
        if self._print is None:
            self._print = fingerprint(self._vae)
        placement, picture = one.placement, one.picture
        place = (placement.bucket, placement.scaled, placement.crop)
        return key_of(_VERSION, VERSION, one.seen.sha256, self._print, place, one.flip, self._mask_key(picture))

    def _mask_key(self, picture: TrainingPicture) -> str | None:
        if picture.mask is None or picture.mask == picture.path:
            return None if picture.mask is None else "alpha"
        if picture.mask not in self._masks:
            data = _file(picture.mask, f"The mask of “{picture.name}”")
            self._masks[picture.mask] = hashlib.sha256(data).hexdigest()
        return self._masks[picture.mask]

    # ---- encoding

    @contextmanager
    def exact(self) -> Iterator[None]:
        """The VAE in fp32 for a while; from fp16 and back not a bit changes."""
        before = self._vae.dtype
        self.stay_exact()
        try:
            yield
        finally:
            if before != torch.float32:
                torch.nn.Module.to(self._vae, before)

    def stay_exact(self) -> None:
        """The VAE in fp32 from now on."""
        if self._vae.dtype != torch.float32:
            torch.nn.Module.to(self._vae, torch.float32)  # diffusers' own `to` warns of itself

    def _groups(self, todo: Sequence[Wanted]) -> Iterator[list[Wanted]]:
        """Pictures of one bucket, so many as memory surely bears.

        On a CPU one by one: more gain nothing there, and the last bits of a result depend on who is encoded beside.
        """
        ordered = sorted(todo, key=lambda one: one.placement.bucket)  # stable: else in their order
        for (width, height), same in groupby(ordered, key=lambda one: one.placement.bucket):
            row = list(same)
            on_cpu = self._vae.device.type == "cpu"
            size = 1 if on_cpu else images_at_once(width, height, on_cpu=False)
            yield from (row[start : start + size] for start in range(0, len(row), size))

    def _encode_group(self, group: Sequence[Wanted]) -> None:
        found = self.moments([self.pixels(one) for one in group], [one.picture.name for one in group])
        for one, moments in zip(group, found, strict=True):
            tensors = {"mean": moments.mean, "std": moments.std}
            if moments.mask is not None:
                tensors["mask"] = moments.mask
            key = self._key(one)
            self._kept[key] = _moments(self._store.write(_KIND, key, tensors))

    def moments(self, cuts: Sequence[tuple[Tensor, Tensor | None]], names: Sequence[str]) -> list[Moments]:
        """Of pixels of one size, with their masks, that are not kept. Raises as `encode`."""
        with self.exact():
            mean, std = self.encode(torch.stack([pixels for pixels, _ in cuts]), names)
        size = mean.shape[-2:]
        return [
            Moments(mean[number], std[number], None if mask is None else shrunk(mask, size))
            for number, (_, mask) in enumerate(cuts)
        ]

    @torch.no_grad()
    def encode(self, pixels: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(mean, spread) [B, C, h, w] of pixels uint8 [B, 3, height, width], fp32 on the CPU.

        In smaller groups, then in tiles, if memory runs out. Raises `UserError` for NaN, `OutOfMemory`.
        """
        height, width = pixels.shape[-2:]
        tile = LARGE_TILE if height * width > LARGE else 0
        size = len(pixels)
        while True:
            try:
                with tiled(self._vae, tile):
                    found = [self._moments_of(pixels[start : start + size]) for start in range(0, len(pixels), size)]
                break
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            # behind the handler, in which the error keeps what could be freed
            if size > 1:
                size = 1
            elif tile != SMALL_TILE and max(height, width) > SMALL_TILE:
                tile = SMALL_TILE
            else:
                raise OutOfMemory(
                    f"There is too little memory to encode a picture of {width}×{height} pixels (“{names[0]}”). "
                    "Set a smaller `resolution`, or close what else uses the device."
                )
            if self._vae.device.type == "cuda":
                torch.cuda.empty_cache()
        mean, std = (torch.cat(parts) for parts in zip(*found, strict=True))
        for name, one in zip(names, mean, strict=True):
            if not bool(torch.isfinite(one).all()):
                raise UserError(
                    f"The VAE of “{self._base.name}” gives no numbers (NaN) for “{name}”, even in fp32: it is damaged. "
                    "Choose another VAE with the property `vae`."
                )
        return mean, std

    def _moments_of(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        there = pixels.to(self._vae.device, torch.float32) / 127.5 - 1
        with torch.autocast(self._vae.device.type, enabled=False):
            found = self._vae.encode(there).latent_dist
        return found.mean.float().cpu(), found.std.float().cpu()

    # ---- pixels

    def pixels(self, one: Wanted) -> tuple[Tensor, Tensor | None]:
        """(uint8 [3, height, width], mask fp32 [1, height, width] or None). Raises `UserError`."""
        return _pixels(self._decoded(one), one)

    def square(self, one: Wanted, corner: tuple[int, int]) -> tuple[Tensor, Tensor | None, Placement]:
        """As `pixels`, cut out at `corner` (left, top) instead of the middle; and what was cut.

        The scaled picture is kept in memory: cutting is all that is done in a step.
        """
        placement = replace(one.placement, crop=corner)
        key = (one.picture, one.placement.scaled)
        found = self._scaled.get(key)
        if found is None:
            scaled = placement.scaled
            found = self._scaled[key] = tuple(part.cut(scaled, (0, 0), scaled) for part in self._decoded(one))
            while len(self._scaled) > 1 and sum(map(_size, self._scaled.values())) > _SCALED:
                self._scaled.popitem(last=False)
        self._scaled.move_to_end(key)
        return (*_pixels(found, replace(one, placement=placement)), placement)

    def _decoded(self, one: Wanted) -> tuple[Decoded, ...]:
        """The picture, and its mask if that is a file; as they were when they were looked at and named."""
        picture = one.picture
        files = [(picture.path, one.seen.sha256, f"The picture “{picture.name}”")]
        if picture.mask is not None and picture.mask != picture.path:
            files.append((picture.mask, str(self._mask_key(picture)), f"The mask of “{picture.name}”"))
        found = []
        for path, sha256, what in files:
            data = _file(path, what)
            if hashlib.sha256(data).hexdigest() != sha256:
                raise UserError(f"{what} was changed while the training was prepared: start it again.")
            try:
                found.append(decode(data))
            except NotUsable as reason:
                raise UserError(f"{what} cannot be used: {reason}.") from reason
        return tuple(found)


def _moments(tensors: Any) -> Moments:
    return Moments(tensors["mean"], tensors["std"], tensors.get("mask"))


def _size(parts: Sequence[Decoded]) -> int:
    return sum(one.image.width * one.image.height * len(one.image.getbands()) for one in parts)


def _file(path: str, what: str) -> bytes:
    try:
        return read_bytes(path)
    except NotUsable as reason:
        raise UserError(f"{what} cannot be used: {reason}.") from reason


def _pixels(parts: Sequence[Decoded], one: Wanted) -> tuple[Tensor, Tensor | None]:
    placement, picture = one.placement, one.picture
    cuts = [part.cut(placement.scaled, placement.crop, placement.bucket) for part in parts]
    mask = cuts[1].brightness() if len(cuts) > 1 else cuts[0].opacity() if picture.mask is not None else None
    pixels = torch.from_numpy(np.array(cuts[0].rgb())).permute(2, 0, 1)
    counts = None if mask is None else torch.from_numpy(np.array(mask))[None].float() / 255
    if one.flip:
        pixels, counts = pixels.flip(-1), None if counts is None else counts.flip(-1)
    return pixels.contiguous(), counts


def shrunk(mask: Tensor, size: Sequence[int]) -> Tensor:
    """A mask [1, height, width] for latents of `size` (h, w): each latent counts as much as its pixels do."""
    found: Tensor = torch.nn.functional.interpolate(mask[None], size=tuple(size), mode="area")[0]
    return found
