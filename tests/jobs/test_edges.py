"""Stories of a review: each of these once lost a wish, doubled an answer, or ran for ever."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from loravault.daemon import BUSY_S, Daemon
from loravault.index import work
from loravault.vault.note import parse_note
from tests.jobs.test_path import queued, retick, running, write_gate_closed
from tests.jobs.test_recovery import forget_index, pictures
from tests.jobs.test_wishes import told
from tests.world import World


def spin(daemon: Daemon, seconds: float = 1.0) -> None:
    """Let it run, as it would by itself."""
    over = threading.Event()
    threading.Timer(seconds, over.set).start()
    daemon.run(over)


FLOW = '---\n{"loravault": "generate", "run": true, "seed": 5}\n---\n```prompt\na red cat\n```\n'


@pytest.mark.parametrize(
    "text",
    [
        FLOW,
        FLOW.replace('"seed": 5', '"steps": 3'),
        "---\nloravault: generate\nrun: &a true\n---\n```prompt\na cat\n```\n",
    ],
)
def test_a_box_that_cannot_be_reset_is_obeyed_once_and_the_answer_says_why(world: World, text: str) -> None:
    """Properties in JSON: the answer was written, `run: true` stayed and was taken for a new tick, again and again."""
    world.note("Flow.md", text)
    with running(world) as daemon:
        world.work(daemon, lambda: world.results("Flow.md") == 1)
        spin(daemon, 1.5)

    assert world.results("Flow.md") == 1
    assert len(pictures(world)) == 1
    assert "`run` could not be reset" in world.read("Flow.md")


def test_changed_properties_are_a_new_wish_even_where_the_box_cannot_be_reset(world: World) -> None:
    path = world.note("Flow.md", FLOW)
    with running(world) as daemon:
        world.work(daemon, lambda: world.results("Flow.md") == 1)
        path.write_text(path.read_text().replace('"seed": 5', '"seed": 6'))
        world.work(daemon, lambda: world.results("Flow.md") == 2)


def test_a_tick_set_while_we_were_dead_after_the_receipt_is_a_new_wish(world: World) -> None:
    """kill -9 between the receipt in the note and its row: the next tick was swallowed."""
    world.request("Cat.md", "a red cat")
    with running(world) as daemon:
        world.finish(daemon, "Cat.md")
        with daemon.ctx.index.session() as session:
            for run in work.last_runs(session, 5):  # as it would stand in the index after the kill
                run.accepted, run.closed, run.status = False, False, None
                session.add(run)
    retick(world, "Cat.md")
    with running(world) as daemon:
        world.work(daemon, lambda: world.results("Cat.md") == 2 and world.is_answered("Cat.md"))


def test_a_database_that_fails_for_a_moment_loses_no_tick(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loravault.daemon.TROUBLE_S", 0.1)
    world.request("A.md", "a red cat")
    world.request("B.md", "a blue dog")
    with running(world) as daemon:
        consider, failures = daemon.intake.consider, [3]

        def flaky(rel: str) -> None:
            if failures[0]:
                failures[0] -= 1
                raise OperationalError("INSERT", {}, Exception("database or disk is full"))
            consider(rel)

        monkeypatch.setattr(daemon.intake, "consider", flaky)
        daemon.run(threading.Event(), until=lambda: world.is_answered("A.md") and world.is_answered("B.md"))

    assert world.status("A.md") == world.status("B.md") == "done"


def test_a_database_that_fails_while_a_job_ends_does_not_wedge_the_queue(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loravault.daemon.TROUBLE_S", 0.1)
    world.request("A.md", "a red cat")
    world.request("B.md", "a blue dog")
    with running(world) as daemon:
        end, failures = daemon.dispatcher._publisher.end, [2]

        def flaky(*args: object, **kwargs: object) -> None:
            if failures[0]:
                failures[0] -= 1
                raise OperationalError("UPDATE", {}, Exception("database is locked"))
            end(*args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(daemon.dispatcher._publisher, "end", flaky)
        daemon.run(threading.Event(), until=lambda: world.is_answered("A.md") and world.is_answered("B.md"))

    assert world.results("A.md") == world.results("B.md") == 1
    assert len(pictures(world)) == 2


def test_a_bug_with_one_note_costs_that_note_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.request("A bad.md", "a red cat")
    world.request("B good.md", "a blue dog")
    with running(world) as daemon:
        consider = daemon.intake.consider

        def broken(rel: str) -> None:
            if rel == "A bad.md":
                raise ZeroDivisionError
            consider(rel)

        monkeypatch.setattr(daemon.intake, "consider", broken)
        world.finish(daemon, "B good.md")
        assert "A bad.md" in daemon.ctx.troubles["bug.A bad.md"]


def test_auto_forgets_no_block_that_was_written_while_the_first_one_ran(world: World) -> None:
    with running(world) as daemon:
        world.work(daemon, lambda: daemon.feed.first_look_is_over)
        daemon.tick()
        path = world.request("Auto.md", "a red cat", run=False, auto=True)
        with write_gate_closed(daemon):
            world.work(daemon, lambda: "a red cat" in queued(daemon) or bool(daemon.ctx.to_deliver))
            path.write_text(path.read_text() + "\n```prompt\na blue dog\n```\n")
            daemon.feed.look_again("Auto.md")
            spin(daemon, 0.5)
        world.work(daemon, lambda: world.results("Auto.md") == 2)


def test_auto_does_not_fire_for_a_vault_that_was_just_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh mtimes keep the read gate closed at the first look; that is no reason to call these notes new."""
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    world = World(tmp_path, read_quiet_s=0.6)
    world.request("Old.md", "an old cat", run=False, auto=True)
    with running(world) as daemon:
        spin(daemon, 2.0)

    assert world.status("Old.md") is None


