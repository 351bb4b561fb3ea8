"""The subjects: small cartoon figures in a box from -1 to 1 (x to the right, y down), standing on y = 1."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]
WHITE, DARK = (252, 252, 252), (34, 30, 40)
FLOATING = ("bird", "butterfly", "balloon", "rocket", "fish", "ghost", "star")


class Figure:
    """A transparent layer with a pen in local coordinates. Every filled shape has an outline in a darker tone."""

    def __init__(self, side: int, radius: float, centre: Point, *, flip: bool) -> None:
        self.layer = Image.new("RGBA", (side, side), (0, 0, 0, 0))
        self.pen = ImageDraw.Draw(self.layer)
        self.radius, self.centre = radius, centre
        self.sign = -1 if flip else 1
        self.line = max(2, round(radius * 0.055))

    def at(self, x: float, y: float) -> Point:
        return self.centre[0] + self.sign * x * self.radius, self.centre[1] + y * self.radius

    def disc(  # noqa: PLR0917
        self, x: float, y: float, rx: float, fill: Colour, ry: float | None = None, line: bool = True
    ) -> None:
        ry = rx if ry is None else ry
        cx, cy = self.at(x, y)
        box = (cx - rx * self.radius, cy - ry * self.radius, cx + rx * self.radius, cy + ry * self.radius)
        self.pen.ellipse(box, fill=fill, outline=_edge(fill) if line else None, width=self.line)

    def shape(self, points: list[Point], fill: Colour, line: bool = True) -> None:
        corners = [self.at(x, y) for x, y in points]
        self.pen.polygon(corners, fill=fill)
        if line:
            self.pen.line([*corners, corners[0], corners[1]], fill=_edge(fill), width=self.line, joint="curve")

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Colour, *, line: bool = True) -> None:
        self.shape([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill, line)

    def stroke(self, points: list[Point], fill: Colour, width: float) -> None:
        self.pen.line(
            [self.at(x, y) for x, y in points], fill=fill, width=max(2, int(width * self.radius)), joint="curve"
        )

    def rope(self, points: list[Point], fill: Colour, width: float) -> None:
        """A thick outlined line with round ends: tails, necks, stems."""
        self._tube(points, _edge(fill), width * self.radius + 2 * self.line)
        self._tube(points, fill, width * self.radius)

    def _tube(self, points: list[Point], fill: Colour, width: float) -> None:
        path = [self.at(x, y) for x, y in points]
        self.pen.line(path, fill=fill, width=int(width), joint="curve")
        for x, y in (path[0], path[-1]):
            self.pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=fill)

    def eye(self, x: float, y: float, r: float = 0.1) -> None:
        self.disc(x, y, r * 1.25, WHITE, r * 1.35, line=False)
        self.disc(x + 0.02, y + 0.01, r * 0.85, DARK, line=False)
        self.disc(x + 0.05, y - 0.04, r * 0.3, WHITE, line=False)


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))  # type: ignore[return-value]


def _edge(fill: Colour) -> Colour:
    dark = _mix(fill, (16, 12, 24), 0.72)
    return (
        dark if sum(fill) > 210 else (96, 94, 108)
    )  # black figures get a lighter outline, else nothing of them is seen


def light(colour: Colour) -> Colour:
    """A paler tone for bellies and faces; on white a little grey."""
    return _mix(colour, (255, 255, 255), 0.55) if sum(colour) < 700 else (224, 226, 232)


def deep(colour: Colour) -> Colour:
    """A darker tone for ears, roofs and wings; on black a little grey."""
    return _mix(colour, (0, 0, 0), 0.26) if sum(colour) > 210 else (74, 72, 82)


def _arc(cx: float, cy: float, rx: float, ry: float, start: float, stop: float, n: int = 14) -> list[Point]:  # noqa: PLR0917
    steps = [math.radians(start + (stop - start) * k / (n - 1)) for k in range(n)]
    return [(cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in steps]


def draw_subject(  # noqa: PLR0917
    name: str, colour: Colour, radius: float, centre: Point, side: int, rng: random.Random
) -> tuple[Image.Image, Image.Image]:
    """The figure (RGBA) and the soft shadow under it (L), both of the whole picture's size in pixels."""
    tone = tuple(max(0, min(255, c + rng.randint(-8, 8))) for c in colour)
    figure = Figure(side, radius, centre, flip=rng.random() < 0.5)
    PAINTERS[name](figure, tone)  # type: ignore[arg-type]
    return figure.layer, _shadow(figure, side)


