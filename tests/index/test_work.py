"""Runs and jobs in the index: the claim is one statement, the queue is fair, nothing is claimed twice."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from sqlmodel import select

from loravault.index import work
from loravault.index.database import Index
from loravault.index.tables import JobRow, RunRow


def job(
    job_id: str, *, run: str = "r1", seq: int = 0, created: float = 1000.0, setup: str = "", note: str = "a.md"
) -> JobRow:
    return JobRow(
        id=job_id,
        run=run,
        seq=seq,
        note=note,
        block_hash="b" * 16,
        ordinal=0,
        first_line="a red cat",
        fingerprint="f" + job_id,
        created=created,
        setup=setup,
    )


def filled(path: Path, jobs: list[JobRow]) -> Index:
    index = Index(path / "index.sqlite")
    with index.session() as session:
        work.insert_run(session, RunRow(id="r1", note="a.md", created=1000.0), jobs)
    return index


def claims(index: Index, setup: str, now: float, count: int) -> list[str]:
    taken = []
    for _ in range(count):
        with index.session() as session:
            rows = work.claim(session, setup, now)
        taken.append(rows[0].id if rows else "-")
    return taken


def test_the_loaded_setup_goes_first_but_nobody_waits_for_ever(tmp_path: Path) -> None:
    jobs = [
        job("old", created=900, setup="x"),
        job("mine", created=990, setup="y", seq=1),
        job("also", created=991, setup="y", seq=2),
    ]
    index = filled(tmp_path, jobs)

    assert claims(index, "y", 950, 1) == ["mine"]
    assert claims(index, "y", 970, 3) == ["old", "also", "-"]
    index.close()


def test_a_claim_can_be_limited_to_notes(tmp_path: Path) -> None:
    index = filled(tmp_path, [job("one"), job("two", note="b.md", seq=1)])
    with index.session() as session:
        assert work.claim(session, "", 1000, only=set()) == []
        (row,) = work.claim(session, "", 1000, only={"b.md"})
        assert (row.id, row.state, row.attempts) == ("two", "claimed", 0)
        work.begin(session, row)
    assert (row.state, row.attempts) == ("running", 1)
    index.close()


def test_replanning_forgets_the_run_with_its_jobs(tmp_path: Path) -> None:
    index = filled(tmp_path, [job("one"), job("two", seq=1)])
    with index.session() as session:
        work.delete_run(session, "r1")
    with index.session() as session:
        assert session.exec(select(JobRow)).all() == []
        assert work.unaccepted_run_of(session, "a.md") is None
    index.close()


CLAIMER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from sqlmodel import select
    from loravault.index import work
    from loravault.index.database import Index
    from loravault.index.tables import JobRow

    def naive(session):
        row = session.exec(select(JobRow).where(JobRow.state == "queued").order_by(JobRow.id)).first()
        if row is None:
            return None
        row.state = "running"
        session.add(row)
        return row

    index = Index(Path(sys.argv[1]))
    mode = sys.argv[2]
    if mode == "naive":
        # the twin also forgets BEGIN IMMEDIATE, as a plain SQLModel program would
        from sqlalchemy import create_engine
        from sqlmodel import Session
        engine = create_engine(f"sqlite:///{sys.argv[1]}", connect_args={"timeout": 30})
    while True:
        if mode == "naive":
            from sqlalchemy.exc import OperationalError
            try:
                with Session(engine) as session:
                    row = naive(session)
                    name = row.id if row else None
                    session.commit()
            except OperationalError:
                continue
        else:
            with index.session() as session:
                rows = work.claim(session, "", 1000.0, orders=3, pictures=16)
                name = " ".join(row.id for row in rows) or None
        if name is None:
            break
        print(name, flush=True)
    """
)


