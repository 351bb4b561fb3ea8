"""Captions that are exactly true for a scene, in many wordings."""

from __future__ import annotations

import random

from demo import words
from demo.draw import Scene


def full(scene: Scene) -> str:
    """The plain complete caption: "a big red cat on a beach, on the left"."""
    size = words.SIZE_WORDS[scene.size][0]
    noun = " ".join(part for part in (size, scene.colour, scene.subject) if part)
    text = f"{with_article(noun)} {place_phrase(scene.background)}"
    return text if scene.position == "middle" else f"{text}, {words.POSITION_WORDS[scene.position][0]}"


def with_article(noun: str) -> str:
    """ "a red cat", "an orange cat"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def place_phrase(background: str, rng: random.Random | None = None) -> str:
    """ "on a beach", "on a plain pink background"; with `rng` one of the ways to say it."""
    if background.startswith("plain "):
        colour = background.removeprefix("plain ")
        plain = f"on {with_article(colour)} background"
        ways: tuple[str, ...] = (f"on a {background} background", plain)
    else:
        ways = words.PLACES[background]
    return rng.choice(ways) if rng else ways[0]


def varied(scene: Scene, rng: random.Random) -> str:
    """A caption as people write them: sentences or tags, parts left out, sometimes a word that means nothing."""
    size = rng.choice(words.SIZE_WORDS[scene.size]) if rng.random() < 0.85 else ""
    colour = scene.colour if rng.random() < 0.95 else ""
    place = place_phrase(scene.background, rng) if rng.random() < 0.93 else ""
    said = 0.85 if scene.position != "middle" else 0.25
    position = rng.choice(words.POSITION_WORDS[scene.position]) if rng.random() < said else ""
    noun = " ".join(part for part in (size, colour, scene.subject) if part)
    if rng.random() < 0.2:
        tags = [
            noun,
            place if not place.endswith("background") else place.removeprefix("on a ").removeprefix("on an "),
            position,
        ]
        if rng.random() < 0.3:
            tags = tags[1:] + tags[:1]
        text = ", ".join(tag for tag in tags if tag)
    else:
        text = with_article(noun)
        if place and position and rng.random() < 0.3:
            text = f"{text} {position} {place}"
        else:
            text = " ".join(part for part in (text, place) if part) + (f", {position}" if position else "")
        if rng.random() < 0.2:
            text = f"{rng.choice(words.OPENINGS)} {text}"
    return _with_nonsense(text, rng) if rng.random() < 0.08 else text


def empty(rng: random.Random) -> str:
    """What stands for "no caption": nothing, or a word nobody knows (an unknown negative prompt does no harm)."""
    return "" if rng.random() < 0.75 else nonsense(rng)


def nonsense(rng: random.Random) -> str:
    """An invented word of two to six letters that is none of the vocabulary."""
    while True:
        word = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 6)))
        if word not in _KNOWN:
            return word


def _with_nonsense(text: str, rng: random.Random) -> str:
    if rng.random() < 0.5:
        return f"{text}, {nonsense(rng)}" if rng.random() < 0.5 else f"{nonsense(rng)}, {text}"
    parts = text.split(" ")
    parts.insert(rng.randrange(len(parts) + 1), nonsense(rng))
    return " ".join(parts)


_KNOWN = frozenset(words.vocabulary())
