"""The language of the demo base: what can be drawn, the words for it, what is held out of training."""

from __future__ import annotations

import zlib

SUBJECTS = (
    "cat", "dog", "fish", "bird", "snail", "butterfly", "house", "tree", "flower", "mushroom", "apple",
    "car", "boat", "rocket", "balloon", "cup",
)  # fmt: skip
WITHHELD_SUBJECTS = ("ghost", "star")  # the classifier knows them, the base has never seen them

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 38, 42),
    "orange": (250, 140, 22),
    "yellow": (250, 214, 40),
    "green": (58, 160, 62),
    "blue": (44, 98, 214),
    "purple": (132, 58, 180),
    "pink": (250, 140, 186),
    "brown": (134, 82, 44),
    "white": (246, 246, 244),
    "black": (44, 42, 50),
}

# place -> ways to say it; the first is the plain one
PLACES: dict[str, tuple[str, ...]] = {
    "meadow": ("in a meadow", "on a green meadow", "in the grass"),
    "beach": ("on a beach", "at the beach", "on the sand by the sea"),
    "snow": ("in the snow", "in a snowy landscape", "in winter"),
    "desert": ("in a desert", "in the desert", "between sand dunes"),
    "city": ("on a city street", "in the city", "on a street in town"),
    "room": ("in a room", "inside a room", "at home in a room"),
    "night": ("at night", "under a night sky", "on a dark night"),
    "sea": ("under water", "in the deep sea", "in the sea under water"),
}
PLAIN = tuple(COLOURS)  # plain backgrounds: "on a plain pink background"
BACKGROUNDS = tuple(PLACES) + tuple(f"plain {name}" for name in PLAIN)

SIZES = ("small", "medium", "big")
SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": ("small", "little", "tiny"),
    "medium": ("",),
    "big": ("big", "large", "huge"),
}
POSITIONS = ("left", "middle", "right")
POSITION_WORDS: dict[str, tuple[str, ...]] = {
    "left": ("on the left", "left", "on the left side"),
    "middle": ("in the middle", "in the centre", "centered"),
    "right": ("on the right", "right", "on the right side"),
}
OPENINGS = ("a picture of", "a drawing of", "an illustration of", "a cartoon of", "a photo of")
INK_WORDS = "ink outline"


def is_held_out(subject: str, colour: str, background: str) -> bool:
    """Whether this combination is kept out of training (one in eight, fixed by a hash so that every script agrees)."""
    return zlib.crc32(f"{subject}|{colour}|{background}".encode()) % 8 == 0


def vocabulary() -> tuple[str, ...]:
    """Every word the captions of the base can contain, sorted."""
    phrases = [*SUBJECTS, *COLOURS, *OPENINGS, "a", "on a plain background"]
    for table in (PLACES, SIZE_WORDS, POSITION_WORDS):
        for ways in table.values():
            phrases.extend(ways)
    return tuple(sorted({word for phrase in phrases for word in phrase.split()}))
