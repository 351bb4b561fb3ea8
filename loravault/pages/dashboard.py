"""The dashboard: heartbeat, queue, running job, failures, skipped notes, the library in numbers. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from loravault.vault.inert import inert
from loravault.vault.links import wikilink

#: What a "New picture" link creates. Quoted into a URI.
NEW_PICTURE = "---\nloravault: generate\nrun: false\n---\n\n```prompt\n\n```\n"


@dataclass(frozen=True)
class QueueLine:
    """One job that waits or runs."""

    note: str
    text: str
    #: `step 7 of 25`, `loading the base`, or empty while it waits.
    progress: str = ""


@dataclass(frozen=True)
class NoteLine:
    """A note with a sentence about it."""

    note: str
    text: str
    when: str = ""


@dataclass(frozen=True)
class Dashboard:
    """Everything the page shows."""

    #: `running` or `stopped`.
    heartbeat: str
    when: str
    machine: str
    device: str
    vault_name: str
    running: QueueLine | None = None
    waiting: tuple[QueueLine, ...] = ()
    troubles: tuple[str, ...] = ()
    failures: tuple[NoteLine, ...] = ()
    skipped: tuple[NoteLine, ...] = ()
    recent: tuple[NoteLine, ...] = ()
    adapters: int = 0
    families: dict[str, int] = field(default_factory=dict)
    broken: int = 0
    missing: int = 0
    images: int = 0


def render(dashboard: Dashboard, templates: Path) -> str:
    """The page as Markdown, without its checksum."""
    environment = Environment(
        loader=FileSystemLoader(templates / "pages"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        keep_trailing_newline=True,
    )
    environment.filters["inert"] = inert
    environment.filters["link"] = lambda path: wikilink(
        path.removesuffix(".md"), path.rsplit("/", 1)[-1].removesuffix(".md")
    )
    return environment.get_template("dashboard.md.j2").render(
        page=dashboard, new_picture=new_picture_uri(dashboard.vault_name)
    )


def new_picture_uri(vault_name: str) -> str:
    """A link that makes a filled request in Obsidian."""
    return f"obsidian://new?vault={quote(vault_name)}&name=New%20picture&content={quote(NEW_PICTURE)}"