def _shadow(figure: Figure, side: int) -> Image.Image:
    layer = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(layer)
    cx, cy = figure.at(0, 0.98)
    for share, value in ((1.0, 110), (0.9, 190), (0.78, 255)):  # three rings are as soft as a blur, and much cheaper
        rx, ry = 0.84 * share * figure.radius, 0.13 * share * figure.radius
        pen.ellipse((cx - rx, cy - ry, cx + rx, cy + ry), fill=value)
    return layer


def _cat(f: Figure, c: Colour) -> None:
    f.rope([(-0.45, 0.8), (-0.85, 0.7), (-0.95, 0.3), (-0.82, 0.05)], c, 0.15)
    f.disc(0.0, 0.5, 0.55, c, 0.5)
    f.disc(0.02, 0.62, 0.3, light(c), 0.32, line=False)
    for x in (-0.28, 0.3):
        f.disc(x, 0.9, 0.2, c, 0.12)
    for k in (-1, 1):
        f.shape([(k * 0.6, -0.98), (k * 0.64, -0.3), (k * 0.1, -0.6)], c)
        f.shape([(k * 0.52, -0.78), (k * 0.54, -0.45), (k * 0.28, -0.6)], (250, 170, 180), line=False)
    f.disc(0.0, -0.27, 0.66, c, 0.54)
    f.disc(0.0, -0.04, 0.3, light(c), 0.2, line=False)
    for k in (-1, 1):
        f.eye(k * 0.29, -0.32, 0.11)
        f.stroke([(k * 0.36, -0.06), (k * 0.88, -0.14)], _edge(c), 0.035)
        f.stroke([(k * 0.36, 0.02), (k * 0.86, 0.08)], _edge(c), 0.035)
    f.shape([(-0.08, -0.15), (0.08, -0.15), (0, -0.05)], (236, 110, 130), line=False)


def _dog(f: Figure, c: Colour) -> None:
    f.rope([(-0.72, 0.2), (-0.98, -0.2)], c, 0.13)
    for x in (-0.62, -0.38, 0.2, 0.44):
        f.box(x - 0.11, 0.4, x + 0.11, 0.97, c)
    f.disc(-0.1, 0.28, 0.74, c, 0.36)
    f.disc(0.5, -0.3, 0.46, c, 0.44)
    f.disc(0.8, -0.12, 0.26, light(c), 0.2)
    f.disc(0.99, -0.2, 0.1, DARK, 0.08, line=False)
    f.disc(0.2, -0.2, 0.17, deep(c), 0.42)
    f.eye(0.58, -0.4, 0.1)
    f.stroke([(0.26, 0.1), (0.56, 0.16)], (206, 40, 50) if c[0] < 180 else (40, 80, 190), 0.1)


def _fish(f: Figure, c: Colour) -> None:
    f.shape([(-0.5, 0), (-1.0, -0.5), (-0.86, 0.02), (-1.0, 0.52)], deep(c))
    f.shape([(-0.25, -0.45), (0.1, -0.9), (0.42, -0.45)], deep(c))
    f.shape([(-0.1, 0.45), (0.05, 0.82), (0.3, 0.42)], deep(c))
    f.disc(0.12, 0.0, 0.82, c, 0.58)
    for x in (-0.3, -0.02):
        f.stroke(_arc(x - 0.2, 0, 0.26, 0.4, -60, 60), light(c), 0.09)
    f.eye(0.56, -0.14, 0.13)
    f.stroke(_arc(0.84, 0.1, 0.2, 0.12, 80, 180), _edge(c), 0.05)


