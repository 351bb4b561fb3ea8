"""Notes that ask for a training, and what came of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from loravault.vault.note import parse_note
from tests.world import World

NOTE = "Cats/My cat.md"


def ask(world: World, rel: str = NOTE, *, blocks: tuple[str, ...] = ("sks cat on a beach",), **more: Any) -> Path:
    """A training note with two pictures beside it."""
    folder = (world.vault / rel).parent
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("cat1.png", "cat2.png"):
        if not (folder / name).exists():
            Image.new("RGB", (64, 48), "red").save(folder / name)
    values = {"name": "my-cat", "trigger": "sks cat", "steps": 20, **more}
    text = "---\nloravault: train\nrun: true\n" + "".join(f"{key}: {value}\n" for key, value in values.items())
    text += "---\n# My cat\n\n![[cat1.png]]\nsks cat on a sofa\n\n![[cat2.png]]\nsks cat on a chair\n\n"
    text += "\n".join(f"```prompt\n{block}\n```\n" for block in blocks)
    return world.note(rel, text)


def lines(world: World, rel: str = NOTE) -> str:
    return "\n".join(line for region in parse_note((world.vault / rel).read_bytes()).regions for line in region.lines)


def regions(world: World, rel: str = NOTE) -> list[tuple[str, bool]]:
    return [(region.kind, region.folded) for region in parse_note((world.vault / rel).read_bytes()).regions]


def trained(world: World) -> list[str]:
    """Every training that came to its end in the worker."""
    log = world.config.state_dir / "training" / "fake-trained.log"
    return log.read_text().split() if log.exists() else []


def adapter_files(world: World) -> list[str]:
    return sorted(path.relative_to(world.loras).as_posix() for path in world.loras.rglob("*.safetensors"))


def check_pictures(world: World, rel: str = NOTE) -> None:
    """Every picture that the note names is there, and nothing temporary is left."""
    for line in lines(world, rel).splitlines():
        if line.startswith("![["):
            assert (world.vault / line[3:].partition("|")[0]).is_file(), line
    assert not list(world.loras.rglob(".*"))
    assert not list(world.vault.rglob(".lv-*"))
