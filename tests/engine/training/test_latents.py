"""Pictures as latents: the right pixels, encoded once, and never out of date."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from loravault.dataset.buckets import Placement, place, rule_for
from loravault.dataset.survey import survey
from loravault.engine.bases import Base
from loravault.engine.ends import OutOfMemory, Stopped
from loravault.engine.training import latents as module
from loravault.engine.training.chance import generator
from loravault.engine.training.latents import Latents, Wanted, shrunk
from loravault.engine.training.store import Store
from loravault.errors import UserError
from loravault.formats.generation import BaseRef
from loravault.formats.training import TrainingPicture
from tests.dataset.drawn import gradient, save
from tests.engine.training.learned import black, loaded
from tests.tiny_families import make_family

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def base(tiny: BaseRef) -> Base:
    return loaded(tiny)


def wanted(path: Path, resolution: int = 64, **more: Any) -> Wanted:
    picture = TrainingPicture(path=str(path), name=path.name, **more)
    (seen,) = survey([picture]).pictures
    return Wanted(picture, seen, place(rule_for(resolution), (seen.width, seen.height)))


def prepare(latents: Latents, *all_: Wanted) -> list[tuple[int, int]]:
    said: list[tuple[int, int]] = []
    latents.prepare(all_, lambda done, of: said.append((done, of)), lambda: False)
    return said


@contextmanager
def counted(base: Base) -> Iterator[list[tuple[int, ...]]]:
    """The shapes that the VAE is asked to encode."""
    asked: list[tuple[int, ...]] = []
    vae = base.pipe.vae
    encode = vae.encode
    vae.encode = lambda pixels, *more, **named: asked.append(tuple(pixels.shape)) or encode(pixels, *more, **named)
    try:
        yield asked
    finally:
        del vae.encode


def test_pixels_are_the_middle_of_the_picture_in_its_bucket(tmp_path: Path, base: Base) -> None:
    one = wanted(save(gradient(960, 640), tmp_path / "a.png"))
    pixels, mask = Latents(base, Store(tmp_path / "c")).pixels(one)
    width, height = one.placement.bucket
    assert pixels.shape == (3, height, width)
    assert pixels.dtype == torch.uint8
    assert mask is None
    assert abs(float(pixels[0].float().mean()) - 127.5) < 2  # red grows evenly to the right: the middle is symmetric
    mirrored, _ = Latents(base, Store(tmp_path / "c")).pixels(replace(one, flip=True))
    assert torch.equal(mirrored, pixels.flip(-1))


def test_the_same_numbers_as_by_hand(tmp_path: Path, base: Base) -> None:
    """Scaled by Lanczos, -1 … 1, through the VAE: mean and spread; then drawn and scaled as the pipeline does it."""
    path = save(gradient(128, 128), tmp_path / "a.png")
    one = wanted(path)
    latents = Latents(base, Store(tmp_path / "c"))
    prepare(latents, one)
    moments = latents.get(one)
    small = np.array(Image.open(path).convert("RGB").resize((64, 64), Image.Resampling.LANCZOS))
    pixels = torch.from_numpy(small).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        found = base.pipe.vae.encode(pixels).latent_dist
    assert torch.allclose(moments.mean, found.mean[0], atol=1e-6)
    assert torch.allclose(moments.std, found.std[0], atol=1e-6)
    drawn = latents.drawn(moments, generator(1, 2, purpose="x"))
    noise = torch.randn(moments.mean.shape, generator=generator(1, 2, purpose="x"))
    assert torch.allclose(
        drawn, (found.mean[0] + found.std[0] * noise) * base.pipe.vae.config.scaling_factor, atol=1e-6
    )
    assert torch.equal(latents.drawn(moments, None), moments.mean * base.pipe.vae.config.scaling_factor)


def test_a_shift_is_taken_off_before_the_scale(tmp_path: Path) -> None:
    """Flux.1: (latent - 0.1159) · 0.3611, so that the family's own way back gives the VAE's latent again."""
    flux = loaded(make_family(tmp_path / "flux", "flux"))
    latents = Latents(flux, Store(tmp_path / "c"))
    one = wanted(save(gradient(64, 64), tmp_path / "a.png"))
    prepare(latents, one)
    mean = latents.get(one).mean
    drawn = latents.drawn(latents.get(one), None)
    assert mean.shape == (16, 8, 8)
    assert torch.allclose(drawn, (mean - 0.1159) * 0.3611, atol=1e-6)


def test_nothing_is_encoded_twice(tmp_path: Path, base: Base) -> None:
    """Not by this training, not by the next one, not for another name of the same file."""
    one = wanted(save(gradient(), tmp_path / "a.png"))
    copy = wanted(save(gradient(), tmp_path / "b.png"))
    assert one.seen.sha256 == copy.seen.sha256
    with counted(base) as asked:
        latents = Latents(base, Store(tmp_path / "c"))
        assert prepare(latents, one, replace(one, flip=True)) == [(0, 2), (1, 2), (2, 2)]
        assert len(asked) == 2
        again = Latents(base, Store(tmp_path / "c"))
        assert prepare(again, one, copy, replace(copy, flip=True)) == [(3, 3)]
        assert len(asked) == 2
    assert torch.equal(again.get(copy).mean, latents.get(one).mean)


def test_whatever_changes_the_pixels_is_encoded_anew(tmp_path: Path, base: Base) -> None:
    """The picture, its bucket, its cut, its mirroring, its mask, the VAE: each is another latent."""
    path = save(gradient(), tmp_path / "a.png")
    one = wanted(path)
    cut = replace(one.placement, crop=(0, 0))
    masked = wanted(path, mask=str(black(tmp_path / "m.png", (96, 64))))
    others = [
        replace(one, flip=True),
        replace(one, placement=cut) if cut != one.placement else wanted(path, 96),
        wanted(path, 128),
        masked,
        wanted(path, mask=str(path)),
        wanted(save(gradient(97, 64), tmp_path / "b.png")),
    ]
    with counted(base) as asked:
        latents = Latents(base, Store(tmp_path / "c"))
        prepare(latents, one)
        for number, other in enumerate(others):
            prepare(latents, other)
            assert len(asked) == 2 + number
        black(tmp_path / "m.png", (48, 32))  # the mask alone was changed
        prepare(Latents(base, Store(tmp_path / "c")), masked)
        assert len(asked) == 2 + len(others)
        with torch.no_grad():
            weight = base.pipe.vae.encoder.conv_in.weight
            weight += 1e-4
            prepare(Latents(base, Store(tmp_path / "c")), one)
            weight -= 1e-4
        assert len(asked) == 3 + len(others)


def test_the_vae_works_in_fp32_and_stays_as_it_was(tmp_path: Path, tiny: BaseRef) -> None:
    half = loaded(tiny)
    half.pipe.vae.to(torch.float16)
    before = {name: tensor.clone() for name, tensor in half.pipe.vae.state_dict().items()}
    latents = Latents(half, Store(tmp_path / "c"))
    one = wanted(save(gradient(), tmp_path / "a.png"))
    prepare(latents, one)
    assert latents.get(one).mean.dtype == torch.float32
    after = half.pipe.vae.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert half.pipe.vae.dtype == torch.float16


def test_a_vae_that_gives_nan_is_told_with_the_picture(tmp_path: Path, tiny: BaseRef) -> None:
    broken = loaded(tiny)
    with torch.no_grad():
        broken.pipe.vae.encoder.conv_in.weight.fill_(torch.nan)
    with pytest.raises(UserError, match=r"gives no numbers \(NaN\) for “a\.png”"):
        prepare(Latents(broken, Store(tmp_path / "c")), wanted(save(gradient(), tmp_path / "a.png")))
    assert not list((tmp_path / "c").rglob("*.safetensors"))


def test_a_picture_that_changes_in_between_is_told(tmp_path: Path, base: Base) -> None:
    """Its survey is not true any more, and its latent must not get the old one's name."""
    one = wanted(save(gradient(), tmp_path / "a.png"))
    save(gradient(64, 96), tmp_path / "a.png")
    with pytest.raises(UserError, match=r"“a\.png” was changed while"):
        prepare(Latents(base, Store(tmp_path / "c")), one)
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match=r"“a\.png” cannot be used: it is not there any more"):
        prepare(Latents(base, Store(tmp_path / "c")), one)