def _bird(f: Figure, c: Colour) -> None:
    f.shape([(-0.4, 0.2), (-1.0, -0.06), (-0.98, 0.22), (-0.86, 0.42)], deep(c))
    for x in (-0.06, 0.2):
        f.stroke([(x, 0.6), (x, 0.94), (x + 0.12, 0.96)], (226, 140, 30), 0.07)
    f.disc(0.0, 0.2, 0.62, c, 0.5)
    f.disc(0.16, 0.38, 0.38, light(c), 0.28, line=False)
    f.shape([(0.78, -0.42), (1.06, -0.26), (0.76, -0.14)], (250, 170, 40))
    f.disc(0.46, -0.32, 0.42, c, 0.4)
    f.shape([*_arc(-0.22, 0.08, 0.44, 0.34, 180, 360), (0.0, 0.46), (-0.4, 0.42)], deep(c))
    f.eye(0.58, -0.38, 0.11)


def _snail(f: Figure, c: Colour) -> None:
    skin = (238, 206, 150)
    f.rope([(0.6, 0.7), (0.78, 0.1)], skin, 0.28)
    f.rope([(-0.82, 0.84), (0.62, 0.84)], skin, 0.22)
    for x in (0.66, 0.94):
        f.stroke([(0.8, 0.0), (x, -0.42)], _edge(skin), 0.06)
        f.disc(x, -0.46, 0.1, DARK, line=False)
    f.disc(-0.16, 0.18, 0.64, c)
    spiral = [
        (-0.16 + r * math.cos(a), 0.18 + r * math.sin(a)) for r, a in ((0.5 - 0.028 * k, 0.5 * k) for k in range(17))
    ]
    f.stroke(spiral, _edge(c), 0.08)
    f.stroke(_arc(0.84, 0.14, 0.1, 0.1, 20, 150), DARK, 0.04)


def _butterfly(f: Figure, c: Colour) -> None:
    for k in (-1, 1):
        f.disc(k * 0.4, 0.46, 0.36, deep(c), 0.4)
        f.disc(k * 0.52, -0.28, 0.5, c, 0.52)
        f.disc(k * 0.58, -0.3, 0.22, light(c), 0.24, line=False)
        f.disc(k * 0.42, 0.5, 0.14, light(c), line=False)
        f.stroke([(0, -0.5), (k * 0.2, -0.94)], DARK, 0.05)
        f.disc(k * 0.21, -0.93, 0.07, DARK, line=False)
    f.disc(0, 0.1, 0.12, (70, 54, 60), 0.62)
    f.disc(0, -0.5, 0.15, (70, 54, 60))


def _house(f: Figure, c: Colour) -> None:
    f.box(0.38, -0.86, 0.6, -0.3, (150, 90, 74))
    f.box(-0.74, -0.16, 0.74, 0.97, c)
    f.shape([(-0.98, -0.1), (0, -0.95), (0.98, -0.1)], deep(deep(c)))
    f.box(-0.16, 0.4, 0.2, 0.97, (136, 84, 48))
    f.disc(0.11, 0.7, 0.04, (250, 214, 90), line=False)
    for x in (-0.46, 0.48):
        f.box(x - 0.17, 0.14, x + 0.17, 0.48, (190, 230, 250))
        f.stroke([(x, 0.14), (x, 0.48)], _edge((190, 230, 250)), 0.05)
    f.disc(0, -0.42, 0.15, (190, 230, 250))


def _tree(f: Figure, c: Colour) -> None:
    f.shape([(-0.14, 0.1), (0.14, 0.1), (0.22, 0.98), (-0.22, 0.98)], (124, 80, 46))
    puffs = [
        (-0.44, 0.06, 0.4),
        (0.44, 0.06, 0.4),
        (-0.32, -0.44, 0.42),
        (0.34, -0.44, 0.42),
        (0, -0.2, 0.5),
        (0, -0.58, 0.4),
    ]
    for x, y, r in puffs:
        f.disc(x, y, r, c)
    for x, y, r in puffs:
        f.disc(x, y, r - 0.06, c, line=False)
    for x, y in ((-0.4, -0.4), (0.3, -0.16), (-0.1, 0.1), (0.22, -0.62)):
        f.stroke(_arc(x, y, 0.14, 0.12, 180, 300), light(c), 0.07)


