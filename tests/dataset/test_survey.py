"""Every picture is looked at once; how alike they are is told on the scale that the plan is made by."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.draw import Scene, draw, random_scene
from loravault.dataset.survey import DIVERSE, SIMILAR, diversity, flatness, looks_of, survey
from loravault.formats.training import LookedAt, TrainingPicture
from tests.dataset.drawn import blobs, gradient, save


def picture(path: Path, **more: object) -> TrainingPicture:
    return TrainingPicture(path=str(path), name=path.name, **more)  # type: ignore[arg-type]


def test_what_is_found_of_each(tmp_path: Path) -> None:
    good = save(gradient(), tmp_path / "good.png")
    lying = Image.Exif()
    lying[0x0112] = 6
    turned = save(blobs(1, 64, 128), tmp_path / "turned.jpg", exif=lying)
    (tmp_path / "broken.png").write_bytes(good.read_bytes()[:200])
    said: list[tuple[int, int]] = []
    found = survey(
        [picture(good), picture(turned), picture(tmp_path / "broken.png"), picture(tmp_path / "gone.png")],
        progress=lambda done, of: said.append((done, of)),
    )
    first, second, third, fourth = found.pictures
    sha256 = hashlib.sha256(good.read_bytes()).hexdigest()
    assert first == LookedAt(name="good.png", width=96, height=64, sha256=sha256, flat=first.flat)
    assert (second.width, second.height, second.problem) == (128, 64, None)
    assert third.problem is not None
    assert third.problem.startswith("it is damaged (")
    assert third.sha256
    assert fourth.problem == "it is not there any more"
    assert found.usable == 2
    assert said == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert "thumbnail" in found.measure


def test_to_stop_the_one_who_is_told_raises(tmp_path: Path) -> None:
    def stop(done: int, _of: int) -> None:
        if done == 1:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        survey([picture(save(gradient(), tmp_path / f"{n}.png")) for n in range(3)], progress=stop)


def test_an_empty_set() -> None:
    found = survey([])
    assert (found.pictures, found.diversity, found.usable) == ((), 0.0, 0)


def test_the_same_picture_twice_is_told(tmp_path: Path) -> None:
    paths = [
        save(blobs(1, 300, 200), tmp_path / "a.png"),
        save(blobs(2, 300, 200), tmp_path / "b.png"),
        save(blobs(1, 300, 200), tmp_path / "c.png"),
        save(blobs(1, 150, 100), tmp_path / "d.jpg", quality=60),
    ]
    found = survey([picture(path) for path in paths])
    assert [one.remarks for one in found.pictures] == [
        (), (), ("it is the same file as a.png",), ("it looks the same as a.png",)
    ]  # fmt: skip
    assert found.usable == 4
    apart = survey([picture(paths[0]), picture(paths[2], regularisation=True)])
    assert [one.remarks for one in apart.pictures] == [(), ()]


def test_more_twins_than_places_to_begin_with(tmp_path: Path) -> None:
    """The list of what was seen grows."""
    paths = [save(blobs(n, 48, 48), tmp_path / f"{n}.png") for n in range(70)]
    paths += [save(blobs(n, 48, 48), tmp_path / f"again{n}.webp", quality=95) for n in (0, 69)]
    found = survey([picture(path) for path in paths])
    told = {one.name: one.remarks for one in found.pictures if one.remarks}
    assert told == {"again0.webp": ("it looks the same as 0.png",), "again69.webp": ("it looks the same as 69.png",)}


def test_masks_are_looked_at_too(tmp_path: Path) -> None:
    plain = save(gradient(), tmp_path / "a.png")
    black = save(Image.new("L", (96, 64), 0), tmp_path / "black.png")
    half = Image.new("L", (96, 64), 0)
    half.paste(255, (0, 0, 48, 64))
    white = save(half, tmp_path / "half.png")
    clear = gradient().convert("RGBA")
    clear.putalpha(half)
    cut_out = save(clear, tmp_path / "cut.png")
    found = survey(
        [
            picture(plain, mask=str(white)),
            picture(plain, mask=str(black)),
            picture(plain, mask=str(tmp_path / "gone.png")),
            picture(plain, mask=str(plain)),
            picture(cut_out, mask=str(cut_out)),
            picture(cut_out),
        ]
    )
    assert [one.problem for one in found.pictures] == [
        None, "nothing of it counts: its mask is black everywhere", "of its mask: it is not there any more", None, None,
        None,
    ]  # fmt: skip
    assert found.pictures[4].remarks == ("what is transparent does not count",)
    assert found.pictures[5].remarks[0] == "what is transparent is shown on white"


# ---- how alike they are


def of(images: list[Image.Image]) -> float:
    return diversity([looks_of(image) for image in images])


@pytest.mark.parametrize("seed", range(4))
def test_one_scene_over_and_over_is_similar(seed: int) -> None:
    """The demo's drawings of one thing in one place, whatever its size and position."""
    rng = random.Random(seed)
    scene = random_scene(rng)
    sizes, positions = ("small", "medium", "big"), ("left", "middle", "right")

    def again() -> Scene:
        return replace(scene, size=rng.choice(sizes), position=rng.choice(positions), seed=rng.randrange(2**31))

    assert 0 < of([draw(again()) for _ in range(12)]) < SIMILAR


