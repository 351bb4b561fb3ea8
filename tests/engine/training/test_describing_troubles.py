"""A captioner that is interrupted, unplugged, replaced or broken never costs a training, nor what it has learned."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from loravault.dataset.captioner import read_captioner
from loravault.engine.devices import choose_device
from loravault.engine.ends import Stopped
from loravault.engine.training import describing
from loravault.engine.training import steps as steps_module
from loravault.engine.training.describing import Teller
from loravault.engine.training.said import Begun, Said
from loravault.formats.generation import BaseRef
from loravault.formats.training import TrainingSpec
from tests.engine.training.described import asked
from tests.engine.training.lessons import Lesson, same
from tests.tiny_captioners import make_blip
from tests.tiny_families import make_family

pytestmark = pytest.mark.engine


class Killed(BaseException):
    """The end of a process, as far as one process can play it."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseRef:
    return make_family(tmp_path_factory.mktemp("describing") / "sd15", "sd15")


# ---- interrupted


def test_killed_while_it_describes_it_goes_on_with_the_rest(
    base: BaseRef, blip: Path, tmp_path: Path, said: list[str]
) -> None:
    first = Lesson(asked(tmp_path, base, blip), tmp_path / "out")

    class Dying(list[str]):
        def append(self, name: str) -> None:
            super().append(name)
            if self.count("captions") == 4:  # of loading, and of the third picture
                raise Killed

    first.phases = Dying()
    with pytest.raises(Killed):
        first.run()
    assert len(said) == 2
    with next((tmp_path / "cache" / "captions").iterdir()).open("ab") as file:
        file.write(b'["torn')  # as a power cut leaves it
    outcome = Lesson(asked(tmp_path, base, blip), tmp_path / "out").run()
    assert len(said) == 3
    peace = Lesson(asked(tmp_path / "peace", base, blip), tmp_path / "peace" / "out").run()
    assert same(outcome, peace)


def test_cancelled_between_two_pictures_nothing_more_is_described(
    base: BaseRef, blip: Path, tmp_path: Path, said: list[str]
) -> None:
    lesson = Lesson(asked(tmp_path, base, blip), tmp_path / "out", cancelled=lambda _: len(said) == 1)
    with pytest.raises(Stopped):
        lesson.run()
    assert len(said) == 1
    assert lesson.prepared == []


