"""What a captioner has said, kept: for all trainings by model, and for each training as it began with it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from loravault.durable import write_whole

#: Instead of a model's mark: there was none that could be looked at.
NOT_THERE = ""


class Said:
    """A file with a line for each picture that one model described.

    A line that is not whole is as if it were not there; nothing is lost but time, for the model says the same again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, str]:
        """SHA-256 of a picture → what was said of it."""
        found = {}
        with contextlib.suppress(OSError):
            for line in self._path.read_bytes().splitlines():
                with contextlib.suppress(ValueError, TypeError, RecursionError):
                    sha256, text = json.loads(line)
                    if isinstance(sha256, str) and isinstance(text, str):
                        found[sha256] = text
        return found

    def add(self, sha256: str, text: str) -> None:
        """Keeps it. A disk that is full costs the next training the time to say it again."""
        # A line of its own even behind one that was cut short; one write, for another training may be adding too.
        line = f"\n{json.dumps([sha256, text])}\n".encode()
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(file, line)
            finally:
                os.close(file)


class Begun:
    """The captions that a training began with, among its states: what was learned from them goes on with them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, mark: str | None) -> tuple[dict[str, str], str]:
        """(as `Said.read`, what was wrong then), if something was learned with them.

        Nothing if `mark` is that of another model; None: the model cannot be looked at now.
        """
        with contextlib.suppress(OSError, ValueError, RecursionError):
            if any(self._folder.glob("state-*.safetensors")):
                told = json.loads(self._path.read_bytes())
                if isinstance(told, dict) and mark in (None, told.get("model")):
                    captions = told.get("captions")
                    if isinstance(captions, dict):
                        return {key: str(text) for key, text in captions.items()}, str(told.get("problem", ""))
        return {}, ""

    def write(self, mark: str, captions: Mapping[str, str], problem: str) -> None:
        """Durably, before the first step. A disk that is full is told by who writes states into the same folder."""
        told = {"model": mark, "captions": dict(captions), "problem": problem}
        with contextlib.suppress(OSError):
            write_whole(self._path, json.dumps(told).encode())

    @property
    def _path(self) -> Path:
        return self._folder / "captions.json"