def test_stopping_keeps_what_is_done(tmp_path: Path, base: Base) -> None:
    both = [wanted(save(gradient(64 + n, 64), tmp_path / f"{n}.png")) for n in range(2)]
    said: list[int] = []
    with pytest.raises(Stopped):
        Latents(base, Store(tmp_path / "c")).prepare(both, lambda done, _of: said.append(done), lambda: len(said) > 1)
    with counted(base) as asked:
        prepare(Latents(base, Store(tmp_path / "c")), *both)
    assert len(asked) == 1


def test_a_base_with_another_kind_of_vae_is_refused(base: Base, tmp_path: Path) -> None:
    strange: Any = SimpleNamespace(
        name="qwen", drawer=SimpleNamespace(parts={"vae": SimpleNamespace(kind="AutoencoderKLQwenImage")})
    )
    with pytest.raises(UserError, match="“qwen” cannot be trained yet"):
        Latents(strange, Store(tmp_path))


# ---- masks


def test_masks_are_cut_like_their_pictures(tmp_path: Path, base: Base) -> None:
    """Of another size than the picture, mirrored with it, and as small as the latents."""
    path = save(gradient(192, 128), tmp_path / "a.png")
    one = wanted(path, mask=str(black(tmp_path / "m.png", (48, 32))))
    latents = Latents(base, Store(tmp_path / "c"))
    prepare(latents, one, replace(one, flip=True))
    mask, mirrored = latents.get(one).mask, latents.get(replace(one, flip=True)).mask
    assert mask is not None
    assert mirrored is not None
    assert mask.shape == (1, *latents.get(one).mean.shape[-2:])
    half = mask.shape[-1] // 2
    assert float(mask[..., : half - 1].min()) > 0.9
    assert float(mask[..., half + 1 :].max()) < 0.1
    assert torch.equal(mirrored, mask.flip(-1))
    kept = Latents(base, Store(tmp_path / "c"))
    prepare(kept, one)
    again = kept.get(one).mask
    assert again is not None
    assert torch.equal(again, mask)


