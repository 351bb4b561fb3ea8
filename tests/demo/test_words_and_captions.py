"""The language of the demo base: captions are true, use only known words, and held-out combinations stay out."""

from __future__ import annotations

import random

from demo import captions, words
from demo.draw import Scene, random_scene

KNOWN = set(words.vocabulary())


def _words_of(text: str) -> set[str]:
    return set(text.replace(",", " ").split())


def test_the_issue_asks_for_at_least_this_much() -> None:
    """12 subjects, 10 colours, 6 places, two withheld subjects."""
    assert len(words.SUBJECTS) >= 12
    assert len(words.COLOURS) >= 10
    assert len(words.PLACES) >= 6
    assert len(words.WITHHELD_SUBJECTS) >= 2
    assert not set(words.WITHHELD_SUBJECTS) & KNOWN


def test_full_captions_use_only_the_vocabulary() -> None:
    """The list of known words would be a lie if a training caption held another one."""
    rng = random.Random(1)
    for _ in range(500):
        assert _words_of(captions.full(random_scene(rng))) <= KNOWN


def test_varied_captions_are_true_for_the_scene() -> None:
    """Whatever the wording: never another subject, never another position, no foreign colour."""
    rng = random.Random(2)
    for _ in range(2000):
        scene = random_scene(rng)
        said = _words_of(captions.varied(scene, rng))
        assert said & set(words.SUBJECTS) == {scene.subject}
        assert said & {"left", "right"} <= {scene.position}
        allowed = {scene.colour, scene.background.removeprefix("plain ")}
        if scene.background == "meadow":
            allowed.add("green")  # "on a green meadow"
        assert said & set(words.COLOURS) <= allowed


def test_every_vocabulary_word_occurs_in_captions() -> None:
    """No word is called known that the base has never read."""
    rng = random.Random(3)
    seen: set[str] = set()
    for _ in range(6000):
        seen |= _words_of(captions.varied(random_scene(rng), rng))
    assert KNOWN - seen == set()


def test_held_out_combinations_never_occur_in_training_scenes() -> None:
    """Training and test scenes are disjoint in (subject, colour, background)."""
    rng = random.Random(4)
    for _ in range(1000):
        scene = random_scene(rng)
        assert not words.is_held_out(scene.subject, scene.colour, scene.background)
        test = random_scene(rng, held_out=True)
        assert words.is_held_out(test.subject, test.colour, test.background)


def test_every_word_is_trained_with_every_kind_of_partner() -> None:
    """Holding out is about combinations: each subject keeps most colours and places."""
    for subject in words.SUBJECTS:
        for colour in words.COLOURS:
            places = [b for b in words.BACKGROUNDS if not words.is_held_out(subject, colour, b)]
            assert len(places) >= len(words.BACKGROUNDS) // 2


def test_article() -> None:
    """The first captions said "a orange cat"."""
    assert captions.full(Scene("cat", "orange", "plain orange")) == "an orange cat on a plain orange background"
    assert captions.full(Scene("cat", "red", "beach", "big", "left")) == "a big red cat on a beach, on the left"


def test_nonsense_is_never_a_known_word() -> None:
    """Invented words teach the base to ignore strangers; a known one would teach it a lie."""
    rng = random.Random(5)
    assert not {captions.nonsense(rng) for _ in range(5000)} & KNOWN
