"""`loravault show`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from loravault.cli.app import App, pass_app
from loravault.cli.words import as_json, columns, counted, size
from loravault.errors import UserError


@click.command("show")
@click.argument("target", metavar="NAME|PATH")
@click.option("--json", "as_data", is_flag=True, help="Print it as JSON, for a file with all its metadata.")
@click.pass_context
@pass_app
def command(app: App, ctx: click.Context, target: str, as_data: bool) -> None:
    """Tell what is known about a LoRA.

    A PATH needs no vault: the file itself is read. A NAME is looked up in the vault's folders.
    """
    path = app.cwd / Path(target).expanduser()
    facts = _from_file(path) if path.is_file() else _from_vault(app, target)
    click.echo(as_json(facts) if as_data else columns(_rows(facts)))
    if facts["state"] == "broken":
        ctx.exit(1)


def _from_file(path: Path) -> dict[str, Any]:
    from loravault.formats.families import identify
    from loravault.formats.safetensors_header import BrokenFile, read_header
    from loravault.library.identify import read_adapter

    record = read_adapter(path, "", path.name)
    facts = {name: getattr(record, name) for name in _FACTS}
    try:
        header = read_header(path)
    except BrokenFile:
        return facts  # `reason` says why
    identity = identify(header)
    return {**facts, "sources": identity.sources, "tensors": len(header.tensors), "metadata": header.metadata}


def _from_vault(app: App, name: str) -> dict[str, Any]:
    import json

    from loravault.library.names import Ambiguous, Missing, find

    control = app.control()
    found = find(name, control.adapters())
    if isinstance(found, Ambiguous):
        raise UserError(f"{name!r} could be any of these, write one of them: {', '.join(found.paths)}.")
    if isinstance(found, Missing):
        near = f" Close names: {', '.join(found.closest)}." if found.closest else ""
        raise UserError(f"There is no LoRA {name!r} in the vault's folders, and no file of that name here.{near}")
    facts = {key: getattr(found, key) for key in _FACTS}
    facts["trigger_words"] = json.loads(found.trigger_words)
    facts["images"] = control.images_made_with(found.weight_id) if found.weight_id else []
    return facts


#: What a file's record and a row of the index both tell, in the order of the output.
_FACTS = (
    "name",
    "title",
    "root",
    "rel",
    "size",
    "weight_id",
    "family",
    "variant",
    "network",
    "rank",
    "alpha",
    "trigger_words",
    "preview",
    "state",
    "reason",
)


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    network = facts["network"] or ""
    if facts["rank"] is not None:
        network += f", rank {facts['rank']:g}" + (f", alpha {facts['alpha']:g}" if facts["alpha"] is not None else "")
    rows = [
        ("name", facts["name"]),
        ("title", facts["title"]),
        ("file", f"{facts['root'] + ': ' if facts['root'] else ''}{facts['rel']} ({size(facts['size'])})"),
        ("id", facts["weight_id"]),
        ("family", " ".join(part for part in (facts["family"], facts["variant"]) if part)),
        ("network", network),
        ("trigger words", ", ".join(facts["trigger_words"])),
        ("preview", facts["preview"]),
        ("made", counted(len(facts["images"]), "picture") if facts.get("images") else ""),
        ("state", facts["state"] + (f": {facts['reason']}" if facts["reason"] else "")),
    ]
    return [(label, value) for label, value in rows if value]
