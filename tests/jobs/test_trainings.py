"""The whole path of a training with a fake engine: what a ticked note gets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from loravault.index import work
from loravault.vault.answers import strip_ours
from tests.jobs.test_path import retick, running, writes_of
from tests.jobs.training_notes import NOTE, adapter_files, ask, check_pictures, lines, regions, trained
from tests.world import World


def test_a_ticked_note_gets_its_adapter(world: World) -> None:
    note = ask(world)
    before = note.read_bytes()
    with running(world) as daemon:
        world.finish(daemon, NOTE)
        with daemon.ctx.index.session() as session:
            assert len(work.last_runs(session, 9)) == 1
        kept = world.config.state_dir / "training"
        world.work(daemon, lambda: not list((kept / "jobs").iterdir()))
        assert not list(kept.glob("my-cat*")), "neither what it was made from nor its state is kept"
    assert adapter_files(world) == ["Characters/my-cat.safetensors"]
    properties = world.properties(NOTE)
    assert (properties["lv_status"], properties["run"]) == ("done", False)
    assert properties["lv_message"] == "my-cat trained in 12.0 s, 20 steps"
    said = lines(world)
    assert "[!lora-result]+ Trained my-cat · 20 steps · 12.0 s" in said
    assert 'write `<lora:my-cat:1>` and "sks cat" into a prompt' in said
    assert "-loss.png|700]]" in said
    assert "-samples.webp|700]]" in said
    assert "at most 1.0 GB of memory" in said
    assert regions(world) == [("result", False)]
    assert strip_ours(note.read_bytes()) == strip_ours(before)
    assert properties["lv_cover"].endswith("-1.webp]]")
    check_pictures(world)


def test_the_first_answer_comes_before_the_end_and_gives_way_to_it(world: World, monkeypatch: Any) -> None:
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.05")
    ask(world, steps=60)
    with running(world) as daemon:
        world.work(daemon, lambda: ("plan", False) in regions(world))
        said = lines(world)
        assert "[!lora-training]+ Training my-cat · 60 steps · about 3 s" in said
        assert "2 pictures of a character" in said
        assert "2 pictures are few for a character: with fewer than" in said
        assert "About 1.2 GB of memory" in said
        assert world.status(NOTE) == "running"
        assert not adapter_files(world)
        world.finish(daemon, NOTE)
    assert regions(world) == [("result", False)]
    assert "Why these numbers" in lines(world), "what was said first is not lost"
    assert "60 steps are few" in lines(world)


def test_a_training_note_is_written_three_times_at_most(world: World, monkeypatch: Any) -> None:
    """To accept, to say what it will be, to say what came of it."""
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.02")
    ask(world, steps=60)
    with running(world) as daemon:
        writes = writes_of(daemon, monkeypatch)
        world.finish(daemon, NOTE)
    assert len(writes) <= 3


def test_a_picture_that_waits_behind_a_training_says_so(world: World, monkeypatch: Any) -> None:
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.05")
    ask(world, steps=80)
    with running(world) as daemon:
        world.work(daemon, lambda: any(step >= 5 for step in daemon.dispatcher.trainings.reached.values()))
        world.request("Cat.md", "a red cat", seed=7)
        world.work(daemon, lambda: "lv_message" in world.properties("Cat.md"))
        assert re.fullmatch(r"waiting behind training my-cat, \d+ s", world.properties("Cat.md")["lv_message"])
        assert world.status("Cat.md") == "queued"
        world.finish(daemon, "Cat.md", timeout=30)
        assert daemon.ctx.waiting_behind is None
    assert str(world.properties("Cat.md")["lv_message"]).startswith("1 image in ")


def test_with_cards_the_answer_links_the_card_and_the_card_knows_its_trigger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    world = World(tmp_path, cards=True, galleries=True, rescan_s=0.2)
    ask(world)
    card = "LoraVault/LoRAs/Characters/my-cat.md"
    with running(world) as daemon:
        world.finish(daemon, NOTE, timeout=40)
        assert f"[[{card.removesuffix('.md')}|my-cat]]" in lines(world)
        assert (world.vault / card).is_file(), "a note never names a card that is not there"
        world.work(daemon, lambda: bool(world.properties(card).get("cover")), timeout=40)
    assert world.properties(card)["trigger_words"] == ["sks cat"]
    gallery = "\n".join(path.read_text() for path in (world.vault / "LoraVault/Gallery").rglob("*.md"))
    assert world.properties(NOTE)["lv_cover"].strip("[]").rpartition("/")[2] in gallery, "its pictures are its own"


def test_what_is_wrong_with_a_note_is_its_answer_and_nothing_starts(world: World) -> None:
    world.note("T.md", "---\nloravault: train\nrun: true\nsteps: many\n---\n![[gone.png]]\n")
    with running(world) as daemon:
        world.finish(daemon, "T.md")
        assert daemon.dispatcher.lanes[0].supervisor.pid is None
    said = lines(world, "T.md")
    assert "[!failure] Nothing was trained" in said
    assert "gone.png" in said
    assert '"steps" is "many"' in said
    assert world.status("T.md") == "failed"


def test_photographs_on_the_demo_base_and_other_refusals_of_the_worker_are_answers(world: World) -> None:
    ask(world, class_word="fake:user")
    with running(world) as daemon:
        world.finish(daemon, NOTE)
        pid = daemon.dispatcher.lanes[0].supervisor.pid
    assert pid is not None, "a refusal is no reason to end the worker"
    assert "told to refuse this" in lines(world)
    assert regions(world) == [("failure", False)], "the plan has given way"


@pytest.mark.parametrize("mode", ["bug", "oom"])
def test_a_bug_and_too_little_memory_are_answers_and_not_tried_again(world: World, mode: str) -> None:
    ask(world, class_word=f"fake:{mode}")
    with running(world) as daemon:
        world.finish(daemon, NOTE)
    assert world.status(NOTE) == "failed"
    assert trained(world) == []


def test_nothing_changed_is_said_and_again_trains_again(world: World) -> None:
    note = ask(world)
    with running(world) as daemon:
        world.finish(daemon, NOTE)
        retick(world, NOTE)
        world.work(daemon, lambda: "nothing changed" in str(world.properties(NOTE).get("lv_message")))
        assert trained(world) == ["my-cat"]
        note.write_bytes(note.read_bytes().replace(b"run: false", b"run: true\nagain: 2"))
        world.work(daemon, lambda: len(trained(world)) == 2)
        world.finish(daemon, NOTE)
    assert adapter_files(world) == ["Characters/my-cat-2.safetensors", "Characters/my-cat.safetensors"]
    assert regions(world) == [("result", True), ("result", False)]


def test_a_tick_while_it_is_trained_trains_it_once(world: World, monkeypatch: Any) -> None:
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.03")
    ask(world, steps=60)
    with running(world) as daemon:
        world.work(daemon, lambda: ("plan", False) in regions(world))
        retick(world, NOTE)
        world.work(daemon, lambda: world.properties(NOTE)["run"] is False)
        world.finish(daemon, NOTE)
    assert trained(world) == ["my-cat"]


def test_a_changed_note_that_is_ticked_again_stops_what_it_asked_for_before(world: World, monkeypatch: Any) -> None:
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.03")
    note = ask(world, steps=300)
    with running(world) as daemon:
        world.work(daemon, lambda: ("plan", False) in regions(world))
        changed = note.read_bytes().replace(b"steps: 300", b"steps: 7").replace(b"run: false", b"run: true")
        note.write_bytes(changed)
        world.work(daemon, lambda: "7 steps" in lines(world) and world.is_answered(NOTE))
    assert trained(world) == ["my-cat"]
    assert regions(world) == [("result", False)]


def test_pictures_go_before_a_training_and_it_makes_way_if_so_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.03")
    world = World(tmp_path, training_yields=True)
    ask(world, steps=100)
    with running(world) as daemon:
        world.work(daemon, lambda: any(step >= 5 for step in daemon.dispatcher.trainings.reached.values()))
        world.request("Picture.md", "a red cat", seed=1, steps=1)
        world.finish(daemon, "Picture.md")
        assert world.status(NOTE) != "done", "the picture did not wait for it"
        world.finish(daemon, NOTE, timeout=40)
    assert trained(world) == ["my-cat"]


def test_without_that_a_picture_waits_and_of_what_waits_pictures_go_first(world: World, monkeypatch: Any) -> None:
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.01")
    ask(world, "First.md", name="first")
    ended: list[str] = []
    with running(world) as daemon:
        world.work(daemon, lambda: bool(daemon.dispatcher.trainings.reached))
        ask(world, "Second.md", name="second")
        world.work(daemon, lambda: bool(world.properties("Second.md").get("lv_job")))
        world.request("Picture.md", "a red cat", seed=1, steps=1)

        def over() -> bool:
            for rel in ("First.md", "Second.md", "Picture.md"):
                if rel not in ended and world.is_answered(rel):
                    ended.append(rel)
            return len(ended) == 3

        world.work(daemon, over, timeout=40)
    assert ended.index("Picture.md") < ended.index("Second.md")


def test_a_folder_as_dataset_and_a_base_by_family(world: World) -> None:
    folder = world.vault / "Sets/dogs"
    folder.mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(folder / "a.png")
    (folder / "a.txt").write_text("a dog")
    world.note(
        "Dogs.md",
        "---\nloravault: train\nrun: true\ndataset: Sets/dogs\nfamily: sd15\nsubject: style\ncategory: Mine/Dogs\n"
        "steps: 4\n---\nwords\n",
    )
    with running(world) as daemon:
        world.finish(daemon, "Dogs.md")
    assert adapter_files(world) == ["Mine/Dogs/Dogs.safetensors"]
    assert "realistic" in lines(world, "Dogs.md")
