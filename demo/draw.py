"""Little cartoon scenes drawn with Pillow: the only pictures that the demo base has ever seen.

A picture is drawn at twice its size and scaled down. A `Scene` says everything about it, so that a caption made from
the same scene is exact.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from demo import words
from demo.places import draw_place
from demo.subjects import FLOATING, draw_subject

SIZE = 128
SUPER = 2
RADIUS = {"small": 0.19, "medium": 0.275, "big": 0.37}  # half the height of a subject, as a share of the picture


@dataclass(frozen=True)
class Scene:
    """What is in a picture. `background` is a place or "plain <colour>"; `seed` fixes the small variations."""

    subject: str
    colour: str
    background: str
    size: str = "medium"
    position: str = "middle"
    ink: bool = False
    seed: int = 0


def random_scene(rng: random.Random, subjects: tuple[str, ...] = words.SUBJECTS, held_out: bool = False) -> Scene:
    """A scene drawn at random among the combinations that are (or are not) held out of training."""
    while True:
        subject, colour = rng.choice(subjects), rng.choice(tuple(words.COLOURS))
        plain = rng.random() < 0.3
        background = f"plain {rng.choice(words.PLAIN)}" if plain else rng.choice(tuple(words.PLACES))
        if background == f"plain {colour}" or words.is_held_out(subject, colour, background) != held_out:
            continue
        size = rng.choices(words.SIZES, (0.25, 0.45, 0.3))[0]
        position = rng.choices(words.POSITIONS, (0.25, 0.5, 0.25))[0]
        return Scene(subject, colour, background, size, position, seed=rng.randrange(2**31))


def draw(scene: Scene) -> Image.Image:
    """The picture of a scene, RGB, 128 x 128."""
    rng = random.Random(scene.seed)
    side = SIZE * SUPER
    place = draw_place(scene.background, side, rng)
    radius = RADIUS[scene.size] * rng.uniform(0.95, 1.05) * side
    centre = _centre(scene, radius, side, rng)
    figure, shadow = draw_subject(scene.subject, words.COLOURS[scene.colour], radius, centre, side, rng)
    if scene.ink:
        return _ink(place, figure, side)
    if scene.background not in ("sea",) and scene.subject not in FLOATING:
        dark = Image.new("RGB", (side, side), (20, 20, 40))
        place.paste(dark, (0, 0), shadow.point(lambda value: value * 70 // 255))
    place.paste(_shade(figure, centre, radius), (0, 0), figure.getchannel("A"))
    return place.resize((SIZE, SIZE), Image.Resampling.BOX)


def draw_array(scene: Scene) -> np.ndarray:
    """The same as uint8 array [128, 128, 3]."""
    return np.asarray(draw(scene), dtype=np.uint8)


def with_ink(scene: Scene) -> Scene:
    """The same scene in the withheld style."""
    return replace(scene, ink=True)


def _centre(scene: Scene, radius: float, side: int, rng: random.Random) -> tuple[float, float]:
    shift = max(0.13, min(0.25, 0.5 - 0.95 * radius / side))
    x = 0.5 + {"left": -shift, "middle": 0.0, "right": shift}[scene.position] + rng.uniform(-0.02, 0.02)
    floor = rng.uniform(0.86, 0.92) if scene.size != "small" else rng.uniform(0.80, 0.88)
    y = floor - radius / side
    if scene.subject in FLOATING or scene.background == "sea":
        y -= rng.uniform(0.02, max(0.03, min(0.2, y - radius / side - 0.03)))
    return x * side, y * side


def _shade(figure: Image.Image, centre: tuple[float, float], radius: float) -> Image.Image:
    """Soft light from the upper left over the whole figure."""
    side = figure.width
    light = _light_map().resize((int(3 * radius), int(3 * radius)), Image.Resampling.BILINEAR)
    layer = Image.new("L", (side, side), 230)
    layer.paste(light, (int(centre[0] - 1.5 * radius), int(centre[1] - 1.5 * radius)))
    return ImageChops.multiply(figure.convert("RGB"), Image.merge("RGB", (layer,) * 3))


_LIGHT: list[Image.Image] = []


def _light_map() -> Image.Image:
    if not _LIGHT:
        y, x = np.mgrid[-1.5:1.5:48j, -1.5:1.5:48j]
        value = 255 - 42 * np.clip(np.hypot(x + 0.45, y + 0.55) - 0.35, 0, 1.2)
        _LIGHT.append(Image.fromarray(value.astype(np.uint8)))
    return _LIGHT[0]


def _ink(place: Image.Image, figure: Image.Image, side: int) -> Image.Image:
    """Black pen lines on cream paper, the figure washed with a little of its colour."""
    paper = Image.new("RGB", (side, side), (250, 244, 228))
    wash = Image.blend(paper, figure.convert("RGB"), 0.3)
    paper.paste(wash, (0, 0), figure.getchannel("A"))
    scenery = _edges(place, 22, 1)
    scenery.paste(0, (0, 0), figure.getchannel("A"))
    flat = Image.new("RGB", (side, side), (255, 255, 255))
    flat.paste(figure.convert("RGB"), (0, 0), figure.getchannel("A"))
    lines = ImageChops.lighter(scenery.point(lambda value: value * 150 // 255), _edges(flat, 40, 5))
    paper.paste(Image.new("RGB", (side, side), (24, 22, 26)), (0, 0), lines)
    return paper.resize((SIZE, SIZE), Image.Resampling.BOX)


def _edges(picture: Image.Image, threshold: int, width: int) -> Image.Image:
    array = np.asarray(picture, dtype=np.int16)
    down = np.abs(np.diff(array, axis=0, prepend=array[:1])).max(axis=2)
    across = np.abs(np.diff(array, axis=1, prepend=array[:, :1])).max(axis=2)
    mask = Image.fromarray(((np.maximum(down, across) > threshold) * 255).astype(np.uint8))
    return mask.filter(ImageFilter.MaxFilter(width)) if width > 1 else mask
