"""`loravault bases`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from loravault.cli.app import App, pass_app
from loravault.cli.tables import show_table
from loravault.cli.words import as_json, plain, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loravault.config import VaultConfig
    from loravault.library.bases import KnownBase


@click.command("bases")
@click.option("--json", "as_data", is_flag=True, help="Print it as JSON.")
@click.option("--fetch", metavar="OWNER/NAME", help="Fetch this base from the Hub first, if `network` is allowed.")
@pass_app
def command(app: App, as_data: bool, fetch: str | None) -> None:
    """List the base models, and why one cannot be used.

    A request names one with `base: NAME`, and a VAE from the same folders with `vae: NAME`.
    """
    from loravault.library.bases import look
    from loravault.resources import demo_base

    config = app.config()
    if fetch is not None:
        _fetch(fetch, config)
        return
    shelf = look(config.bases, demo_base())
    if as_data:
        fields = {"default": _default(config), "default_bases": config.default_bases}
        click.echo(as_json({"bases": shelf.bases, "vaes": shelf.vaes, "folders": config.bases, **fields}))
        return
    rows = [
        (base.name, base.family or "?", base.variant or "", base.kind, size(base.bytes), _state(base, config))
        for base in shelf.bases
    ]
    show_table(("NAME", "FAMILY", "VARIANT", "KIND", "SIZE", "STATE"), rows, numbers=("SIZE",))
    for base in shelf.bases:
        if base.reason:
            click.echo(plain(f"! {base.name}: {base.reason}."))
    if shelf.vaes:
        click.echo(plain(f"VAEs: {', '.join(vae.name for vae in shelf.vaes)}"))
    for line in _folders(config):
        click.echo(plain(line))


def _fetch(name: str, config: VaultConfig) -> None:
    """A base from the Hub, file by file."""
    from loravault.errors import UserError
    from loravault.library.hubfetch import HubFile, fetch_base

    if not config.network:
        raise UserError(
            f"{name} was not fetched, because nothing may be: say `network = true` in config.toml "
            "(`loravault config` shows where it is) and try again."
        )

    def files(found: tuple[HubFile, ...]) -> None:
        click.echo(plain(f"{name}: {len(found)} files, {size(sum(one.bytes for one in found))}"))

    def file(one: HubFile) -> None:
        click.echo(plain(f"  {one.name}  {size(one.bytes)}"))

    base = fetch_base(name, on_files=files, on_file=file)
    click.echo(plain(f"{name} is here ({base.family}). A request names it with `base: {name}`."))


def _default(config: VaultConfig) -> str:
    return config.default_base or "demo"


def _state(base: KnownBase, config: VaultConfig) -> str:
    families = [family for family, name in config.default_bases.items() if name.casefold() == base.name.casefold()]
    marks = ["default"] if base.name.casefold() == _default(config).casefold() else []
    return ", ".join([base.state, *marks, *(f"default for {family}" for family in families)])


def _folders(config: VaultConfig) -> Iterator[str]:
    if not config.bases:
        yield "No folders with bases are configured: name them under `bases` in config.toml, or run `init --bases DIR`."
    for folder in config.bases:
        yield f"{folder}{'' if folder.is_dir() else ' is not there'}"
