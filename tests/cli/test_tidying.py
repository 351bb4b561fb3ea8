"""clean, mv, undo and uninstall as a person meets them: a list first, then the deed, then the way back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest

from loravault.cli import clean, mv, undo, uninstall
from loravault.cli.app import App
from loravault.config import VaultConfig, save_vault
from loravault.daemon import Daemon
from loravault.errors import UserError
from loravault.jobs.context import Event
from loravault.keeping.house import Housekeeper
from loravault.tidying import Tidying
from tests.world import FAKE_ENGINE, World

from .helpers import Result

OLD = 1_700_000_000


class Door:
    """A vault without a daemon: every command is carried out in the foreground."""

    def __init__(self, config: VaultConfig) -> None:
        self._config = config

    def tidying(self) -> Tidying:
        return Tidying(self._config, self._look, self._obey)

    @contextmanager
    def _foreground(self) -> Iterator[Daemon]:
        daemon = Daemon(self._config, worker_command=FAKE_ENGINE, only=set(), watch=False)
        daemon.open()
        try:
            daemon.refresh()
            yield daemon
        finally:
            daemon.close()

    def _look(self, look: Callable[[Any], Any]) -> Any:
        with self._foreground() as daemon, daemon.ctx.index.session() as session:
            return look(session)

    def _obey(self, kind: str, **args: Any) -> dict[str, Any]:
        with self._foreground() as daemon:
            return Housekeeper(daemon.ctx, daemon.refresh).obey(kind, json.loads(json.dumps(args)))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    return World(tmp_path)


def call(world: World, command: click.Command, *arguments: str, answer: str | None = None) -> Result:
    from click.testing import CliRunner

    env = {"LORAVAULT_CONFIG_DIR": str(world.home / "conf"), "LORAVAULT_STATE_DIR": str(world.home / "state")}
    save_vault(world.config, env)
    app = App(env=env, cwd=world.vault, open_control=Door)  # type: ignore[arg-type]
    done = CliRunner().invoke(command, list(arguments), obj=app, input=answer, catch_exceptions=True)
    if isinstance(done.exception, UserError):
        return Result(1, done.output, done.exception.message)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Result(done.exit_code, done.output, "")


def library(world: World) -> None:
    data = world.adapter("Styles/ink.safetensors").read_bytes()
    (world.loras / "copy.safetensors").write_bytes(data)
    (world.loras / "lost.civitai.info").write_text("{}")
    for path in world.loras.rglob("*.safetensors"):
        os.utime(path, (OLD, OLD))


def test_clean_lists_everything_and_changes_nothing(world: World) -> None:
    library(world)
    call(world, clean.command)
    before = world.tree()
    done = call(world, clean.command)
    assert done.code == 0
    assert "duplicates  loras/Styles/ink.safetensors" in done.out, "of two as old as each other the shorter path stays"
    assert "loras/lost.civitai.info" in done.out
    assert "unused" in done.out
    assert "Nothing was moved" in done.out
    assert world.tree() == before


def test_clean_as_json(world: World) -> None:
    library(world)
    data = json.loads(call(world, clean.command, "--sidecars", "--json").out)
    assert [item["name"] for item in data["items"]] == ["loras/lost.civitai.info"]
    assert data["bytes"] == 2


def test_clean_and_undo(world: World) -> None:
    library(world)
    call(world, clean.command)
    before = world.tree()
    done = call(world, clean.command, "--duplicates", "--sidecars", "--yes")
    assert done.code == 0, done.out
    assert "2 files moved; `loravault undo" in done.out
    assert world.tree() != before
    listed = call(world, undo.command, "--list")
    assert "2 files  clean --duplicates --sidecars" in listed.out
    assert json.loads(call(world, undo.command, "--list", "--json").out)[0]["what"] == "clean --duplicates --sidecars"
    assert "2 files moved." in call(world, undo.command).out
    assert world.tree() == before
    assert "There is nothing to undo." in call(world, undo.command, "--list").out
    assert "nothing to undo" in call(world, undo.command).err


def test_comparing_copies_is_shown(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """All bytes of every copy are read before one goes: minutes, in which nothing was said."""
    library(world)
    data = (world.loras / "copy.safetensors").read_bytes()
    (world.loras / "another.safetensors").write_bytes(data)
    shown: list[tuple[str, float | None]] = []

    @contextmanager
    def following(_words: str) -> Iterator[Callable[[Event], None]]:
        yield lambda event: shown.append((event.text, event.fraction))

    monkeypatch.setattr(clean, "following", following)
    assert call(world, clean.command, "--duplicates", "--yes").code == 0
    assert shown == [("comparing copies, 0 of 2", 0.0), ("comparing copies, 1 of 2", 0.5)]


def test_an_empty_list_does_not_say_how_to_move_it(world: World) -> None:
    """`There is nothing to tidy up.` was followed by how to move it into the trash."""
    assert call(world, clean.command).out == "There is nothing to tidy up.\n"


def test_clean_must_be_told_what(world: World) -> None:
    assert "Say what is to go" in call(world, clean.command, "--yes").err
    assert "give it alone" in call(world, clean.command, "--trash", "--images").err
    assert "write 30d" in call(world, clean.command, "--trash", "--older-than", "soon").err
    assert "Nothing was moved." in call(world, clean.command, "--sidecars", "--yes").out


def test_the_trash_asks_before_it_is_emptied(world: World) -> None:
    library(world)
    call(world, clean.command, "--sidecars", "--yes")
    assert "Nothing lies there" in call(world, clean.command, "--trash").out
    asked = call(world, clean.command, "--trash", "--older-than", "0d", answer="n\n")
    assert "1 file" in asked.out
    assert "Nothing was deleted." in asked.out
    assert list(world.loras.glob(".loravault-trash/*/lost.civitai.info"))
    assert len(json.loads(call(world, clean.command, "--trash", "--older-than", "0d", "--json").out)) == 1
    assert "2 bytes deleted." in call(world, clean.command, "--trash", "--older-than", "0d", "--yes").out
    assert not list(world.loras.glob(".loravault-trash/*/*"))


def test_mv(world: World) -> None:
    world.adapter("Styles/ink.safetensors")
    (world.loras / "Styles/ink.json").write_text("{}")
    world.note("Cat.md", "<lora:ink:1>")
    shown = call(world, mv.command, "ink", "Art/feather", "--dry-run")
    assert "loras/Styles/ink.json         →  Art/feather.json" in shown.out
    assert "Cat.md names it in the old way" in shown.out
    assert (world.loras / "Styles/ink.json").exists()
    done = call(world, mv.command, "ink", "Art/feather")
    assert done.code == 0
    assert "2 files moved" in done.out
    assert (world.loras / "Art/feather.json").exists()
    assert "No LoRA is called ink" in call(world, mv.command, "ink", "Art/").err
    assert json.loads(call(world, mv.command, "feather", "./", "--json").out)["moved"][0][2] == "feather.safetensors"


def test_uninstall(world: World) -> None:
    world.request("Cat.md", "a red cat", seed=42)
    daemon = world.daemon()
    try:
        world.finish(daemon, "Cat.md")
    finally:
        daemon.close()
    before = world.tree()
    shown = call(world, uninstall.command, "--results")
    assert "Results would be taken out of 1 note:" in shown.out
    assert "--images" in shown.out
    assert world.tree() == before
    data = json.loads(call(world, uninstall.command, "--json").out)
    assert "page" in {one["kind"] for one in data["go"]}
    done = call(world, uninstall.command, "--results", "--images", "--yes")
    assert done.code == 0, done.out
    assert "Done." in done.out
    assert not (world.vault / "LoraVault").exists()
