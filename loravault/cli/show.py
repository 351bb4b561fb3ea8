"""`loravault show`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from loravault.cli.app import App, pass_app
from loravault.cli.words import as_json, columns, counted, size


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
    from dataclasses import asdict

    from loravault.library.names import find_one

    control = app.control()
    beside = " in the vault's folders, and no file has that name here"
    found = find_one(name, control.adapters(), beside, control.given_names())
    return asdict(control.adapter(found))


#: Levels of Civitai's.
_LEVELS = {1: "PG", 2: "PG-13", 4: "R", 8: "X", 16: "XXX", 32: "blocked"}

#: Of a description: lines, and letters of a line.
_LINES, _LINE = 3, 160


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
        ("title", _title(facts)),
        ("file", f"{facts['root'] + ': ' if facts['root'] else ''}{facts['rel']} ({size(facts['size'])})"),
        *(("also at", place) for place in _copies(facts)),
        ("id", facts["weight_id"]),
        ("family", _with_source(made_for, source.get("variant") or source.get("family"))),
        ("could be", " or ".join(facts.get("possible") or ())),
        ("network", network.removeprefix(", ")),
        ("changes", _modules(facts)),
        ("trigger words", _with_source(", ".join(facts["trigger_words"]), source.get("trigger_words"))),
        *_users_rows(facts, source),
        ("civitai", _civitai(facts)),
        ("licence", facts.get("license") or ""),
        *(("training", f"{label} {text}") for label, text in _training(facts)),
        *_description(facts),
        *((kind, value) for kind, value in (facts.get("hashes") or {}).items()),
        ("hashes", "what other files claim; not measured yet" if facts.get("hashes") and not facts["hashed"] else ""),
        ("preview", facts["preview"]),
        ("cover", facts.get("cover")),
        ("no picture", facts.get("cover_problem")),
        ("card", facts.get("card")),
        ("made", counted(len(facts["images"]), "picture") if facts.get("images") else ""),
        ("state", facts["state"] + (f": {facts['reason']}" if facts["reason"] else "")),
        *(("warning", text) for text in facts.get("warnings") or ()),
    ]
    return [(label, value) for label, value in rows if value]


def _title(facts: dict[str, Any]) -> str:
    author = f"by {facts['author']}" if facts.get("author") else ""
    return " ".join(part for part in (facts["title"], facts.get("version"), author) if part)


def _copies(facts: dict[str, Any]) -> list[str]:
    """Its other places, with their state where that is not what one expects."""
    here = f"{facts['root']}/{facts['rel']}"
    others = {place: state for place, state in (facts.get("places") or {}).items() if place != here}
    return [place if state in ("ok", "duplicate") else f"{place} ({state})" for place, state in others.items()]


def _users_rows(facts: dict[str, Any], source: dict[str, str]) -> list[tuple[str, str]]:
    """What decides how it is used and found; a bare file has none of it."""
    weight, rating = facts.get("weight"), facts.get("rating")
    told = {
        "weight": "" if weight is None else f"{weight:g}",
        "negative": facts.get("negative") or "",
        "base": facts.get("base") or "",
        "rating": "" if rating is None else f"{rating:g} of 5",
        "favourite": "yes" if facts.get("favourite") else "",
        "tags": ", ".join(facts.get("tags") or ()),
        "topics": ", ".join(facts.get("topics") or ()),
        "aliases": ", ".join(facts.get("aliases") or ()),
    }
    rows = [(label, _with_source(text, source.get(label))) for label, text in told.items()]
    return [*rows, ("level", _LEVELS.get(facts.get("nsfw") or 0, ""))]


def _training(facts: dict[str, Any]) -> Sequence[tuple[str, str]]:
    """As the card tells it; of a bare file `--json` has all the metadata."""
    from loravault.formats.training_facts import training_words

    return training_words(facts.get("training") or {})


def _description(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Its first lines; `--json` has it whole."""
    lines = [" ".join(line.split()) for line in (facts.get("description") or "").splitlines() if line.strip()]
    shown = [f"{line[: _LINE - 1]}…" if len(line) > _LINE else line for line in lines[:_LINES]]
    if len(lines) > _LINES:
        shown[-1] += " …"
    return [("description", line) for line in shown]


def _civitai(facts: dict[str, Any]) -> str:
    model, version = facts.get("civitai_model"), facts.get("civitai_version")
    if model:
        return f"https://civitai.com/models/{model}" + (f"?modelVersionId={version}" if version else "")
    return f"https://civitai.com/model-versions/{version}" if version else ""


def _with_source(text: str, source: str | None) -> str:
    return f"{text} (from: {source})" if text and source else text


def _ranks(ranks: dict[int, int]) -> str:
    shown = [f"{rank} in {counted(number, 'module')}" for rank, number in list(ranks.items())[:4]]
    return ", ".join([*shown, f"{len(ranks) - 4} more"] if len(ranks) > 4 else shown)


def _modules(facts: dict[str, Any]) -> str:
    if not facts.get("modules"):
        return ""
    return counted(facts["modules"], "module") + (", text encoder too" if facts["text_encoder"] else "")
