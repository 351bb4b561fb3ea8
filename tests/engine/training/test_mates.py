"""A training in two processes: the numbers of one with twice the batch, and nobody waits for somebody who is gone.

A machine for tests has no cards: the processes are told by `LORAVAULT_CARDS` to compute on the processor. All that
differs on cards is where the tensors lie.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from loravault.engine.ends import Stopped
from loravault.engine.training import mates as mates_module
from loravault.engine.training import steps as steps_module
from loravault.engine.training.mates import MateLost
from loravault.errors import UserError
from loravault.formats.generation import BaseRef
from loravault.formats.training import TrainingOutcome
from tests.engine.training.lessons import Lesson, same, spec_of, tensors
from tests.tiny_families import make_family

pytestmark = [pytest.mark.engine]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseRef:
    return make_family(tmp_path_factory.mktemp("mates") / "sd15", "sd15")


@pytest.fixture(autouse=True)
def two_places(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two processes of one thread each: with another number of threads sums come out otherwise in their last bits."""
    monkeypatch.setenv("LORAVAULT_CARDS", "cpu,cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(steps_module, "REPORT_EVERY_S", 0.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def lesson(folder: Path, base: BaseRef, **wishes: Any) -> Lesson:
    asked = {"batch": 1, "gpus": 2, "accumulation": 2, "flip": True, "noise_offset": 0.1, **wishes}
    return Lesson(spec_of(folder, base, **asked), folder / "out")


def others() -> list[psutil.Process]:
    """Processes of ours that compute for this one."""
    return [one for one in psutil.Process().children() if "loravault.engine.training.mate" in one.cmdline()]


def differ(one: TrainingOutcome, other: TrainingOutcome) -> float:
    """The largest difference, relative to the largest number of its tensor."""
    ours, theirs = tensors(one), tensors(other)
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max() / ours[name].abs().max().clamp(min=1e-6)) for name in ours)


@pytest.mark.timeout(120)
def test_two_processes_come_to_what_one_with_twice_the_batch_comes_to(base: BaseRef, tmp_path: Path) -> None:
    """Called off after two steps: what was learned, and the averages of the gradients, lie in the states.

    Weights themselves say less: Adam makes a whole step of a gradient that is nothing but rounding.
    """
    wishes = {"learning_rate": 1e-4, "te_rate": 1e-5}
    alone = lesson(tmp_path / "alone", base, gpus=1, batch=2, **wishes)
    together = lesson(tmp_path / "two", base, **wishes)
    seen: list[int] = []
    for one in (alone, together):
        one.cancelled = lambda it: bool(it.steps) and it.steps[-1].step >= 2
        one.paused = lambda _it: bool(seen.append(len(others())))
        with pytest.raises(Stopped):
            one.run()
    assert max(seen) == 1, "there was another one"
    assert others() == [], "and it left with the first"
    assert [one.prepared[0].plan.gpus for one in (alone, together)] == [1, 2]
    ours, theirs = learned(tmp_path / "alone"), learned(tmp_path / "two")
    torch.testing.assert_close(theirs["losses"], ours["losses"], rtol=1e-5, atol=0)
    assert ours.keys() == theirs.keys()
    averages = [name for name in ours if name.endswith("/exp_avg")]
    largest = max(float(ours[name].abs().max()) for name in averages)
    assert largest > 0
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in averages) <= 1e-5 * largest


def learned(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of the state that a training has left."""
    (path,) = (folder / "state").glob("state-*")
    return load_file(path)


# ---- when one of them is gone


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_a_process_that_is_killed_is_told_and_it_goes_on_to_the_same_bits(base: BaseRef, tmp_path: Path) -> None:
    wishes = {"batch": 2, "preserve": 0.5, "ema": 0.9, "min_snr": 5.0, "accumulation": 1}
    whole = lesson(tmp_path / "peace", base, **wishes).run()
    killed = lesson(tmp_path / "killed", base, **wishes)

    def kill(one: Lesson) -> bool:
        if one.steps and one.steps[-1].step == 2:
            for process in others():
                process.kill()
        return False

    killed.cancelled = kill
    with pytest.raises(MateLost, match=r"was killed.*What was learned is kept"):
        killed.run()
    again = lesson(tmp_path / "killed", base, **wishes)
    assert same(again.run(), whole)
    assert again.steps[0].step == 3, "no step was lost"
    assert others() == []


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_a_process_that_hangs_is_told_and_ended(base: BaseRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mates_module, "STEP_LIMIT_S", 2.0)
    stopped = lesson(tmp_path, base)

    def stop(one: Lesson) -> bool:
        if one.steps and one.steps[-1].step == 2:
            for process in others():
                process.suspend()
        return False

    stopped.cancelled = stop
    with pytest.raises(MateLost, match="was not heard of for 2 seconds"):
        stopped.run()
    assert others() == []


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_the_first_process_is_killed_and_takes_the_other_with_it(base: BaseRef, tmp_path: Path) -> None:
    """A state after every step; what goes on comes to the same bits."""
    whole = lesson(tmp_path / "peace", base, steps=9, checkpoints=3).run()
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "tests.engine.training.lessons", str(folder), "9", base.path, "2"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdout is not None
    trained = 0
    for line in child.stdout:
        trained += b"train" in line
        if trained == 5:
            break
    mates = psutil.Process(child.pid).children()
    assert len(mates) == 1
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    until = time.monotonic() + 10
    while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in mates):
        assert time.monotonic() < until
        time.sleep(0.05)
    again = lesson(folder, base, steps=9, checkpoints=3)
    assert same(again.run(), whole)
    assert again.steps[0].step > 1


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_memory_that_runs_out_on_the_other_card_makes_all_of_them_thriftier(
    base: BaseRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first step does not fit; the step is made again with activations computed twice, to the same numbers."""
    whole = lesson(tmp_path / "peace", base).run()
    code = tmp_path / "code"
    code.mkdir()
    (code / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'loravault.engine.training.mate' in ' '.join(sys.orig_argv):\n"
        "    import torch\n"
        "    from loravault.engine.training import learner\n"
        "    before = learner.Learner._loss\n"
        "    def loss(self, *given):\n"
        "        if not self._checkpointing:\n"
        "            raise torch.OutOfMemoryError('out of memory')\n"
        "        return before(self, *given)\n"
        "    learner.Learner._loss = loss\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(code), os.environ.get("PYTHONPATH", ""), os.getcwd()]))
    outcome = lesson(tmp_path / "short", base).run()
    assert any("too little memory" in one for one in outcome.warnings)
    assert differ(whole, outcome) <= 1e-4


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_a_card_that_is_gone_when_it_goes_on_is_said(
    base: BaseRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = lesson(tmp_path, base)
    first.cancelled = lambda one: bool(one.steps)
    with pytest.raises(Stopped):
        first.run()
    monkeypatch.delenv("LORAVAULT_CARDS")
    with pytest.raises(UserError, match="begun on 2 cards"):
        lesson(tmp_path, base).run()
    assert len(list((tmp_path / "state").glob("state-*"))) == 1
