"""The places: backgrounds of the little scenes. Everything is in shares of the side, so any size can be drawn."""

from __future__ import annotations

import random
from collections.abc import Callable

from PIL import Image, ImageDraw

from demo import words

Colour = tuple[int, int, int]


class Sheet:
    """A picture with a pen that takes shares of the side instead of pixels."""

    def __init__(self, side: int, top: Colour, bottom: Colour, horizon: float = 1.0) -> None:
        column = Image.new("RGB", (1, 2))
        column.putpixel((0, 0), top)
        column.putpixel((0, 1), bottom)
        gradient = column.resize((side, max(2, int(side * horizon))), Image.Resampling.BILINEAR)
        self.side = side
        self.image = Image.new("RGB", (side, side), bottom)
        self.image.paste(gradient, (0, 0))
        self.pen = ImageDraw.Draw(self.image)

    def disc(self, x: float, y: float, rx: float, colour: Colour, ry: float | None = None) -> None:
        ry = rx if ry is None else ry
        s = self.side
        self.pen.ellipse(((x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s), fill=colour)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        s = self.side
        self.pen.rectangle((x0 * s, y0 * s, x1 * s, y1 * s), fill=colour)

    def shape(self, points: list[tuple[float, float]], colour: Colour) -> None:
        self.pen.polygon([(x * self.side, y * self.side) for x, y in points], fill=colour)

    def stroke(self, points: list[tuple[float, float]], colour: Colour, width: float) -> None:
        line = [(x * self.side, y * self.side) for x, y in points]
        self.pen.line(line, fill=colour, width=max(1, int(width * self.side)), joint="curve")


def draw_place(background: str, side: int, rng: random.Random) -> Image.Image:
    """The picture of a place, or of a plain background ("plain <colour>")."""
    if background.startswith("plain "):
        return _plain(words.COLOURS[background.removeprefix("plain ")], side)
    return PAINTERS[background](side, rng).image


def _plain(colour: Colour, side: int) -> Image.Image:
    soft = _mix(colour, (255, 255, 255), 0.12)
    return Sheet(side, soft, _mix(colour, (0, 0, 0), 0.06)).image


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))  # type: ignore[return-value]


def _cloud(sheet: Sheet, x: float, y: float, r: float, colour: Colour = (255, 255, 255)) -> None:
    for dx, dy, k in ((-1.1, 0.25, 0.7), (0.0, 0.0, 1.0), (1.1, 0.25, 0.75), (0.5, 0.4, 0.8), (-0.5, 0.4, 0.8)):
        sheet.disc(x + dx * r, y + dy * r, r * k, colour, r * k * 0.7)


def _meadow(side: int, rng: random.Random) -> Sheet:
    sheet = Sheet(side, (120, 196, 244), (214, 240, 252), 0.6)
    sheet.disc(rng.choice((0.14, 0.86)), 0.14, 0.08, (255, 226, 96))
    _cloud(sheet, rng.uniform(0.3, 0.7), rng.uniform(0.12, 0.2), 0.07)
    sheet.disc(rng.uniform(0.1, 0.35), 0.95, 0.6, (150, 210, 110), 0.45)
    sheet.disc(rng.uniform(0.7, 0.95), 1.0, 0.65, (132, 200, 96), 0.46)
    sheet.disc(0.5, 1.25, 1.0, (112, 184, 80), 0.58)
    for _ in range(12):
        x, y = rng.random(), rng.uniform(0.74, 0.99)
        sheet.stroke([(x - 0.012, y), (x - 0.018, y - 0.035)], (76, 146, 58), 0.008)
        sheet.stroke([(x, y), (x + 0.006, y - 0.04)], (76, 146, 58), 0.008)
    return sheet


def _beach(side: int, rng: random.Random) -> Sheet:
    sheet = Sheet(side, (98, 190, 246), (206, 238, 252), 0.42)
    sheet.disc(rng.uniform(0.15, 0.85), 0.15, 0.075, (255, 232, 120))
    sheet.box(0, 0.4, 1, 0.66, (40, 140, 196))
    for n in range(4):
        y = 0.44 + 0.05 * n
        x = rng.uniform(0.0, 0.7)
        sheet.stroke([(x, y), (x + 0.18, y)], (130, 200, 230), 0.008)
    sheet.disc(rng.uniform(0.3, 0.7), 1.12, 1.1, (246, 250, 250), 0.52)
    sheet.disc(rng.uniform(0.3, 0.7), 1.14, 1.1, (244, 218, 156), 0.52)
    for _ in range(14):
        sheet.disc(rng.random(), rng.uniform(0.76, 0.98), 0.006, (214, 180, 112))
    return sheet


def _snow(side: int, rng: random.Random) -> Sheet:
    sheet = Sheet(side, (150, 176, 206), (222, 232, 242), 0.6)
    sheet.disc(rng.uniform(0.1, 0.3), 0.98, 0.6, (214, 226, 240), 0.46)
    sheet.disc(rng.uniform(0.7, 0.9), 1.0, 0.6, (226, 236, 246), 0.46)
    for x in (rng.uniform(0.03, 0.14), rng.uniform(0.84, 0.97)):
        for k in range(3):
            w, y = 0.05 + 0.018 * k, 0.36 + 0.07 * k
            sheet.shape([(x, y - 0.09), (x - w, y + 0.06), (x + w, y + 0.06)], (88, 128, 136))
    sheet.disc(0.5, 1.25, 1.0, (244, 248, 252), 0.58)
    for _ in range(34):
        sheet.disc(rng.random(), rng.random(), rng.uniform(0.007, 0.013), (255, 255, 255))
    return sheet


def _desert(side: int, rng: random.Random) -> Sheet:
    sheet = Sheet(side, (250, 176, 104), (254, 226, 170), 0.55)
    sheet.disc(rng.uniform(0.2, 0.8), 0.2, 0.09, (255, 246, 206))
    sheet.disc(rng.uniform(0.0, 0.3), 0.95, 0.55, (222, 150, 84), 0.42)
    sheet.disc(rng.uniform(0.7, 1.0), 1.0, 0.6, (212, 136, 72), 0.44)
    x = rng.choice((rng.uniform(0.06, 0.14), rng.uniform(0.86, 0.94)))
    cactus = (86, 134, 84)
    sheet.stroke([(x, 0.72), (x, 0.44)], cactus, 0.04)
    sheet.stroke([(x - 0.055, 0.5), (x - 0.055, 0.58), (x, 0.6)], cactus, 0.026)
    sheet.stroke([(x + 0.055, 0.47), (x + 0.055, 0.55), (x, 0.57)], cactus, 0.026)
    sheet.disc(0.5, 1.25, 1.05, (230, 166, 96), 0.57)
    for n in range(3):
        y = 0.78 + 0.075 * n
        x0 = rng.uniform(0.0, 0.6)
        sheet.stroke([(x0, y), (x0 + 0.12, y - 0.012), (x0 + 0.26, y + 0.008)], (206, 140, 76), 0.01)
    return sheet


def _city(side: int, rng: random.Random) -> Sheet:
    sheet = Sheet(side, (198, 206, 222), (240, 226, 220), 0.66)
    x = -0.04
    while x < 1:
        w, h = rng.uniform(0.14, 0.22), rng.uniform(0.28, 0.58)
        tone = rng.choice(((150, 140, 158), (172, 154, 150), (134, 146, 164), (160, 166, 178)))
        top = 0.68 - h
        sheet.box(x, top, x + w, 0.68, tone)
        lit = (250, 232, 160)
        for row in range(int(h / 0.095)):
            for column in range(2):
                wx, wy = x + w * (0.2 + 0.38 * column), top + 0.035 + 0.092 * row
                sheet.box(
                    wx, wy, wx + w * 0.22, wy + 0.045, lit if rng.random() < 0.55 else _mix(tone, (30, 30, 50), 0.4)
                )
        x += w + 0.012
    sheet.box(0, 0.67, 1, 0.75, (196, 192, 190))
    sheet.box(0, 0.745, 1, 1, (104, 104, 114))
    shift = rng.uniform(0, 0.2)
    for n in range(-1, 6):
        sheet.box(shift + 0.22 * n, 0.93, shift + 0.22 * n + 0.11, 0.95, (236, 232, 216))
    return sheet


def _room(side: int, rng: random.Random) -> Sheet:
    wall = rng.choice(((240, 216, 186), (236, 208, 196), (232, 220, 190)))
    sheet = Sheet(side, wall, wall)
    for n in range(9):
        sheet.box(0.06 + n * 0.125, 0, 0.09 + n * 0.125, 0.7, _mix(wall, (255, 255, 255), 0.3))
    x = rng.choice((0.06, 0.64))
    sheet.box(x, 0.09, x + 0.3, 0.42, (150, 98, 60))
    sheet.box(x + 0.025, 0.115, x + 0.275, 0.395, (176, 220, 246))
    sheet.box(x + 0.14, 0.115, x + 0.16, 0.395, (150, 98, 60))
    sheet.box(x + 0.025, 0.245, x + 0.275, 0.262, (150, 98, 60))
    y = 0.8 - x  # the picture hangs on the other side of the wall
    sheet.box(y - 0.02, 0.14, y + 0.15, 0.31, (196, 154, 70))
    sheet.box(y + 0.005, 0.165, y + 0.125, 0.285, (224, 232, 214))
    sheet.box(0, 0.68, 1, 0.715, (250, 244, 234))
    sheet.box(0, 0.715, 1, 1, (178, 124, 78))
    for n in range(1, 4):
        sheet.stroke([(0, 0.715 + 0.075 * n), (1, 0.715 + 0.075 * n)], (150, 100, 60), 0.007)
    return sheet


def _night(side: int, rng: random.Random) -> Sheet:
    sheet = Sheet(side, (14, 18, 58), (58, 62, 122), 0.75)
    for _ in range(30):
        sheet.disc(rng.random(), rng.uniform(0, 0.62), rng.uniform(0.005, 0.01), (244, 240, 206))
    x = rng.choice((0.16, 0.84))
    sheet.disc(x, 0.17, 0.095, (248, 240, 196))
    sheet.disc(x + 0.045, 0.145, 0.08, (20, 24, 66))
    sheet.disc(rng.uniform(0.05, 0.3), 1.0, 0.6, (38, 52, 84), 0.4)
    sheet.disc(rng.uniform(0.7, 0.95), 1.0, 0.6, (32, 46, 76), 0.4)
    sheet.disc(0.5, 1.25, 1.0, (28, 60, 62), 0.55)
    return sheet


def _sea(side: int, rng: random.Random) -> Sheet:
    sheet = Sheet(side, (86, 206, 216), (12, 84, 138), 0.95)
    for _ in range(3):
        x = rng.uniform(0, 0.9)
        sheet.shape([(x, 0), (x + 0.09, 0), (x - 0.06, 0.62), (x - 0.22, 0.62)], (98, 206, 216))
    sheet.image.paste(Image.blend(sheet.image, Sheet(side, (86, 206, 216), (12, 84, 138), 0.95).image, 0.6))
    sheet.disc(0.5, 1.3, 1.0, (212, 190, 134), 0.46)
    for x in (rng.uniform(0.04, 0.16), rng.uniform(0.84, 0.96)):
        for k in (-0.035, 0.035):
            wave = [(x + k + 0.02 * (-1) ** n, 0.95 - 0.07 * n) for n in range(rng.randint(4, 7))]
            sheet.stroke(wave, (30, 132, 92), 0.026)
    for _ in range(9):
        x, y, r = rng.random(), rng.uniform(0.05, 0.75), rng.uniform(0.01, 0.022)
        sheet.disc(x, y, r, (214, 246, 250))
        sheet.disc(x, y, r * 0.6, (110, 204, 220))
    return sheet


PAINTERS: dict[str, Callable[[int, random.Random], Sheet]] = {
    "meadow": _meadow, "beach": _beach, "snow": _snow, "desert": _desert,
    "city": _city, "room": _room, "night": _night, "sea": _sea,
}  # fmt: skip
