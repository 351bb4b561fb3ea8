"""`loravault demo`: a vault of its own in one folder, whose notes are ticked as a person would and get their pictures.

Everything is inside that folder, configuration and state too, so that a demo never meets the user's own vaults:

    DIR/vault     the example vault, to be opened in Obsidian
    DIR/loras     the adapters that were made for the demo base
    DIR/.config   config.toml of this demo
    DIR/.state    index, ledger and lock of its vault
    DIR/watch.log what the daemon said
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loravault import resources
from loravault.config import VaultConfig, load
from loravault.errors import UserError
from loravault.firstrun import carry_out, plan_init

if TYPE_CHECKING:
    from loravault.control import JobView

#: The file that says: this folder is a demo of ours.
MARKER = ".loravault-demo"
_MARKER_TEXT = "This folder was made by `loravault demo`. It can be deleted as a whole.\n"

#: Statuses after which nothing more happens by itself.
FINISHED = frozenset({"done", "partial", "failed", "cancelled"})

#: Without any change for this long (seconds) something is wrong.
STALLED_S = 240.0
#: A daemon that was asked to end gets this long (seconds).
_LEAVING_S = 20.0
_POLL_S = 0.3

_REQUEST = re.compile(rb"(?m)^loravault:[ \t]*(?:generate|train)\b")
_TRAINED = re.compile(rb"(?ms)^loravault:[ \t]*train\b.*?^name:[ \t]*([A-Za-z0-9_-]+)")
_TICKED = re.compile(rb"(?m)^(run[ \t]*:[ \t]*)false(?=[ \t]*\r?$)")


@dataclass(frozen=True)
class DemoFolder:
    """The places inside one demo folder."""

    root: Path

    @property
    def vault(self) -> Path:
        """To be opened in Obsidian."""
        return self.root / "vault"

    @property
    def loras(self) -> Path:
        """The demo adapters."""
        return self.root / "loras"

    @property
    def log(self) -> Path:
        """What the daemon said."""
        return self.root / "watch.log"

    @property
    def places(self) -> dict[str, str]:
        """The environment variables that keep configuration and state inside."""
        return {"LORAVAULT_CONFIG_DIR": str(self.root / ".config"), "LORAVAULT_STATE_DIR": str(self.root / ".state")}


@dataclass(frozen=True)
class NoteState:
    """How one request note stands."""

    rel: str
    #: Whether `run` is still ticked: the request was not accepted yet.
    ticked: bool
    status: str | None
    message: str | None
    #: 0 … 1 over the note's blocks, where the queue tells.
    progress: float | None = None

    @property
    def finished(self) -> bool:
        """Whether the answer is in the note."""
        return not self.ticked and self.status in FINISHED


def prepare(root: Path) -> DemoFolder:
    """Make the folder, or complete one that is ours; what is in it is not overwritten. Else `UserError`."""
    folder = DemoFolder(root)
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file: name a folder for the demo.")
    if root.is_dir() and any(root.iterdir()) and not (root / MARKER).is_file():
        raise UserError(f"{root} is not empty and was not made by `loravault demo`: name another folder.")
    root.mkdir(parents=True, exist_ok=True)
    (root / MARKER).write_text(_MARKER_TEXT, "utf-8")
    _copy_missing(resources.example_vault(), folder.vault)
    _copy_missing(resources.demo_adapters(), folder.loras)
    plan = plan_init(folder.vault, loras=[folder.loras], env=folder.places)
    carry_out(plan, folder.places)
    return folder


def requests_in(vault: Path) -> tuple[str, ...]:
    """The example vault's request notes, as paths in the vault."""
    notes = sorted(path for path in vault.rglob("*.md") if not _hidden(path.relative_to(vault)))
    ours = [path for path in notes if _REQUEST.search(_frontmatter(path.read_bytes()))]
    return tuple(path.relative_to(vault).as_posix() for path in ours if "Templates" not in path.parts)


def stages(vault: Path) -> tuple[tuple[str, ...], ...]:
    """The requests in the order in which they can be answered: what uses an adapter comes after what trains it."""
    requests = requests_in(vault)
    texts = {rel: (vault / rel).read_bytes() for rel in requests}
    made = {found[1] for text in texts.values() if (found := _TRAINED.search(_frontmatter(text)))}
    later = [rel for rel in requests if any(b"<lora:" + name in texts[rel] for name in made)]
    first = tuple(rel for rel in requests if rel not in later)
    return (first, tuple(later)) if later else (first,)


def tick(note: Path) -> None:
    """Tick `run` as Obsidian does: the one property changes, and the file is written in place."""
    data = note.read_bytes()
    head = _frontmatter(data)
    ticked, count = _TICKED.subn(rb"\g<1>true", head, count=1)
    if count:
        with note.open("wb") as file:
            file.write(ticked + data[len(head) :])


def read_state(vault: Path, rel: str, jobs: Sequence[JobView] = ()) -> NoteState | None:
    """What the note itself says, with the progress of its jobs; None while it cannot be read."""
    from loravault.vault.note import parse_note  # noqa: PLC0415 - `demo` is planned without it

    try:
        frontmatter = parse_note((vault / rel).read_bytes()).frontmatter
    except OSError:
        return None
    if frontmatter is None or frontmatter.problem:
        return None
    found: Mapping[str, Any] = frontmatter.properties
    mine = [job for job in jobs if job.note == rel]
    shown = next((job for job in mine if job.progress is not None), None)
    return NoteState(
        rel=rel,
        ticked=found.get("run") is True,
        status=found.get("lv_status"),
        message=shown.message if shown and shown.message else found.get("lv_message"),
        progress=shown.progress if shown else None,
    )


@contextmanager
def daemon(folder: DemoFolder) -> Iterator[subprocess.Popen[bytes]]:
    """`loravault watch` on the demo's vault; ended by SIGTERM when the block ends, however it ends."""
    command = [sys.executable, "-m", "loravault", "--vault", str(folder.vault), "watch"]
    with folder.log.open("ab") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **folder.places, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C in the terminal is for the demo; the daemon is told by SIGTERM.
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process)


def follow(
    folder: DemoFolder,
    notes: Sequence[str],
    process: subprocess.Popen[bytes],
    queue: Callable[[], Sequence[JobView]],
    stalled_s: float = STALLED_S,
) -> Iterator[tuple[NoteState, ...]]:
    """The state of the notes, again and again, until all are finished. Raises `UserError` when that will not happen."""
    states: dict[str, NoteState] = {}
    changed = time.monotonic()
    while True:
        jobs = queue()
        fresh = {rel: state for rel in notes if (state := read_state(folder.vault, rel, jobs)) is not None}
        if any(states.get(rel) != state for rel, state in fresh.items()):
            changed = time.monotonic()
        states.update(fresh)
        yield tuple(states[rel] for rel in notes if rel in states)
        if len(states) == len(notes) and all(state.finished for state in states.values()):
            return
        if process.poll() is not None:
            raise UserError(f"The daemon ended by itself (exit code {process.returncode}). {last_words(folder.log)}")
        if time.monotonic() - changed > stalled_s:
            raise UserError(f"Nothing has happened for {stalled_s:.0f} seconds. {last_words(folder.log)}")
        time.sleep(_POLL_S)


def config_of(folder: DemoFolder) -> VaultConfig:
    """The configuration that `prepare` wrote."""
    return load(folder.vault, folder.places)


def pictures_in(config: VaultConfig) -> tuple[Path, ...]:
    """Every picture that was made, oldest first by name; covers and what tells of a training are none."""
    images = config.own_folder / "Images"
    found = (path for path in images.rglob("lv-*") if path.suffix in {".webp", ".png", ".jpg"})
    own = ("-loss", "-samples")
    return tuple(sorted(path for path in found if path.name[:9] != "lv-cover-" and not path.stem.endswith(own)))


def last_words(log: Path, lines: int = 5) -> str:
    """The end of the daemon's log, for an error message."""
    try:
        text = log.read_text("utf-8", "replace").strip()
    except OSError:
        text = ""
    return f"Its last words in {log}:\n" + "\n".join(text.splitlines()[-lines:]) if text else f"{log} is empty."


def _copy_missing(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        elif not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            partial = place.with_name(place.name + ".partial")  # an interrupted copy must not look complete
            shutil.copyfile(path, partial)
            os.replace(partial, place)


def _frontmatter(data: bytes) -> bytes:
    match = re.match(rb"(?:\xef\xbb\xbf)?---[ \t]*\r?\n.*?^---[ \t]*\r?$", data, re.DOTALL | re.MULTILINE)
    return match.group(0) if match else b""


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_LEAVING_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