def test_a_request_that_stops_being_one_is_still_answered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    path = world.request("Cat.md", "a red cat")
    with running(world) as daemon:
        with write_gate_closed(daemon):
            world.work(daemon, lambda: bool(daemon.ctx.to_deliver))
            path.write_text(path.read_text().replace("loravault: generate\n", ""))
        world.work(daemon, lambda: world.results("Cat.md") == 1)
        world.work(daemon, lambda: not daemon.ctx.to_deliver)


def test_pictures_that_cannot_be_published_are_not_drawn_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loravault.jobs.dispatch.PAUSE_S", 0.2)
    world.request("Cat.md", "a red cat", seed=1)
    with running(world) as daemon:
        publish, starts = daemon.ctx.writer.publish, 0
        start = daemon.dispatcher.lanes[0].supervisor.start

        def counted(*args: object, **kwargs: object) -> None:
            nonlocal starts
            starts += 1
            start(*args, **kwargs)  # type: ignore[arg-type]

        def full(*_args: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(daemon.dispatcher.lanes[0].supervisor, "start", counted)
        monkeypatch.setattr(daemon.ctx.writer, "publish", full)
        world.work(daemon, lambda: "publish" in daemon.ctx.troubles)
        spin(daemon, 0.8)
        monkeypatch.setattr(daemon.ctx.writer, "publish", publish)
        world.finish(daemon, "Cat.md")

    assert starts == 1
    assert world.results("Cat.md") == 1


def test_a_picture_that_was_made_before_the_index_was_lost_is_the_answer(world: World) -> None:
    world.request("Cat.md", "a red cat", count=2)
    with running(world) as daemon:
        world.work(daemon, lambda: world.status("Cat.md") in ("queued", "running"))
        with write_gate_closed(daemon):
            world.work(daemon, lambda: len(pictures(world)) == 2 and daemon.dispatcher.job is None)
    forget_index(world)
    with running(world) as daemon:
        world.finish(daemon, "Cat.md")

    assert len(pictures(world)) == 2, "nothing was drawn again"
    assert "> [!lora-result]+ 2 images · seed " in world.read("Cat.md")


def test_two_notes_with_the_same_broken_properties_are_both_answered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loravault.jobs.intake.INVALID_S", 0.1)
    broken = "---\nloravault: generate\nrun: true\ntitle: [oops\n---\n```prompt\na cat\n```\n"
    world.note("A.md", broken)
    world.note("B.md", broken)
    with running(world) as daemon:
        world.work(daemon, lambda: "> [!failure]" in world.read("A.md") and "> [!failure]" in world.read("B.md"))


def test_a_base_that_was_copied_in_is_there_at_the_next_tick(world: World) -> None:
    world.request("Cat.md", "a red cat", base="newbase")
    with running(world) as daemon:
        world.finish(daemon, "Cat.md")
        assert world.status("Cat.md") == "failed"
        world.base("newbase", 160)
        daemon.refresh()
        retick(world, "Cat.md")
        world.work(daemon, lambda: world.status("Cat.md") == "done")


def test_a_note_that_is_gone_costs_no_more_than_idling(world: World) -> None:
    path = world.request("Cat.md", "a red cat")
    with running(world) as daemon:
        world.work(daemon, lambda: bool(daemon.ctx.to_deliver))
        path.unlink()
        world.work(daemon, lambda: "Cat.md" in told(daemon) and daemon.dispatcher.job is None)
        world.work(daemon, lambda: daemon.tick() > BUSY_S)


def test_a_result_cap_never_removes_what_another_note_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAVAULT_STATE_DIR", str(tmp_path / "state"))
    world = World(tmp_path, result_cap=1)
    world.request("Cat.md", "a red cat")
    with running(world) as daemon:
        world.finish(daemon, "Cat.md")
        first = parse_note((world.vault / "Cat.md").read_bytes()).regions[0]
        world.note("Favourites.md", f"The best one: [[Cat#^lv-{first.job}-{first.checksum}]]\n")
        for count in (2, 2):
            jobs = {region.job for region in parse_note((world.vault / "Cat.md").read_bytes()).regions}
            retick(world, "Cat.md")
            world.work(
                daemon,
                lambda jobs=jobs: (
                    {r.job for r in parse_note((world.vault / "Cat.md").read_bytes()).regions} - jobs != set()
                    and world.is_answered("Cat.md")
                ),
            )
            assert world.results("Cat.md") == count, "the linked one and the newest"
        assert first.job in {region.job for region in parse_note((world.vault / "Cat.md").read_bytes()).regions}