def _flower(f: Figure, c: Colour) -> None:
    f.rope([(0.0, -0.1), (0.05, 0.5), (0.0, 0.95)], (64, 150, 62), 0.1)
    f.shape([(0.02, 0.75), (0.3, 0.42), (0.62, 0.4), (0.4, 0.7)], (84, 170, 74))
    f.shape([(0.02, 0.88), (-0.28, 0.55), (-0.6, 0.55), (-0.38, 0.82)], (84, 170, 74))
    for k in range(6):
        a = math.radians(60 * k + 30)
        f.disc(0.42 * math.cos(a), -0.36 + 0.42 * math.sin(a), 0.27, c)
    f.disc(0, -0.36, 0.25, (250, 206, 60) if c[2] > 90 or c[1] < 130 else (122, 70, 36))


def _mushroom(f: Figure, c: Colour) -> None:
    f.shape([(-0.24, 0), (0.24, 0), (0.36, 0.84), (0.2, 0.96), (-0.2, 0.96), (-0.36, 0.84)], (246, 232, 206))
    f.shape([*_arc(0, 0.06, 0.92, 0.98, 180, 360, 24), *_arc(0, 0.06, 0.92, 0.2, 0, 180)], c)
    spot = WHITE if sum(c) < 660 else (190, 190, 204)
    for x, y, r in ((-0.46, -0.28, 0.15), (0.08, -0.56, 0.17), (0.5, -0.22, 0.14), (-0.02, -0.08, 0.12)):
        f.disc(x, y, r, spot, line=False)
    for x in (-0.14, 0.14):
        f.disc(x, 0.44, 0.055, DARK, 0.08, line=False)
    f.stroke(_arc(0, 0.56, 0.1, 0.08, 10, 170), DARK, 0.04)


def _apple(f: Figure, c: Colour) -> None:
    left = _arc(-0.34, 0.1, 0.52, 0.66, 250, 110, 16)
    right = _arc(0.34, 0.1, 0.52, 0.66, 70, -70, 16)
    dip_low, dip_high = [(-0.2, 0.9), (0, 0.82), (0.2, 0.9)], [(0.14, -0.42), (0, -0.32), (-0.14, -0.42)]
    f.shape([*left, *dip_low, *right, *dip_high], c)
    f.rope([(0, -0.4), (0.06, -0.7), (0.16, -0.86)], (110, 70, 40), 0.07)
    f.shape([(0.1, -0.56), (0.34, -0.88), (0.68, -0.84), (0.46, -0.58)], (90, 176, 76))
    f.stroke(_arc(-0.36, 0.06, 0.3, 0.4, 180, 250), light(c), 0.12)


def _car(f: Figure, c: Colour) -> None:
    f.shape([(-0.66, 0.3), (-0.44, -0.3), (0.3, -0.3), (0.6, 0.3)], c)
    f.shape([(-0.5, 0.22), (-0.36, -0.18), (-0.1, -0.18), (-0.1, 0.22)], (196, 232, 250))
    f.shape([(0.02, 0.22), (0.02, -0.18), (0.24, -0.18), (0.44, 0.22)], (196, 232, 250))
    f.shape([(-1.0, 0.34), (-0.9, 0.2), (0.72, 0.2), (0.98, 0.4), (1.0, 0.76), (-1.0, 0.76)], c)
    f.disc(0.92, 0.48, 0.08, (255, 240, 150))
    f.stroke([(-0.9, 0.58), (0.86, 0.58)], deep(c), 0.06)
    for x in (-0.52, 0.54):
        f.disc(x, 0.74, 0.25, (46, 46, 54))
        f.disc(x, 0.74, 0.11, (206, 206, 212), line=False)


def _boat(f: Figure, c: Colour) -> None:
    f.stroke([(0.02, -0.95), (0.02, 0.4)], (110, 74, 46), 0.08)
    f.shape([(0.1, -0.9), (0.1, 0.26), (0.8, 0.26)], (250, 246, 232))
    f.shape([(-0.06, -0.66), (-0.06, 0.26), (-0.62, 0.26)], light(c))
    f.shape([(-1.0, 0.36), (1.0, 0.36), (0.68, 0.96), (-0.66, 0.96)], c)
    f.stroke([(-0.9, 0.5), (0.9, 0.5)], light(c), 0.08)


