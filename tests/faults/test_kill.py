"""W2 and W3: kill -9 at a random moment and at every step. A note is old or new, whole, and restart leaves no trace."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from loravault import failpoints
from loravault.vault.ledger import Ledger
from loravault.vault.safewrite import VaultWriter
from tests.faults.editors import in_child, is_whole, leftovers, sealed

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]  # a loaded machine is slow, not wrong


def writer_of(tmp: Path, *, exchange: bool = True, grace: float = 0.0) -> VaultWriter:
    ledger = Ledger(tmp / "state" / "ledger.jsonl")
    return VaultWriter(tmp / "vault", ledger, tmp / "state" / "displaced", grace, can_exchange=exchange)


def write_forever(tmp: Path, *, exchange: bool) -> None:
    writer = writer_of(tmp, exchange=exchange)
    note = tmp / "vault" / "note.md"
    for number in range(1, 10**9):
        writer.replace("note.md", note.read_bytes(), sealed(number))
        writer.verify_due()


def write_plainly(tmp: Path) -> None:
    """The known-bad twin."""
    for number in range(1, 10**9):
        with (tmp / "vault" / "note.md").open("wb") as file:
            file.write(sealed(number))


def torn_notes(tmp: Path, trials: int, action: Callable[[], None]) -> int:
    (tmp / "vault").mkdir(exist_ok=True)
    note = tmp / "vault" / "note.md"
    note.write_bytes(sealed(0))
    chance = random.Random(trials)
    torn = 0
    for _ in range(trials):
        assert os.WIFSIGNALED(in_child(action, kill_after=chance.uniform(0, 0.02)))
        if not is_whole(note.read_bytes()):
            torn += 1
            note.write_bytes(sealed(0))
        sentences = writer_of(tmp).recover()
        assert (sentences, leftovers(tmp / "vault")) == ([], [])
    return torn


@pytest.mark.parametrize("exchange", [True, False])
def test_three_hundred_kills_tear_no_note_and_leave_no_temp(tmp_path, exchange):
    assert torn_notes(tmp_path, 150, lambda: write_forever(tmp_path, exchange=exchange)) == 0


def test_teeth_a_plain_writer_tears_notes_and_the_harness_sees_it(tmp_path):
    assert torn_notes(tmp_path, 40, lambda: write_plainly(tmp_path)) >= 1, "the checker is broken"


def scenario(tmp: Path, *, exchange: bool, until: Callable[[], None] | None = None) -> list[str]:
    """Every kind of write there is; each step is a no-op if it was done before, as after a restart."""
    writer = writer_of(tmp, exchange=exchange)
    told = writer.recover()
    root = tmp / "vault"
    if not (root / "new/made.md").exists():
        writer.create("new/made.md", sealed(1, 500))
    for old, new in ((0, 1), (1, 2)):
        if (root / "note.md").read_bytes() == sealed(old, 500):
            writer.replace("note.md", sealed(old, 500), sealed(new, 500))
    writer.publish("Images/lv-1.webp", sealed(3, 500))
    page = root / "page.md"
    for number in (4, 5):
        writer.write_own("page.md", sealed(number, 500), page.read_bytes() if page.exists() else None)
    return told + writer.verify_due()


def at_nth_step(number: int, action: Callable[[], None]) -> Callable[[str], None]:
    reached = [0]

    def hook(name: str) -> None:
        reached[0] += 1
        if reached[0] == number:
            action()

    return hook


def prepared(tmp: Path) -> Path:
    (tmp / "vault").mkdir(parents=True)
    (tmp / "vault" / "note.md").write_bytes(sealed(0, 500))
    return tmp


def check_everything_whole(tmp: Path) -> None:
    files = [p for p in (tmp / "vault").rglob("*") if p.is_file() and not p.name.startswith(".lv-")]
    assert files
    assert all(is_whole(p.read_bytes()) for p in files)


@pytest.mark.parametrize("exchange", [True, False])
def test_a_kill_at_every_single_step_is_mended_by_the_next_start(tmp_path, exchange):
    """Crash at the first step, the second, … until the scenario ends by itself (SQLite's method)."""
    for number in range(1, 500):
        tmp = prepared(tmp_path / str(number))

        def crash(tmp: Path = tmp, number: int = number) -> None:
            failpoints.hook = at_nth_step(number, lambda: os.kill(os.getpid(), signal.SIGKILL))
            scenario(tmp, exchange=exchange)

        status = in_child(crash)
        check_everything_whole(tmp)
        scenario(tmp, exchange=exchange)
        writer_of(tmp).recover()
        check_everything_whole(tmp)
        root = tmp / "vault"
        assert (root / "note.md").read_bytes() == sealed(2, 500)
        assert (root / "page.md").read_bytes() == sealed(5, 500)
        assert leftovers(root) == []
        if status == 0:
            break
    assert number - 1 >= 35, "fewer crash points than the protocol has steps"


def test_an_error_at_every_single_step_is_reported_and_leaves_nothing_behind(tmp_path):
    """The disk is full at the n-th step: it is raised or told, nothing is torn, and trying again succeeds."""

    def full() -> None:
        raise OSError(28, "No space left on device")

    failures = 0
    for number in range(1, 500):
        tmp = prepared(tmp_path / str(number))
        failpoints.hook = at_nth_step(number, full)
        try:
            told = scenario(tmp, exchange=True)
        except OSError as error:
            failures += error.errno == 28
        else:
            if not told:
                break
            failures += all("No space left" in sentence for sentence in told)
        finally:
            failpoints.hook = None
        check_everything_whole(tmp)
        scenario(tmp, exchange=True)
        writer_of(tmp).recover()
        assert leftovers(tmp / "vault") == []
        assert (tmp / "vault" / "note.md").read_bytes() == sealed(2, 500)
    assert failures == number - 1 >= 35
