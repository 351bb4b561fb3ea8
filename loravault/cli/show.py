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
    if facts["state"] in ("broken", "incomplete"):
        ctx.exit(1)


def _from_file(path: Path) -> dict[str, Any]:
    from dataclasses import asdict

    from loravault.library.bare import read_bare

    return asdict(read_bare(path))


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
    source = facts.get("source") or {}
    network = facts["network"] if facts["network"] not in (None, "unknown") else ""
    if facts["rank"] is not None:
        network += f", rank {facts['rank']:g}" + (f", alpha {facts['alpha']:g}" if facts["alpha"] is not None else "")
    if facts.get("ranks"):
        network += f" (of {_ranks(facts['ranks'])})"
    family = facts["family"] if facts["state"] != "broken" else ""
    made_for = " ".join(part for part in (family, facts["variant"], facts.get("expert")) if part)
    rows = [
        ("name", facts["name"]),
        ("title", facts["title"]),
        ("file", f"{facts['root'] + ': ' if facts['root'] else ''}{facts['rel']} ({size(facts['size'])})"),
        ("id", facts["weight_id"]),
        ("family", _with_source(made_for, source.get("variant") or source.get("family"))),
        ("could be", " or ".join(facts.get("possible") or ())),
        ("network", network.removeprefix(", ")),
        ("changes", _modules(facts)),
        ("trigger words", _with_source(", ".join(facts["trigger_words"]), source.get("trigger_words"))),
        ("preview", facts["preview"]),
        ("made", counted(len(facts["images"]), "picture") if facts.get("images") else ""),
        ("state", facts["state"] + (f": {facts['reason']}" if facts["reason"] else "")),
        *(("warning", text) for text in facts.get("warnings") or ()),
    ]
    return [(label, value) for label, value in rows if value]


def _with_source(text: str, source: str | None) -> str:
    return f"{text} (from: {source})" if text and source else text


def _ranks(ranks: dict[int, int]) -> str:
    shown = [f"{rank} in {counted(number, 'module')}" for rank, number in list(ranks.items())[:4]]
    return ", ".join([*shown, f"{len(ranks) - 4} more"] if len(ranks) > 4 else shown)


def _modules(facts: dict[str, Any]) -> str:
    if not facts.get("modules"):
        return ""
    return counted(facts["modules"], "module") + (", text encoder too" if facts["text_encoder"] else "")
