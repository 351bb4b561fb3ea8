"""`loravault train`: what it asks for, and what it does with a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from loravault.control import Control, RunView
from loravault.errors import UserError
from loravault.vault.note import parse_note
from tests.cli.helpers import FakeControl, app_in, call
from tests.world import FAKE_ENGINE, World, quiet, served

DONE = RunView("1a", "My cat.md", "done", "my-cat trained in 4 min", ("a.webp",))


def test_a_note_is_run_as_a_training(tmp_path: Path) -> None:
    control = FakeControl(runs=[DONE])
    app = app_in(tmp_path, control)
    (tmp_path / "vault/My cat.md").write_text("---\nloravault: train\n---\n")
    result = call(app, "train", "My cat")
    assert control.asked == [("train", "My cat.md")]
    assert (result.code, result.out.splitlines()[0]) == (0, "My cat.md: done (my-cat trained in 4 min)")
    told = call(app, "train", "My cat", "--steps", "3")
    assert told.code != 0
    assert "stands in the note" in told.err


def test_a_folder_is_trained_with_what_is_said(tmp_path: Path) -> None:
    control = FakeControl(runs=[DONE])
    app = app_in(tmp_path, control)
    folder = tmp_path / "vault/cats"
    folder.mkdir()
    call(app, "train", "cats", "--name", "x", "--trigger", "sks", "--steps", "9", "--prompt", "a", "--prompt", "b")
    assert control.asked == [("train", folder, {"name": "x", "trigger": "sks", "steps": 9}, ("a", "b"))]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    world = World(tmp_path)
    folder = world.vault / "Sets/cats"
    folder.mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(folder / "a.png")
    (folder / "a.txt").write_text("sks cat on a sofa")
    return world


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a daemon"])
def test_a_folder_gets_a_note_and_the_note_its_adapter(world: World, beside: bool) -> None:
    control = Control(world.config, FAKE_ENGINE)

    def train() -> RunView:
        wanted = {"trigger": "sks: cat", "steps": 5, "name": "cat [1]"}
        return control.train_folder(world.vault / "Sets/cats", wanted, ["a sks cat"], quiet)

    if beside:
        with served(world):
            view = train()
    else:
        view = train()
    assert view.status == "done", view
    assert view.note == "LoraVault/Trainings/cat (1).md"
    front = parse_note((world.vault / view.note).read_bytes()).frontmatter
    assert front is not None
    assert (front.get("dataset"), front.get("trigger"), front.get("run")) == ("Sets/cats", "sks: cat", False)
    assert [path.name for path in world.loras.rglob("*.safetensors")] == ["cat (1).safetensors"]


def test_a_folder_outside_is_refused_with_what_to_do(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with pytest.raises(UserError, match="datasets = "):
        Control(world.config, FAKE_ENGINE).train_folder(outside, {}, [], quiet)
    assert not (world.vault / "LoraVault/Trainings").exists()


def test_a_configured_folder_outside_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    outside = tmp_path / "outside"
    outside.mkdir()
    Image.new("RGB", (64, 64)).save(outside / "a.png")
    world = World(tmp_path, datasets=(outside,))
    view = Control(world.config, FAKE_ENGINE).train_folder(outside, {"steps": 3}, [], quiet)
    assert view.status == "done"


def test_a_note_of_another_kind_is_not_trained(world: World) -> None:
    world.request("Picture.md", "a cat", run=False)
    with pytest.raises(UserError, match="not `train`"):
        Control(world.config, FAKE_ENGINE).run_note("Picture.md", quiet, kind="train")
    assert os.listdir(world.loras) == []
