"""Who holds a vault: only the holder of its lock writes into it."""

from __future__ import annotations

import time

from loravault.config import VaultConfig
from loravault.errors import AlreadyRunning, UserError
from loravault.osdep import Lock, lock_file, lock_holder
from loravault.vault.ledger import Ledger
from loravault.vault.walk import walk_notes

#: Its lock says who serves the vault.
_LOCK = "lock"


def check_vault(config: VaultConfig) -> None:
    """Raises `UserError` when there is no vault, or it cannot be written to."""
    vault = config.vault
    if not vault.is_dir():
        raise UserError(f"There is no vault at {vault}: there is no such folder.")
    if _is_bare(config):
        raise UserError(
            f"{vault} is empty, although loravault has made cards in it: plug its drive in again; if it is right so, "
            "open the folder in Obsidian as a vault first."
        )
    probe = config.own_folder
    try:
        probe.mkdir(parents=True, exist_ok=True)
        (probe / ".lv-probe").write_bytes(b"")
        (probe / ".lv-probe").unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"The vault at {vault} cannot be written to ({reason}); make {config.folder}/ writable and start again."
        ) from error


def _is_bare(config: VaultConfig) -> bool:
    """Whether nothing is where cards of ours were: a mount point without its drive, which must stay as it is."""
    if (config.vault / ".obsidian").is_dir() or next(walk_notes(config.vault, lambda _rel: False), None) is not None:
        return False
    return any(record.get("op") == "cards" for record in Ledger(config.state_dir / "ledger.jsonl").read())


def take_lock(config: VaultConfig) -> Lock:
    """The vault's lock, or `AlreadyRunning`. The kernel frees it when its holder dies, however it dies.

    Asking who holds it takes it for a moment, so one refusal proves nothing.
    """
    holder_pid: int | None = None
    for _ in range(4):
        lock = lock_file(config.state_dir / _LOCK)
        if isinstance(lock, Lock):
            return lock
        holder_pid = lock
        time.sleep(0.1)
    raise AlreadyRunning(
        f"A loravault daemon already looks after {config.vault} (pid {holder_pid}); stop it first, or let it work.",
        holder_pid,
    )


def holder(config: VaultConfig) -> int | None:
    """The pid of the daemon (or of a command that works in the foreground) that holds the vault. Makes no folder."""
    return lock_holder(config.state_path / _LOCK)
