"""What the parts of the job path share: the vault, its index, the one writer, and the clock."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from loravault.config import VaultConfig
from loravault.index.database import Index
from loravault.jobs.absent import LibraryLooks
from loravault.vault.gates import SettleTracker
from loravault.vault.ignore import IgnoreRules
from loravault.vault.ledger import Ledger
from loravault.vault.safewrite import VaultWriter
from loravault.vault.walk import StatKey, stat_key

log = logging.getLogger("loravault")


@dataclass(frozen=True)
class Event:
    """Something a person who waits at a terminal wants to see."""

    #: `queued`, `phase`, `progress`, `done`, `failed` or `note`.
    kind: str
    text: str
    #: 0 … 1 of the running job, where known.
    fraction: float | None = None
    job: str | None = None
    run: str | None = None


@dataclass
class Context:
    """One open vault, held by the process that has its lock."""

    config: VaultConfig
    index: Index
    ledger: Ledger
    writer: VaultWriter
    rules: IgnoreRules
    settle: SettleTracker = field(default_factory=SettleTracker)
    #: Wall clock, seconds: what is stored and shown.
    now: Callable[[], float] = time.time
    #: Steady clock, seconds: what is waited by; a jump of the wall clock neither loses nor repeats work.
    steady: Callable[[], float] = time.monotonic
    #: Notes in which something of ours waits to be written.
    to_deliver: set[str] = field(default_factory=set)
    #: Notes that cannot be written now -> wall clock at which it is tried again. A change of the note ends the waiting.
    deliver_later: dict[str, float] = field(default_factory=dict)
    #: Adapters (weight ids) for which a picture was made that is to stand for them.
    covers_due: set[str] = field(default_factory=set)
    #: Vault-relative paths of pictures of ours that came, changed or went, for the galleries.
    pictures_changed: set[str] = field(default_factory=set)
    #: What everything that is queued waits for, in words; None: the workers come to it soon.
    waiting_behind: str | None = None
    #: Running jobs that somebody called off.
    to_cancel: set[str] = field(default_factory=set)
    #: Jobs that a worker has and should give back, unless it is at them already: what they ask for has changed.
    to_withdraw: set[str] = field(default_factory=set)
    #: Asks for a look at one adapter file: the name of its root, and its path there.
    look_for_adapter: Callable[[str, str], None] = lambda _root, _rel: None
    #: How far the looks at the library are.
    looks: LibraryLooks = field(default_factory=LibraryLooks)
    #: Whether new adapters get a card while this process runs.
    keeps_cards: bool = False
    #: Whether some card may say something else than was read of it: it was edited a moment ago, or none was read yet.
    cards_unread: Callable[[], bool] = lambda: False
    #: Asks for a look at a note whose text was not read yet, whatever its stat says.
    look: Callable[[str], None] = lambda _rel: None
    #: Troubles of the moment for the dashboard: key -> sentence.
    troubles: dict[str, str] = field(default_factory=dict)
    listeners: list[Callable[[Event], None]] = field(default_factory=list)

    def tell(self, event: Event) -> None:
        """Pass an event to whoever watches."""
        for listener in self.listeners:
            listener(event)

    def path(self, rel: str) -> Path:
        """The absolute path of a vault-relative one."""
        return self.config.vault / rel

    def skip_folder(self, rel: str) -> bool:
        """Whether a walk leaves this folder out: only our own templates; what is skipped elsewhere is told."""
        return rel == f"{self.config.folder}/Templates"

    def observe(self, rel: str) -> StatKey | None:
        """Look at a file and let the gates know; None when it is not there."""
        key = stat_key(self.path(rel))
        self.settle.observe(rel, key, self.steady())
        return key

    def quiet_for(self, rel: str, key: StatKey) -> float:
        """Seconds for which the file has not changed: as long as we watched, or longer if its mtime says so.

        An mtime in the future proves nothing and counts as zero.
        """
        watched = self.settle.quiet_for(rel, self.steady())
        return max(watched, self.now() - key[1] / 1e9)
