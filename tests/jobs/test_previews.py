"""Requests of the kind `preview`: adapters without a picture get one, in one callout, by hand or by themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlmodel import select

from loravault.daemon import Daemon
from loravault.index import covers, notes, work
from loravault.index.tables import AdapterRow, ImageRow, JobRow
from loravault.library.imagemeta import read_chunk
from loravault.vault.note import parse_note
from tests.imagemeta import read_meta
from tests.jobs.test_path import retick, running
from tests.world import World

NOTE = "Previews.md"


def ask(world: World, *blocks: str, **properties: Any) -> Path:
    return world.request(NOTE, *blocks, **{"loravault": "preview", **properties})


def library(world: World, *names: str, **metadata: str) -> None:
    for name in names:
        world.adapter(f"{name}.safetensors", **metadata)


def callouts(world: World, kind: str = "result") -> list[str]:
    note = parse_note((world.vault / NOTE).read_bytes())
    return ["\n".join(region.lines) for region in note.regions if region.intact and region.kind == kind]


def pictures(world: World) -> list[Path]:
    return sorted(path for path in (world.vault / "LoraVault/Images").rglob("lv-2*"))


def shown(daemon: Daemon) -> dict[str, ImageRow]:
    """Name of each adapter for which a picture stands -> its row."""
    with daemon.ctx.index.session() as session:
        rows = {row.stands_for: row for row in covers.standing(session)}
        names = {row.weight_id: row.name for row in session.exec(select(AdapterRow))}
    return {names[weight_id]: row for weight_id, row in rows.items()}


def forget_index(world: World) -> None:
    for path in world.config.state_dir.glob("index.sqlite*"):
        path.unlink()


def test_every_adapter_without_a_picture_gets_one_and_one_callout_shows_them_all(world: World) -> None:
    library(world, "ghost", "ink")
    library(world, "seen")
    Image.new("RGB", (8, 8)).save(world.loras / "seen.preview.png")
    ask(world)
    with running(world) as daemon:
        world.finish(daemon, NOTE)
        standing = shown(daemon)

    [callout] = callouts(world)
    lines = callout.splitlines()
    assert lines[0].startswith("[!lora-result]+ 2 previews · seed 42")
    assert lines[1].endswith("|192]] ghost 1")
    assert "ink" in lines[2]
    assert "demo-like · DPM++ 2M · 25 steps" in lines[3]
    assert sorted(standing) == ["ghost", "ink"]
    assert world.properties(NOTE)["lv_message"].startswith("2 images")
    assert world.properties(NOTE)["lv_status"] == "done"
    assert len(pictures(world)) == 2


def test_the_prompt_of_the_family_has_the_trigger_words_in_front_and_the_seed_is_fixed(world: World) -> None:
    library(world, "ink", **{"modelspec.trigger_phrase": "sks style"})
    ask(world)
    with running(world) as daemon:
        world.finish(daemon, NOTE)

    [path] = pictures(world)
    meta = read_meta(path)
    assert meta is not None
    assert (meta.infotext or "").startswith("sks style, a picture of a red house in a meadow\n")
    assert "Seed: 42" in (meta.infotext or "")
    chunk = read_chunk(path)
    assert chunk is not None
    assert (chunk["stands_for"], chunk["named"]) == (chunk["adapters"][0]["id"], False)


def test_an_adapter_that_is_a_thing_takes_the_place_of_the_subject(world: World) -> None:
    library(world, "ghost", **{"modelspec.trigger_phrase": "gho"})
    ask(world)
    with running(world) as daemon:
        world.finish(daemon, NOTE)
    [path] = pictures(world)
    assert (read_meta(path).infotext or "").startswith("a picture of a gho in a meadow\n")  # type: ignore[union-attr]
    assert (
        'The standard prompt, with the trigger words of each: "a picture of a red house in a meadow".'
        in callouts(world)[0]
    )


def test_a_run_shows_as_many_as_count_says_and_tells_how_many_are_left(world: World) -> None:
    library(world, "a", "b", "c")
    ask(world, count=2)
    with running(world) as daemon:
        world.finish(daemon, NOTE)
        assert sorted(shown(daemon)) == ["a", "b"]
        assert "1 more LoRA has no picture: tick `run` again." in callouts(world)[0]
        retick(world, NOTE)
        world.work(daemon, lambda: world.results(NOTE) == 2)
        assert sorted(shown(daemon)) == ["a", "b", "c"]
        world.finish(daemon, NOTE)
        retick(world, NOTE)
        world.work(daemon, lambda: "has a picture" in str(world.properties(NOTE).get("lv_message")))
        world.finish(daemon, NOTE)
    assert world.results(NOTE) == 2
    assert len(pictures(world)) == 3


def test_families_without_a_base_are_told_once(world: World) -> None:
    library(world, "ink")
    for n in range(3):
        world.adapter(f"xl{n}.safetensors", width=2048)
    ask(world)
    with running(world) as daemon:
        world.finish(daemon, NOTE)
    [callout] = callouts(world)
    assert callout.count("There is no base here for LoRAs without a picture of: sdxl (3).") == 1
    assert len(pictures(world)) == 1


def test_without_any_usable_base_the_message_says_so(world: World) -> None:
    world.adapter("xl.safetensors", width=2048)
    ask(world)
    with running(world) as daemon:
        world.finish(daemon, NOTE)
    assert "sdxl (1)" in str(world.properties(NOTE)["lv_message"])
    assert world.properties(NOTE)["lv_status"] == "done"


def test_named_adapters_are_drawn_though_they_have_a_picture_and_their_weight_counts(world: World) -> None:
    library(world, "seen", "other")
    Image.new("RGB", (8, 8)).save(world.loras / "seen.preview.png")
    ask(world, loras=["seen 0.6"])
    with running(world) as daemon:
        world.finish(daemon, NOTE)
        standing = shown(daemon)
    assert list(standing) == ["seen"]
    assert standing["seen"].named
    chunk = read_chunk(world.vault / standing["seen"].path)
    assert chunk is not None
    assert chunk["adapters"][0]["unet"] == 0.6
    assert "0.6" in callouts(world)[0]


def test_the_same_named_picture_is_not_drawn_twice(world: World) -> None:
    library(world, "ink")
    ask(world, loras=["ink"])
    with running(world) as daemon:
        world.finish(daemon, NOTE)
        retick(world, NOTE)
        world.work(daemon, lambda: "nothing changed" in str(world.properties(NOTE).get("lv_message")))
    assert len(pictures(world)) == 1


def test_an_unknown_name_is_told_with_the_nearest(world: World) -> None:
    library(world, "ink_outline")
    ask(world, loras=["ink_outlin"])
    with running(world) as daemon:
        world.finish(daemon, NOTE)
    assert world.properties(NOTE)["lv_status"] == "failed"
    assert "Nearest: ink_outline" in callouts(world, "failure")[0]


@pytest.mark.parametrize(
    ("properties", "says"),
    [
        ({"count": "many"}, '"count" is "many"'),
        ({"base": "nowhere"}, 'There is no base "nowhere"'),
        ({"base": "some/where"}, "a request does not download one"),
    ],
)
def test_what_is_wrong_with_the_request_is_told(world: World, properties: dict[str, str], says: str) -> None:
    library(world, "ink")
    ask(world, **properties)
    with running(world) as daemon:
        world.finish(daemon, NOTE)
    assert says in callouts(world, "failure")[0]
    assert pictures(world) == []


def test_the_users_own_prompt_and_seed_are_used_and_the_answer_stands_below_the_block(world: World) -> None:
    library(world, "ghost", "ink", **{"modelspec.trigger_phrase": "gho"})
    ask(world, "a gho on a beach", "#| steps: 7\na boat at night", seed=7)
    with running(world) as daemon:
        world.finish(daemon, NOTE)
        standing = shown(daemon)

    note = parse_note((world.vault / NOTE).read_bytes())
    assert [region.fence_index for region in note.regions if region.intact] == [0, 1]
    texts = sorted((read_meta(path).infotext or "").partition("\n")[0] for path in pictures(world))  # type: ignore[union-attr]
    assert len(texts) == 4
    assert {text.partition(" <lora")[0] for text in texts} == {"a gho on a beach", "gho, a boat at night"}
    assert all(row.seed == 7 for row in standing.values())
    first_block = note.prompts[0].block_hash
    assert {row.block_hash for row in standing.values()} == {first_block}, "the first block's picture is the cover"


def test_one_that_fails_does_not_keep_the_others_back(world: World) -> None:
    library(world, "good")
    library(world, "bad", **{"modelspec.trigger_phrase": "fake:user"})
    ask(world)
    with running(world) as daemon:
        world.finish(daemon, NOTE)
        assert list(shown(daemon)) == ["good"]
    [callout] = callouts(world)
    assert "1 preview" in callout
    assert "preview of bad: The fake engine was told to refuse this." in callout
    assert world.properties(NOTE)["lv_status"] == "partial"


def test_if_all_fail_it_is_a_failure(world: World) -> None:
    library(world, "bad", **{"modelspec.trigger_phrase": "fake:user"})
    ask(world)
    with running(world) as daemon:
        world.finish(daemon, NOTE)
    [callout] = callouts(world, "failure")
    assert callout.startswith("[!failure] No preview was made")
    assert world.properties(NOTE)["lv_status"] == "failed"


def test_two_adapters_of_one_name_are_two(world: World) -> None:
    library(world, "Old/cat", "New/cat")
    ask(world)
    with running(world) as daemon:
        world.finish(daemon, NOTE)
        with daemon.ctx.index.session() as session:
            assert len({row.stands_for for row in covers.standing(session)}) == 2


# ---- what survives


def test_a_run_whose_index_was_lost_adopts_what_it_made_and_makes_the_rest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.01")
    library(world, "a", "b", "c", "d")
    ask(world, count=3)
    with running(world) as daemon:
        world.work(daemon, lambda: len(pictures(world)) == 1 and world.status(NOTE) in ("queued", "running"))
    made = {path: path.stat().st_mtime_ns for path in pictures(world)}
    assert 1 <= len(made) < 3
    forget_index(world)

    with running(world) as daemon:
        world.finish(daemon, NOTE)
        assert sorted(shown(daemon)) == ["a", "b", "c"], "the same three"
    assert {path: path.stat().st_mtime_ns for path in made} == made, "what was made is not made again"
    assert len(pictures(world)) == 3
    [callout] = callouts(world)
    assert "3 previews" in callout


def test_after_an_index_is_lost_shown_adapters_count_as_shown(world: World) -> None:
    library(world, "a", "b")
    ask(world)
    with running(world) as daemon:
        world.finish(daemon, NOTE)
    before = world.read(NOTE)
    forget_index(world)
    with running(world) as daemon:
        for _ in range(30):
            daemon.tick()
        assert world.read(NOTE) == before
        retick(world, NOTE)
        world.work(daemon, lambda: "has a picture" in str(world.properties(NOTE).get("lv_message")))
    assert len(pictures(world)) == 2


# ---- by themselves


def test_auto_goes_on_until_every_adapter_is_shown_and_then_rests(world: World) -> None:
    library(world, "a", "b", "c", "d", "e")
    ask(world, run=False, auto=True, count=2)
    with running(world) as daemon:
        world.work(daemon, lambda: len(pictures(world)) == 5, timeout=40)
        world.work(daemon, lambda: world.results(NOTE) == 3)
        world.finish(daemon, NOTE)
        settled = world.read(NOTE)
        for _ in range(60):
            daemon.tick()
        assert world.read(NOTE) == settled
        assert len(pictures(world)) == 5
        library(world, "f")
        daemon.refresh()
        world.work(daemon, lambda: len(pictures(world)) == 6, timeout=30)


def test_auto_never_repeats_a_picture_that_failed(world: World) -> None:
    library(world, "good")
    library(world, "bad", **{"modelspec.trigger_phrase": "fake:user"})
    ask(world, run=False, auto=True)
    with running(world) as daemon:
        world.work(daemon, lambda: world.is_answered(NOTE))
        library(world, "later")
        daemon.refresh()
        world.work(daemon, lambda: len(pictures(world)) == 2)
        world.finish(daemon, NOTE)
        with daemon.ctx.index.session() as session:
            failed = [job for run in work.last_runs(session, 9) for job in work.jobs_of(session, run.id)]
        assert sum(job.state == "failed" for job in failed) == 1


def test_what_somebody_waits_for_goes_before_pictures_nobody_waits_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.01")
    library(world, "a", "b", "c", "d")
    ask(world, run=False, auto=True)
    with running(world) as daemon:
        world.work(daemon, lambda: daemon.dispatcher.job is not None)
        world.request("Cat.md", "a red cat")
        world.work(daemon, lambda: world.status("Cat.md") == "done")
        assert len(pictures(world)) < 5, "the previews were not all made before"
        world.finish(daemon, NOTE)
    assert len(pictures(world)) == 5


def test_auto_waits_for_what_runs(world: World) -> None:
    library(world, "a")
    with running(world) as daemon:
        world.request("Cat.md", "a red cat fake:slow=0.05")
        world.work(daemon, lambda: daemon.dispatcher.job is not None)
        ask(world, run=False, auto=True)
        world.finish(daemon, "Cat.md")
        world.work(daemon, lambda: world.is_answered(NOTE))
        with daemon.ctx.index.session() as session:
            (preview,) = session.exec(select(JobRow).where(JobRow.note == NOTE)).all()
            (cat,) = session.exec(select(JobRow).where(JobRow.note == "Cat.md")).all()
        assert preview.created >= (cat.finished or float("inf")) > cat.created


def test_a_cancelled_queue_stays_still_until_its_wish_changes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAVAULT_FAKE_STEP_S", "0.02")
    library(world, *"abcdef")
    ask(world, run=False, auto=True, count=2)
    with running(world) as daemon:
        world.work(daemon, lambda: world.status(NOTE) in ("queued", "running"))
        path = world.vault / NOTE
        path.write_bytes(path.read_bytes().replace(b"auto: true", b"auto: true\ncancel: true"))
        world.work(daemon, lambda: world.properties(NOTE).get("cancel") is False)
        world.finish(daemon, NOTE)
        made = len(pictures(world))
        for _ in range(150):
            daemon.tick()
        assert len(pictures(world)) == made <= 2
        path.write_bytes(path.read_bytes().replace(b"count: 2", b"count: 6"))
        world.work(daemon, lambda: len(pictures(world)) >= 4, timeout=30)


def test_a_note_that_is_nearly_full_grows_no_further_by_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is full after two pictures; one more may be under way before their answers stand in it."""
    monkeypatch.setattr("loravault.jobs.showing.FULL_BYTES", 900)
    library(world, *"abcde")
    path = ask(world, run=False, auto=True, count=1)
    with running(world) as daemon:
        world.work(daemon, lambda: "nearly too long" in problem(daemon))
        made = len(pictures(world))
        for _ in range(30):
            daemon.tick()
        assert len(pictures(world)) == made < 5
        assert len(path.read_bytes()) > 900


def problem(daemon: Daemon) -> str:
    with daemon.ctx.index.session() as session:
        row = notes.note_at(session, NOTE)
        return (row.problem or "") if row is not None else ""


def test_a_preview_becomes_the_cover(world: World) -> None:
    library(world, "ink")
    ask(world)
    with running(world) as daemon:
        world.finish(daemon, NOTE)
        with daemon.ctx.index.session() as session:
            [row] = covers.standing(session)
        world.work(daemon, lambda: bool(list((world.vault / "LoraVault/Images").rglob("lv-cover-*"))))
    [cover] = (world.vault / "LoraVault/Images").rglob("lv-cover-*")
    chunk = read_chunk(cover)
    assert chunk is not None
    assert chunk["cover"] == row.stands_for
    assert json.loads(row.adapters) == [row.stands_for]
