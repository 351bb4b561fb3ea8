"""What a training goes on from after an interruption: one file for each state, whole or not there at all.

A state is a safetensors file: tensors, and everything else as JSON in its header; nothing is ever unpickled. Its name
holds the fingerprint of what is trained, so that the state of another request, plan or base is never taken for this
one's: it stays where it is until a training in this folder succeeds, and is gone on from if what was changed is changed
back.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from loravault.durable import write_whole
from loravault.errors import UserError
from loravault.osdep import fsync_dir, fsync_file

#: Of the layout below; a state of another version is not read.
VERSION = "1"
_ABOUT, _VERSION = "loravault.state", "loravault.state_version"


P = TypeVar("P")


@dataclass(frozen=True)
class State:
    """A training between two steps."""

    #: Steps that are done.
    step: int
    tensors: Mapping[str, Tensor]
    #: What JSON can hold.
    about: Mapping[str, Any] = field(default_factory=dict)


def fingerprint(**of: Any) -> str:
    """16 hex digits of everything that decides what is learned: values that JSON can hold."""
    text = json.dumps(of, sort_keys=True, ensure_ascii=True, allow_nan=True)
    return blake2b(text.encode("ascii"), digest_size=8).hexdigest()


class StateFolder:
    """The states of one training in a folder that is ours."""

    def __init__(self, folder: Path, mark: str) -> None:
        """`mark`: the fingerprint of the training. The folder is made. Raises `UserError` if it cannot be."""
        self.folder, self._mark = folder, mark
        with _told("The folder for the state of the training cannot be used"):
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(".*.part"):  # of a process that was killed while it wrote
                left.unlink()

    def place(self, step: int, kind: str = "state") -> Path:
        """Where the state after some steps is; other kinds of files of this training are named alike."""
        return self.folder / f"{kind}-{self._mark}-{step:08d}.safetensors"

    def mine(self, kind: str = "state") -> list[Path]:
        """Files of this training, oldest first."""
        return sorted(self.folder.glob(f"{kind}-{self._mark}-*.safetensors"))

    def others(self) -> list[Path]:
        """States of other trainings that were begun in this folder."""
        return sorted(set(self.folder.glob("state-*.safetensors")) - set(self.mine()))

    def read(self) -> State | None:
        """The latest state that is whole; None: the training begins."""
        for path in reversed(self.mine()):
            with contextlib.suppress(SafetensorError, OSError, ValueError, KeyError):
                return _read(path)
        return None

    def write(self, state: State) -> None:
        """On return it is durably there, and what was there before is gone. Raises `UserError` if the disk is full."""
        target = self.place(state.step)
        temp = self.folder / f".{target.name}.{os.getpid()}.part"
        header = {_VERSION: VERSION, _ABOUT: json.dumps({**state.about, "step": state.step}, allow_nan=True)}
        tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in state.tensors.items()}
        with _told("The state of the training could not be written"):
            try:
                save_file(tensors, temp, metadata=header)
                fsync_file(temp)
                os.replace(temp, target)
            except BaseException:
                with contextlib.suppress(OSError):
                    temp.unlink()
                raise
            fsync_dir(self.folder)
            for old in self.mine():
                if old != target:
                    old.unlink(missing_ok=True)

    def plan(self, kind: type[P]) -> P | None:
        """The plan of this training if it was begun before; None too if it is of another version."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            told = json.loads(self._plan.read_text("utf-8"))
            return kind(**{name: tuple(one) if isinstance(one, list) else one for name, one in told.items()})
        return None

    def keep_plan(self, plan: Mapping[str, Any]) -> None:
        """Written before the first state. Raises `UserError`."""
        with _told("The plan of the training could not be written"):
            write_whole(self._plan, json.dumps(plan, indent=1).encode())

    @property
    def _plan(self) -> Path:
        return self.folder / f"plan-{self._mark}.json"

    def set_aside(self) -> None:
        """The states of this training are not what it can go on from; they stay until it succeeds."""
        for path in self.mine():
            path.replace(self.folder / f"unusable-{path.name.rsplit('-', 1)[-1]}")

    def forget_others(self) -> None:
        """After a success nobody goes back to an earlier plan."""
        for path in (*self.folder.glob("*-*.safetensors"), *self.folder.glob("plan-*.json")):
            if f"-{self._mark}" not in path.name:
                with contextlib.suppress(OSError):
                    path.unlink()


def _read(path: Path) -> State:
    with safe_open(path, "pt") as file:
        header = file.metadata()
        if header[_VERSION] != VERSION:
            raise ValueError(path.name)
        about = json.loads(header[_ABOUT])
        # copies: the mapped file may be replaced
        return State(about.pop("step"), {name: file.get_tensor(name).clone() for name in file.keys()}, about)  # noqa: SIM118


@contextlib.contextmanager
def _told(what: str) -> Any:
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else error
        told = f"{what}: {reason}. Make room on the disk; what was learned up to the last state is kept."
        raise UserError(told) from error


def copied(source: Path, target: Path) -> None:
    """The file under another name too, durably; in one step, so that it is never seen in parts. Raises `UserError`."""
    temp = target.with_name(f".{target.stem}.{os.getpid()}.tmp")
    with _told(f"The LoRA could not be put into {target.parent.name}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        temp.unlink(missing_ok=True)
        try:
            try:
                os.link(source, temp)
            except OSError:  # another disk, or one that knows no links
                shutil.copyfile(source, temp)
                fsync_file(temp)
            os.replace(temp, target)
        finally:
            temp.unlink(missing_ok=True)
        fsync_dir(target.parent)


# ---- optimisers


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors by `number/name`, other values by the same) of everything that an optimiser remembers."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for number, remembered in optimizer.state_dict()["state"].items():
        for name, value in remembered.items():
            if isinstance(value, Tensor):
                tensors[f"{number}/{name}"] = value
            else:
                values[f"{number}/{name}"] = value
    return tensors, values


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
) -> None:
    """As it was when `optimizer_state` was taken. Groups and rates are the plan's, not the state's."""
    remembered: dict[int, dict[str, Any]] = {}
    for key, value in {**values, **tensors}.items():
        number, name = key.split("/", 1)
        remembered.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": remembered, "param_groups": optimizer.state_dict()["param_groups"]})