def test_transparency_as_a_mask(tmp_path: Path, base: Base) -> None:
    picture = gradient(64, 64).convert("RGBA")
    alpha = Image.new("L", (64, 64), 0)
    alpha.paste(255, (0, 0, 64, 32))
    picture.putalpha(alpha)
    path = save(picture, tmp_path / "a.png")
    one = wanted(path, mask=str(path))
    pixels, mask = Latents(base, Store(tmp_path / "c")).pixels(one)
    assert mask is not None
    assert float(mask[:, :30].min()) == 1.0
    assert float(mask[:, 34:].max()) == 0.0
    assert int(pixels[:, 40:].min()) == 255  # shown on white
    plain, none = Latents(base, Store(tmp_path / "c")).pixels(wanted(path))
    assert none is None
    assert torch.equal(plain, pixels)


def test_a_latent_counts_as_much_as_its_pixels() -> None:
    mask = torch.zeros(1, 16, 16)
    mask[:, :8, :4] = 1
    assert torch.equal(shrunk(mask, (2, 2)), torch.tensor([[[0.5, 0.0], [0.0, 0.0]]]))


# ---- squares cut out at random


def test_a_square_is_the_part_that_was_asked_for(tmp_path: Path, base: Base) -> None:
    one = replace(
        wanted(save(gradient(256, 128), tmp_path / "a.png")), placement=Placement((64, 64), (128, 64), (32, 0))
    )
    latents = Latents(base, Store(tmp_path / "c"))
    for left in (0, 17, 64):
        pixels, mask, placement = latents.square(one, (left, 0))
        assert placement.crop == (left, 0)
        assert pixels.shape == (3, 64, 64)
        assert mask is None
        assert abs(float(pixels[0].float().mean()) - (left + 32) * 255 / 128) < 2
    (tmp_path / "a.png").unlink()
    latents.square(one, (5, 0))  # from memory


def test_scaled_pictures_are_kept_up_to_a_size(tmp_path: Path, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SCALED", 3 * 64 * 64 * 2)
    latents = Latents(base, Store(tmp_path / "c"))
    for number in range(5):
        one = wanted(save(gradient(64 + number, 64), tmp_path / f"{number}.png"))
        latents.square(replace(one, placement=Placement((64, 64), (64, 64), (0, 0))), (0, 0))
    assert len(latents._scaled) == 2


# ---- memory


def test_when_memory_runs_out_smaller_groups_are_tried_then_tiles(
    tmp_path: Path, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = Latents(base, Store(tmp_path / "c"))
    pixels = torch.zeros(3, 3, 640, 64, dtype=torch.uint8)
    tried: list[tuple[int, bool]] = []

    def short(part: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tried.append((len(part), bool(base.pipe.vae.use_tiling)))
        if not base.pipe.vae.use_tiling:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.zeros(len(part), 4, 80, 8), torch.zeros(len(part), 4, 80, 8)

    monkeypatch.setattr(latents, "_moments_of", short)
    mean, _ = latents.encode(pixels, ["a", "b", "c"])
    assert mean.shape == (3, 4, 80, 8)
    assert tried == [(3, False), (1, False), (1, True), (1, True), (1, True)]
    assert base.pipe.vae.use_tiling is False
    with pytest.raises(OutOfMemory, match="“a”"):
        latents.encode(pixels[..., :64, :], ["a", "b", "c"])


def test_large_pictures_are_encoded_in_tiles(tmp_path: Path, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE", 64 * 64)
    monkeypatch.setattr(module, "LARGE_TILE", 64)
    latents = Latents(base, Store(tmp_path / "c"))
    pixels = torch.from_numpy(np.array(gradient(128, 96))).permute(2, 0, 1)[None]
    with counted(base) as asked:
        mean, std = latents.encode(pixels, ["a"])
    assert asked == [(1, 3, 96, 128)]
    assert mean.shape == std.shape == (1, 4, 12, 16)
    whole = base.pipe.vae.encode(pixels.float() / 127.5 - 1).latent_dist.mean
    assert mean.shape == whole.shape
    assert not torch.equal(mean, whole)


def test_a_mask_that_changes_in_between_is_told(tmp_path: Path, base: Base) -> None:
    """It would be kept under the name of the old one."""
    mask = black(tmp_path / "m.png", (96, 64))
    one = wanted(save(gradient(), tmp_path / "a.png"), mask=str(mask))
    latents = Latents(base, Store(tmp_path / "c"))
    assert latents._mask_key(one.picture) is not None
    black(mask, (48, 32))
    with pytest.raises(UserError, match=r"The mask of “a\.png” was changed"):
        prepare(latents, one)
