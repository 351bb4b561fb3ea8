"""W6: whole histories of edits, answers, crashes and restarts. No text that was saved is lost, no answer is doubled."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Collection
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from loravault import failpoints
from loravault.vault.answers import Answer, strip_ours
from loravault.vault.ledger import Ledger
from loravault.vault.note import block_hash, parse_note
from loravault.vault.properties import EditRefused
from loravault.vault.safewrite import NoteChanged, VaultWriter
from tests.answering import apply_answers
from tests.faults.editors import in_child

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]  # a loaded machine is slow, not wrong
STEPS = tuple(name for name in failpoints.NAMES if name.startswith("write."))
START = b"---\nloravault: generate\nrun: true\n---\nmine\n\n```prompt\na cat\n```\n\nend\n"


class History(RuleBasedStateMachine):
    """One note, one user with an editor, one writer. The user's words are numbered; every save holds all of them."""

    careful = True
    can_exchange = True

    @initialize()
    def start(self) -> None:
        self.tmp = Path(tempfile.mkdtemp())
        (self.tmp / "vault").mkdir()
        self.note = self.tmp / "vault" / "note.md"
        self.note.write_bytes(START)
        self.clock = 1_700_000_000.0
        self.words = 0
        self.jobs = 0
        self.buffer = START
        self.open_file = -1
        self.held_long = False  # the open file was displaced longer ago than the grace
        self.only_displaced = False  # so the newest text may be in displaced/ alone: the one case that is not promised
        self.restart()

    def teardown(self) -> None:
        if hasattr(self, "tmp"):
            self.close_editor()
            self.settle()
            self.nothing_is_lost()
            shutil.rmtree(self.tmp)

    def restart(self) -> None:
        ledger = Ledger(self.tmp / "ledger.jsonl")
        displaced = self.tmp / "displaced"
        self.writer = VaultWriter(
            self.tmp / "vault", ledger, displaced, 3.0, lambda: self.clock, can_exchange=self.can_exchange
        )
        self.writer.recover()
        self.held_long = True

    # ---- the user

    def type_word(self) -> bytes:
        self.words += 1
        self.buffer = self.buffer.replace(b"\nmine", f"\nword{self.words}.\nmine".encode(), 1)
        return self.buffer

    @rule()
    def user_reloads(self) -> None:
        self.buffer = self.note.read_bytes() if f"word{self.words}." in self.note.read_text() else self.buffer

    @rule(style=st.sampled_from(["in place", "rename"]))
    def user_saves(self, style: str) -> None:
        if style == "rename" and self.open_file >= 0:
            return  # one user, one editor: it does not save past the file it has open
        text = self.type_word()
        self.only_displaced = False
        if style == "in place":
            self.note.write_bytes(text)
        else:
            other = self.note.with_name(".editor")
            other.write_bytes(text)
            os.replace(other, self.note)

    @precondition(lambda self: self.open_file < 0)
    @rule()
    def user_opens_to_save(self) -> None:
        self.open_file = os.open(self.note, os.O_RDWR)
        self.held_long = False

    @precondition(lambda self: self.open_file >= 0)
    @rule()
    def user_writes_into_the_open_file(self) -> None:
        text = self.type_word()
        os.ftruncate(self.open_file, 0)
        os.pwrite(self.open_file, text, 0)
        self.only_displaced = self.held_long
        self.close_editor()

    def close_editor(self) -> None:
        if self.open_file >= 0:
            os.close(self.open_file)
            self.open_file = -1

    # ---- the daemon

    def compose(self, data: bytes) -> bytes:
        answers = [
            Answer(
                f"j{n}", block_hash("a cat"), 0, "result", ("[!lora-result]+ 1 image", f"![[j{n}.webp|256]]"), "a cat"
            )
            for n in range(1, self.jobs + 1)
        ]
        return apply_answers(data, answers, {"run": False, "lv_status": "done"})

    def deliver(self) -> None:
        base = self.note.read_bytes()
        new = self.compose(base)
        if self.careful:
            self.writer.replace("note.md", base, new, self.compose)
        else:  # the known-bad twin
            failpoints.reach("write.checked")
            self.note.write_bytes(new)

    @rule()
    def job_ends(self) -> None:
        self.jobs += 1

    @rule(step=st.sampled_from(STEPS), style=st.sampled_from(["in place", "rename", "open file", "none"]))
    def daemon_delivers(self, step: str, style: str) -> None:
        """Deliver, while the user saves at one of the steps."""

        def edit(name: str) -> None:
            if name == step:
                failpoints.hook = None
                if style == "open file" and self.open_file < 0:
                    self.user_opens_to_save()
                elif style in ("in place", "rename"):
                    self.user_saves(style)

        failpoints.hook = edit if style != "none" else None
        try:
            self.deliver()
        except (NoteChanged, EditRefused):
            pass
        finally:
            failpoints.hook = None

    @rule(step=st.sampled_from(STEPS))
    def daemon_is_killed_while_delivering(self, step: str) -> None:
        def run() -> None:
            failpoints.hook = lambda name: os.kill(os.getpid(), signal.SIGKILL) if name == step else None
            with contextlib.suppress(NoteChanged, EditRefused):
                self.deliver()

        in_child(run)
        self.restart()

    @rule(seconds=st.sampled_from([1.0, 4.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock += seconds
        self.writer.verify_due()
        self.held_long = True

    def settle(self) -> None:
        for _ in range(8):
            self.clock += 4
            self.writer.verify_due()

    # ---- what must hold

    def texts(self) -> list[bytes]:
        files = [p for p in (self.tmp / "vault").iterdir() if p.suffix in (".md", ".tmp")]
        if self.only_displaced:
            files += (self.tmp / "displaced").glob("*")
        return [p.read_bytes() for p in files]

    @invariant()
    def nothing_is_lost(self) -> None:
        """The newest text the user saved is in the note, in a conflict copy, or about to become one."""
        if not hasattr(self, "tmp") or not self.words:
            return
        assert any(f"word{self.words}.".encode() in text for text in self.texts())

    @invariant()
    def the_note_is_whole_and_no_answer_is_doubled(self) -> None:
        if not hasattr(self, "tmp"):
            return
        data = self.note.read_bytes()
        note = parse_note(data)
        jobs = [region.job for region in note.regions]
        assert len(jobs) == len(set(jobs))
        assert all(region.intact for region in note.regions)
        assert strip_ours(data).endswith(b"mine\n\n```prompt\na cat\n```\n\nend\n")


def play(machine: type[History], examples: int, phases: Collection[Phase] = tuple(Phase)) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=15,
            deadline=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("exchange", [True, False])
def test_in_no_history_a_saved_text_is_lost_or_an_answer_doubled(exchange):
    play(type("Machine", (History,), {"can_exchange": exchange}), 40)


def test_teeth_a_writer_that_does_not_look_again_is_caught():
    """Sixty histories miss it now and then; it ends with the first that shows it, which need not be made short."""
    with pytest.raises(AssertionError):
        play(type("Careless", (History,), {"careful": False}), 1000, phases=(Phase.generate,))