def interrupted(spec: TrainingSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of it, with a state on disk."""
    monkeypatch.setattr(steps_module, "REPORT_EVERY_S", 0.0)
    first = Lesson(spec, tmp_path / "out", cancelled=lambda one: bool(one.steps) and one.steps[-1].step >= 2)
    with pytest.raises(Stopped):
        first.run()


def test_a_drive_that_is_unplugged_meanwhile_costs_nothing_that_was_learned(
    base: BaseRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even with the cache emptied: the captions belong to what was learned from them."""
    folder = make_blip(tmp_path / "drive" / "blip")
    whole = Lesson(asked(tmp_path / "whole", base, folder), tmp_path / "whole" / "out").run()
    spec = asked(tmp_path, base, folder)
    interrupted(spec, tmp_path, monkeypatch)
    folder.parent.rename(tmp_path / "unplugged")
    shutil.rmtree(tmp_path / "cache" / "captions")
    second = Lesson(spec, tmp_path / "out")
    outcome = second.run()
    assert second.steps[0].step == 3
    assert outcome.warnings == ()
    assert same(outcome, whole)


def test_another_model_in_the_same_place_begins_anew(
    base: BaseRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_blip(tmp_path / "blip", seed=0)
    spec = asked(tmp_path, base, folder)
    interrupted(spec, tmp_path, monkeypatch)
    shutil.rmtree(folder)
    make_blip(folder, seed=1)
    second = Lesson(spec, tmp_path / "out")
    outcome = second.run()
    assert second.steps[0].step == 1
    assert any("not gone on with" in one for one in outcome.warnings)
    assert any("not gone on with" in one for one in second.prepared[0].warnings)


def test_what_went_on_without_captions_goes_on_without_them_and_says_why_again(
    base: BaseRef, blip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A captioner that fails once and then not would throw away what was learned in between."""
    spec = asked(tmp_path, base, blip)
    with monkeypatch.context() as patch:
        patch.setattr(describing, "Teller", _raiser(RuntimeError("no luck today")))
        interrupted(spec, tmp_path, monkeypatch)
    second = Lesson(spec, tmp_path / "out")
    outcome = second.run()
    assert second.steps[0].step == 3
    assert any("no luck today" in one for one in outcome.warnings)


def test_what_began_while_the_drive_was_unplugged_goes_on_without_captions_until_somebody_asks_again(
    base: BaseRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that made way for a picture began anew by itself, only because a drive had been plugged in."""
    folder = tmp_path / "drive" / "blip"
    spec = dataclasses.replace(asked(tmp_path, base, folder), captioner_was_there=False)
    interrupted(spec, tmp_path, monkeypatch)
    make_blip(folder)
    for step in (3, 4):
        again = Lesson(spec, tmp_path / "out", cancelled=lambda one, step=step: len(one.steps) == step - 2)
        with pytest.raises(Stopped):
            again.run()
        assert again.steps[0].step >= 3
        assert again.prepared[0].described is None
        [warning] = again.prepared[0].warnings
        assert "could not be used when this training began" in warning
    ticked = Lesson(dataclasses.replace(spec, captioner_was_there=True), tmp_path / "out")
    outcome = ticked.run()
    assert ticked.steps[0].step == 1
    assert outcome.prepared.described is not None


# ---- what goes wrong


def _raiser(error: Exception) -> object:
    def raises(*_: object, **_more: object) -> object:
        raise error

    return raises


def lacking_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["vision_model.post_layernorm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


BROKEN = {
    "gone": (shutil.rmtree, "there is no folder"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
    "a pickle": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "never opened because",
    ),
    "lacks a tensor": (lacking_a_tensor, "lacks 1 tensors (first: vision_model.post_layernorm.weight)"),
    "unknown preparing": (
        lambda folder: (folder / "preprocessor_config.json").write_text('{"image_processor_type": "NoSuchThing"}'),
        "cannot be used",
    ),
    "wrong sizes": (
        lambda folder: (folder / "config.json").write_text(
            (folder / "config.json").read_text().replace('"patch_size": 8', '"patch_size": 16')
        ),
        "cannot be used",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_captioner_is_a_sentence_and_the_training_goes_on(base: BaseRef, tmp_path: Path, case: str) -> None:
    folder = make_blip(tmp_path / "blip")
    spoil, words = BROKEN[case]
    spoil(folder)
    lesson = Lesson(asked(tmp_path, base, folder, steps=2), tmp_path / "out")
    outcome = lesson.run()
    [told] = outcome.warnings
    assert "The captioner “blip”" in told
    assert words in told
    assert "\n" not in told
    assert len(told) < 400
    assert lesson.prepared[0].warnings == (told,), "it is said before the first step"
    assert lesson.prepared[0].described is None
    assert any("Without a caption: 1.png, 2.png" in one for one in outcome.prepared.plan.warnings)


def test_what_was_described_before_it_failed_is_kept(
    base: BaseRef, blip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, calls = Teller.say, []

    def say(self: Teller, image: Image.Image) -> str:
        calls.append(image)
        if len(calls) > 1:
            raise RuntimeError("shapes cannot be multiplied")
        return before(self, image)

    monkeypatch.setattr(Teller, "say", say)
    lesson = Lesson(asked(tmp_path, base, blip, steps=2), tmp_path / "out")
    outcome = lesson.run()
    told = lesson.prepared[0].described
    assert told is not None
    assert told.count == 1
    assert "shapes cannot be multiplied" in outcome.warnings[0]


def test_too_little_memory_on_a_card_is_no_reason_to_say_nothing(blip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes to the processor, in the middle of its work too; there, too little memory is a reason."""
    teller = Teller(read_captioner(blip), choose_device("cpu"))
    image = Image.new("RGB", (64, 64), "red")
    expected = teller.say(image)
    before = teller._model.generate

    def full(**given: object) -> object:
        if teller._place.type != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return before(**given)

    monkeypatch.setattr(teller._model, "generate", full)
    teller._place = torch.device("meta")  # stands for a card: nothing on it can be looked at
    assert teller.say(image) == expected
    monkeypatch.setattr(teller._model, "generate", _raiser(MemoryError()))
    with pytest.raises(MemoryError):
        teller.say(image)


def test_a_disk_that_is_full_costs_time_and_nothing_else(
    base: BaseRef, blip: Path, tmp_path: Path, said: list[str]
) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "captions").write_text("a file where a folder should be")
    lesson = Lesson(asked(tmp_path, base, blip, steps=2), tmp_path / "out")
    lesson.run()
    told = lesson.prepared[0].described
    assert told is not None
    assert told.count == 3


# ---- what is kept


def test_lines_that_are_not_whole_are_left_out_and_cost_no_other(tmp_path: Path) -> None:
    said = Said(tmp_path / "deep" / "x.jsonl")
    assert said.read() == {}
    said.add("a", "a cat\non two lines ünd")
    with said._path.open("ab") as file:
        file.write(b'["b", "tor')
    said.add("c", "a dog")
    with said._path.open("ab") as file:
        file.write(b'\n[1, 2]\n{"a": 1}\n\xff\xfe\n["d"]\n["e", null]\n')
    assert said.read() == {"a": "a cat\non two lines ünd", "c": "a dog"}


def test_what_a_training_began_with_counts_only_if_something_was_learned_from_it(tmp_path: Path) -> None:
    begun = Begun(tmp_path)
    begun.write("model-1", {"a": "a cat"}, "trouble")
    assert begun.read("model-1") == ({}, "")
    (tmp_path / "state-x-00000001.safetensors").touch()
    assert begun.read("model-1") == ({"a": "a cat"}, "trouble")
    assert begun.read(None) == ({"a": "a cat"}, "trouble")
    assert begun.read("model-2") == ({}, "")
    os.truncate(tmp_path / "captions.json", 9)
    assert begun.read(None) == ({}, "")
