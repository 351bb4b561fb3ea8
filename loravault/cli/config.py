"""`loravault config`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from loravault.cli.app import App, pass_app
from loravault.cli.words import as_json


@click.command("config")
@click.option("--json", "as_data", is_flag=True, help="Print them as JSON.")
@pass_app
def command(app: App, as_data: bool) -> None:
    """Print the settings in force and where they are from."""
    from loravault.config import config_file
    from loravault.settings import SETTINGS

    config = app.config()
    values: dict[str, Any] = {name: getattr(config, name) for name in SETTINGS}
    values["loras"] = {root.name: str(root.path) for root in config.loras}
    where = {"config": config_file(app.env), "vault": config.vault, "state": config.state_path}
    if as_data:
        click.echo(as_json({**where, "settings": values, "origins": config.origins}))
        return
    for name, path in where.items():
        click.echo(f"# {name}: {path}")
    click.echo("")
    for name in SETTINGS:
        click.echo(_line(name, values[name], config.origins.get(name, "default")))


def _line(name: str, value: Any, origin: str) -> str:
    """One setting as it would stand in the file; a setting without a value as a comment."""
    import tomlkit

    if value is None:
        return f"# {name} is not set"
    item: Any = tomlkit.item(_plain_value(value))
    if isinstance(value, Mapping):
        item = tomlkit.inline_table()
        item.update({key: _plain_value(inner) for key, inner in value.items()})
    return f"{name} = {item.as_string()}  # {origin}"


def _plain_value(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain_value(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value
