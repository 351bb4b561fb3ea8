"""Who may import whom: the rules of the house, read from the source of every module, lazy imports included."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
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


def imports(name: str) -> Iterator[str]:
    """Every module that `name` imports anywhere in its source, as a dotted name; relative imports made absolute."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(part for part in (above, node.module or "") if part)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if f"{base}.{alias.name}" in MODULES)


def below(name: str, *rooms: str) -> bool:
    return any(name == f"loravault.{room}" or name.startswith(f"loravault.{room}.") for room in rooms)


@pytest.mark.parametrize("name", [name for name in MODULES if not below(name, "engine")])
def test_only_the_engine_imports_torch(name: str) -> None:
    assert not {found.partition(".")[0] for found in imports(name)} & TORCH


@pytest.mark.parametrize("name", [name for name in MODULES if not below(name, "engine", "jobs.child")])
def test_only_the_workers_child_imports_the_engine(name: str) -> None:
    assert not [found for found in imports(name) if below(found, "engine")]


@pytest.mark.parametrize("name", [name for name in MODULES if below(name, "formats")])
def test_formats_imports_nothing_of_ours_but_errors(name: str) -> None:
    ours = [found for found in imports(name) if found.partition(".")[0] == "loravault"]
    assert not [found for found in ours if not below(found, "formats", "errors")]


@pytest.mark.parametrize("name", [name for name in MODULES if below(name, "engine")])
def test_the_engine_knows_nothing_of_notes_vaults_or_databases(name: str) -> None:
    rooms = "vault", "index", "requests", "pages", "cli", "daemon", "control", "config", "firstrun", "demo"
    assert not [found for found in imports(name) if below(found, *rooms)]


@pytest.mark.parametrize("name", [name for name in MODULES if below(name, "vault")])
def test_the_vault_knows_nothing_of_databases_requests_or_jobs(name: str) -> None:
    rooms = "index", "requests", "jobs", "pages", "library", "cli", "daemon", "control"
    assert not [found for found in imports(name) if below(found, *rooms)]
    assert not {found.partition(".")[0] for found in imports(name)} & {"sqlmodel", "sqlalchemy", "sqlite3"}


@pytest.mark.parametrize("name", MODULES)
def test_yaml_is_read_in_one_place(name: str) -> None:
    if name != "loravault.vault.yamlread":
        assert "yaml" not in {found.partition(".")[0] for found in imports(name)}


@pytest.mark.parametrize("name", MODULES)
def test_nothing_unpickles_or_starts_a_shell_or_listens(name: str) -> None:
    """Rule 7: no pickle, no shell, no listening socket."""
    assert not set(imports(name)) & {"pickle", "shelve", "marshal", "dill", "socketserver", "http.server", "wsgiref"}
    for node in ast.walk(ast.parse(MODULES[name].read_text("utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "shell":
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is False


def loaded_after(code: str) -> set[str]:
    """Top-level packages in `sys.modules` of a fresh process after `code`."""
    script = f"{code}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("name", ["loravault.daemon", "loravault.control", "loravault.demo", "loravault.firstrun"])
def test_the_daemon_and_the_command_line_never_load_torch(name: str) -> None:
    loaded = loaded_after(f"import {name}")
    assert not {module.partition(".")[0] for module in loaded} & (TORCH | {"scipy"})
    assert not [module for module in loaded if below(module, "engine")]


def test_no_command_loads_torch() -> None:
    from loravault.cli.root import COMMANDS

    code = "\n".join(f"import loravault.cli.{module}" for module, _ in COMMANDS.values())
    assert not {module.partition(".")[0] for module in loaded_after(code)} & TORCH


def test_the_rules_would_notice() -> None:
    """A test of the tests: the reader of imports sees lazy, relative and nested ones."""
    assert "loravault.control" in set(imports("loravault.cli.app"))  # inside a function
    assert "loravault.jobs.context" in set(imports("loravault.cli.progress"))  # inside `if TYPE_CHECKING`
