"""Whether `config.toml` says something else than the daemon began with. It is read again only when it has changed."""

from __future__ import annotations

from collections.abc import Mapping

from loravault.config import FILE_NAME, VaultConfig, config_file, known_vaults, load
from loravault.errors import UserError
from loravault.settings import same_path


class NewSettings:
    """Looks after the file in which the settings of a running daemon stand."""

    def __init__(self, config: VaultConfig, env: Mapping[str, str]) -> None:
        self._config = config
        self._env = env
        self._file = config_file(env)
        self._seen = self._stamp()
        self._sentence: str | None = None

    def sentence(self) -> str | None:
        """What its owner should know of the file; None as long as it says what is in force."""
        stamp = self._stamp()
        if stamp != self._seen:
            self._sentence = self._told()
            self._seen = stamp
        return self._sentence

    def _told(self) -> str | None:
        try:
            if not any(same_path(path) == same_path(self._config.vault) for path in known_vaults(self._env)):
                return f"{FILE_NAME} does not name this vault any more; the settings from before hold while this runs."
            now = load(self._config.vault, self._env)
        except UserError as error:
            return f"{FILE_NAME} was changed, and the settings from before hold: {error.message}"
        if now == self._config:
            return None
        return (
            f"{FILE_NAME} was changed; its new settings hold as soon as `loravault watch` is ended and started again."
        )

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = self._file.stat()
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns
