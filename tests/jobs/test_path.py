"""The whole path with a fake engine: what a ticked note gets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loravault.daemon import Daemon
from loravault.index import work
from loravault.index.library import entries
from loravault.vault.answers import strip_ours
from loravault.vault.note import parse_note
from tests.world import World


@contextlib.contextmanager
def running(world: World) -> Iterator[Daemon]:
    daemon = world.daemon()
    try:
        yield daemon
    finally:
        daemon.close()


@contextlib.contextmanager
def write_gate_closed(daemon: Daemon) -> Iterator[None]:
    """As while somebody is typing: nothing is written into any note."""
    daemon.deliverer.step = lambda: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        del daemon.deliverer.step


def queued(daemon: Daemon) -> str:
    with daemon.ctx.index.session() as session:
        return " ".join(job.first_line for job in work.open_jobs(session))


def retick(world: World, rel: str) -> None:
    path = world.vault / rel
    path.write_bytes(path.read_bytes().replace(b"run: false", b"run: true"))


def writes_of(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One item more for every write into a note."""
    writes: list[None] = []
    replace = daemon.ctx.writer.replace

    def counted(*args: Any, **kwargs: Any) -> None:
        writes.append(None)
        replace(*args, **kwargs)

    monkeypatch.setattr(daemon.ctx.writer, "replace", counted)
    return writes


def test_a_ticked_note_gets_its_picture(world: World) -> None:
    note = world.request("Pictures/Cat.md", "a red cat", seed=42)
    before = note.read_bytes()

    with running(world) as daemon:
        world.finish(daemon, "Pictures/Cat.md")

    properties = world.properties("Pictures/Cat.md")
    assert properties["lv_status"] == "done"
    assert properties["run"] is False
    assert properties["lv_job"].endswith("@atelier")
    assert properties["lv_message"].startswith("1 image in ")
    text = world.read("Pictures/Cat.md")
    assert "> [!lora-result]+ 1 image · seed 42 · " in text
    picture = properties["lv_cover"].strip("[]")
    assert (world.vault / picture).is_file()
    assert f"![[{picture}|256]]" in text
    assert strip_ours(note.read_bytes()) == strip_ours(before)


def test_adapters_are_named_with_their_weights_and_their_words_are_inserted(world: World) -> None:
    world.adapter(
        "Styles/ink_outline.safetensors", ss_output_name="ink_outline", **{"modelspec.trigger_phrase": "sks style"}
    )
    world.request("Cat.md", "a red cat", loras=["ink_outline 0.8"], seed=1)
    world.request("Dog.md", "a blue dog <lora:ink_outline:0.5>", seed=1)

    with running(world) as daemon:
        world.finish(daemon, "Cat.md", "Dog.md")

    assert "> ink_outline 0.8 · demo-like · " in world.read("Cat.md")
    assert '"sks style"' in world.read("Cat.md"), "said that it was added"
    assert '"sks style"' in world.read("Dog.md"), "said that it is missing"


def test_each_block_is_answered_below_itself_and_a_bad_one_costs_only_itself(world: World) -> None:
    world.adapter("ink_outline.safetensors")
    world.request("Two.md", "a red cat", "a dog <lora:ink_outlin:1>", "a blue fish", seed=7)

    with running(world) as daemon:
        world.finish(daemon, "Two.md")

    note = parse_note((world.vault / "Two.md").read_bytes())
    assert [(region.kind, region.fence_index) for region in note.regions] == [
        ("result", 0),
        ("failure", 1),
        ("result", 2),
    ]
    assert world.status("Two.md") == "partial"
    assert "ink_outline" in "".join(note.regions[1].lines), "the closest name"


