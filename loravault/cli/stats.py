"""`loravault stats`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from loravault.cli.app import App, pass_app
from loravault.cli.tables import show_table
from loravault.cli.words import as_json, columns, counted, size

if TYPE_CHECKING:
    from loravault.library.overview import Counted, Statistics

_MOST_FOLDERS = 15


@click.command("stats")
@click.option("--json", "as_data", is_flag=True, help="Print it as JSON.")
@pass_app
def command(app: App, as_data: bool) -> None:
    """Tell the library in numbers."""
    found = app.control().statistics()
    if as_data:
        click.echo(as_json(found))
        return
    click.echo(columns(_summary(found)))
    for title, groups in (
        ("FAMILY", found.by_family),
        ("NETWORK", found.by_network),
        ("STATE", found.by_state),
        ("FOLDER", found.by_folder),
    ):
        if groups:
            click.echo()
            show_table((title, "LORAS", "SIZE"), _rows(groups), numbers=("LORAS", "SIZE"))
    if found.most_used:
        click.echo()
        show_table(("MOST USED", "PICTURES"), ((name, f"{n:,}") for name, n in found.most_used), numbers=("PICTURES",))


def _summary(found: Statistics) -> list[tuple[str, str]]:
    def share(count: int) -> str:
        return f"{count:,} of {found.adapters:,}"

    several = (
        f"{counted(found.duplicates, 'LoRA')}, the copies take {size(found.freeable)}" if found.duplicates else "none"
    )
    return [
        ("LoRAs", f"{found.adapters:,} in {counted(found.files, 'file')}, {size(found.bytes)}"),
        ("with trigger words", share(found.with_trigger_words)),
        ("with a preview", share(found.with_preview)),
        ("with measured hashes", share(found.hashed)),
        ("with a card", share(found.with_card)),
        ("rated", f"{share(found.rated)}, {counted(found.favourites, 'favourite')}"),
        ("in several places", several),
        ("never used", share(found.never_used)),
        ("pictures made", f"{found.images:,}"),
    ]


def _rows(groups: Mapping[str, Counted]) -> Iterator[tuple[str, str, str]]:
    """The largest groups; the many small ones in one line."""
    ordered = list(groups.items())
    for name, one in ordered[:_MOST_FOLDERS]:
        yield name or "(top)", f"{one.adapters:,}", size(one.bytes)
    rest = [one for _, one in ordered[_MOST_FOLDERS:]]
    if rest:
        numbers = sum(one.adapters for one in rest), sum(one.bytes for one in rest)
        yield f"{len(rest)} more", f"{numbers[0]:,}", size(numbers[1])
