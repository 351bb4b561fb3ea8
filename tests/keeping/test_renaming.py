"""A file that gets another name takes everything along that is its own, or stays where it is."""

from __future__ import annotations

import pytest

from loravault.daemon import Daemon
from loravault.errors import UserError
from loravault.index import work
from loravault.index.adapters import adapters
from loravault.keeping.renaming import plan_rename
from tests.keeping.houseworld import age, beside, copy, house, plan
from tests.world import World


def test_a_rename_takes_all_sidecars_along(world: World, daemon: Daemon) -> None:
    world.adapter("Styles/ink.safetensors")
    beside(world, "Styles/ink.civitai.info")
    beside(world, "Styles/ink.preview.png")
    beside(world, "Styles/inkling.json")
    world.note("Cat.md", "<lora:ink:1> and [[other]]")
    age(world)
    before = world.tree()
    daemon.refresh()
    with daemon.ctx.index.session() as session:
        shown = plan_rename(world.config, session, "ink", "Art/feather")
    assert shown.notes == ("Cat.md",)
    assert world.tree() == before
    reply = house(daemon).rename("ink", "Art/feather")
    assert reply["notes"] == ["Cat.md"]
    assert sorted(p.name for p in (world.loras / "Art").iterdir()) == [
        "feather.civitai.info",
        "feather.preview.png",
        "feather.safetensors",
    ]
    assert [p.name for p in (world.loras / "Styles").iterdir()] == ["inkling.json"]
    with daemon.ctx.index.session() as session:
        assert [(row.rel, row.state) for row in adapters(session)] == [("Art/feather.safetensors", "ok")]
    house(daemon).undo(None)
    assert world.tree() == before
    assert not (world.loras / "Art").exists(), "the rename had made it"


def test_a_rename_into_a_folder_keeps_the_name_and_who_names_it(world: World, daemon: Daemon) -> None:
    world.adapter("Styles/ink.safetensors")
    world.note("Cat.md", "<lora:ink:1>")
    world.note("Dog.md", "<lora:Styles/ink:1>")
    daemon.refresh()
    assert house(daemon).rename("Styles/ink", "Art/")["notes"] == ["Dog.md"]
    assert (world.loras / "Art/ink.safetensors").exists()


def test_a_bare_name_stays_in_its_folder_and_a_folder_is_one(world: World, daemon: Daemon) -> None:
    """`mv ink feather` took the file out of its folder and to the top of the root."""
    world.adapter("Styles/ink.safetensors")
    (world.loras / "Ready").mkdir()
    daemon.refresh()
    house(daemon).rename("ink", "feather")
    assert (world.loras / "Styles/feather.safetensors").exists()
    house(daemon).rename("feather", "Ready")
    assert (world.loras / "Ready/feather.safetensors").exists()
    house(daemon).undo(None)
    assert (world.loras / "Ready").is_dir(), "it was there before"


@pytest.mark.parametrize(
    ("name", "new", "message"),
    [
        ("nobody", "Art/", "No LoRA is called nobody"),
        ("ink", "Styles/", "is there already"),
        ("ink", "Styles/wash", "already something at Styles/wash.safetensors"),
        ("ink", "wash", "already something at Styles/wash.safetensors"),
        ("ink", "./wash", "already something at wash.preview.png"),
        ("ink", "../out", "no place inside"),
        ("twin", "Art/", "may be any of these"),
    ],
)
def test_a_rename_that_cannot_be_made_is_refused_whole(
    world: World, daemon: Daemon, name: str, new: str, message: str
) -> None:
    world.adapter("Styles/ink.safetensors")
    world.adapter("Styles/wash.safetensors", rank=8)
    world.adapter("A/twin.safetensors", rank=2)
    world.adapter("B/twin.safetensors", rank=16)
    beside(world, "Styles/ink.preview.png")
    beside(world, "wash.preview.png")
    daemon.refresh()
    before = world.tree()
    with pytest.raises(UserError, match=message):
        house(daemon).rename(name, new)
    assert world.tree() == before


def test_a_file_that_is_still_downloaded_does_not_move(world: World, daemon: Daemon) -> None:
    world.adapter("ink.safetensors")
    beside(world, "ink.safetensors.part", "half")
    daemon.refresh()
    with pytest.raises(UserError, match="still being downloaded"):
        house(daemon).rename("ink", "Art/")


def test_what_a_waiting_request_uses_does_not_move(world: World, daemon: Daemon) -> None:
    world.adapter("ink.safetensors")
    copy(world, "ink.safetensors", "twin.safetensors")
    age(world)
    daemon.refresh()
    daemon.dispatcher.step = lambda: None  # type: ignore[method-assign]
    world.request("Cat.md", "a cat <lora:ink:1>", seed=42)

    def is_queued() -> bool:
        with daemon.ctx.index.session() as session:
            return bool(work.open_jobs(session))

    world.work(daemon, is_queued)
    with pytest.raises(UserError, match="waits or runs uses ink"):
        house(daemon).rename("ink", "Art/")
    (world.vault / "Cat.md").unlink()
    assert plan(daemon, "unused").items == ()
