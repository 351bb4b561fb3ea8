"""The loss over the steps of a training: raw, smoothed, and of the pictures that were held back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from loravault.charts.canvas import BLUE, FAINT, INK, ORANGE, OVERSAMPLED, Colour, font, save, text_width

Points = Sequence[tuple[int, float]]

#: Of the finished picture, in pixels; it is shown half as wide, so it is sharp on dense screens.
WIDTH, HEIGHT = 1400, 640
_LEFT, _RIGHT, _TOP, _BOTTOM = 120, 60, 70, 70
_LETTERS = 26


@dataclass(frozen=True)
class _Frame:
    """How steps and losses become pixels of the large drawing."""

    steps: int
    low: float
    high: float

    def at(self, step: float, loss: float) -> tuple[float, float]:
        """The place of a point; losses outside are put on the border."""
        width, height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
        share = (min(max(loss, self.low), self.high) - self.low) / (self.high - self.low)
        x = _LEFT + width * step / max(1, self.steps)
        return x * OVERSAMPLED, (_TOP + height * (1 - share)) * OVERSAMPLED


def smoothed(points: Points) -> list[tuple[int, float]]:
    """A running average over about a twentieth of the points; the first value does not pull it."""
    keep = 1 - 1 / max(5.0, len(points) / 20)
    found, total, weight = [], 0.0, 0.0
    for step, loss in points:
        total, weight = keep * total + (1 - keep) * loss, keep * weight + (1 - keep)
        found.append((step, total / weight))
    return found


def draw_losses(losses: Points, validation: Points, checkpoints: Sequence[int], path: Path) -> bool:
    """Draw them into a PNG file. False if there is nothing that could be drawn.

    `losses`: raw, one for each step or fewer; `validation`: of the held-back pictures; `checkpoints`: steps.
    """
    raw = [(step, loss) for step, loss in losses if math.isfinite(loss)]
    held = [(step, loss) for step, loss in validation if math.isfinite(loss)]
    if len(raw) < 2:
        return False
    soft = smoothed(raw)
    frame = _frame(raw, soft, held, max([step for step, _ in raw] + list(checkpoints)))
    image = Image.new("RGBA", (WIDTH * OVERSAMPLED, HEIGHT * OVERSAMPLED), (127, 134, 144, 0))
    draw = ImageDraw.Draw(image)
    _axes(draw, frame, checkpoints)
    _line(image, frame, raw, (*INK[:3], 90), 2)
    _line(image, frame, soft, BLUE, 5)
    if held:
        _line(image, frame, held, ORANGE, 5)
        for step, loss in held:
            x, y = frame.at(step, loss)
            radius = 7 * OVERSAMPLED
            ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=ORANGE)
    _legend(ImageDraw.Draw(image), bool(held))
    save(image.resize((WIDTH, HEIGHT), Image.Resampling.BOX), path, optimize=True)
    return True


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, some `about` of them."""
    span = max(high - low, 1e-12)
    step = 10 ** math.floor(math.log10(span / about))
    step = next(step * factor for factor in (1, 2, 2.5, 5, 10) if span / (step * factor) <= about)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _frame(raw: Points, soft: Points, held: Points, steps: int) -> _Frame:
    """What is shown of the losses: outliers of single steps do not flatten everything else."""
    ordered = sorted(loss for _, loss in raw)
    low, high = ordered[len(ordered) // 50], ordered[-1 - len(ordered) // 50]
    shown = [low, high, *(loss for _, loss in soft), *(loss for _, loss in held)]
    low, high = min(shown), max(shown)
    margin = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    return _Frame(steps, max(0.0, low - margin) if low >= 0 else low - margin, high + margin)


def _axes(draw: ImageDraw.ImageDraw, frame: _Frame, checkpoints: Sequence[int]) -> None:
    size = _LETTERS * OVERSAMPLED
    for loss in ticks(frame.low, frame.high):
        (x0, y), (x1, _) = frame.at(0, loss), frame.at(frame.steps, loss)
        draw.line((x0, y, x1, y), fill=FAINT, width=2)
        label = f"{loss:g}"
        draw.text((x0 - text_width(draw, label, size) - 20, y - size / 2), label, fill=INK, font=font(size))
    for step in checkpoints:
        (x, y0), (_, y1) = frame.at(step, frame.low), frame.at(step, frame.high)
        for y in range(round(y1), round(y0), 16):
            draw.line((x, y, x, y + 6), fill=FAINT, width=3)
    for tick in ticks(0, frame.steps, 7):
        x, y = frame.at(tick, frame.low)
        label = f"{tick:,g}"
        draw.text((x - text_width(draw, label, size) / 2, y + 16), label, fill=INK, font=font(size))


def _line(image: Image.Image, frame: _Frame, points: Points, colour: Colour, width: int) -> None:
    """Over what is there: a line that is partly see-through must not replace what lies below."""
    layer = Image.new("RGBA", image.size, (*colour[:3], 0))
    places = [frame.at(step, loss) for step, loss in _thinned(points)]
    ImageDraw.Draw(layer).line(places, fill=colour, width=width * OVERSAMPLED // 2, joint="curve")
    image.alpha_composite(layer)


def _thinned(points: Points, most: int = 4 * WIDTH) -> Points:
    """No more points than can be told apart."""
    every = max(1, len(points) // most)
    return [*points[::every], points[-1]] if every > 1 else points


def _legend(draw: ImageDraw.ImageDraw, held: bool) -> None:
    size, x, y = _LETTERS * OVERSAMPLED, _LEFT * OVERSAMPLED, 16 * OVERSAMPLED
    entries = [((*INK[:3], 120), "loss of each step"), (BLUE, "smoothed")]
    entries += [(ORANGE, "held-back pictures")] if held else []
    for colour, label in entries:
        middle = y + size * 0.6
        draw.line((x, middle, x + 60, middle), fill=colour, width=8)
        draw.text((x + 80, y), label, fill=INK, font=font(size))
        x += 80 + text_width(draw, label, size) + 70
    label = "steps"
    x_end = (WIDTH - _RIGHT) * OVERSAMPLED - text_width(draw, label, size)
    draw.text((x_end, y), label, fill=INK, font=font(size))
