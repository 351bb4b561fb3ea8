"""Draw the pictures of all training sets once, in parallel, into memory-mapped arrays under `.work`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from demo import words
from demo.draw import SIZE, SUPER, Scene, draw_array, random_scene, with_ink

Pictures = NDArray[np.uint8]
CHUNK = 500


def scenes(count: int, seed: int) -> list[Scene]:
    """Scenes the base may see."""
    rng = random.Random(seed)
    return [random_scene(rng) for _ in range(count)]


def held_out_scenes(count: int, seed: int) -> list[Scene]:
    """Scenes of combinations that are kept out of training."""
    rng = random.Random(seed)
    return [random_scene(rng, held_out=True) for _ in range(count)]


def examiner_scenes(count: int, seed: int) -> list[Scene]:
    """Scenes for the classifier: all subjects with the withheld ones, a quarter of them in the withheld style."""
    rng = random.Random(seed)
    everything = words.SUBJECTS + words.WITHHELD_SUBJECTS
    made = [random_scene(rng, everything, held_out=rng.random() < 0.125) for _ in range(count)]
    return [with_ink(scene) if rng.random() < 0.25 else scene for scene in made]


def doodle(seed: int) -> Pictures:
    """Random shapes and strokes that are no subject: they keep the autoencoder general."""
    rng = random.Random(seed)
    side = SIZE * SUPER
    paper = _any_colour(rng)
    sheet = Image.new("RGB", (side, side), paper)
    if rng.random() < 0.5:
        column = Image.new("RGB", (2, 2))
        for x, y in ((0, 0), (1, 0), (0, 1), (1, 1)):
            column.putpixel((x, y), _any_colour(rng))
        sheet = Image.blend(sheet, column.resize((side, side), Image.Resampling.BILINEAR), rng.uniform(0.2, 1))
    pen = ImageDraw.Draw(sheet)
    for _ in range(rng.randint(3, 26)):
        x, y, r = rng.random() * side, rng.random() * side, rng.uniform(0.01, 0.35) ** 1.5 * side + 2
        points = [(x + rng.uniform(-r, r), y + rng.uniform(-r, r)) for _ in range(rng.randint(3, 7))]
        outline, width = _any_colour(rng) if rng.random() < 0.6 else None, rng.randint(1, 8)
        kind = rng.randrange(4)
        if kind == 0:
            pen.ellipse((x - r, y - r * rng.uniform(0.4, 1), x + r, y + r * 0.8), _any_colour(rng), outline, width)
        elif kind == 1:
            pen.polygon(points, _any_colour(rng), outline)
        elif kind == 2:
            pen.line([(px + rng.uniform(-r, r), py) for px, py in points], _any_colour(rng), width, joint="curve")
        else:
            pen.arc((x - r, y - r, x + r, y + r), rng.randrange(360), rng.randrange(360), _any_colour(rng), width)
    return np.asarray(sheet.resize((SIZE, SIZE), Image.Resampling.BOX), dtype=np.uint8)


def _any_colour(rng: random.Random) -> tuple[int, int, int]:
    grey = rng.randrange(256)
    if rng.random() < 0.3:
        return rng.choice(((grey, grey, grey), (15, 15, 20), (250, 250, 245), (252, 246, 230)))
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def cached(work: Path, name: str, items: Sequence[Scene] | Sequence[int], paint: Callable[..., Pictures]) -> Pictures:
    """The pictures of `items` as uint8 [n, 128, 128, 3]; drawn in chunks that survive an interruption."""
    folder = work / "pictures" / name
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(items), CHUNK)
    todo = [start for start in starts if not (folder / f"{start}.npy").exists()]
    if todo:
        with get_context("spawn").Pool() as pool:
            task = partial(_draw_chunk, folder, paint)
            for _ in pool.imap_unordered(task, [(start, items[start : start + CHUNK]) for start in todo]):
                pass
    return np.concatenate([np.load(folder / f"{start}.npy") for start in starts])


def _draw_chunk(folder: Path, paint: Callable[..., Pictures], job: tuple[int, Sequence[Scene] | Sequence[int]]) -> None:
    start, items = job
    path, temporary = folder / f"{start}.npy", folder / f"{start}.tmp.npy"
    np.save(temporary, np.stack([paint(item) for item in items]))
    temporary.rename(path)


def scene_pictures(work: Path, name: str, items: Sequence[Scene]) -> Pictures:
    """`cached` for scenes; the scenes are written beside the pictures, and a changed list is refused."""
    note = work / "pictures" / f"{name}.json"
    text = json.dumps([asdict(scene) for scene in items])
    note.parent.mkdir(parents=True, exist_ok=True)
    if not note.exists():
        note.write_text(text)
    elif note.read_text() != text:
        raise SystemExit(f"the scenes of {name} have changed: delete {note.parent} and start again")
    return cached(work, name, items, draw_array)
