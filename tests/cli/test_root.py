"""The group: help that imports nothing, errors as one sentence, exit codes a script can rely on."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import click
import pytest
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError

from loravault.cli.root import COMMANDS, root
from loravault.errors import AlreadyRunning, UserError

from .helpers import FakeControl, app_in, call

#: What `--help` and shell completion must never pay for.
HEAVY = {"torch", "numpy", "sqlmodel", "sqlalchemy", "yaml", "PIL", "rich", "tomlkit", "msgspec", "watchdog", "jinja2"}


def modules_after(*arguments: str, env: dict[str, str] | None = None) -> set[str]:
    """The modules a fresh process has imported after running the command line with `arguments`."""
    code = (
        "import sys, loravault.cli\n"
        f"loravault.cli.execute({list(arguments)!r})\n"
        "import json; print('\\n' + json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **(env or {})}
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["watch", "--help"], ["init", "--help"], ["nonsense"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    found = modules_after(*arguments)

    assert not found & HEAVY
    assert not {name for name in found if name.startswith(("loravault.control", "loravault.index", "loravault.jobs"))}


def test_completion_imports_nothing_heavy() -> None:
    surroundings = {"_LORAVAULT_COMPLETE": "bash_complete", "COMP_WORDS": "loravault re", "COMP_CWORD": "1"}
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print(*sorted(sys.modules)))\n"
        "from loravault.cli import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **surroundings}, check=False
    )

    assert "plain,retry" in done.stdout.splitlines()
    assert "plain,reindex" in done.stdout.splitlines()
    assert not set(done.stdout.split()) & HEAVY


@pytest.mark.parametrize("name", COMMANDS)
def test_the_overview_says_what_the_command_says_of_itself(name: str) -> None:
    command = root.get_command(click.Context(root), name)

    assert command is not None
    assert command.name == name
    assert command.help is not None
    assert command.help.partition("\n")[0] == COMMANDS[name][1]


def test_a_user_error_is_one_sentence_on_stderr(tmp_path: Path) -> None:
    result = call(app_in(tmp_path, FakeControl(problem=UserError("It is so, because."))), "queue")

    assert (result.code, result.out, result.err) == (1, "", "loravault: It is so, because.\n")


def test_a_second_daemon_has_its_own_exit_code(tmp_path: Path) -> None:
    result = call(app_in(tmp_path, FakeControl(problem=AlreadyRunning("Process 4711 has it.", 4711))), "watch")

    assert (result.code, result.err) == (75, "loravault: Process 4711 has it.\n")


def test_ctrl_c_is_a_sentence_and_130(tmp_path: Path) -> None:
    result = call(app_in(tmp_path, FakeControl(problem=KeyboardInterrupt())), "queue")

    assert result.code == 130
    assert result.err.strip().startswith("loravault: Interrupted. Nothing is lost")


def test_wrong_usage_is_2_and_names_the_near_command(tmp_path: Path) -> None:
    result = call(app_in(tmp_path), "queu")

    assert result.code == 2
    assert "No such command 'queu'" in result.err


def test_an_error_of_the_file_system_is_told_with_its_path(tmp_path: Path) -> None:
    problem = PermissionError(13, "Permission denied", "/vault/x.md")

    result = call(app_in(tmp_path, FakeControl(problem=problem)), "queue")

    assert (result.code, result.err) == (1, "loravault: Permission denied: /vault/x.md\n")


def test_an_error_of_the_file_system_without_a_path_is_a_sentence_too(tmp_path: Path) -> None:
    """A full disk is told by `write`, which knows no name."""
    result = call(app_in(tmp_path, FakeControl(problem=OSError(28, "No space left on device"))), "queue")

    assert (result.code, result.err) == (1, "loravault: No space left on device\n")


@pytest.mark.parametrize(
    ("kind", "words", "sentence"),
    [
        (OperationalError, "database or disk is full", "cannot be used at the moment (database or disk is full)"),
        (DatabaseError, "database disk image is malformed", "is damaged (database disk image is malformed)"),
    ],
)
def test_an_error_of_the_database_is_a_sentence(
    tmp_path: Path, kind: type[DatabaseError], words: str, sentence: str
) -> None:
    problem = kind("SELECT 1", None, sqlite3.OperationalError(words))

    result = call(app_in(tmp_path, FakeControl(problem=problem)), "queue")

    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"loravault: The vault's index {sentence}")
    assert result.err.count("\n") == 1


def test_a_wrong_statement_is_a_bug_of_ours(tmp_path: Path) -> None:
    problem = IntegrityError("INSERT", None, sqlite3.IntegrityError("UNIQUE constraint failed"))

    with pytest.raises(IntegrityError):
        call(app_in(tmp_path, FakeControl(problem=problem)), "queue")


def test_ctrl_c_says_what_became_of_the_command(tmp_path: Path) -> None:
    result = call(app_in(tmp_path, FakeControl(problem=KeyboardInterrupt("It was taken back."))), "queue")

    assert (result.code, result.err.strip()) == (130, "loravault: It was taken back.")


def test_a_bug_of_ours_keeps_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        call(app_in(tmp_path, FakeControl(problem=ZeroDivisionError())), "queue")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    """`loravault --help | head -0`: no traceback, no 'Exception ignored'."""
    process = subprocess.Popen(
        [sys.executable, "-m", "loravault", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait(20)


def test_the_vault_is_an_option_of_the_group(tmp_path: Path) -> None:
    app = app_in(tmp_path, FakeControl())
    app.cwd = tmp_path

    assert call(app, "queue").code == 1
    assert call(app, "--vault", str(tmp_path / "vault"), "queue").code == 0


def test_no_vault_at_that_path(tmp_path: Path) -> None:
    result = call(app_in(tmp_path), "--vault", "/not/here", "watch")

    assert result.code == 1
    assert "There is no vault at /not/here" in result.err
