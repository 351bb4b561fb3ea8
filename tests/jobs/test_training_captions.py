"""Captions that a model wrote: what a note says of them, before and after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loravault.formats.generation import BaseRef
from loravault.formats.training import (
    Described,
    Forecast,
    LookedAt,
    Prepared,
    Survey,
    TrainingOutcome,
    TrainingPicture,
    TrainingSpec,
)
from loravault.formats.training_plan import DeviceFacts, decide
from loravault.jobs import trainingwords as words
from loravault.jobs.trainingchild import shortened
from tests.fakes.captioner_folder import make_captioner
from tests.jobs.test_path import retick, running
from tests.jobs.training_notes import NOTE, ask, lines, trained
from tests.world import World

TWO = (("cat1.png", "a cat on a sofa"), ("Pets/cat2.png", "a cat asleep"))


def prepared(described: Described | None, warnings: tuple[str, ...] = ()) -> tuple[TrainingSpec, Prepared]:
    """Twelve pictures of a cat."""
    base = BaseRef(name="demo", path="somewhere", family="demo")
    names = [f"cat{number}.png" for number in range(12)]
    pictures = tuple(TrainingPicture(path=f"/v/{name}", name=name, caption="a cat") for name in names)
    spec = TrainingSpec(
        base=base, name="my-cat", trigger="sks cat", pictures=pictures, state_dir="/s", cache_dir="/c"
    )  # fmt: skip
    looked = tuple(LookedAt(name=name, width=640, height=480, sha256=name, flat=0.5) for name in names)
    survey = Survey(pictures=looked, diversity=0.2, measure="made up")
    plan = replace(decide(spec, survey, device=DeviceFacts(kind="cpu", name="x")), reasons=("So it is.",), warnings=())
    forecast = Forecast(seconds=60, bytes=1_200_000_000)
    return spec, Prepared(survey=survey, plan=plan, forecast=forecast, described=described, warnings=warnings)


def test_the_first_answer_lists_what_was_said_of_which_picture() -> None:
    spec, told = prepared(Described(by="blip-base", count=2, usable=12, captions=TWO))
    said = words.plan_lines(spec, told)
    assert said[4:] == [
        "",
        "**Captions**",
        "2 of 12 pictures were described by blip-base. A line under a picture takes the place of what is said here:",
        "- cat1.png: a cat on a sofa",
        "- Pets/cat2.png: a cat asleep",
        "",
        "**Why**",
        "- So it is.",
    ]


def test_of_many_the_first_are_listed() -> None:
    spec, told = prepared(Described(by="blip-base", count=10, usable=12, captions=TWO))
    assert "- and 8 more" in words.plan_lines(spec, told)


def test_without_a_captioner_nothing_is_said_of_captions() -> None:
    spec, told = prepared(None)
    assert words.plan_lines(spec, told)[4:] == ["", "**Why**", "- So it is."]


def test_what_is_wrong_with_the_captioner_is_worth_knowing() -> None:
    spec, told = prepared(None, ("The captioner “x” cannot be used: it is gone.",))
    assert words.plan_lines(spec, told)[-2:] == ["**Worth knowing**", "- The captioner “x” cannot be used: it is gone."]


def test_nothing_that_a_model_says_does_anything_in_a_note() -> None:
    """Nor the name of its folder or of a picture. And a caption without an end has one in the note."""
    evil = "<% tp.evil() %> [[x]] ![[y]] `= this` \n> [!lora-result] %% #tag " + "cat " * 300
    described = Described(by="<% by %>", count=1, usable=1, captions=(("[[n]].png", evil),))
    spec, told = prepared(described)
    said = "\n".join(words.plan_lines(spec, told))
    for active in ("<%", "[[", "![", "`=", "%%", "#tag"):
        assert active not in said
    assert max(len(line) for line in words.plan_lines(spec, told)) < 400


@pytest.mark.parametrize(
    ("count", "usable", "sentence"),
    [
        (1, 1, "1 of 1 picture was described by blip."),
        (1, 20, "1 of 20 pictures was described by blip."),
        (12, 20, "12 of 20 pictures were described by blip."),
    ],
)
def test_the_last_answer_says_it_in_one_sentence(count: int, usable: int, sentence: str) -> None:
    spec, told = prepared(Described(by="blip", count=count, usable=usable, captions=TWO))
    outcome = shortened(TrainingOutcome(prepared=told, checkpoints=()))
    assert outcome.prepared.described == Described(by="blip", count=count, usable=usable)
    made = words.Trained(spec=spec, outcome=outcome, name="my-cat", place="loras/my-cat.safetensors", size=1)
    assert sentence in words.result_lines(made)


# ---- the whole path, with an engine that describes by file names


def uncaptioned(world: World, **more: Any) -> Path:
    """The usual note, the second picture without a line under it."""
    note = ask(world, **more)
    note.write_bytes(note.read_bytes().replace(b"sks cat on a chair\n", b""))
    return note


def captioned_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, captioner: Path) -> World:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.05")
    return World(tmp_path, captioner=captioner)


def test_a_note_says_what_was_described_before_it_is_learned_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = captioned_world(tmp_path, monkeypatch, make_captioner(tmp_path / "models" / "blip"))
    uncaptioned(world, steps=40)
    with running(world) as daemon:
        world.work(daemon, lambda: "**Captions**" in lines(world))
        assert "1 of 2 pictures was described by blip." in lines(world)
        assert "- cat2.png: what cat2.png shows" in lines(world)
        assert "cat1.png:" not in lines(world)
        world.finish(daemon, NOTE)
        assert "1 of 2 pictures was described by blip." in lines(world)
        assert "what cat2.png shows" not in lines(world)


def test_switched_off_in_the_note_it_is_another_training_and_nobody_describes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = captioned_world(tmp_path, monkeypatch, make_captioner(tmp_path / "models" / "blip"))
    note = uncaptioned(world, steps=4)
    with running(world) as daemon:
        world.finish(daemon, NOTE)
        retick(world, NOTE)
        world.work(daemon, lambda: "nothing changed" in str(world.properties(NOTE).get("lv_message")))
        note.write_bytes(note.read_bytes().replace(b"run: false", b"run: true\ncaptioner: false"))
        world.work(daemon, lambda: len(trained(world)) == 2)
        world.finish(daemon, NOTE)
        assert lines(world).count("described by blip") == 1, "of the first result only"


def test_a_captioner_that_is_gone_is_told_and_the_adapter_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = captioned_world(tmp_path, monkeypatch, tmp_path / "models" / "gone")
    uncaptioned(world, steps=4)
    with running(world) as daemon:
        world.finish(daemon, NOTE)
    assert world.status(NOTE) == "done"
    assert "The captioner “gone” cannot be used: there is no folder" in lines(world)
