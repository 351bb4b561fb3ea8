"""Pictures for tests, drawn from numbers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def gradient(width: int = 96, height: int = 64) -> Image.Image:
    """Every place has its own colour: red grows to the right, green downwards, blue is constant."""
    red = np.linspace(0, 255, width)[None].repeat(height, 0)
    green = np.linspace(0, 255, height)[:, None].repeat(width, 1)
    return Image.fromarray(np.stack([red, green, np.full_like(red, 128)], axis=2).astype(np.uint8))


def blobs(seed: int, width: int = 96, height: int = 64) -> Image.Image:
    """Soft spots of random colours: as different from the next one as two photos."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (4, 6, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def save(image: Image.Image, path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path