def _race(tmp_path: Path, mode: str, jobs: int) -> list[str]:
    filled(tmp_path, [job(f"j{number:04}", seq=number) for number in range(jobs)]).close()
    path = str(tmp_path / "index.sqlite")
    processes = [
        subprocess.Popen([sys.executable, "-c", CLAIMER, path, mode], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    return [line for process in processes for line in process.communicate(timeout=50)[0].split()]


def test_four_processes_never_claim_a_job_twice(tmp_path: Path) -> None:
    taken = _race(tmp_path, "real", 150)
    assert sorted(taken) == [f"j{number:04}" for number in range(150)]


def test_the_race_catches_the_natural_but_wrong_claim(tmp_path: Path) -> None:
    """Select, set, commit: the obvious code claims twice. A race that did not show it would prove nothing."""
    taken = _race(tmp_path, "naive", 300)
    assert len(taken) > len(set(taken)), "checker is broken"


def alike(job_id: str, *, count: int = 1, **more: object) -> JobRow:
    row = job(job_id, setup="s" * 32, seq=int(job_id[1:]))
    row.alike, row.count = "k", count
    for name, value in more.items():
        setattr(row, name, value)
    return row


def claimed(index: Index, **more: int) -> list[str]:
    with index.session() as session:
        return [row.id for row in work.claim(session, "", 1000, **more)]


def test_companions_come_with_the_job_whose_turn_it_is(tmp_path: Path) -> None:
    others = [alike("j2", alike="other"), alike("j4", setup="t" * 32), alike("j5", background=True)]
    index = filled(tmp_path, [alike("j1"), *others, alike("j3"), alike("j6")])
    assert claimed(index, orders=8, pictures=16) == ["j1", "j3", "j6"]
    with index.session() as session:
        states = {row.id: (row.state, row.attempts) for row in session.exec(select(JobRow)).all()}
    assert {states[name] for name in ("j1", "j3", "j6")} == {("claimed", 0)}
    assert {states[name] for name in ("j2", "j4", "j5")} == {("queued", 0)}
    index.close()


def test_companions_fill_the_window_and_no_more(tmp_path: Path) -> None:
    index = filled(tmp_path, [alike("j1", count=40), *(alike(f"j{n}", count=3) for n in range(2, 9))])
    assert claimed(index, orders=8, pictures=16) == ["j1"], "one that is larger than the window comes alone"
    assert claimed(index, orders=8, pictures=10) == ["j2", "j3", "j4"]
    assert claimed(index, orders=2, pictures=16) == ["j5", "j6"]
    index.close()


def test_a_job_over_which_a_worker_was_lost_comes_alone(tmp_path: Path) -> None:
    """One poison job does not take its companions with it a second time."""
    lost, interrupted = alike("j1", attempts=1), alike("j3", attempts=2, interrupted=2)
    index = filled(tmp_path, [lost, alike("j2"), interrupted, alike("j4")])
    assert claimed(index, orders=8, pictures=16) == ["j1"]
    assert claimed(index, orders=8, pictures=16) == ["j2", "j3", "j4"], "that we were killed is no fault of the job"
    index.close()


def test_a_try_counts_from_when_the_worker_is_at_it(tmp_path: Path) -> None:
    index = filled(tmp_path, [alike("j1", attempts=1)])
    with index.session() as session:
        (row,) = work.claim(session, "", 1000)
        assert work.was_lost(row)
        work.give_back(session, row)
        assert (row.state, row.attempts) == ("queued", 1), "it only waited"
        (row,) = work.claim(session, "", 1000)
        work.begin(session, row)
        assert (row.state, row.attempts, work.was_lost(row)) == ("running", 2, True)
        work.give_back(session, row)
        assert (row.state, row.attempts) == ("queued", 1), "through no fault of its own"
    index.close()


def test_a_base_that_is_loaded_is_preferred_to_another_one(tmp_path: Path) -> None:
    ours, theirs = "b" * 16, "c" * 16
    jobs = [
        alike("j1", setup=theirs + "0" * 16),
        alike("j2", setup=ours + "1" * 16),
        alike("j3", setup=ours + "0" * 16),
    ]
    index = filled(tmp_path, jobs)
    assert claims(index, ours + "0" * 16, 1000, 3) == ["j3", "j2", "j1"]
    index.close()


def test_only_what_was_not_mended_since_is_told_as_failed(tmp_path: Path) -> None:
    """A note that failed, was corrected and made its picture stood among the failures; one that made a part did not."""
    runs = [("mended.md", "failed", 1.0), ("half.md", "partial", 2.0), ("mended.md", "done", 3.0),
            ("worse.md", "done", 4.0), ("worse.md", "failed", 5.0)]  # fmt: skip
    index = Index(tmp_path / "index.sqlite")
    with index.session() as session:
        for number, (note, status, when) in enumerate(runs):
            run = RunRow(id=str(number), note=note, created=when, status=status, finished=when, closed=True)
            work.insert_run(session, run, [])
    with index.session() as session:
        assert [run.note for run in work.unmended_runs(session, 5)] == ["worse.md", "half.md"]
        assert [run.note for run in work.unmended_runs(session, 1)] == ["worse.md"]
        assert work.unmended_count(session) == 2
        work.insert_run(session, RunRow(id="again", note="worse.md", created=6.0), [])
        assert [run.note for run in work.unmended_runs(session, 5)] == ["half.md"], "it is being tried again"


def test_what_was_made_last_leaves_out_the_ticks_that_had_nothing_to_make(tmp_path: Path) -> None:
    """`nothing changed: …` stood under "Made last", in front of the picture that was made."""
    index = Index(tmp_path / "index.sqlite")
    with index.session() as session:
        for number, has_work in enumerate((True, False, True)):
            run = RunRow(id=f"r{number}", note="a.md", created=number, status="done", finished=number, closed=True)
            work.insert_run(session, run, [job(f"j{number}", run=run.id)] if has_work else [])
    with index.session() as session:
        assert [run.id for run in work.last_made(session, 5)] == ["r2", "r0"]
        assert [run.id for run in work.last_runs(session, 5)] == ["r2", "r1", "r0"], "`queue` tells all of them"
    index.close()
