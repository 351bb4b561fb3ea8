"""Failpoints are named in one place, cost nothing, and kill where they are asked to."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import loravault
from loravault.failpoints import NAMES

PACKAGE = Path(loravault.__file__).parent


def test_every_failpoint_in_the_code_is_named_with_what_a_crash_there_leaves_and_none_is_left_over():
    used = {
        name for path in PACKAGE.rglob("*.py") for name in re.findall(r'\breach\("([^"]+)"\)', path.read_text("utf-8"))
    }
    assert used == set(NAMES)
    assert all(NAMES.values())


@pytest.mark.parametrize(
    ("at", "survives"), [("write.planned", 0), ("write.planned:3", 2), ("write.intent", 5), ("", 5)]
)
def test_a_process_dies_at_the_nth_time_it_is_asked_to(at, survives):
    code = (
        "from loravault.failpoints import reach\nfor n in range(5):\n    reach('write.planned'); print(n, flush=True)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env={"LORAVAULT_CRASH_AT": at}, capture_output=True, text=True, check=False
    )
    assert run.stdout.split() == [str(n) for n in range(survives)]
    assert run.returncode == (0 if survives == 5 else -signal.SIGKILL)