def _rocket(f: Figure, c: Colour) -> None:
    f.shape([(-0.2, 0.6), (0, 1.05), (0.2, 0.6)], (255, 160, 40), line=False)
    f.shape([(-0.1, 0.6), (0, 0.86), (0.1, 0.6)], (255, 236, 120), line=False)
    for k in (-1, 1):
        f.shape([(k * 0.3, 0.1), (k * 0.72, 0.52), (k * 0.7, 0.8), (k * 0.26, 0.56)], deep(deep(c)))
    hull = [(0, -1.0), (0.22, -0.72), (0.36, -0.3), (0.38, 0.2), (0.28, 0.64)]
    f.shape([*hull, *((-x, y) for x, y in reversed(hull[1:]))], c)
    f.shape([(0, -1.0), (0.2, -0.74), (0.28, -0.56), (-0.28, -0.56), (-0.2, -0.74)], light(c))
    f.disc(0, -0.16, 0.2, (180, 226, 250))
    f.disc(-0.06, -0.22, 0.06, WHITE, line=False)


def _balloon(f: Figure, c: Colour) -> None:
    f.stroke([(0, 0.3), (0.08, 0.55), (-0.06, 0.75), (0.03, 0.98)], (90, 84, 94), 0.05)
    f.shape([(0, 0.22), (-0.13, 0.42), (0.13, 0.42)], c)
    f.disc(0, -0.36, 0.58, c, 0.64)
    f.stroke(_arc(-0.02, -0.38, 0.38, 0.42, 180, 265), light(c), 0.13)


def _cup(f: Figure, c: Colour) -> None:
    f.stroke(_arc(0.52, 0.36, 0.36, 0.3, -95, 95), _edge(c), 0.24)
    f.stroke(_arc(0.52, 0.36, 0.36, 0.3, -95, 95), c, 0.14)
    f.shape([(-0.66, -0.1), (0.6, -0.1), (0.48, 0.84), (0.34, 0.97), (-0.4, 0.97), (-0.54, 0.84)], c)
    f.disc(-0.03, -0.1, 0.63, light(c), 0.15)
    f.disc(-0.03, -0.08, 0.5, (110, 66, 40), 0.09, line=False)
    for x in (-0.28, 0.02, 0.3):
        f.stroke([(x, -0.36), (x + 0.1, -0.52), (x - 0.04, -0.7), (x + 0.06, -0.88)], (236, 238, 244), 0.07)


def _ghost(f: Figure, c: Colour) -> None:
    hem = [(0.68, 0.9), (0.45, 0.66), (0.22, 0.94), (0, 0.68), (-0.22, 0.94), (-0.45, 0.66), (-0.68, 0.9)]
    f.shape([*_arc(0, -0.2, 0.68, 0.76, 180, 360, 20), *hem], c)
    for k in (-1, 1):
        f.disc(k * 0.7, 0.16, 0.17, c, 0.12)
        f.disc(k * 0.24, -0.3, 0.14, WHITE if sum(c) < 210 else DARK, 0.19, line=False)
    f.disc(0, 0.08, 0.14, WHITE if sum(c) < 210 else DARK, 0.16, line=False)


def _star(f: Figure, c: Colour) -> None:
    corners = [(r * math.sin(math.pi * k / 5), -r * math.cos(math.pi * k / 5)) for k, r in enumerate((1.0, 0.46) * 5)]
    f.shape(corners, c)
    for k in (-1, 1):
        f.disc(k * 0.17, -0.08, 0.07, WHITE if sum(c) < 210 else DARK, 0.1, line=False)
    f.stroke(_arc(0, 0.1, 0.16, 0.12, 15, 165), WHITE if sum(c) < 210 else DARK, 0.05)


PAINTERS: dict[str, Callable[[Figure, Colour], None]] = {
    "cat": _cat, "dog": _dog, "fish": _fish, "bird": _bird, "snail": _snail, "butterfly": _butterfly,
    "house": _house, "tree": _tree, "flower": _flower, "mushroom": _mushroom, "apple": _apple, "car": _car,
    "boat": _boat, "rocket": _rocket, "balloon": _balloon, "cup": _cup, "ghost": _ghost, "star": _star,
}  # fmt: skip
