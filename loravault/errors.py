"""The one error tree. A `UserError` is a sentence for a person; anything else is a bug of ours."""

from __future__ import annotations


class UserError(Exception):
    """What happened, where, and what to do next, in one sentence. Shown without a traceback."""

    def __init__(self, message: str) -> None:
        if not message.strip():
            raise ValueError("an error needs a sentence")
        super().__init__(message)

    @property
    def message(self) -> str:
        """The sentence."""
        return str(self.args[0])


class AlreadyRunning(UserError):  # noqa: N818 - a state that is told, not a fault
    """Another process serves this vault. The command line leaves with its own exit code, so that a script can tell."""

    def __init__(self, message: str, pid: int | None = None) -> None:
        super().__init__(message)
        #: The process that holds the vault's lock, where it is known.
        self.pid = pid
