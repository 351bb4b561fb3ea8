"""States: whole or not there, never another training's, and no unpickling."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from loravault.engine.training import checkpoints
from loravault.engine.training.checkpoints import State, StateFolder, copied, fingerprint
from loravault.errors import UserError
from loravault.formats.training import TrainingPlan
from tests.engine.training.plans import plan

pytestmark = pytest.mark.engine


def state(step: int) -> State:
    return State(step, {"network/a": torch.full((3,), float(step)), "bad": torch.zeros(())}, {"seconds": step / 3})


def test_what_is_read_is_what_was_written_bit_for_bit(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path, "mine")
    odd = torch.tensor([1e-45, -0.0, float("nan"), 3.1])
    folder.write(State(7, {"odd": odd, "whole": torch.tensor(3, dtype=torch.int64)}, {"loss": 1 / 3, "none": None}))
    found = StateFolder(tmp_path, "mine").read()
    assert found is not None
    assert found.step == 7
    assert found.tensors["odd"].numpy().tobytes() == odd.numpy().tobytes()
    assert found.tensors["whole"].dtype == torch.int64
    assert found.about == {"loss": 1 / 3, "none": None}


def test_the_latest_counts_and_the_one_before_is_gone(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path, "mine")
    for step in (1, 2, 30):
        folder.write(state(step))
    assert [path.name for path in folder.mine()] == ["state-mine-00000030.safetensors"]
    found = folder.read()
    assert found is not None
    assert found.step == 30


def test_the_state_of_another_training_is_neither_read_nor_removed(tmp_path: Path) -> None:
    """Change the plan: it begins anew. Change it back: it goes on. Succeed: the other one is gone."""
    first, second = StateFolder(tmp_path, "first"), StateFolder(tmp_path, "second")
    first.write(state(5))
    assert second.read() is None
    assert second.others() == first.mine()
    second.write(state(1))
    back = StateFolder(tmp_path, "first").read()
    assert back is not None
    assert back.step == 5
    second.forget_others()
    assert first.read() is None
    assert second.read() is not None


@pytest.mark.parametrize("harm", ["cut", "flipped header", "another version", "empty"])
def test_a_damaged_state_is_passed_over_for_the_one_before(tmp_path: Path, harm: str) -> None:
    folder = StateFolder(tmp_path, "mine")
    folder.write(state(3))
    kept = folder.place(3).read_bytes()
    folder.write(state(4))
    folder.place(3).write_bytes(kept)
    path = folder.place(4)
    data = path.read_bytes()
    path.write_bytes(
        {
            "cut": data[:-2],
            "flipped header": b"\xff" * 9 + data[9:],
            "another version": data.replace(b'"loravault.state_version":"1"', b'"loravault.state_version":"2"'),
            "empty": b"",
        }[harm]
    )
    found = folder.read()
    assert found is not None
    assert found.step == 3


def test_a_write_that_fails_leaves_the_state_before_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every step of it: a full disk, a disk that vanishes at the sync or the rename."""
    folder = StateFolder(tmp_path, "mine")
    folder.write(state(1))
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(*_args: Any, **_more: Any) -> None:
        raise full

    for name, owner in (("save_file", checkpoints), ("fsync_file", checkpoints), ("replace", os)):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            with pytest.raises(UserError, match=r"could not be written: No space left .* up to the last state is kept"):
                folder.write(state(2))
        found = folder.read()
        assert found is not None
        assert found.step == 1
        assert [path.name for path in tmp_path.iterdir()] == ["state-mine-00000001.safetensors"]


def test_what_a_killed_process_left_half_written_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".state-mine-00000002.safetensors.99.part").write_bytes(b"half")
    StateFolder(tmp_path, "mine")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="folder for the state"):
        StateFolder(tmp_path / "file" / "state", "mine")


def test_a_plan_is_kept_as_it_was_decided(tmp_path: Path) -> None:
    """Tuples and all; one of a version that has other fields is as if it were not there."""
    import dataclasses

    folder = StateFolder(tmp_path, "mine")
    assert folder.plan(TrainingPlan) is None
    wanted = plan(resolutions=(64, 96), reasons=("because",))
    folder.keep_plan(dataclasses.asdict(wanted))
    assert StateFolder(tmp_path, "mine").plan(TrainingPlan) == wanted
    assert StateFolder(tmp_path, "other").plan(TrainingPlan) is None
    path = tmp_path / "plan-mine.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "unheard_of": 1}))
    assert folder.plan(TrainingPlan) is None


def test_fingerprints_differ_with_every_part_and_not_with_their_order() -> None:
    assert fingerprint(a=1, b=(2, None)) == fingerprint(b=[2, None], a=1)
    assert len({fingerprint(a=1), fingerprint(a=2), fingerprint(b=1), fingerprint(a="1"), fingerprint(a=1.5)}) == 5


def test_a_file_is_copied_whole_over_an_older_one_and_both_stand_alone(tmp_path: Path) -> None:
    source, target = tmp_path / "a.safetensors", tmp_path / "deep" / "b.safetensors"
    source.write_bytes(b"one")
    copied(source, target)
    source.unlink()
    source.write_bytes(b"two")
    assert target.read_bytes() == b"one"
    copied(source, target)
    assert target.read_bytes() == b"two"
    assert [path.name for path in target.parent.iterdir()] == ["b.safetensors"]


def test_on_a_disk_without_links_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_args: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"one")
    copied(source, target)
    assert target.read_bytes() == b"one"
    assert stat.S_ISREG(target.stat().st_mode)


def test_a_copy_that_cannot_be_made_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="could not be put into"):
        copied(tmp_path / "not there", tmp_path / "b")
    assert list(tmp_path.iterdir()) == []
