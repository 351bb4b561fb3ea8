"""Housekeeping through the real door: the same beside a daemon and without one; and a whole vault taken leave of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from loravault.config import load, save_vault
from loravault.control import Control
from loravault.errors import UserError
from loravault.uninstall import carry_out, plan_uninstall
from tests.world import FAKE_ENGINE, World, nobody, served, until

pytestmark = pytest.mark.timeout(180)
OLD = 1_700_000_000


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    return World(tmp_path, cards=True, galleries=True)


@pytest.fixture(params=[nobody, served], ids=["alone", "beside a daemon"])
def control(world: World, request: pytest.FixtureRequest) -> Iterator[Control]:
    data = world.adapter("Styles/ink.safetensors").read_bytes()
    (world.loras / "Styles" / "ink.json").write_text("{}")
    (world.loras / "zz copy.safetensors").write_bytes(data)
    (world.loras / "lost.civitai.info").write_text("{}")
    os.utime(world.loras / "Styles" / "ink.safetensors", (OLD, OLD))
    os.utime(world.loras / "zz copy.safetensors", (OLD + 60, OLD + 60))  # the older of two is the one that is used
    with request.param(world):
        yield Control(world.config, FAKE_ENGINE)


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def known(control: Control) -> list[str]:
    return sorted(row.rel for row in control.adapters() if row.state in ("ok", "duplicate"))


def test_clean_and_undo(control: Control, world: World) -> None:
    before = files(world.loras)
    tidying = control.tidying()
    kinds = ("duplicates", "sidecars")
    until(lambda: len(tidying.plan_clean(kinds).items) == 2)
    plan = tidying.plan_clean(kinds)
    assert sorted(item.name for item in plan.items) == ["loras/lost.civitai.info", "loras/zz copy.safetensors"]
    assert files(world.loras) == before

    card = world.vault / "LoraVault/LoRAs/Styles/ink.md"
    serves = control.daemon_pid() is not None
    if serves:
        until(lambda: card.exists() and "- loras/zz copy.safetensors" in card.read_text())
    view = tidying.clean(kinds, plan)
    if serves:
        until(lambda: "- loras/zz copy.safetensors" not in card.read_text())
    assert (len(view.moved), view.stayed) == (2, ())
    assert known(control) == ["Styles/ink.safetensors"]
    assert [batch.id for batch in tidying.batches()] == [view.batch]
    assert len(tidying.binned(0)) == 1

    assert len(tidying.undo(None).moved) == 2
    assert files(world.loras) == before
    assert known(control) == ["Styles/ink.safetensors", "zz copy.safetensors"]
    with pytest.raises(UserError, match="nothing to undo"):
        tidying.undo(None)


def test_what_was_thrown_away_is_missing_and_gone_from_the_galleries(world: World) -> None:
    world.adapter("Styles/ink.safetensors")
    world.adapter("Styles/wash.safetensors", rank=8)
    for path in world.loras.rglob("*.safetensors"):
        os.utime(path, (OLD, OLD))
    control = Control(world.config, FAKE_ENGINE)
    card = world.vault / "LoraVault/LoRAs/Styles/ink.md"
    page = world.vault / "LoraVault/Gallery/Adapters/wash pictures.md"
    with served(world):
        world.request("Cat.md", "a cat <lora:wash:1>", seed=42)
        until(lambda: world.is_answered("Cat.md"), 60)
        until(lambda: card.exists() and page.exists() and "lv-2" in page.read_text())
        (picture,) = [path.stem for path in world.vault.rglob("lv-2*.webp")]
        (world.vault / "Cat.md").unlink()
        tidying = control.tidying()
        plan = tidying.plan_clean(("unused", "images"))
        assert sorted(item.name.rpartition("/")[2] for item in plan.items) == ["ink.safetensors", f"{picture}.webp"]
        assert tidying.clean(("unused", "images"), plan).stayed == ()
        until(lambda: "state: missing" in card.read_text())
        until(lambda: picture not in page.read_text())
        tidying.undo(None)
        until(lambda: "state: ok" in card.read_text())
        until(lambda: picture in page.read_text())


def test_a_rename_keeps_the_card_where_it_is(control: Control, world: World) -> None:
    until(lambda: bool(known(control)) or control.daemon_pid() is None)
    tidying = control.tidying()
    card = world.vault / "LoraVault/LoRAs/Styles/ink.md"
    if control.daemon_pid() is not None:
        until(card.exists)
        card.write_text(card.read_text() + "\nmy own words\n")
    view = tidying.rename("Styles/ink", "Art/feather")
    assert [target for _, _, target in view.moved] == ["Art/feather.safetensors", "Art/feather.json"]
    assert "Art/feather.safetensors" in known(control)
    assert "Styles/ink.safetensors" not in known(control)
    if control.daemon_pid() is not None:
        until(lambda: "Art/feather.safetensors" in card.read_text())
        assert "my own words" in card.read_text()
        assert list((world.vault / "LoraVault/LoRAs").rglob("*.md")) == [card], "no second card"
    with pytest.raises(UserError, match="No LoRA is called nobody"):
        tidying.rename("nobody", "Art/")


def test_leaving_a_vault_that_was_served_leaves_only_what_was_written(world: World) -> None:
    """Cards, covers, galleries, bases and the dashboard that a daemon made all go; a card with a word in it stays."""
    env = {"LORAVAULT_CONFIG_DIR": str(world.home / "config"), "LORAVAULT_STATE_DIR": str(world.home / "state")}
    save_vault(world.config, env)
    for name, rank in (("ink", 2), ("wash", 4), ("chalk", 8)):
        world.adapter(f"Styles/{name}.safetensors", rank=rank, ss_output_name=name)
    Image.new("RGB", (64, 64), "red").save(world.loras / "Styles/chalk.preview.png")
    world.note("Mine.md", "my own note\n")
    cards = world.vault / "LoraVault/LoRAs/Styles"
    with served(world):
        world.request("Cat.md", "a cat <lora:ink:1>", seed=42)
        until(lambda: world.is_answered("Cat.md"), 60)
        until(lambda: len(list(cards.glob("*.md"))) == 3)
        until((world.vault / "LoraVault/LoRAs.base").exists)
        written = cards / "wash.md"
        written.write_text(written.read_text() + "\nlovely on paper\n")
        until(lambda: "lv-cover-" in (cards / "chalk.md").read_text())
    words = written.read_bytes()
    done = carry_out(plan_uninstall(load(world.vault, env), env, results=True, images=True), env)
    assert done.finished
    left = {path.relative_to(world.vault).as_posix() for path in world.vault.rglob("*") if path.is_file()}
    assert {rel for rel in left if not rel.startswith(".trash/")} == {
        "Cat.md",
        "Mine.md",
        "LoraVault/LoRAs/Styles/wash.md",
    }
    assert written.read_bytes() == words
    assert "lora-result" not in world.read("Cat.md")
