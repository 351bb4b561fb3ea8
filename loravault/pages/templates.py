"""Our templates of pages, compiled once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

Functions = Mapping[str, Callable[..., Any]]


class Templates:
    """Templates that share their filters and functions. A name that nobody gave is an error, never a blank."""

    def __init__(self, filters: Functions | None = None, functions: Functions | None = None) -> None:
        self._filters = filters or {}
        self._functions = functions or {}
        self._environments: dict[Path, Environment] = {}

    def get(self, folder: Path, name: str) -> Template:
        """The template `name` among the pages in this folder of templates."""
        environment = self._environments.get(folder)
        if environment is None:
            environment = self._environments[folder] = self._environment(folder)
        return environment.get_template(name)

    def _environment(self, folder: Path) -> Environment:
        environment = Environment(
            loader=FileSystemLoader(folder / "pages"),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,  # Markdown: what strangers wrote is made inert where it is taken in
            keep_trailing_newline=True,
            auto_reload=False,
        )
        environment.filters.update(self._filters)
        environment.globals.update(self._functions)
        return environment
