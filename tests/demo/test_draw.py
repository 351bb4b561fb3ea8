"""The drawings: reproducible, full of the asked colour, and different for everything that is asked."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from demo import words
from demo.dataset import doodle
from demo.draw import SIZE, Scene, draw_array, random_scene, with_ink

EVERYTHING = words.SUBJECTS + words.WITHHELD_SUBJECTS


def test_same_scene_same_picture() -> None:
    """A scene says everything: drawing twice gives the same bytes."""
    rng = random.Random(1)
    for _ in range(20):
        scene = random_scene(rng)
        assert np.array_equal(draw_array(scene), draw_array(scene))


@pytest.mark.parametrize("subject", EVERYTHING)
def test_subject_shows_its_colour(subject: str) -> None:
    """A good part of the figure has a hue near the colour of the caption."""
    for colour in ("red", "blue", "yellow"):
        background = "plain white"
        picture = draw_array(Scene(subject, colour, background, "big", seed=3)).astype(int)
        distance = np.abs(picture - np.array(words.COLOURS[colour])).max(axis=2)
        assert (distance < 70).mean() > 0.04, (subject, colour)


@pytest.mark.parametrize("background", words.BACKGROUNDS)
def test_every_background_can_be_drawn(background: str) -> None:
    """Right size and type, and the figure covers only a part."""
    small, big = (draw_array(Scene("apple", "purple", background, size, seed=5)) for size in ("small", "big"))
    assert small.shape == big.shape == (SIZE, SIZE, 3)
    assert small.dtype == np.uint8
    assert not np.array_equal(small, big)


def test_position_moves_the_figure() -> None:
    """The mass of the figure's colour lies where the caption says."""
    columns = np.arange(SIZE)
    centres = []
    for position in words.POSITIONS:
        picture = draw_array(Scene("apple", "red", "plain white", "small", position, seed=6)).astype(int)
        mass = (np.abs(picture - np.array(words.COLOURS["red"])).max(axis=2) < 60).sum(axis=0)
        centres.append(float((columns * mass).sum() / mass.sum()))
    assert centres[0] < centres[1] - 15 < centres[2] - 30


def test_all_subjects_differ() -> None:
    """No two painters draw the same."""
    pictures = [draw_array(Scene(subject, "green", "plain white", "big", seed=7)).tobytes() for subject in EVERYTHING]
    assert len(set(pictures)) == len(EVERYTHING)


def test_ink_is_pale_paper_with_dark_lines() -> None:
    """The withheld style: mostly paper, some ink, hardly any colour."""
    rng = random.Random(8)
    for _ in range(10):
        picture = draw_array(with_ink(replace(random_scene(rng), size="big"))).astype(int)
        assert (picture.min(axis=2) > 180).mean() > 0.4
        assert (picture.max(axis=2) < 90).mean() > 0.02


def test_doodles_vary() -> None:
    """Each seed another picture, the same seed the same."""
    assert np.array_equal(doodle(1), doodle(1))
    assert not np.array_equal(doodle(1), doodle(2))