def test_a_note_is_written_once_to_accept_and_once_per_batch_of_answers(
    together: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many small writes into an open note are what makes cursors jump."""
    together.request("Five.md", *[f"a red cat number {n}" for n in range(5)], seed=7)
    with running(together) as daemon:
        writes = writes_of(daemon, monkeypatch)
        together.finish(daemon, "Five.md")

    assert together.results("Five.md") == 5
    assert len(writes) <= 2


def test_a_second_tick_draws_new_seeds_and_keeps_the_older_picture(world: World) -> None:
    world.request("Cat.md", "a red cat")
    with running(world) as daemon:
        world.finish(daemon, "Cat.md")
        retick(world, "Cat.md")
        world.work(daemon, lambda: world.results("Cat.md") == 2)

    regions = parse_note((world.vault / "Cat.md").read_bytes()).regions
    assert [region.folded for region in regions] == [False, True]


def test_a_tick_runs_only_what_is_new_or_changed(world: World) -> None:
    world.request("Cat.md", "a red cat", "a blue dog")
    with running(world) as daemon:
        world.finish(daemon, "Cat.md")
        path = world.vault / "Cat.md"
        path.write_bytes(path.read_bytes().replace(b"a blue dog", b"a green dog").replace(b"run: false", b"run: true"))
        world.work(daemon, lambda: world.results("Cat.md") == 3)
        world.finish(daemon, "Cat.md")

    note = parse_note((world.vault / "Cat.md").read_bytes())
    assert [region.fence_index for region in note.regions] == [0, 1, 1]


def test_with_fixed_seeds_nothing_changed_is_said_and_nothing_runs(world: World) -> None:
    world.request("Cat.md", "a red cat", seed=42)
    with running(world) as daemon:
        world.finish(daemon, "Cat.md")
        retick(world, "Cat.md")
        world.work(daemon, lambda: "nothing changed" in str(world.properties("Cat.md").get("lv_message")))

    assert world.results("Cat.md") == 1
    assert world.status("Cat.md") == "done"
    assert world.properties("Cat.md")["run"] is False


def test_a_tick_while_it_runs_is_a_new_run_behind_the_open_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.05")
    world.request("Cat.md", "a red cat", steps=25)
    with running(world) as daemon:
        world.work(daemon, lambda: world.properties("Cat.md")["run"] is False)
        retick(world, "Cat.md")
        world.work(daemon, lambda: world.results("Cat.md") == 2 and world.is_answered("Cat.md"))

    assert world.properties("Cat.md")["run"] is False


def test_until_the_receipt_is_written_a_tick_is_the_same_tick(world: World) -> None:
    """Obsidian may save the note again before we reset the box: that is no second wish."""
    with running(world) as daemon:
        path = world.request("Cat.md", "a red cat", seed=3)
        with write_gate_closed(daemon):
            world.work(daemon, lambda: bool(daemon.ctx.to_deliver))
            path.write_bytes(path.read_bytes() + b"\nmore words\n")
        world.finish(daemon, "Cat.md")
        for _ in range(20):
            daemon.tick()

    assert world.results("Cat.md") == 1
    assert "more words" in world.read("Cat.md")


def test_who_goes_on_typing_before_the_start_gets_what_stands_there_then(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(world) as daemon:
        monkeypatch.setattr(daemon.dispatcher, "_not_before", float("inf"))
        path = world.request("Cat.md", "a red cat", seed=3)
        with write_gate_closed(daemon):
            world.work(daemon, lambda: bool(daemon.ctx.to_deliver))
            path.write_bytes(path.read_bytes().replace(b"a red cat", b"a red cat with a hat"))
            world.work(daemon, lambda: "hat" in queued(daemon))
        monkeypatch.setattr(daemon.dispatcher, "_not_before", 0.0)
        world.finish(daemon, "Cat.md")

    text = world.read("Cat.md")
    assert world.results("Cat.md") == 1
    assert "block it answers is gone" not in text


def test_pasted_parameters_and_options_of_the_block_count(world: World) -> None:
    world.request(
        "Paste.md",
        "#| count: 2\na red cat\nNegative prompt: blurry\n"
        "Steps: 9, Sampler: Euler a, CFG scale: 4.5, Seed: 11, Size: 128x192",
    )
    with running(world) as daemon:
        world.finish(daemon, "Paste.md")

    assert "> [!lora-result]+ 2 images · seed 11–12 · " in world.read("Paste.md")
    assert "demo-like · Euler a · 9 steps · cfg 4.5 · 128×192" in world.read("Paste.md")


def test_a_kind_that_is_not_built_yet_is_answered_in_words(world: World) -> None:
    world.note("Train.md", "---\nloravault: merge\nrun: true\n---\n![[cat.jpg]]\n\n```prompt\na cat\n```\n")
    world.note("Empty.md", "---\nloravault: generate\nrun: true\n---\nNo block here.\n")
    with running(world) as daemon:
        world.finish(daemon, "Train.md", "Empty.md")

    assert world.status("Train.md") == "failed"
    assert "not built yet" in world.read("Train.md")
    assert "```prompt block" in world.read("Empty.md")
    assert "> [!failure]" in world.read("Empty.md")


def test_a_link_to_a_card_and_what_its_owner_calls_it_mean_the_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Obsidian rewrites links when a note is renamed: one renamed card broke each request that linked it."""
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    world = World(tmp_path, cards=True, rescan_s=0.2)
    world.adapter("Styles/dl_0007.safetensors", **{"modelspec.title": "Wet Wash"})
    card = world.vault / "LoraVault/LoRAs/Styles/dl_0007.md"
    with running(world) as daemon:
        world.work(daemon, card.is_file)
        text = card.read_text()
        card.unlink()
        world.note("LoraVault/LoRAs/Ink pretty.md", text.replace("aliases:\n", "aliases:\n  - Inky\n", 1))
        world.work(daemon, lambda: world.status("LoraVault/LoRAs/Ink pretty.md") is None and renamed(daemon))
        for number, name in enumerate(
            ("[[Ink pretty]] 0.5", "[[LoraVault/LoRAs/Ink pretty|nice 0.5]]", "inky 0.5", "Wet Wash")
        ):
            world.request(f"N{number}.md", f"a cat {number}", loras=[name])
            world.finish(daemon, f"N{number}.md")
            assert world.status(f"N{number}.md") == "done", world.read(f"N{number}.md")
            assert "[[LoraVault/LoRAs/Ink pretty|dl_0007]]" in world.read(f"N{number}.md")


def renamed(daemon: Daemon) -> bool:
    with daemon.ctx.index.session() as session:
        return [entry.card for entry in entries(session)] == ["LoraVault/LoRAs/Ink pretty.md"]
