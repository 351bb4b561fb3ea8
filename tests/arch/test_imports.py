"""Who may import whom: the rules of the house, read from the source of every module, lazy imports included."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

import loravault

PACKAGE = Path(loravault.__file__).parent
TORCH = {"torch", "diffusers", "transformers", "accelerate", "peft", "safetensors"}


def modules() -> dict[str, Path]:
    """Dotted name of every module of ours -> its file."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text("utf-8"))


@cache
def imports(name: str) -> frozenset[str]:
    """Every module that `name` imports anywhere in its source, as a dotted name; relative imports made absolute."""
    return frozenset(_imports(name))


def _imports(name: str) -> Iterator[str]:
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(part for part in (above, node.module or "") if part)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if f"{base}.{alias.name}" in MODULES)


def top(name: str) -> str:
    return name.partition(".")[0]


def below(name: str, *rooms: str) -> bool:
    return any(name == f"loravault.{room}" or name.startswith(f"loravault.{room}.") for room in rooms)


def offenders(rooms: Sequence[str], forbidden: Callable[[str], bool], *, but: Sequence[str] = ()) -> list[str]:
    """`module -> what it imports`, for every module below `rooms` (all for none) and not below `but`."""
    chosen = [name for name in MODULES if (not rooms or below(name, *rooms)) and not below(name, *but)]
    assert chosen
    return [f"{name} -> {found}" for name in chosen for found in sorted(imports(name)) if forbidden(found)]


def test_only_the_engine_imports_torch() -> None:
    assert offenders((), lambda found: top(found) in TORCH, but=["engine"]) == []


def test_only_the_workers_child_imports_the_engine() -> None:
    assert offenders((), lambda found: below(found, "engine"), but=["engine", "jobs.child", "jobs.trainingchild"]) == []


def test_formats_imports_nothing_of_ours_but_errors() -> None:
    ours = lambda found: top(found) == "loravault" and not below(found, "formats", "errors")  # noqa: E731
    assert offenders(["formats"], lambda found: found != "loravault" and ours(found)) == []


def test_the_engine_knows_nothing_of_notes_vaults_or_databases() -> None:
    rooms = "vault", "index", "requests", "pages", "cli", "daemon", "control", "config", "firstrun", "demo"
    assert offenders(["engine"], lambda found: below(found, *rooms)) == []


def test_the_vault_knows_nothing_of_databases_requests_or_jobs() -> None:
    rooms = "index", "requests", "jobs", "pages", "library", "cli", "daemon", "control"
    assert offenders(["vault"], lambda found: below(found, *rooms)) == []
    assert offenders(["vault"], lambda found: top(found) in {"sqlmodel", "sqlalchemy", "sqlite3"}) == []


def test_yaml_is_read_in_one_place() -> None:
    assert offenders((), lambda found: top(found) == "yaml", but=["vault.yamlread"]) == []


def test_nothing_unpickles_or_listens() -> None:
    """Rule 7: no pickle, no listening socket."""
    bad = {"pickle", "shelve", "marshal", "dill", "socketserver", "http.server", "wsgiref"}
    assert offenders((), lambda found: found in bad) == []


def test_nothing_starts_a_shell() -> None:
    """Rule 7: no shell."""
    shells = [
        f"{name}:{node.lineno}"
        for name in MODULES
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Call)
        and (
            any(keyword.arg == "shell" for keyword in node.keywords)
            or ast.unparse(node.func) in {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
        )
    ]
    assert shells == []


def loaded_after(code: str) -> set[str]:
    """Top-level packages in `sys.modules` of a fresh process after `code`."""
    script = f"{code}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", ["loravault.control", "loravault.demo"])
def test_the_daemon_and_the_command_line_never_load_torch(name: str) -> None:
    loaded = loaded_after(f"import {name}")
    assert not {top(module) for module in loaded} & (TORCH | {"scipy"})
    assert not [module for module in loaded if below(module, "engine")]


def test_no_command_loads_torch() -> None:
    from loravault.cli.root import COMMANDS

    code = "\n".join(f"import loravault.cli.{module}" for module, _ in COMMANDS.values())
    assert not {top(module) for module in loaded_after(code)} & TORCH


def test_the_rules_would_notice() -> None:
    """A test of the tests: the reader of imports sees lazy, relative and nested ones."""
    assert "loravault.control" in imports("loravault.cli.app")  # inside a function
    assert "loravault.jobs.context" in imports("loravault.cli.progress")  # inside `if TYPE_CHECKING`