@pytest.mark.parametrize("seed", range(4))
def test_drawings_of_anything_are_diverse(seed: int) -> None:
    rng = random.Random(seed)
    assert DIVERSE < of([draw(random_scene(rng)) for _ in range(24)]) < 0.5


@pytest.mark.parametrize("seed", range(3))
def test_a_subject_in_many_places_lies_above_one_in_one_place(seed: int) -> None:
    rng = random.Random(100 + seed)
    scene = random_scene(rng)
    places = [
        replace(random_scene(rng), subject=scene.subject, colour=scene.colour, size="big", position="middle")
        for _ in range(16)
    ]
    assert 0.12 < of([draw(one) for one in places]) < 0.28


def test_a_burst_is_similar_and_pictures_of_chance_are_diverse() -> None:
    big = blobs(7, 400, 300)
    rng = np.random.default_rng(0)
    burst = []
    for _ in range(12):
        left, top = (int(value) for value in rng.integers(0, 40, 2))
        burst.append(big.crop((left, top, left + 360, top + 260)).point(lambda value: min(255, int(value * 1.05))))
    assert of(burst) < SIMILAR / 2
    assert of([blobs(n) for n in range(20)]) > SIMILAR
    assert of([Image.new("RGB", (64, 64), tuple(rng.integers(0, 256, 3).tolist())) for _ in range(20)]) > DIVERSE


def test_less_than_two_pictures_are_not_diverse() -> None:
    assert of([]) == of([gradient()]) == 0.0
    assert of([gradient()] * 5) == 0.0


def test_a_large_set_is_measured_by_a_part_of_it() -> None:
    looks = [looks_of(blobs(n % 40, 32, 32)) for n in range(600)]
    assert abs(diversity(looks) - diversity(looks[:256])) < 0.02


def test_drawings_are_flat_and_photos_are_not() -> None:
    """The demo base cannot learn photos, and this is how they are told. A photo is noise that falls with frequency."""
    rng = random.Random(1)
    assert min(flatness(draw(random_scene(rng))) for _ in range(20)) > 0.4
    noise = np.random.default_rng(2)
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)[None])
    frequency[0, 0] = 1
    photo = np.fft.ifft2(np.exp(2j * np.pi * noise.random((256, 256))) / frequency**1.2).real
    photo = 255 * (photo - photo.min()) / (photo.max() - photo.min())
    assert flatness(Image.fromarray(np.stack([photo] * 3, axis=2).astype(np.uint8))) < 0.1
    assert flatness(Image.new("RGB", (50, 50))) == 1.0
