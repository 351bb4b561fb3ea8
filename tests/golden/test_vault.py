"""The golden vault: the example vault among 500 ordinary notes. What is no request stays as it is, byte for byte."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from loravault import resources
from loravault.vault.answers import strip_ours
from loravault.vault.note import parse_note
from tests.synth_vault import snapshot, write_vault
from tests.world import World

pytestmark = [pytest.mark.golden, pytest.mark.timeout(300)]

NOTES = 500


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    world = World(tmp_path, default_base=None)
    shutil.copytree(resources.example_vault(), world.vault, dirs_exist_ok=True)
    for name in ("ink_outline", "ghost_friend"):
        world.adapter(f"{name}.safetensors", ss_output_name=name)
    write_vault(world.vault, NOTES, seed=20261120)
    return world


def is_request(data: bytes) -> bool:
    front = parse_note(data).frontmatter
    return front is not None and front.get("loravault") in ("generate", "train")


@pytest.mark.parametrize("watch", [False, True], ids=["rescan only", "with events"])
def test_only_our_keys_and_regions_change_and_only_in_requests(world: World, watch: bool) -> None:
    before = {rel: data for rel, data in snapshot(world.vault) if rel.endswith(".md")}
    requests = [rel for rel, data in before.items() if is_request(data)]
    assert len(requests) == 5
    for rel in requests:
        path = world.vault / rel
        path.write_bytes(path.read_bytes().replace(b"run: false", b"run: true"))
    before.update({rel: (world.vault / rel).read_bytes() for rel in requests})

    daemon = world.daemon(watch=watch)
    try:
        world.finish(daemon, *requests, timeout=120)
        daemon.rescan()
        for _ in range(5):
            daemon.tick()
    finally:
        daemon.close()

    after = {rel: data for rel, data in snapshot(world.vault) if rel.endswith(".md")}
    assert set(before) | {"LoraVault/LoraVault.md"} == set(after), "no note was made, moved or lost"
    for rel, data in before.items():
        if rel == "Training/A star in the snow.md":  # ticked before the LoRA it names was there
            assert world.status(rel) in ("partial", "done"), world.read(rel)
            assert strip_ours(after[rel]) == strip_ours(data), rel
        elif rel in requests:
            assert world.status(rel) == "done", world.read(rel)
            assert world.results(rel) >= 1
            assert after[rel] != data
            assert strip_ours(after[rel]) == strip_ours(data), rel
        else:
            assert after[rel] == data, rel


def test_the_check_would_see_a_single_changed_byte(world: World) -> None:
    """The twin of this harness: python-frontmatter's dump of one ordinary note must be caught."""
    frontmatter = pytest.importorskip("frontmatter")
    caught = 0
    for _rel, data in snapshot(world.vault):
        try:
            text = data.decode()
            caught += frontmatter.dumps(frontmatter.loads(text)).encode() != data
        except Exception:  # the twin also crashes on real notes
            caught += 1
    assert caught > NOTES // 2, "checker is broken"
