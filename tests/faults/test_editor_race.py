"""W1: an editor saves while we write. The user's text is in the note or in a conflict copy, always."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loravault.vault.ledger import Ledger
from loravault.vault.safewrite import NoteChanged, VaultWriter
from tests.faults.editors import STYLES, EditorProcess

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]  # a loaded machine is slow, not wrong
GRACE = 0.06
BATCH = 30
Write = Callable[[VaultWriter, Path, bytes, bytes], None]


@pytest.fixture
def editor() -> Iterator[EditorProcess]:
    process = EditorProcess()
    yield process
    process.close()


def careful(writer: VaultWriter, path: Path, base: bytes, new: bytes) -> None:
    writer.replace(path.name, base, new)


def blind(writer: VaultWriter, path: Path, base: bytes, new: bytes) -> None:
    """The known-bad twin: read, modify, replace."""
    temp = path.with_suffix(".blind")
    temp.write_bytes(new)
    time.sleep(0.001)
    os.replace(temp, path)


def lost_saves(
    tmp: Path, editor: EditorProcess, style: str, trials: int, write: Write, *, exchange: bool = True
) -> int:
    """How many of so many saves, each within 6 ms of one of our writes, are found nowhere afterwards."""
    root = tmp / "vault"
    root.mkdir()
    chance = random.Random(f"{style}{trials}")
    writer = VaultWriter(root, Ledger(tmp / "ledger.jsonl"), tmp / "displaced", GRACE, can_exchange=exchange)
    lost = 0
    for first in range(0, trials, BATCH):
        numbers = range(first, min(first + BATCH, trials))
        for number in numbers:
            _one_race(root / f"n{number}.md", writer, editor, (style, number, chance), write)
        until = time.monotonic() + 40 * GRACE
        while writer.pending_checks and time.monotonic() < until:
            time.sleep(GRACE / 3)
            writer.verify_due()
        assert not writer.pending_checks
        for number in numbers:
            texts = [p.read_bytes() for p in root.glob(f"n{number}*.md")]
            lost += not any(f"typed {number}!".encode() in text for text in texts)
    assert not list(root.glob(".lv-*"))
    return lost


def _one_race(
    path: Path, writer: VaultWriter, editor: EditorProcess, race: tuple[str, int, random.Random], write: Write
) -> None:
    style, number, chance = race
    base = b"a note\n" * 800
    path.write_bytes(base)
    editor.start_save(path, f"typed {number}!" * 200, style, chance.uniform(0, 0.006))
    until = time.perf_counter() + chance.uniform(0, 0.006)
    while time.perf_counter() < until:
        pass
    try:
        found = path.read_bytes()
        write(writer, path, found, found + b"ours\n")
    except (NoteChanged, FileNotFoundError):
        pass
    assert editor.finish() == "done"


@pytest.mark.parametrize("style", STYLES)
def test_no_save_is_lost(tmp_path, editor, style):
    assert lost_saves(tmp_path, editor, style, 60, careful) == 0


@pytest.mark.parametrize("style", ["in place", "slow", "append"])
def test_without_exchange_no_save_into_the_open_file_is_lost(tmp_path, editor, style):
    assert lost_saves(tmp_path, editor, style, 30, careful, exchange=False) == 0


def test_teeth_a_blind_writer_loses_saves_and_the_harness_sees_it(tmp_path, editor):
    assert lost_saves(tmp_path, editor, "in place", 60, blind) >= 1, "the checker is broken"
