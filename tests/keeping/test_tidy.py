"""What is looked for in folders that are a vault as well: there notes and attachments are the user's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from loravault.config import Root
from loravault.keeping.tidy import lies_in, plan_clean
from tests.world import World


def planned(world: World, root: Path, kind: str) -> dict[str, str]:
    """File name -> what for, of everything that would go with this folder as the only one of LoRAs."""
    world.config = replace(world.config, loras=(Root("loras", root),))
    daemon = world.daemon()
    try:
        daemon.refresh()
        if world.config.cards:
            daemon.settle_library()
        with daemon.ctx.index.session() as session:
            found = plan_clean(world.config, session, [kind], now=daemon.ctx.now() + 1e7)
    finally:
        daemon.close()
    return {piece.rel.rpartition("/")[2]: item.kind for item in found.items for piece in item.pieces}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    world = World(tmp_path)
    world.note("People/Anna.md", "my diary\n")
    for name in ("Anna.preview.png", "Anna.txt", "Anna.civitai.info", "lost.metadata.json", "lost.md"):
        (world.vault / "People" / name).write_text("{}")
    (tmp_path / "Linked").symlink_to(world.vault / "People", target_is_directory=True)
    return world


@pytest.mark.parametrize("root", ["", "vault", "vault/People", "Linked"])
def test_notes_and_attachments_of_a_vault_are_nobodys_sidecars(world: World, root: str) -> None:
    """With the vault as a folder of LoRAs, `People/Anna.md` went because `Anna.preview.png` stood beside it."""
    assert planned(world, world.home / root, "sidecars").keys() == {"Anna.civitai.info", "lost.metadata.json"}


def test_a_note_does_not_go_with_an_unused_lora(world: World) -> None:
    """`ink.md` beside `ink.safetensors` is a sidecar in a folder of LoRAs, and a note in a vault."""
    world.adapter("ink.safetensors")
    for folder in (world.loras, world.vault / "People"):
        (folder / "ink.md").write_text("words")
        (folder / "ink.json").write_text("{}")
    assert planned(world, world.loras, "unused").keys() == {"ink.safetensors", "ink.json", "ink.md"}
    (world.loras / "ink.safetensors").rename(world.vault / "People" / "ink.safetensors")
    assert planned(world, world.vault, "unused").keys() == {"ink.safetensors", "ink.json"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rating:", "rating: 5"),
        ("## Notes\n", "## Notes\n\nMakes hands well.\n"),
        ("weight:", "weight: 0.7"),
        ("topics:", "topics: [hands]"),
        ("favourite: false", "favourite: false\nmood: dark"),
        ("cover:", "cover: mine.png"),
    ],
)
def test_a_lora_on_whose_card_somebody_worked_is_not_unused(world: World, old: str, new: str) -> None:
    """`clean --unused` took a LoRA with five stars and a sentence below `## Notes`, saying that no note names it."""
    world.config = replace(world.config, cards=True)
    world.adapter("ink.safetensors")
    world.adapter("other.safetensors", rank=2)
    assert planned(world, world.loras, "unused").keys() == {"ink.safetensors", "other.safetensors"}
    card = world.vault / "LoraVault/LoRAs/ink.md"
    text = card.read_text()
    changed = text.replace(f"{old}\n" if f"{old}\n" in text else old, f"{new}\n", 1)
    if old == "cover:":
        changed = text.replace("---\n", f"---\n{new}\n", 1)
    assert changed != text
    card.write_text(changed)
    assert planned(world, world.loras, "unused").keys() == {"other.safetensors"}


def test_a_note_that_was_adopted_as_a_card_speaks_for_its_lora(world: World) -> None:
    """It was the card of the LoRA, and so did not count as a note that names it."""
    world.config = replace(world.config, cards=True)
    world.adapter("ink.safetensors")
    world.note("Ink.md", "---\nloravault: card\nlora_file: ink\n---\n")
    assert planned(world, world.loras, "unused") == {}


def test_what_cannot_be_looked_at_counts_as_inside(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert not lies_in(tmp_path, tmp_path / "a")
    assert lies_in(tmp_path / "a", tmp_path)
    assert lies_in(tmp_path / "gone", tmp_path / "a")
