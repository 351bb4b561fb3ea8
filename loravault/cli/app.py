"""What every command gets: the vault that is meant, its configuration, and the one door to everything that is done."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from loravault.config import VaultConfig
    from loravault.control import Control


def _open_control(config: VaultConfig) -> Control:
    from loravault.control import Control

    return Control(config)


@dataclass
class App:
    """The surroundings of one call; tests bring their own."""

    env: Mapping[str, str] = field(default_factory=lambda: os.environ)
    cwd: Path = field(default_factory=Path.cwd)
    vault_option: str | None = None
    open_control: Callable[[VaultConfig], Control] = _open_control

    def vault(self) -> Path:
        """The vault that is meant; raises `UserError` when none is."""
        from loravault.config import find_vault

        return find_vault(self.vault_option, self.env, self.cwd)

    def config(self) -> VaultConfig:
        """What is in force for it."""
        from loravault.config import load

        return load(self.vault(), self.env)

    def control(self) -> Control:
        """The door for this vault."""
        return self.open_control(self.config())


pass_app = click.make_pass_decorator(App)
