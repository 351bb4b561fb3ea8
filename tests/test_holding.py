"""Who holds a vault: one process, told by a lock that dies with it."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from loravault import firstrun, osdep
from loravault.config import VaultConfig
from loravault.errors import AlreadyRunning
from loravault.holding import holder, take_lock


def config_in(folder: Path) -> VaultConfig:
    (folder / "vault").mkdir()
    return VaultConfig(vault=folder / "vault", state_root=folder / "state")


def held_for(config: VaultConfig, seconds: float) -> threading.Thread:
    """Somebody takes the lock for so long, as everybody does who asks who holds it."""
    lock = osdep.lock_file(config.state_dir / "lock")
    assert isinstance(lock, osdep.Lock)

    def let_go() -> None:
        time.sleep(seconds)
        lock.release()

    thread = threading.Thread(target=let_go)
    thread.start()
    return thread


def test_asking_who_holds_a_vault_makes_nothing(tmp_path: Path) -> None:
    """`loravault queue` made the state folder of a vault that nobody ever served."""
    assert holder(config_in(tmp_path)) is None
    assert not (tmp_path / "state").exists()


def test_the_lock_is_in_a_folder_for_the_user_alone(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    lock = take_lock(config)
    assert config.state_path.stat().st_mode & 0o777 == 0o700
    assert holder(config) == os.getpid()
    lock.release()


def test_who_only_asks_at_that_moment_is_no_daemon(tmp_path: Path) -> None:
    """`init` beside a `loravault queue` said that loravault is running (process None)."""
    (tmp_path / "loras").mkdir()
    env = {"LORAVAULT_CONFIG_DIR": str(tmp_path / "conf"), "LORAVAULT_STATE_DIR": str(tmp_path / "state")}
    (tmp_path / "vault").mkdir()
    plan = firstrun.plan_init(tmp_path / "vault", loras=[tmp_path / "loras"], env=env)
    asking = held_for(plan.config, 0.15)

    firstrun.carry_out(plan, env)

    asking.join()
    assert (tmp_path / "vault/LoraVault/Templates").is_dir()


def test_who_keeps_it_is_told_with_its_process(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    lock = take_lock(config)
    with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}.*stop it first"):
        take_lock(config)
    lock.release()
