"""A small world for tests of the whole path: a vault, adapters, a base in name only, a daemon with a fake engine."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from loravault.config import Root, VaultConfig
from loravault.control import Control
from loravault.daemon import Daemon
from loravault.jobs.context import Event
from loravault.vault.note import parse_note
from tests.fakes.adapter_file import adapter_bytes

FAKE_ENGINE = [sys.executable, str(Path(__file__).parent / "fakes" / "engine_child.py")]

#: Gates short enough for tests, long enough to be gates.
FAST: dict[str, Any] = {
    "read_quiet_s": 0.05,
    "write_quiet_s": 0.15,
    "grace_s": 0.1,
    "rescan_s": 0.4,
    "together_s": 0.5,
    "idle_exit_s": 30.0,
    "machine": "atelier",
    "default_base": "demo-like",
    # Tests of requests want no notes but theirs; those of the library switch these on.
    "cards": False,
    "galleries": False,
}


class World:
    """One vault with everything around it, all below one folder. The test sets LORAVAULT_STATE_DIR to `home/state`."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.home = home
        self.vault = home / "vault"
        self.loras = home / "loras"
        self.bases = home / "bases"
        (self.vault / ".obsidian").mkdir(parents=True, exist_ok=True)
        self.loras.mkdir(exist_ok=True)
        self.base("demo-like", 160)
        self.base("realistic", 768)
        self.config = VaultConfig(
            vault=self.vault,
            loras=(Root("loras", self.loras),),
            bases=(self.bases,),
            **{**FAST, **settings},
        )

    def base(self, name: str, width: int) -> None:
        """A base as far as the daemon looks at one. It has lain there for an hour: it is not being copied."""
        folder = self.bases / name
        (folder / "unet").mkdir(parents=True, exist_ok=True)
        (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
        (folder / "unet" / "config.json").write_text(json.dumps({"cross_attention_dim": width}))
        for path in (*folder.rglob("*"), folder):
            os.utime(path, (time.time() - 3600,) * 2)

    def note(self, rel: str, text: str | bytes) -> Path:
        """Write a note as an editor does: in place."""
        path = self.vault / rel
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def request(self, rel: str, *blocks: str, **properties: Any) -> Path:
        """A request note; `run` is ticked unless said otherwise."""
        values = {"loravault": "generate", "run": True, **properties}
        front = "".join(f"{key}: {yaml_scalar(value)}\n" for key, value in values.items())
        body = "\n".join(f"```prompt\n{block}\n```\n" for block in blocks)
        return self.note(rel, f"---\n{front}---\n# {Path(rel).stem}\n\n{body}")

    def adapter(self, rel: str, width: int = 160, rank: int = 4, **metadata: str) -> Path:
        """A small kohya adapter file that fits a base of this cross-attention width."""
        path = self.loras / rel
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(adapter_bytes(width, rank, {"ss_network_module": "networks.lora", **metadata}, seed=rel))
        return path

    def daemon(self, **settings: Any) -> Daemon:
        """An opened daemon with the fake engine. Close it."""
        daemon = Daemon(self.config, worker_command=FAKE_ENGINE, watch=settings.pop("watch", False), **settings)
        daemon.open()
        return daemon

    def tree(self) -> dict[str, bytes]:
        """Every file of the vault and the loras folder."""
        return {
            path.relative_to(self.home).as_posix(): path.read_bytes()
            for home in (self.vault, self.loras)
            for path in sorted(home.rglob("*"))
            if path.is_file()
        }

    def read(self, rel: str) -> str:
        """The note's text."""
        return (self.vault / rel).read_bytes().decode()

    def properties(self, rel: str) -> dict[str, Any]:
        """The note's properties as they read back."""
        front = parse_note((self.vault / rel).read_bytes()).frontmatter
        return dict(front.properties) if front else {}

    def status(self, rel: str) -> Any:
        """`lv_status` of the note."""
        return self.properties(rel).get("lv_status")

    def results(self, rel: str) -> int:
        """How many intact result regions the note shows."""
        return sum(r.intact and r.kind == "result" for r in parse_note((self.vault / rel).read_bytes()).regions)

    def work(self, daemon: Daemon, until: Callable[[], bool], timeout: float = 20.0) -> None:
        """Tick until something is so."""
        give_up = time.monotonic() + timeout
        while not until():
            assert time.monotonic() < give_up, self.story()
            daemon.tick()
            time.sleep(0.01)

    def finish(self, daemon: Daemon, *rels: str, timeout: float = 20.0) -> None:
        """Tick until these notes have their last word."""
        self.work(daemon, lambda: all(self.is_answered(rel) for rel in rels), timeout)

    def is_answered(self, rel: str) -> bool:
        """Whether the note's run is over and says so."""
        properties = self.properties(rel)
        return properties.get("run") in (False, None) and properties.get("lv_status") in TERMINAL

    def story(self) -> str:
        """What the notes say, for a failing test."""
        return "\n\n".join(f"== {p.relative_to(self.vault)}\n{p.read_text()}" for p in sorted(self.vault.rglob("*.md")))


TERMINAL = ("done", "partial", "failed", "cancelled")


@contextlib.contextmanager
def served(world: World) -> Iterator[None]:
    """A daemon in a thread of its own, until the block ends."""
    stop, opened = threading.Event(), threading.Event()
    control = Control(world.config, FAKE_ENGINE)
    thread = threading.Thread(target=control.watch, args=(stop, opened.set))
    thread.start()
    try:
        assert opened.wait(30)
        yield
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()


@contextlib.contextmanager
def nobody(_world: World) -> Iterator[None]:
    """No daemon."""
    yield


def quiet(_event: Event) -> None:
    """Nobody listens."""


def until(what: Callable[[], bool], timeout: float = 30.0) -> None:
    """Wait until something is so."""
    give_up = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def yaml_scalar(value: Any) -> str:
    """A property as Obsidian would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False) if value[:1] in "[{" or ": " in value else value
    if isinstance(value, Iterable):
        return "".join(f"\n  - {json.dumps(item, ensure_ascii=False)}" for item in value)
    return str(value)
