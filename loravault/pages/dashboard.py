"""The dashboard: heartbeat, queue, running job, failures, skipped notes, the library in numbers. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from loravault.pages.examples import request_uri
from loravault.pages.templates import Templates
from loravault.vault.inert import inert
from loravault.vault.links import wikilink


def dashboard_path(folder: str) -> str:
    """Where the dashboard of our folder is, vault-relative."""
    return f"{folder}/{folder.rpartition('/')[2]}.md"


def second_path(folder: str) -> str:
    """The page that stands in for the dashboard as long as that is the user's."""
    return f"{folder}/{folder.rpartition('/')[2]} status.md"


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
class Library:
    """The library in numbers, what is being done for it, and what is wrong in it. Its lists are cut already."""

    adapters: int = 0
    families: dict[str, int] = field(default_factory=dict)
    #: Files with the same weights as another one.
    copies: int = 0
    broken: int = 0
    incomplete: int = 0
    missing: int = 0
    #: Adapters without trigger words.
    wordless: int = 0
    #: Pictures that were made.
    images: int = 0
    #: Hashed files, of how many, and whole percent of their bytes; None: nothing is to be hashed.
    hashing: tuple[int, int, int] | None = None
    covers_due: int = 0
    #: Vault-relative paths of the galleries.
    links: tuple[str, ...] = ()
    #: Files that cannot be used, with the reason.
    unusable: tuple[str, ...] = ()
    #: Cards of adapters whose pictures cannot be shown; without a card the note is empty.
    uncovered: tuple[NoteLine, ...] = ()
    uncovered_more: int = 0
    #: Files that are never opened.
    pickles: tuple[str, ...] = ()
    #: Links that lead out of the folders of LoRAs, with where they lead.
    elsewhere: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dashboard:
    """Everything the page shows."""

    #: `running` or `stopped`.
    heartbeat: str
    when: str
    machine: str
    device: str
    vault_name: str
    #: What is drawn now, perhaps several together.
    running: tuple[QueueLine, ...] = ()
    waiting: tuple[QueueLine, ...] = ()
    troubles: tuple[str, ...] = ()
    failures: tuple[NoteLine, ...] = ()
    #: How many more there are than are named.
    failures_more: int = 0
    skipped: tuple[NoteLine, ...] = ()
    #: How many more notes need the user than are named.
    skipped_more: int = 0
    recent: tuple[NoteLine, ...] = ()
    library: Library = field(default_factory=Library)
    #: The page that the user edited, for which this one stands in; empty: this is that page.
    instead_of: str = ""


def render(dashboard: Dashboard, templates: Path) -> str:
    """The page as Markdown, without its checksum."""
    return _TEMPLATES.get(templates, "dashboard.md.j2").render(
        page=dashboard, new_picture=new_picture_uri(dashboard.vault_name)
    )


def _link(path: str) -> str:
    """A link that shows the name alone."""
    name = path.rsplit("/", 1)[-1]
    return wikilink(path.removesuffix(".md"), name.removesuffix(".md").removesuffix(".base"))


def new_picture_uri(vault_name: str) -> str:
    """A link that makes a filled request in Obsidian."""
    return request_uri(vault_name, "New picture", "")


_TEMPLATES = Templates(filters={"inert": inert, "link": _link})
